"""Scores of predictions of published rows: errors, coverage of intervals, order within tables."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gnnbench.published.counts import COUNTS
from gnnbench.published.disk_counts import DISK_COUNTS
from gnnbench.published.metrics import EPOCH_TIME, STORE, plain
from gnnbench.published.page_counts import PAGE_COUNTS
from gnnbench.published.reason import Reason
from gnnbench.published.rows import PublishedRow
from gnnbench.published.split import SCORED


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A row and its prediction, or the reason why it has none.

    Args:
        row: as published.
        published, predicted, low, high: seconds, bytes or vertices; low and high are the ends of
            the 90 % interval, None where a prediction has none.
        grade: of the constants that the prediction rests on.
        used: how the row may be used, see `split`.
        cluster: on which it was predicted.
        reason: why there is no prediction.
        note: what a reader should know of the prediction.
        software_radius: radius (log) of what is unknown of the software, within the interval.
    """

    row: PublishedRow
    published: float = 0.0
    predicted: float | None = None
    low: float | None = None
    high: float | None = None
    grade: str = ""
    used: str = ""
    cluster: str = ""
    reason: Reason | None = None
    note: str = ""
    software_radius: float = 0.0

    @property
    def error(self) -> float | None:
        """Relative error: 0.1 is predicted ten percent too high."""
        return None if self.predicted is None else self.predicted / self.published - 1

    @property
    def inside(self) -> bool | None:
        """Whether the published number lies in the 90 % interval; None without one."""
        if self.low is None or self.high is None:
            return None
        return self.low <= self.published <= self.high

    @property
    def scored(self) -> bool:
        return self.predicted is not None and self.used in SCORED


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Modelled rows of one source, system, metric and use.

    Errors are relative; `bias` is their median with its sign, `inside` the share of rows within
    their 90 % interval.
    """

    source: str
    system: str
    metric: str
    used: str
    number: int
    median_error: float
    largest_error: float
    bias: float
    inside: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Whether predictions order a table's rows as published: Kendall's tau-a over pairs.

    Args:
        table: source and location.
        of: "systems" or "ranks": what the rows of a pair differ in.
        pairs: how many.
        concordant: of them, ordered as published.
        tied: of them, predicted equal, as systems are that are one approach to us; they are
            neither concordant nor discordant.
        tau: (concordant - discordant) / pairs.
    """

    table: str
    of: str
    pairs: int
    concordant: int
    tied: int
    tau: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TableScore:
    """How a file of rows fares.

    Args:
        table: its name.
        timed: rows that state a time of an epoch or of a part of one, modelled or not.
        modelled: of them, rows with a prediction.
        ratio: geometric mean of predicted over published, of scored times.
        median_error: median absolute relative error of them.
        inside: share of them within their 90 % interval.
        tau: Kendall's tau-a of epoch times over the pairs of its rankings; None without pairs.
    """

    table: str
    timed: int
    modelled: int
    ratio: float | None
    median_error: float | None
    inside: float | None
    tau: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelling:
    """A configuration whose epoch is met although parts of it are missed both ways.

    `epoch`, `slowest` and `fastest` are predicted over published: of the epoch, and of the parts
    that are predicted too slow and too fast.
    """

    row_id: str
    what: str
    epoch: float
    slowest: tuple[str, float]
    fastest: tuple[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The score of a validation.

    Args:
        rows: that were read: `modelled` and `unmodelled` ones.
        modelled: rows with a prediction, fitted ones and inputs included.
        unmodelled: rows without one.
        scored: modelled rows of times and memory that were neither fitted nor inputs. Counts of
            vertices, pages and rows appear in `groups` only: they are easier than a machine.
        median_error: median absolute relative error of the scored rows.
        inside: share of them within their 90 % interval.
        groups: scores by source, system and metric.
        rankings: of epoch times within each table.
        reasons: rows without a prediction, by reason.
        tables: scores by file.
        cancelling: configurations whose errors of phases cancel in the epoch.
    """

    rows: int
    modelled: int
    unmodelled: int
    scored: int
    median_error: float | None
    inside: float | None
    groups: list[Group] = field(default_factory=list)
    rankings: list[Ranking] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    tables: list[TableScore] = field(default_factory=list)
    cancelling: list[Cancelling] = field(default_factory=list)


def score(comparisons: Sequence[Comparison]) -> Score:
    """Score comparisons. Rows that were fitted, or are inputs, are modelled and enter no median."""
    judged = [c for c in comparisons if c.scored and c.row.metric not in _COUNTED]
    errors = [abs(c.error) for c in judged if c.error is not None]
    within = [c.inside for c in judged if c.inside is not None]
    modelled = sum(c.predicted is not None for c in comparisons)
    reasons = Counter(str(c.reason) for c in comparisons if c.reason is not None)
    return Score(
        rows=len(comparisons),
        modelled=modelled,
        unmodelled=sum(reasons.values()),
        scored=len(errors),
        median_error=statistics.median(errors) if errors else None,
        inside=sum(within) / len(within) if within else None,
        groups=list(_groups(comparisons)),
        rankings=[*_rankings(comparisons, by="systems"), *_rankings(comparisons, by="ranks")],
        reasons=dict(reasons.most_common()),
        tables=list(_tables(comparisons)),
        cancelling=list(_cancelling(comparisons)),
    )


_COUNTED = (*COUNTS, *PAGE_COUNTS, *DISK_COUNTS, STORE)
_TIME_UNITS = ("s", "ms", "min", "h")
_NO_DURATION = (
    "time_to",
    "timespan",
    "speedup",
    "reduction",
    "estimate",
    "upper_bound",
    "lower_bound",
    "(user",
)
_MET, _MISSED = 1.3, 1.5
"""Ratio up to which an epoch is met, and from which on a part of it is missed."""


def states_time(row: PublishedRow) -> bool:
    """Whether a row states how long an epoch, a part of one, or a preparation took."""
    return row.unit in _TIME_UNITS and not any(word in plain(row.metric) for word in _NO_DURATION)


def _tables(comparisons: Sequence[Comparison]) -> Iterable[TableScore]:
    found: dict[str, list[Comparison]] = defaultdict(list)
    for c in comparisons:
        found[c.row.row_id.rpartition(":")[0]].append(c)
    for name, members in found.items():
        timed = [c for c in members if states_time(c.row)]
        judged = [c for c in timed if c.scored and c.predicted]
        ratios = [c.predicted / c.published for c in judged if c.predicted]
        within = [c.inside for c in judged if c.inside is not None]
        rankings = [*_rankings(members, by="systems"), *_rankings(members, by="ranks")]
        pairs = sum(r.pairs for r in rankings)
        yield TableScore(
            table=name,
            timed=len(timed),
            modelled=sum(c.predicted is not None for c in timed),
            ratio=statistics.geometric_mean(ratios) if ratios else None,
            median_error=statistics.median(abs(r - 1) for r in ratios) if ratios else None,
            inside=sum(within) / len(within) if within else None,
            tau=sum(r.tau * r.pairs for r in rankings) / pairs if pairs else None,
        )


def _cancelling(comparisons: Iterable[Comparison]) -> Iterable[Cancelling]:
    """Configurations of a table whose epoch is met and whose parts are missed both ways."""
    found: dict[tuple[object, ...], dict[str, Comparison]] = defaultdict(dict)
    for c in comparisons:
        if c.scored and c.predicted and states_time(c.row):
            key = (_table(c), c.row.model, c.row.notes, c.row.fanout, c.row.batch)
            found[*key, *_but_system(c.row), c.row.system].setdefault(c.row.metric, c)
    for parts in found.values():
        epoch = parts.pop(EPOCH_TIME, None)
        ratios = {m: c.predicted / c.published for m, c in parts.items() if c.predicted}
        if epoch is None or not ratios or epoch.predicted is None:
            continue
        slowest = max(ratios, key=ratios.__getitem__)
        fastest = min(ratios, key=ratios.__getitem__)
        whole = epoch.predicted / epoch.published
        met = 1 / _MET < whole < _MET
        if met and ratios[slowest] > _MISSED and ratios[fastest] < 1 / _MISSED:
            yield Cancelling(
                row_id=epoch.row.row_id,
                what=f"{epoch.row.system}, {epoch.row.dataset}, {epoch.row.model}",
                epoch=whole,
                slowest=(slowest, ratios[slowest]),
                fastest=(fastest, ratios[fastest]),
            )


def _groups(comparisons: Iterable[Comparison]) -> Iterable[Group]:
    found: dict[tuple[str, ...], list[Comparison]] = defaultdict(list)
    for c in comparisons:
        if c.predicted is not None:
            found[c.row.source, c.row.system, c.row.metric, c.used].append(c)
    for (source, system, metric, used), members in sorted(found.items()):
        errors = [c.error for c in members if c.error is not None]
        known = [c.inside for c in members if c.inside is not None]
        yield Group(
            source=source,
            system=system,
            metric=metric,
            used=used,
            number=len(members),
            median_error=statistics.median(abs(e) for e in errors),
            largest_error=max(abs(e) for e in errors),
            bias=statistics.median(errors),
            inside=sum(known) / len(known) if known else None,
        )


def _table(c: Comparison) -> str:
    return f"{c.row.source}, {c.row.location}"


def _rankings(comparisons: Iterable[Comparison], *, by: str) -> Iterable[Ranking]:
    """Pairs of epoch times that differ in the system alone, or in the number of ranks alone.

    On one rank the systems are one program, so that there is no order of systems to predict.
    """
    same = _but_system if by == "systems" else _but_ranks
    cells: dict[tuple[str, tuple[object, ...]], list[Comparison]] = defaultdict(list)
    for c in comparisons:
        if c.scored and c.row.metric == EPOCH_TIME and (by == "ranks" or c.row.ranks != 1):
            cells[_table(c), same(c.row)].append(c)
    counted: dict[str, list[int]] = defaultdict(list)
    for (table, _), members in cells.items():
        for place, a in enumerate(members):
            for b in members[:place]:
                agree = _agree(a, b)
                if agree is not None:
                    counted[table].append(agree)
    for table, signs in sorted(counted.items()):
        yield Ranking(
            table=table,
            of=by,
            pairs=len(signs),
            concordant=sum(sign > 0 for sign in signs),
            tied=sum(sign == 0 for sign in signs),
            tau=sum(signs) / len(signs),
        )


def _but_system(row: PublishedRow) -> tuple[object, ...]:
    return (*_setting(row), row.ranks)


def _but_ranks(row: PublishedRow) -> tuple[object, ...]:
    return (*_setting(row), row.system)


def _setting(row: PublishedRow) -> tuple[object, ...]:
    return (row.dataset, row.model, row.num_layers, row.hidden_width, row.hardware)


def _agree(a: Comparison, b: Comparison) -> int | None:
    """Sign of a pair: 1 ordered as published, -1 otherwise, 0 a predicted tie; None: no pair."""
    if a.published == b.published or (a.row.system, a.row.ranks) == (b.row.system, b.row.ranks):
        return None
    assert a.predicted is not None and b.predicted is not None
    sign = (a.published > b.published) - (a.published < b.published)
    found = (a.predicted > b.predicted) - (a.predicted < b.predicted)
    return sign * found
