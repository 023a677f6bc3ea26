"""The result of a comparison in plain sentences, most important first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gnnbench_reports.comparison import Comparison
from gnnbench_reports.finding import Finding
from gnnbench_reports.numbers import factor, percent
from gnnbench_reports.summary import Summary

NOTHING = (
    "This folder holds no runs and no predictions: `gnnbench run SUITE --results DIR` and "
    "`gnnbench predict SUITE --results DIR` fill it."
)


def verdict(
    summary: Summary, rows: Sequence[Comparison], found: Mapping[str, Finding] | None = None
) -> list[str]:
    """The sentences of the summary, then those of the findings; never empty."""
    sentences = _sentences(summary, rows) if rows else []
    sentences += [line for one in (found or {}).values() for line in one.verdict]
    return sentences or [NOTHING]


def _sentences(summary: Summary, rows: Sequence[Comparison]) -> list[str]:
    sentences = [_scope(summary, rows)]
    if summary.num_compared:
        sentences += _times(summary)
        sentences += _order(summary)
    if summary.memory_error is not None:
        small = 0.001 if summary.memory_error < 0.01 else None
        sentences.append(
            f"Median error of peak memory: {percent(summary.memory_error, small)} "
            f"(n = {summary.num_memory})."
        )
    if summary.bytes_compared:
        sentences.append(_bytes(summary))
    return sentences + _rest(summary) + _losses(rows)


def period_noun(rows: Sequence[Comparison]) -> str:
    """What a period of these rows is, such as "epoch"; "period" if they differ."""
    nouns = {row.period for row in rows if row.measured or row.predicted}
    return nouns.pop() if len(nouns) == 1 else "period"


def _scope(summary: Summary, rows: Sequence[Comparison]) -> str:
    names = list(dict.fromkeys(row.cluster for row in rows if row.cluster))
    grades = sorted({row.grade for row in rows if row.predicted and row.grade})
    where = f"cluster {''.join(names)}" if len(names) < 2 else f"clusters {', '.join(names)}"
    where += f" (constants: {', '.join(grades)})" if grades else ""
    if summary.num_compared:
        return (
            f"Predicted {period_noun(rows)} time against measured, "
            f"{_count(summary.num_compared, 'configuration')}, {where}: median error "
            f"{percent(summary.median_error)}, "
            f"{'nine of ten within' if summary.num_compared >= 10 else 'largest'} "
            f"{percent(summary.p90_error)}, geometric mean of predicted / measured "
            f"{summary.bias:.2f}."
        )
    if summary.num_measured and summary.num_predicted:
        return (
            f"{_count(summary.num_measured, 'configuration')} measured and "
            f"{summary.num_predicted} predicted on {where}, but no configuration is in both: "
            "predict the suite that was run, or run the one that was predicted."
        )
    if summary.num_measured:
        return (
            f"{_count(summary.num_measured, 'configuration')} measured, none predicted: "
            "`gnnbench predict SUITE --results DIR` adds predictions."
        )
    if summary.num_predicted:
        return (
            f"{_count(summary.num_predicted, 'configuration')} predicted on {where}, none "
            "measured: no run in this folder tests these predictions."
        )
    return "Nothing was measured and nothing could be predicted."


def _times(summary: Summary) -> list[str]:
    if summary.repeat_spread is not None:
        sentences = [
            f"Median spread of repeats: ±{percent(summary.repeat_spread, 0.001)}; errors below it "
            "are within the noise."
        ]
    else:
        sentences = ["No run was repeated: the spread of the measurements is unknown."]
    if summary.coverage is not None:
        inside = round(summary.coverage * summary.num_intervals)
        sentences.append(
            f"{inside} of {summary.num_intervals} measured times ({percent(summary.coverage)}) "
            "lie inside their predicted 90 % interval."
        )
    if summary.adjusted_error is not None and summary.probe_ratio is not None:
        sentences.append(
            f"A fixed kernel took {factor(summary.probe_ratio)} its time at calibration during the "
            f"runs; with predictions scaled by that the median error is "
            f"{percent(summary.adjusted_error)}."
        )
    return sentences


def _order(summary: Summary) -> list[str]:
    if not summary.num_choices:
        return []
    regret = (
        "the approach predicted to be fastest is at most "
        f"{percent(summary.regret_worst)} slower than the fastest one"
        if summary.regret_worst
        else "the approach predicted to be fastest always is"
    )
    if not summary.order_pairs:
        return [f"No two approaches differ by more than 15 %; {regret}."]
    return [
        f"Order predicted correctly in {summary.order_right} of {summary.order_pairs} pairs of "
        f"approaches whose times differ by more than 15 %; {regret}."
    ]


def _bytes(summary: Summary) -> str:
    if summary.bytes_equal == summary.bytes_compared:
        drawn = summary.num_compared - summary.bytes_compared
        rest = f", whose plan states them; {drawn} more have an estimate" if drawn > 0 else ""
        return (
            "Bytes counted in the run equal the plan's in all "
            f"{_count(summary.bytes_compared, 'configuration')}{rest}."
        )
    wrong = summary.bytes_compared - summary.bytes_equal
    return (
        f"Bytes counted in the run differ from the plan's in {wrong} of "
        f"{summary.bytes_compared} configurations: see the table of volumes."
    )


def _rest(summary: Summary) -> list[str]:
    if not summary.num_compared:
        return []
    extra = (
        (summary.num_measured - summary.num_compared, "only measured"),
        (summary.num_predicted - summary.num_compared, "only predicted"),
    )
    more = [f"{_count(number, 'configuration')} {what}" for number, what in extra if number]
    return [f"Not compared: {' and '.join(more)}."] if more else []


def _losses(rows: Sequence[Comparison]) -> list[str]:
    words = {"running": "unfinished"}
    statuses = ("failed", "diverged", "skipped", "running")
    numbers = [(sum(r.status == s for r in rows), words.get(s, s)) for s in statuses]
    return [
        f"{_count(number, 'configuration')} {word}; the reasons are listed."
        for number, word in numbers
        if number
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
