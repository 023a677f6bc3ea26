"""Embeddings: a learnt row for every entity, scored by a decoder; no layers."""

from __future__ import annotations

from gnnbench.models.base import Model

MODEL = Model(
    name="embedding",
    title="Embeddings",
    paper="Yang et al., Embedding Entities and Relations, ICLR 2015 (DistMult); Trouillon et al., "
    "Complex Embeddings for Simple Link Prediction, ICML 2016 (ComplEx)",
    normalisation="none",
    self_weight=False,
    built="table",
)
