"""The registry of models: `MODELS.get("gcn")` returns a card."""

from __future__ import annotations

from gnnbench.models.base import Model
from gnnbench.registry import Names

MODELS: Names[Model] = Names(
    "model",
    "gnnbench.models",
    {
        "embedding": "gnnbench.models.embedding:MODEL",
        "gat": "gnnbench.models.gat:MODEL",
        "gcn": "gnnbench.models.gcn:MODEL",
        "graphmixer": "gnnbench.models.graphmixer:MODEL",
        "pairs": "gnnbench.models.pairs:MODEL",
        "sage": "gnnbench.models.sage:MODEL",
        "temporal-gat": "gnnbench.models.temporal_gat:MODEL",
        "temporal-sage": "gnnbench.models.temporal_sage:MODEL",
        "tgat": "gnnbench.models.tgat:MODEL",
        "tgn": "gnnbench.models.tgn:MODEL",
    },
)
