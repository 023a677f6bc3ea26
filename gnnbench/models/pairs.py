"""EdgeBank: predict the pairs that were seen before (Poursafaei et al., NeurIPS 2022)."""

from __future__ import annotations

from gnnbench.models.temporal import TemporalModel

MODEL = TemporalModel(
    name="pairs",
    title="Table of pairs",
    paper="Poursafaei, Huang, Pelrine and Rabbany, Towards Better Evaluation for Dynamic "
    "Link Prediction, NeurIPS 2022",
    normalisation="none",
    learns=False,
)
