"""The ladder of evidence: how a constant is known, which grades the predictions that depend on it.

A prediction prints the weakest rung among the constants that matter to it. Rungs, best first:

    measured             on this machine, by `gnnbench calibrate`
    measured elsewhere   on a device of this model, by others; the points are in the catalogue
    transferred          from measurements of another device, another precision or kernel, or
                         another number of ranks
    datasheet            from a specification, or assumed
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

GRADES = ("measured", "measured elsewhere", "transferred", "datasheet")
"""Rungs of the ladder, best first."""

_GRADE_OF_STATUS: Mapping[str, str] = {
    "measured": "measured",
    "measured elsewhere": "measured elsewhere",
    "transferred": "transferred",
    "probed": "transferred",
    "fitted": "datasheet",
    "published": "datasheet",
    "datasheet": "datasheet",
    "assumed": "datasheet",
    "unverified": "datasheet",
}
STATUSES = tuple(_GRADE_OF_STATUS)
"""How a constant is known. "probed": a published constant scaled by a short probe here. "fitted":
a regression on public measurements whose device differs or is not stated."""


def grade(status: str) -> str:
    """The rung of a constant of this status."""
    return _GRADE_OF_STATUS.get(status, "datasheet")


def weakest(grades: Iterable[str]) -> str:
    """The lowest of several rungs; "measured" if there are none."""
    return GRADES[max((GRADES.index(g) for g in grades), default=0)]
