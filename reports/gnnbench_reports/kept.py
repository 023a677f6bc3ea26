"""Comparisons as CSV files, and back: `comparison.csv` and the findings that need more than it.

Ledgers and records are large; a committed result is the table of its configurations. It is enough
to compare again: errors, the order of approaches and most figures follow from it. Findings that
follow from single seeds or ledgers are read as the report wrote them.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from gnnbench.errors import DataError, UnknownName
from gnnbench.spreadsheet import unguarded
from gnnbench_reports.arrival import ArrivalRow
from gnnbench_reports.bandwidth import BandwidthRow
from gnnbench_reports.caches import CacheRow
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.disk_io import IoRow
from gnnbench_reports.memory import Memory
from gnnbench_reports.node_order import OrderGain
from gnnbench_reports.operations import OperationRow
from gnnbench_reports.quality import QualityRow
from gnnbench_reports.sensitivity import SwingRow
from gnnbench_reports.time_to_metric import TargetRow
from gnnbench_reports.traffic import TrafficRow

TABLE = "comparison.csv"
FINDINGS: Mapping[str, type[Any]] = {
    "quality": QualityRow,
    "operations": OperationRow,
    "node_order": OrderGain,
    "bandwidth": BandwidthRow,
    "caches": CacheRow,
    "disk_io": IoRow,
    "sensitivity": SwingRow,
    "time_to_metric": TargetRow,
    "traffic": TrafficRow,
    "arrival": ArrivalRow,
}
"""Findings that do not follow from `comparison.csv`, with the class of their rows."""
_TIMES = ("phase", "stage")
"""Tables of seconds by name: of both sides, each in a column per name."""
_NESTED = (
    "config_ids",
    "volumes",
    "memory",
    "phases_measured",
    "phases_predicted",
    "stages_measured",
    "stages_predicted",
    "metrics",
)
T = TypeVar("T")


def flat(row: Comparison) -> dict[str, Any]:
    """One configuration as flat columns, without the volumes of each kind of step."""
    table = dataclasses.asdict(row)
    for name in _NESTED:
        table.pop(name)
    table["knobs"] = json.dumps(table["knobs"], sort_keys=True, default=str)
    table |= {f"memory_{key}": value for key, value in dataclasses.asdict(row.memory).items()}
    for name, found in sorted(row.metrics.items()):
        table |= {f"metric_{name}": found["mean"], f"metric_{name}_std": found["std"]}
    for kind in _TIMES:
        for side in ("measured", "predicted"):
            times = getattr(row, f"{kind}s_{side}")
            table |= {f"{kind}_{side}_{name}_s": value for name, value in sorted(times.items())}
    return table


def read_comparisons(folder: Path) -> tuple[Comparison, ...]:
    """The rows of a folder's `comparison.csv`; none if there is no such file. Raises DataError."""
    path = folder / TABLE
    return tuple(_comparison(table, path) for table in _read(path, Comparison, _NESTED))


def read_findings(folder: Path) -> dict[str, list[Any]]:
    """The kept rows of each finding in `FINDINGS` that the folder holds. Raises DataError."""
    found = {}
    for name, cls in FINDINGS.items():
        path = folder / f"{name}.csv"
        rows = [_parsed(cls, table, path) for table in _read(path, cls)]
        if rows:
            found[name] = rows
    return found


def chosen_cluster(clusters: Sequence[str], asked: str | None) -> str:
    """The cluster of a kept comparison, which has one at most. Raises UnknownName."""
    if asked is not None and asked not in clusters:
        raise UnknownName("cluster among the predictions", asked, clusters)
    return asked or next(iter(clusters), "")


def _comparison(table: Mapping[str, str], path: Path) -> Comparison:
    memory = {k.removeprefix("memory_"): v for k, v in table.items() if k.startswith("memory_")}
    metrics: dict[str, dict[str, float]] = {}
    times: dict[str, dict[str, float]] = {
        f"{kind}s_{side}": {} for kind in _TIMES for side in ("measured", "predicted")
    }
    for column, value in table.items():
        prefix, _, name = column.partition("_")
        if not value or prefix not in ("metric", *_TIMES) or not name:
            continue
        if prefix in _TIMES:
            side, _, part = name.partition("_")
            if f"{prefix}s_{side}" in times:
                times[f"{prefix}s_{side}"][part.removesuffix("_s")] = _number(value, column, path)
        else:
            part = "std" if name.endswith("_std") else "mean"
            metrics.setdefault(name.removesuffix("_std"), {})[part] = _number(value, column, path)
    return _parsed(
        Comparison,
        table,
        path,
        config_ids=(table["config_id"],),
        memory=_parsed(Memory, memory, path),
        metrics=metrics,
        **times,
    )


def _read(path: Path, cls: type[Any], nested: Sequence[str] = ()) -> list[dict[str, str]]:
    """The lines of a CSV file that has the columns of a class; none if there is no such file."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            lines, columns = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, f"not a readable table: {error}") from None
    if any(None in line or None in line.values() for line in lines):
        raise DataError(path, "a line has more or fewer cells than the header")
    for spec in dataclasses.fields(cls):
        if spec.name not in nested and spec.name not in columns:
            raise DataError(
                path,
                f"it has no column {spec.name!r}, so another version of gnnbench wrote it; "
                "write it again with `gnnbench report` from the runs",
            )
    return lines


def _parsed(cls: type[T], table: Mapping[str, str], path: Path, **values: Any) -> T:
    hints = get_type_hints(cls)
    for spec in dataclasses.fields(cls):  # type: ignore[arg-type]
        if spec.name in values or spec.name not in table:
            continue
        try:
            values[spec.name] = _value(table[spec.name], hints[spec.name])
        except (ValueError, OverflowError, RecursionError) as error:
            raise DataError(path, f"column {spec.name!r}: {error}") from None
    return cls(**values)


def _number(text: str, column: str, path: Path) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(path, f"column {column!r}: {error}") from None


def _value(text: str, hint: Any) -> Any:
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if text == "" and type(None) in kinds:
        return None
    kind = kinds[0]
    if kind is bool:
        if text not in ("True", "False"):
            raise ValueError(f"found {text!r}, expected True or False")
        return text == "True"
    if kind in (int, float):
        return kind(float(text or 0))
    return unguarded(text) if kind is str else json.loads(text or "{}")
