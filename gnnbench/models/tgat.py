"""TGAT: temporal graph attention with functional time encoding (Xu et al., ICLR 2020)."""

from __future__ import annotations

from gnnbench.models.temporal import TemporalModel

MODEL = TemporalModel(
    name="tgat",
    title="TGAT",
    paper="Xu, Ruan, Korpeoglu, Kumar and Achan, Inductive Representation Learning on Temporal "
    "Graphs, ICLR 2020",
    strategy="uniform",
)
