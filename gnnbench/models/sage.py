"""GraphSAGE with mean aggregation (Hamilton, Ying, Leskovec, NeurIPS 2017)."""

from __future__ import annotations

from gnnbench.models.base import Model

MODEL = Model(
    name="sage",
    title="GraphSAGE-mean",
    paper="Hamilton, Ying and Leskovec, Inductive Representation Learning on Large Graphs, "
    "NeurIPS 2017",
    normalisation="mean",
    self_weight=True,
)
