"""GAT on temporal samples, as GNNFlow trains it: times choose neighbours, no more.

Deviation: the own row is added through a product of its own instead of a self loop; features of
edges are part of the neighbours' rows.
"""

from __future__ import annotations

from gnnbench.models.temporal import TemporalModel

MODEL = TemporalModel(
    name="temporal-gat",
    title="GAT on temporal samples",
    paper="Velickovic, Cucurull, Casanova, Romero, Lio and Bengio, Graph Attention "
    "Networks, ICLR 2018",
    strategy="uniform",
    layer="gat",
)
