"""Writing a results folder as flat tables, in Parquet or CSV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gnnbench import __version__
from gnnbench.atomic import write_bytes, write_text
from gnnbench.errors import DataError, MissingExtra
from gnnbench.results import Results
from gnnbench.spreadsheet import guarded_frame
from gnnbench_reports.export import rows
from gnnbench_reports.export.schema import (
    PERIODS,
    PREDICTIONS,
    REAL,
    RUNS,
    SCHEMA,
    STEPS,
    TABLES,
    TEXT,
    TRUTH,
    WHOLE,
    Column,
    documented,
    names,
)

PARQUET, CSV = "parquet", "csv"
PACKAGE, EXTRA = "pyarrow", "parquet"
_DTYPES = {TEXT: "str", WHOLE: "Int64", REAL: "float64", TRUTH: "boolean"}


def default_form() -> str:
    """Parquet where pyarrow is installed, else CSV."""
    return PARQUET if find_spec(PACKAGE) is not None else CSV


def export(results: Results, out: Path, form: str = "") -> dict[str, int]:
    """Write the tables of a results folder into `out`; steps of an earlier export are replaced.

    Ledgers are read and written one record at a time: memory holds the steps of one run.

    Args:
        results: the folder.
        out: where to, made if absent.
        form: "parquet" or "csv"; "" is `default_form()`.

    Returns:
        Rows written, by table.

    Raises:
        MissingExtra: Parquet was asked for and pyarrow is not installed.
        DataError: the folder holds no records.
    """
    form = form or default_form()
    if form == PARQUET and find_spec(PACKAGE) is None:
        raise MissingExtra(PACKAGE, EXTRA, "export as Parquet")
    runs = list(results.runs())
    predictions = [
        (record, results.prediction_folder(record).name) for record in results.predictions()
    ]
    if not runs and not predictions:
        raise DataError(
            results.folder,
            "holds no runs and no predictions to export: `gnnbench run SUITE --results DIR` and "
            "`gnnbench predict SUITE --results DIR` fill it",
        )
    out.mkdir(parents=True, exist_ok=True)
    periods = [row for run in runs for row in rows.run_periods(run)]
    periods += [row for one in predictions for row in rows.prediction_periods(*one)]
    tables: dict[str, tuple[Sequence[Column], list[rows.Row]]] = {
        "runs": (RUNS, [rows.run_row(run) for run in runs]),
        "predictions": (PREDICTIONS, [rows.prediction_row(*one) for one in predictions]),
        "periods": (PERIODS, periods),
    }
    written = {}
    for name, (columns, found) in tables.items():
        _write(_frame(found, columns), columns, out / name, form)
        written[name] = len(found)
    records = [
        ("measured", run.run_id, run.config_id, results.run_folder(run.run_id)) for run in runs
    ]
    records += [
        ("predicted", name, record.config_id, results.prediction_folder(record))
        for record, name in predictions
    ]
    written["steps"] = _steps(results, records, out / "steps", form)
    _document(out, form)
    return written


def _steps(
    results: Results, records: Sequence[tuple[str, str, str, Path]], out: Path, form: str
) -> int:
    """Write the ledgers of records, one file each; an unreadable one is passed over."""
    for side in ("measured", "predicted"):
        if out.is_symlink() or (out / side).is_symlink():
            raise DataError(out / side, "a link, through which files of another folder would go")
        # Records that are gone since an earlier export must not stay.
        for form_before in (PARQUET, CSV):
            for path in (out / side).glob(f"*.{form_before}"):
                path.unlink()
    total = 0
    for side, record_id, config_id, folder in records:
        try:
            frame = rows.ledger_frame(folder, side, record_id, config_id)
        except DataError as error:
            results.pass_over(error)
            continue
        if frame is not None:
            (out / side).mkdir(parents=True, exist_ok=True)
            _write(frame[names(STEPS)], STEPS, out / side / record_id, form)
            total += len(frame)
    return total


def _frame(found: Sequence[rows.Row], columns: Sequence[Column]) -> Any:
    """Rows as a DataFrame with exactly these columns; what a row lacks is null."""
    import pandas as pd

    table = {
        column.name: pd.Series([row.get(column.name) for row in found], dtype=_DTYPES[column.type])
        for column in columns
    }
    return pd.DataFrame(table)


def _write(frame: Any, columns: Sequence[Column], stem: Path, form: str) -> None:
    path = stem.with_name(f"{stem.name}.{form}")
    write_bytes(path, _parquet(frame, columns) if form == PARQUET else _csv(frame))


def _csv(frame: Any) -> bytes:
    return bytes(guarded_frame(frame).to_csv(index=False, lineterminator="\n"), "utf-8")


def _parquet(frame: Any, columns: Sequence[Column]) -> bytes:
    """The frame as Parquet; each column's metadata has its unit and meaning."""
    import pyarrow as pa
    from pyarrow import parquet

    types = {TEXT: pa.string(), WHOLE: pa.int64(), REAL: pa.float64(), TRUTH: pa.bool_()}
    schema = pa.schema(
        [
            pa.field(
                column.name,
                types[column.type],
                metadata={"unit": column.unit, "meaning": column.meaning},
            )
            for column in columns
        ],
        metadata={"gnnbench_export": str(SCHEMA), "gnnbench": __version__},
    )
    arrays = [
        pa.array(frame[column.name], type=types[column.type], from_pandas=True)
        for column in columns
    ]
    target = io.BytesIO()
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), target, compression="zstd")
    return target.getvalue()


def _document(out: Path, form: str) -> None:
    """Write what the tables are: every column, and how they are read."""
    import pandas as pd

    write_bytes(out / "columns.csv", _csv(pd.DataFrame(list(documented()))))
    reader = "read_parquet" if form == PARQUET else "read_csv"
    lines = [
        f"# Results as tables (schema {SCHEMA}, gnnbench {__version__})",
        "",
        f"`columns.csv` has the type, the unit and the meaning of all {_count()} columns. Times",
        "are seconds, sizes bytes. Columns named `knobs`, `metrics`, `phases`, `lanes`, `work` and",
        "`versions` hold JSON. `config_id` joins runs with predictions, `id` the rows of `periods`",
        "and `steps` with `run_id` or `prediction_id`.",
        "",
        "```python",
        "import pandas as pd",
        f'runs = pd.{reader}("runs.{form}")',
        f'predictions = pd.{reader}("predictions.{form}")',
        'both = runs.merge(predictions, on="config_id", suffixes=("", "_predicted"))',
        "```",
        "",
        "```sql",
        "-- DuckDB: seconds per phase and rank of every run",
        "select id, rank, phase, sum(duration_s) as seconds",
        f"from {reader}('steps/measured/*.{form}')",
        "group by all order by all;",
        "```",
        "",
    ]
    write_text(out / "README.md", "\n".join(lines))


def _count() -> int:
    return sum(len(columns) for columns in TABLES.values())
