"""Say in plain sentences what a comparison shows, each number with its meaning."""

from __future__ import annotations

from collections.abc import Sequence

from gnnbench_reports.compare import Comparison
from gnnbench_reports.numbers import factor, percent
from gnnbench_reports.summary import Summary

NOTHING = "This folder holds neither runs nor predictions."


def sentences(summary: Summary, rows: Sequence[Comparison]) -> list[str]:
    """Return the verdict, most important sentence first; never empty."""
    if not rows:
        return [NOTHING]
    said = [_scope(summary, rows)]
    if summary.num_compared:
        said += _times(summary)
        said += _order(summary)
    if summary.memory_error is not None:
        said.append(
            f"Peak memory was off by {percent(summary.memory_error)} in the median "
            f"(n = {summary.num_memory})."
        )
    if summary.bytes_compared:
        said.append(_bytes(summary))
    said += _rest(summary)
    said += _losses(rows)
    return said


def _scope(summary: Summary, rows: Sequence[Comparison]) -> str:
    cluster = next((row.cluster for row in rows if row.cluster), "")
    grades = sorted({row.grade for row in rows if row.predicted and row.grade})
    where = f"cluster {cluster}" + (f" (constants: {', '.join(grades)})" if grades else "")
    if summary.num_compared:
        return (
            f"Over {_count(summary.num_compared, 'configuration')} both measured and predicted on "
            f"{where}, predicted epoch time was off by {percent(summary.median_error)} in the "
            f"median and by at most {percent(summary.p90_error)} "
            f"{'in nine of ten' if summary.num_compared >= 10 else 'at worst'} "
            f"(bias {factor(summary.bias)})."
        )
    if summary.num_measured and summary.num_predicted:
        return (
            f"{_count(summary.num_measured, 'configuration')} measured and "
            f"{summary.num_predicted} predicted on {where}, but none of them both: predict the "
            "suite that was run, or run the one that was predicted."
        )
    if summary.num_measured:
        return (
            f"{_count(summary.num_measured, 'configuration')} measured, none predicted: "
            "`gnnbench predict SUITE --results DIR` adds predictions."
        )
    if summary.num_predicted:
        return (
            f"{_count(summary.num_predicted, 'configuration')} predicted on {where}, none "
            "measured: nothing here confirms these predictions yet."
        )
    return "Nothing was measured and nothing could be predicted."


def _times(summary: Summary) -> list[str]:
    if summary.repeat_spread is not None:
        said = [
            f"Repeats of one run spread by ±{percent(summary.repeat_spread, 0.001)} in the median; "
            "a smaller error cannot be told from noise."
        ]
    else:
        said = ["No run was repeated, so the spread of the measurements is unknown."]
    if summary.coverage is not None:
        inside = round(summary.coverage * summary.num_intervals)
        said.append(
            f"{inside} of {summary.num_intervals} measured times ({percent(summary.coverage)}) "
            "lie inside their 90 % interval."
        )
    if summary.adjusted_error is not None and summary.probe_ratio is not None:
        said.append(
            f"While measuring, the machine took {factor(summary.probe_ratio)} the time of its "
            f"calibration on a fixed kernel; corrected for that the median error is "
            f"{percent(summary.adjusted_error)}."
        )
    return said


def _order(summary: Summary) -> list[str]:
    if not summary.num_choices:
        return []
    regret = (
        f"choosing by prediction would have cost {percent(summary.regret_worst)} at worst"
        if summary.regret_worst
        else "choosing by prediction would always have found the fastest"
    )
    if not summary.order_pairs:
        return [f"No two approaches differ by more than 15 %; {regret}."]
    return [
        f"Where two approaches differ by more than 15 %, their order was predicted right in "
        f"{summary.order_right} of {summary.order_pairs} pairs; {regret}."
    ]


def _bytes(summary: Summary) -> str:
    if summary.bytes_equal == summary.bytes_compared:
        return (
            "Bytes sent, counted and planned, are the same integers in "
            f"{summary.bytes_equal} of {summary.bytes_compared} configurations."
        )
    wrong = summary.bytes_compared - summary.bytes_equal
    return (
        f"Bytes sent differ from the plan in {wrong} of {summary.bytes_compared} configurations: "
        "see the table of volumes."
    )


def _rest(summary: Summary) -> list[str]:
    if not summary.num_compared:
        return []
    extra = (
        (summary.num_measured - summary.num_compared, "only measured"),
        (summary.num_predicted - summary.num_compared, "only predicted"),
    )
    told = [f"{_count(number, 'configuration')} {what}" for number, what in extra if number]
    return [f"Besides, {' and '.join(told)}."] if told else []


def _losses(rows: Sequence[Comparison]) -> list[str]:
    said = []
    for status, verb in (("failed", "failed"), ("skipped", "skipped"), ("running", "unfinished")):
        number = sum(row.status == status for row in rows)
        if number:
            said.append(f"{_count(number, 'configuration')} {verb}; the reasons are listed.")
    return said


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
