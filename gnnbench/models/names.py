"""The models that there are: `MODELS.get("gcn")` is a card."""

from __future__ import annotations

from gnnbench.models.base import Model
from gnnbench.registry import Names

MODELS: Names[Model] = Names(
    "model",
    "gnnbench.models",
    {
        "gat": "gnnbench.models.gat:MODEL",
        "gcn": "gnnbench.models.gcn:MODEL",
        "sage": "gnnbench.models.sage:MODEL",
        "tgat": "gnnbench.models.tgat:MODEL",
        "tgn": "gnnbench.models.tgn:MODEL",
    },
)
