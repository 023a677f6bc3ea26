"""A profile from counts and degree figures, for a graph whose owner cannot or may not share it.

Degrees are taken to be log-normal with the graph's mean m and a spread s (the standard deviation of
the logarithm). Quantile u of the degree is then m exp(z(u) s - s^2 / 2), z the normal quantile. The
spread is the least-squares fit of the logarithms of the figures that are given.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from gnnbench.data.profile import GraphProfile
from gnnbench.errors import SpecError

_STEPS = 2000
_MOST = 4.0
"""Largest spread that is tried; that of web graphs is below 2.5."""
ASSUMED_SPREAD = 1.5
"""Without any figure: what published batches of three graphs give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A degree figure: what was given, and what the fitted degrees have."""

    name: str
    given: float
    fitted: float

    @property
    def error(self) -> float:
        return self.fitted / self.given - 1


def fit_degrees(
    num_nodes: int, mean: float, figures: Mapping[str, float]
) -> tuple[float, list[Figure]]:
    """The spread that meets the figures best, and how well it meets each.

    Args:
        num_nodes: of the graph; the largest degree is taken to be quantile 1 - 1 / (2 N).
        mean: of the degree.
        figures: of "median", "p90", "p99", "max".

    Raises:
        SpecError: figures that no such degrees can have.
    """
    if not figures:
        return ASSUMED_SPREAD, []
    _check(num_nodes, mean, figures)
    quantiles = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1 - 0.5 / max(num_nodes, 2)}
    scores = {name: NormalDist().inv_cdf(quantiles[name]) for name in figures}

    def fitted(spread: float) -> dict[str, float]:
        return {
            name: mean * math.exp(score * spread - spread**2 / 2) for name, score in scores.items()
        }

    def misfit(spread: float) -> float:
        return sum(math.log(value / figures[name]) ** 2 for name, value in fitted(spread).items())

    spread = min((_MOST * step / _STEPS for step in range(_STEPS + 1)), key=misfit)
    found = [
        Figure(name=name, given=figures[name], fitted=value)
        for name, value in fitted(spread).items()
    ]
    return spread, found


def _check(num_nodes: int, mean: float, figures: Mapping[str, float]) -> None:
    order = [("median", figures.get("median")), ("p90", figures.get("p90"))]
    order += [("p99", figures.get("p99")), ("max", figures.get("max"))]
    known = [(name, value) for name, value in order if value is not None]
    problems = [
        f"--degree-{name} {value:g}: a degree is above 0" for name, value in known if value <= 0
    ]
    problems += [
        f"--degree-{low} {a:g} is above --degree-{high} {b:g}"
        for (low, a), (high, b) in itertools.pairwise(known)
        if a > b
    ]
    if figures.get("max", math.inf) < mean:
        problems.append(f"--degree-max {figures['max']:g}: below the mean degree {mean:.3g}")
    problems += [
        f"--degree-{name} {value:g}: above the {num_nodes - 1} other vertices"
        for name, value in known
        if value > max(num_nodes - 1, 0)
    ]
    if problems:
        raise SpecError(problems)


def fit_profile(
    name: str,
    *,
    num_nodes: int,
    num_edges: int,
    undirected: bool = True,
    num_features: int = 0,
    num_classes: int = 0,
    num_train: int = 0,
    figures: Mapping[str, float] | None = None,
    like: GraphProfile | None = None,
) -> tuple[GraphProfile, list[Figure]]:
    """A profile, and how well its degrees meet the figures.

    Args:
        name: of the graph.
        num_nodes, num_edges: `num_edges` counts stored edges: both directions of an undirected one.
        undirected, num_features, num_classes, num_train: as in `GraphProfile`.
        figures: see `fit_degrees`.
        like: a profile whose halo curves, and spread where no figure is given, are taken over.

    Raises:
        SpecError: the counts or figures contradict each other.
    """
    if num_nodes < 1 or num_edges < 0 or num_edges > num_nodes * (num_nodes - 1):
        raise SpecError(
            f"--nodes {num_nodes:,} --edges {num_edges:,}: allowed up to N (N - 1) stored edges"
        )
    spread, found = fit_degrees(num_nodes, num_edges / num_nodes, figures or {})
    basis = [f"{figure.name} degree {figure.given:g}" for figure in found]
    if like is not None and not found and like.degree_spread is not None:
        spread = like.degree_spread
    source = f"given: {num_nodes} vertices, {num_edges} edges"
    source += f", {', '.join(basis)}" if basis else f"; degree_spread {spread:g} is assumed"
    if like is not None:
        source += f"; halo curves taken over from {like.name}"
    profile = GraphProfile(
        name=name,
        source=source,
        status="published",
        undirected=undirected,
        num_nodes=num_nodes,
        num_edges=num_edges,
        num_features=num_features,
        num_classes=num_classes,
        num_train=num_train,
        degree_max=round(figures["max"]) if figures and "max" in figures else None,
        degree_p99=figures.get("p99") if figures else None,
        degree_spread=round(spread, 4),
    )
    return (profile if like is None else dataclasses.replace(profile, halo=like.halo)), found
