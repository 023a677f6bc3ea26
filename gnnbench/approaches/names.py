"""The registry of approaches: tables of the families, and entry points."""

from __future__ import annotations

import dataclasses

from gnnbench.approaches import mini_batch, out_of_core, temporal, whole_graph
from gnnbench.approaches.base import Approach
from gnnbench.registry import Names

APPROACHES: Names[Approach] = Names(
    "approach",
    "gnnbench.approaches",
    whole_graph.NAMES,
    mini_batch.NAMES,
    out_of_core.NAMES,
    temporal.NAMES,
)


def family_of(name: str) -> str:
    """The family of an approach; "" of a name that is not registered."""
    return APPROACHES.get(name).family if name in APPROACHES.known else ""


def knob_names() -> dict[str, list[str]]:
    """The names of all knobs, and the approaches that have each."""
    found: dict[str, list[str]] = {}
    for name in APPROACHES.names():
        for knob in dataclasses.fields(APPROACHES.get(name).knobs_type):
            found.setdefault(knob.name, []).append(name)
    return found
