"""Judge the claims of a paper by the results in a folder."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnbench.ladder import weakest
from gnnbench.metrics import measure_of
from gnnbench_reports import numbers
from gnnbench_reports.claims.quantities import QUANTITIES
from gnnbench_reports.claims.reading import Claim, Paper, Test
from gnnbench_reports.claims.values import Value, difference, ratio

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

HOLDS, IN_PART, NOT, UNJUDGED = "holds", "holds in part", "does not hold", "cannot be judged"
VERDICTS = (HOLDS, IN_PART, NOT, UNJUDGED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A test with the value that was found.

    Attributes:
        holds: None where the interval contains the bound, or the value is not known.
        reason: why the value is not known.
        grade: of the constants behind a simulated value, the weakest.
        config_ids: of the configurations that it rests on.
        rows: these configurations, as compared.
    """

    test: Test
    value: Value | None
    holds: bool | None
    reason: str = ""
    grade: str = ""
    config_ids: tuple[str, ...] = ()
    rows: tuple[Comparison, ...] = ()

    @property
    def word(self) -> str:
        if self.value is None:
            return "unknown"
        doubt = "noise" if self.test.side == "measured" else "interval"
        return {True: "yes", False: "no", None: f"within the {doubt}"}[self.holds]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A claim with its outcomes and the verdict."""

    claim: Claim
    outcomes: tuple[Outcome, ...]
    verdict: str
    why: str

    @property
    def config_hash(self) -> str:
        """Twelve digits of a hash of the ids of all configurations that the verdict rests on."""
        ids = sorted({name for outcome in self.outcomes for name in outcome.config_ids})
        return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12] if ids else ""


def judge(paper: Paper, measured: Study | None, simulated: Study | None) -> list[Judgement]:
    """Judge each claim of a paper.

    Args:
        paper: its claims.
        measured: the results of its suite; None if there are none.
        simulated: the predictions at the paper's scale; None if there are none.
    """
    studies = {"measured": measured, "simulated": simulated}
    return [_judge(claim, studies) for claim in paper.claims]


def _judge(claim: Claim, studies: Mapping[str, Study | None]) -> Judgement:
    outcomes = tuple(_outcome(test, studies[test.side]) for test in claim.tests)
    known = [outcome for outcome in outcomes if outcome.value is not None]
    decided = [outcome for outcome in known if outcome.holds is not None]
    right = [outcome for outcome in decided if outcome.holds]
    missing = "; ".join(dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason))
    if claim.unjudged:
        verdict, why = UNJUDGED, claim.unjudged
    elif not known:
        verdict, why = UNJUDGED, missing
    elif not decided:
        verdict, why = UNJUDGED, "every value is within its noise or interval of the bound"
    else:
        verdict = HOLDS if len(right) == len(outcomes) else IN_PART if right else NOT
        why = f"{len(right)} of {len(outcomes)} inequalities hold"
        wrong, open_ = len(decided) - len(right), len(known) - len(decided)
        why += f", {wrong} do{'es' if wrong == 1 else ''} not" if wrong else ""
        why += f", {open_} within the noise or interval" if open_ else ""
        why += f", {len(outcomes) - len(known)} without a value ({missing})" if missing else ""
    return Judgement(claim=claim, outcomes=outcomes, verdict=verdict, why=why)


def _outcome(test: Test, study: Study | None) -> Outcome:
    if study is None:
        return Outcome(test=test, value=None, holds=None, reason=f"nothing was {test.side}")
    rows: list[Comparison] = []
    values: list[Value] = []
    for wanted in filter(None, (test.of, test.other)):
        row = _row(study, wanted)
        if isinstance(row, str):
            return Outcome(test=test, value=None, holds=None, reason=row)
        rows.append(row)
        found = QUANTITIES[test.quantity].find(study, row, test.side)
        ids = tuple(name for one in rows for name in (one.config_ids or (one.config_id,)))
        if found is None:
            return Outcome(
                test=test,
                value=None,
                holds=None,
                config_ids=ids,
                rows=tuple(rows),
                reason=_why_not(test, row),
            )
        values.append(found)
    if len({(row.dataset, row.cluster) for row in rows}) > 1:
        # Errors are common to predictions of one graph on one machine.
        values = [dataclasses.replace(value, causes={}) for value in values]
    value = _combined(test, values)
    grades = [row.grade for row in rows if row.grade] if test.side == "simulated" else []
    title = QUANTITIES[test.quantity].title
    return Outcome(
        test=test,
        value=value,
        holds=None if value is None else _decide(value, test.operator, test.than),
        reason=f"the {title} that it is divided by is 0" if value is None else "",
        grade=weakest(grades) if grades else "",
        config_ids=ids,
        rows=tuple(rows),
    )


def _why_not(test: Test, row: Comparison) -> str:
    reason = row.reason or row.prediction_reason
    where = f"{row.label} on {row.dataset}, {row.ranks} rank{'s' if row.ranks > 1 else ''}"
    title = QUANTITIES[test.quantity].title
    return f"no {title} of {where}" + (f" ({reason})" if reason else "")


def _row(study: Study, wanted: Mapping[str, Any]) -> Comparison | str:
    """The row that a selector names, or why there is none."""
    found = [row for row in study.rows if all(_is(row, k, v) for k, v in wanted.items())]
    words = ", ".join(f"{key} {value}" for key, value in wanted.items())
    if not found:
        return f"no result of {words}"
    if len(found) > 1:
        return f"{len(found)} results of {words}: the claim's table must tell them apart"
    return found[0]


def _is(row: Comparison, key: str, value: object) -> bool:
    if key in ("dataset", "model", "approach", "ranks"):
        return bool(getattr(row, key) == value)
    if key == "cluster":
        return row.cluster == value
    return bool(row.knobs.get(key) == value)


def _combined(test: Test, values: Sequence[Value]) -> Value | None:
    """One value; or the ratio or difference of two, None where a ratio has none."""
    if len(values) == 1:
        return values[0]
    a, b = values
    return difference(a, b) if test.minus else ratio(a, b)


def _decide(value: Value, operator: str, bound: float) -> bool | None:
    """Whether the inequality holds at both ends of the interval; None if at one of them."""
    answers = {_holds(end, operator, bound) for end in (value.low, value.value, value.high)}
    return answers.pop() if len(answers) == 1 else None


def _holds(value: float, operator: str, bound: float) -> bool:
    if operator == "<":
        return value < bound
    if operator == "<=":
        return value <= bound
    return value > bound if operator == ">" else value >= bound


def written(outcome: Outcome) -> str:
    """The value with its interval, such as "2.41× (2.20 … 2.65)"."""
    if outcome.value is None:
        return "–"
    test, value = outcome.test, outcome.value
    exact = value.low == value.high
    unit = QUANTITIES[test.quantity].unit
    spread = (value.high - value.low) / 2
    if test.over:
        text = numbers.rounded(value.value, max(spread, abs(value.value) * 0.005))
        ends = f"{numbers.rounded(value.low, max(spread, 1e-9))} … "
        ends += numbers.rounded(value.high, max(spread, 1e-9))
        return f"{text}×" + ("" if exact else f" ({ends})")
    if unit == "share" and _without_unit(outcome):
        sign = "+" if test.minus else ""
        ends = "" if exact else f" ({value.low:.3f} … {value.high:.3f})"
        return f"{value.value:{sign}.3f}{ends}"
    if unit == "share":
        scale = " points" if test.minus else " %"
        sign = "+" if test.minus else ""
        text = f"{100 * value.value:{sign}.1f}"
        ends = "" if exact else f" ({100 * value.low:.1f} … {100 * value.high:.1f})"
        return f"{text}{scale}{ends}"
    if unit == "bytes":
        return numbers.size(value.value)
    if unit == "s":
        return f"{numbers.seconds(value.value, 0.01)} ({numbers.interval(value.low, value.high)})"
    if unit == "USD":
        ends = f"{value.low:.3g} … {value.high:.3g}"
        return f"{value.value:.3g} USD ({ends})"
    return numbers.rounded(value.value, 0.005 * abs(value.value))


def _without_unit(outcome: Outcome) -> bool:
    """Whether it compares a metric that is no share, such as a reciprocal rank."""
    metrics = {row.metric for row in outcome.rows if row.metric}
    is_metric = outcome.test.quantity in ("metric", "best_metric")
    return is_metric and any(measure_of(metric).unit != "share" for metric in metrics)


def bound(outcome: Outcome) -> str:
    """The inequality's right side, such as ">= 3×"."""
    test = outcome.test
    if test.over:
        return f"{test.operator} {test.than:g}×"
    if QUANTITIES[test.quantity].unit == "share" and not _without_unit(outcome):
        unit = " points" if test.minus else " %"
        return f"{test.operator} {100 * test.than:g}{unit}"
    return f"{test.operator} {test.than:g}"
