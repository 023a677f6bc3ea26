"""Does the prediction rank approaches as measurement does? Kendall's tau per graph.

Pairs are two approaches on one graph, model and rank count. Approaches that are one program there,
as most are on one rank, have no order, and a pair that measurement itself cannot tell apart has
none to predict, so both are left out; a pair that prediction calls equal counts 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.markup import Column
from gnnbench_reports.summary import agreement, contests, pairs, regret, repeat_spread

if TYPE_CHECKING:
    from gnnbench_reports.compare import Comparison
    from gnnbench_reports.study import Study

LEAST_NOISE = 0.025
"""Relative noise assumed of any time, whatever its repeats say."""
TARGET = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRow:
    """How well one graph's approaches are ordered, over its models and rank counts.

    pairs, told_apart   pairs of different programs, and those further apart than their noise
    tau                 (right - wrong) / told_apart; tau_all over all pairs, ties counting as 0
    regret              t(fastest by prediction) / t(fastest measured) - 1, the worst
    """

    graph: str
    contests: int
    pairs: int
    told_apart: int
    tau: float | None
    tau_all: float
    regret: float


def orders(rows: Iterable[Comparison]) -> list[OrderRow]:
    """Return a row per graph on which at least two approaches were measured and predicted."""
    rows = list(rows)
    by_graph: dict[str, list[list[Comparison]]] = defaultdict(list)
    for (graph, _, _), group in contests(rows).items():
        by_graph[graph].append(group)
    usual = usual_noise(rows)
    return [_order(graph, groups, usual) for graph, groups in sorted(by_graph.items())]


def _order(graph: str, groups: Sequence[Sequence[Comparison]], usual: float) -> OrderRow:
    every = [pair for group in groups for pair in pairs(group)]
    apart = [agreement(*pair) for pair in every if told_apart(*pair, usual)]
    return OrderRow(
        graph=graph,
        contests=len(groups),
        pairs=len(every),
        told_apart=len(apart),
        tau=sum(apart) / len(apart) if apart else None,
        tau_all=sum(agreement(*pair) for pair in every) / len(every),
        regret=max(map(regret, groups)),
    )


def told_apart(a: Comparison, b: Comparison, usual: float) -> bool:
    """Tell whether two measured times differ by more than their noise together."""
    first, second = a.measured_epoch_s or 0.0, b.measured_epoch_s or 0.0
    return abs(first - second) > noise(a, usual) * first + noise(b, usual) * second


def noise(row: Comparison, usual: float) -> float:
    """Relative noise of a measured time: what its repeats, or else its epochs, spread by.

    At least the usual noise: two or three repeats that happen to agree prove nothing less.
    """
    return max(row.uncertainty or 0.0, usual)


def usual_noise(rows: Iterable[Comparison]) -> float:
    """What repeats of one configuration spread by in the median, or `LEAST_NOISE` if that is more.

    Epochs of one process do not tell: where its pages lie, and who else is on the machine, is the
    same for all of them.
    """
    return max(LEAST_NOISE, repeat_spread(rows) or 0.0)


def finding(study: Study) -> Finding | None:
    """Return the table per graph."""
    rows = orders(study.rows)
    if not rows:
        return None
    columns = (
        Column(heading="graph", word=True),
        Column(heading="comparisons", number=True, meaning="one per model and rank count"),
        Column(heading="pairs", number=True),
        Column(heading="told apart", number=True),
        Column(heading="tau", number=True, meaning="of the pairs told apart"),
        Column(heading="tau, all pairs", number=True),
        Column(heading="worst regret", number=True),
    )
    cells = tuple(
        (
            row.graph,
            row.contests,
            row.pairs,
            row.told_apart,
            "–" if row.tau is None else f"{row.tau:.2f}",
            f"{row.tau_all:.2f}",
            numbers.percent(row.regret),
        )
        for row in rows
    )
    least, usual = (numbers.percent(n, 0.001) for n in (LEAST_NOISE, usual_noise(study.rows)))
    return Finding(
        title="Order of approaches",
        meaning=(
            "Kendall's tau between measured and predicted epoch times: pairs in the right order "
            "less pairs in the wrong one, over pairs (1: the same order, 0: unrelated). A pair is "
            "two approaches on one graph, model and rank count; approaches that do the same steps "
            "there, as most do on one rank, make none. Pairs closer than their noise together (the "
            "spread of repeats, or of epochs where nothing was repeated, and at least "
            f"{usual} each: what repeats usually spread by, {least} or more) are ties of the "
            "measurement and left out; “all pairs” keeps them. Regret is how much longer an epoch "
            "takes with the approach that prediction favours than with the fastest one measured."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=cells,
        verdict=_verdict(rows),
    )


def _verdict(rows: Sequence[OrderRow]) -> tuple[str, ...]:
    known = [row for row in rows if row.tau is not None]
    if not known:
        return ()
    told = ", ".join(f"{row.graph} {row.tau:.2f}" for row in known)
    apart, pairs = sum(row.told_apart for row in rows), sum(row.pairs for row in rows)
    return (
        f"Order of approaches, Kendall's tau of predicted with measured: {told}, over the {apart} "
        f"of {pairs} pairs that noise tells apart.",
    )
