"""What `gnnbench validate` prints of tables of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench.costs.kernel_fit import Judged
    from gnnbench.costs.operation_tables import Judgement


def document(name: str, judgement: Judgement) -> dict[str, Any]:
    """The JSON of one table."""
    return {
        "table": name,
        "rows": judgement.rows,
        "scored": sum(len(j.errors) for j in judgement.scored),
        "median_error": judgement.median_error,
        "inside": judgement.inside,
        "groups": [_numbers(j) for j in judgement.judged],
        "reasons": judgement.reasons,
    }


def show(name: str, judgement: Judgement) -> None:
    """Print the score of a table, its groups, and the rows without a prediction."""
    from gnnbench.commands.output import heading, table, text
    from gnnbench_reports import numbers

    scored = sum(len(j.errors) for j in judgement.scored)
    without = sum(judgement.reasons.values())
    if judgement.median_error is not None:
        text(
            f"{name}: median |error| {numbers.percent(judgement.median_error)} over {scored} "
            f"scored timings, {numbers.percent(judgement.inside)} of them inside the 90 % interval"
        )
    print(f"timings: {judgement.rows}; not predicted: {without}")
    heading("Errors of timings by what the fit that predicts them had not seen")
    rows = [_row(j) for j in _sorted(judgement.judged)]
    table(rows, list(rows[0]))
    if judgement.reasons:
        heading("Rows without a prediction, by reason")
        reasons = [{"rows": n, "reason": reason} for reason, n in judgement.reasons.items()]
        table(reasons, ["rows", "reason"])


def _sorted(judged: Sequence[Judged]) -> list[Judged]:
    return sorted(judged, key=lambda j: (j.kernel, j.left_out == "device", j.device))


def _numbers(j: Judged) -> dict[str, Any]:
    return {
        "kernel": j.kernel,
        "device": j.device,
        "left_out": j.left_out,
        "timings": len(j.errors),
        "median_error": j.median,
        "p90_error": j.p90,
        "median_ratio": j.bias,
        "inside": float(j.inside.mean()),
    }


def _row(j: Judged) -> dict[str, object]:
    from gnnbench_reports import numbers

    return {
        "kernel": j.kernel,
        "device": j.device,
        "left out": j.left_out,
        "timings": len(j.errors),
        "median |error|": numbers.percent(j.median),
        "p90 |error|": numbers.percent(j.p90),
        "predicted / measured": f"{j.bias:.2f}",
        "inside": numbers.percent(float(j.inside.mean())),
    }
