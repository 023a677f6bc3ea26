"""Names and what they stand for: approaches and models, built in or added by entry point.

Third parties register with `[project.entry-points."gnnbench.approaches"] name = "module:CARD"`
(and `gnnbench.models`). Nothing is imported before it is asked for.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from gnnbench.errors import UnknownName

if TYPE_CHECKING:
    from gnnbench.approaches.base import Approach
    from gnnbench.models.base import Model

APPROACHES = {
    "single": "gnnbench.approaches.whole_graph.single:APPROACH",
    "mixed-accelerators": "gnnbench.approaches.whole_graph.mixed_accelerators:APPROACH",
    "partition": "gnnbench.approaches.whole_graph.partition:APPROACH",
    "mixture": "gnnbench.approaches.whole_graph.mixture:APPROACH",
    "sampled": "gnnbench.approaches.mini_batch.sampled:APPROACH",
    "bns": "gnnbench.approaches.whole_graph.bns:APPROACH",
    "pipegcn": "gnnbench.approaches.whole_graph.pipegcn:APPROACH",
    "cagnet-1d": "gnnbench.approaches.whole_graph.cagnet:ONE_D",
    "cagnet-1.5d": "gnnbench.approaches.whole_graph.cagnet:ONE_AND_A_HALF_D",
    "cagnet-2d": "gnnbench.approaches.whole_graph.cagnet2d:APPROACH",
}
MODELS = {
    "gat": "gnnbench.models.gat:MODEL",
    "gcn": "gnnbench.models.gcn:MODEL",
    "sage": "gnnbench.models.sage:MODEL",
}


@cache
def _known(group: str) -> dict[str, str]:
    built_in = APPROACHES if group == "gnnbench.approaches" else MODELS
    added = {point.name: point.value for point in entry_points(group=group)}
    return {**added, **built_in}


def approach_names() -> list[str]:
    """Return the names of all approaches, sorted."""
    return sorted(_known("gnnbench.approaches"))


def model_names() -> list[str]:
    """Return the names of all models, sorted."""
    return sorted(_known("gnnbench.models"))


def knob_names() -> set[str]:
    """Names of the knobs of all approaches."""
    cards = [approach(name) for name in approach_names()]
    return {field.name for card in cards for field in dataclasses.fields(card.knobs_type)}


def approach(name: str) -> Approach:
    """Return an approach's card, knobs and plan by name."""
    return cast("Approach", _load("gnnbench.approaches", "approach", name))


def model(name: str) -> Model:
    """Return a model's card by name."""
    return cast("Model", _load("gnnbench.models", "model", name))


@cache
def _load(group: str, kind: str, name: str) -> object:
    known = _known(group)
    if name not in known:
        raise UnknownName(kind, name, known)
    module, _, attribute = known[name].partition(":")
    return getattr(import_module(module), attribute)
