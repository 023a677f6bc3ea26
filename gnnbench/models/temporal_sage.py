"""GraphSAGE (mean) on temporal samples, as GNNFlow trains it: times choose neighbours, no more.

Deviation: features of edges are averaged with those of neighbours.
"""

from __future__ import annotations

from gnnbench.models.temporal import TemporalModel

MODEL = TemporalModel(
    name="temporal-sage",
    title="GraphSAGE on temporal samples",
    paper="Hamilton, Ying and Leskovec, Inductive Representation Learning on Large Graphs, "
    "NeurIPS 2017",
    normalisation="mean",
    strategy="uniform",
    layer="mean",
)
