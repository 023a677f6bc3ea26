"""What claims need of the ledgers themselves: operations, sampled bytes and seconds by rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.steps import Kind, Phase
from gnnbench_reports.claims.values import Value, exact, noisy
from gnnbench_reports.ledgers import read_columns
from gnnbench_reports.noise import noise, usual_noise

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

_TYPES = {
    "period": "int64",
    "phase": "str",
    "layer": "int64",
    "kind": "str",
    "op": "str",
    "bytes": "int64",
    "flops": "float64",
    "duration_s": "float64",
}


def counted(
    column: str, *, layer: int | None = None, kind: Kind | None = None
) -> Callable[[Study, Comparison, str], Value | None]:
    """A column of the ledgers per period, summed over ranks: of a layer, or of a kind of step."""

    def find(study: Study, row: Comparison, side: str) -> Value | None:
        found = _by_rank(study, row, side, column, layer=layer, kind=kind)
        return exact(sum(found)) if found else None

    return find


def imbalance(
    column: str, *, kind: Kind | None = None
) -> Callable[[Study, Comparison, str], Value | None]:
    """A column of the rank that has most of it, over the mean of the ranks."""

    def find(study: Study, row: Comparison, side: str) -> Value | None:
        found = _by_rank(study, row, side, column, kind=kind)
        return exact(max(found) / (sum(found) / len(found))) if found and sum(found) else None

    return find


def seconds_of(*ops: str) -> Callable[[Study, Comparison, str], Value | None]:
    """Seconds per period of some operations on the rank that they take longest."""

    def find(study: Study, row: Comparison, side: str) -> Value | None:
        found = _by_rank(study, row, side, "duration_s", ops=ops)
        if not found or max(found) <= 0:
            return None
        return noisy(max(found), noise(row, usual_noise(study.rows)))

    return find


def _by_rank(study: Study, row: Comparison, side: str, column: str, **chosen: Any) -> list[float]:
    """A column per period of each rank, of the first measured run."""
    runs = study.runs_of(row) if side == "measured" else []
    if not runs:
        return []
    folder = study.results.run_folder(runs[0].run_id)
    paths = sorted(folder.glob("ledger-rank*.csv"))
    return [_mean(path, column, **chosen) for path in paths]


def _mean(
    path: Path,
    column: str,
    layer: int | None = None,
    kind: Kind | None = None,
    ops: tuple[str, ...] = (),
) -> float:
    """Mean over the periods of a rank; evaluation is left out."""
    frame = read_columns(path, _TYPES)
    frame = frame[frame["phase"] != Phase.EVALUATE.value]
    periods = frame["period"].nunique()
    if layer is not None:
        frame = frame[frame["layer"] == layer]
    if kind is not None:
        frame = frame[frame["kind"] == kind.value]
    if ops:
        frame = frame[frame["op"].isin(ops)]
    return float(frame[column].sum()) / periods if periods else 0.0
