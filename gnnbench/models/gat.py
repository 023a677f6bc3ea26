"""GAT: graph attention of Velickovic et al. (ICLR 2018).

Hidden layers concatenate their heads and end in ELU; the last layer has a single head, as for the
citation graphs of the paper. Dropout also falls on the attention weights, as there.
"""

from __future__ import annotations

from gnnbench.models.base import Model

MODEL = Model(
    name="gat",
    title="GAT",
    paper="Velickovic, Cucurull, Casanova, Romero, Lio and Bengio, Graph Attention Networks, "
    "ICLR 2018",
    normalisation="softmax",
    self_weight=False,
    activation="elu",
)
