"""The figures of a report, one module each.

A figure module states
    NAME, TITLE      file name and heading;
    CAPTION          what is drawn, and how to read it; where plots differ in kind, a function
                     caption(frame) describes this plot;
    data(study)      the numbers as a DataFrame, written as CSV with the figure;
    draw(frame)      a matplotlib Figure of exactly these numbers.
A frame without rows means that the results folder has nothing to draw.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAMES = (
    "scaling",
    "efficiency",
    "pareto",
    "phases",
    "volume",
    "crossover",
    "cache_hits",
    "disk_io",
    "collectives",
    "fits",
    "memory",
    "parity",
    "residuals",
    "quality",
    "tornado",
    "time_to_metric",
    "arrival",
)


class FigureModule(Protocol):
    """What a module in this package offers."""

    NAME: str
    TITLE: str
    CAPTION: str

    def data(self, study: Study) -> Any: ...
    def draw(self, frame: Any) -> Figure: ...


def caption(module: FigureModule, frame: Any) -> str:
    """The caption of this plot, with what a period is in it."""
    made = getattr(module, "caption", None)
    words = str(made(frame)) if made is not None else module.CAPTION
    nouns = set(frame["period"]) if "period" in frame else set()
    return words.replace("per period", f"per {nouns.pop()}") if len(nouns) == 1 else words


def figure_module(name: str) -> FigureModule:
    """Return a figure's module; importing it is left until it is drawn."""
    return cast(FigureModule, import_module(f"{__name__}.{name}"))
