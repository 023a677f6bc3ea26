"""GCN: the graph convolutional network of Kipf and Welling (ICLR 2017)."""

from __future__ import annotations

from gnnbench.models.base import Model

MODEL = Model(
    name="gcn",
    title="GCN",
    paper="Kipf and Welling, Semi-Supervised Classification with Graph Convolutional Networks, "
    "ICLR 2017",
    normalisation="symmetric",
    self_weight=False,
)
