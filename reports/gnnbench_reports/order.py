"""Kendall's tau between the measured and the predicted order of approaches, per dataset.

A pair is two approaches on one dataset, model and rank count. Left out are approaches that run the
same program, as most do on one rank, and pairs whose measured times differ by less than the noise.
A pair that is predicted to be equal counts 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.noise import LEAST_NOISE, distinct, usual_noise
from gnnbench_reports.summary import agreement, contests, pairs, regret
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

TARGET = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRow:
    """How well the approaches on one dataset are ordered, over its models and rank counts.

    Attributes:
        pairs: pairs of different programs; `distinct` are those that differ by more than the noise.
        tau: (right - wrong) / distinct; `tau_all` is over all pairs, predicted ties counting as 0.
        regret: t(fastest by prediction) / t(fastest measured) - 1, the worst.
    """

    dataset: str
    contests: int
    pairs: int
    distinct: int
    tau: float | None
    tau_all: float
    regret: float


def orders(rows: Iterable[Comparison]) -> list[OrderRow]:
    """A row per dataset on which at least two approaches were measured and predicted."""
    rows = list(rows)
    by_dataset: dict[str, list[list[Comparison]]] = defaultdict(list)
    for (dataset, _, _), group in contests(rows).items():
        by_dataset[dataset].append(group)
    usual = usual_noise(rows)
    return [_order(dataset, groups, usual) for dataset, groups in sorted(by_dataset.items())]


def _order(dataset: str, groups: Sequence[Sequence[Comparison]], usual: float) -> OrderRow:
    every = [pair for group in groups for pair in pairs(group)]
    apart = [agreement(*pair) for pair in every if distinct(*pair, usual)]
    return OrderRow(
        dataset=dataset,
        contests=len(groups),
        pairs=len(every),
        distinct=len(apart),
        tau=sum(apart) / len(apart) if apart else None,
        tau_all=sum(agreement(*pair) for pair in every) / len(every),
        regret=max(map(regret, groups)),
    )


def finding(study: Study) -> Finding | None:
    """The table per dataset."""
    rows = orders(study.rows)
    if not rows:
        return None
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="comparisons", number=True, meaning="one per model and rank count"),
        Column(heading="pairs", number=True),
        Column(heading="distinct", number=True, meaning="pairs that differ by more than the noise"),
        Column(heading="tau", number=True, meaning="Kendall's tau over the distinct pairs"),
        Column(heading="tau, all pairs", number=True),
        Column(heading="worst regret", number=True),
    )
    cells = tuple(
        (
            row.dataset,
            row.contests,
            row.pairs,
            row.distinct,
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
            "Kendall's tau between measured and predicted times: pairs in the right order minus "
            "pairs in the wrong order, divided by pairs (1: the same order, 0: unrelated). A pair "
            "is two approaches on one dataset, model and rank count; approaches that run the same "
            "program there, as most do on one rank, are not paired. A pair is distinct if its "
            "measured times differ by more than the sum of their noise: the spread of repeats (of "
            f"periods, where nothing was repeated), at least {usual} each, the median spread of "
            f"repeats or {least}, whichever is more. Regret: how much longer a period takes with "
            "the approach that is predicted to be fastest than with the fastest one measured."
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
    taus = ", ".join(f"{row.dataset} {row.tau:.2f}" for row in known)
    apart, total = sum(row.distinct for row in rows), sum(row.pairs for row in rows)
    return (
        f"Kendall's tau between predicted and measured order of approaches: {taus}, over the "
        f"{apart} of {total} pairs that differ by more than the noise.",
    )
