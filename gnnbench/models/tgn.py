"""TGN: a memory per node that events update, read through temporal attention (Rossi et al., 2020).

A node keeps its memory and the last message that it got, [memory, memory of the other end], with
the features of its event. Reading a node applies the message by a GRU; what was read is kept for
the ends of the batch's events, which then get new messages.
"""

from __future__ import annotations

from gnnbench.models.temporal import TemporalModel

MODEL = TemporalModel(
    name="tgn",
    title="TGN",
    paper="Rossi, Chamberlain, Frasca, Eynard, Monti and Bronstein, Temporal Graph Networks for "
    "Deep Learning on Dynamic Graphs, 2020",
    strategy="recent",
    memory=True,
)
