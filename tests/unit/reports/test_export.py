"""Exported tables: a row per step, period, run and prediction, with documented columns."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gnnbench.cli import main
from gnnbench.errors import DataError, MissingExtra
from gnnbench.ledger import COLUMNS
from gnnbench_reports.export import writing
from gnnbench_reports.export.schema import STEPS, TABLES, documented, names
from gnnbench_reports.export.writing import export

ARROW = find_spec("pyarrow") is not None
FORMS = [
    "csv",
    pytest.param("parquet", marks=pytest.mark.skipif(not ARROW, reason="pyarrow is not installed")),
]


@pytest.fixture(scope="module")
def results(make_fabricator: Any) -> Any:
    """Two runs of one configuration with ledgers, its prediction, and a run that failed."""
    fabricator = make_fabricator("exported")
    for repeat in range(2):
        fabricator.run(fabricator.spec(repeat=repeat, ranks=2, epochs=4), seconds=0.5)
    fabricator.prediction(
        fabricator.spec(ranks=2, epochs=4),
        seconds=0.4,
        notes={"periods_s": [0.6, 0.4], "work_s": {"spmm": 0.3}},
    )
    lost = {"status": "failed", "reason": "rank 1 died", "failed_rank": 1}
    fabricator.run(fabricator.spec(approach="sampled"), periods=[], memory=[], metrics={}, **lost)
    return fabricator.results


def read(path: Path) -> Any:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def steps(out: Path, side: str) -> Any:
    return pd.concat([read(path) for path in sorted((out / "steps" / side).iterdir())])


@pytest.mark.parametrize("form", FORMS)
def test_every_record_is_a_row_with_the_documented_columns(
    results: Any, tmp_path: Path, form: str
) -> None:
    written = export(results, tmp_path, form)
    runs = read(tmp_path / f"runs.{form}")
    predictions = read(tmp_path / f"predictions.{form}")
    assert (len(runs), len(predictions)) == (written["runs"], written["predictions"]) == (3, 1)
    for name in ("runs", "predictions", "periods"):
        assert list(read(tmp_path / f"{name}.{form}").columns) == names(TABLES[name])
    done = runs[runs["status"] == "ok"]
    assert done["period_s"].tolist() == [0.5, 0.5]
    assert sorted(done["repeat"]) == [0, 1]
    lost = runs[runs["status"] == "failed"].iloc[0]
    assert (lost["reason"], lost["failed_rank"]) == ("rank 1 died", 1)
    assert pd.isna(lost["period_s"])
    assert json.loads(done["metrics"].iloc[0])["val_accuracy"] == 0.79


@pytest.mark.parametrize("form", FORMS)
def test_steps_are_the_ledgers_of_every_rank(results: Any, tmp_path: Path, form: str) -> None:
    written = export(results, tmp_path, form)
    found = steps(tmp_path, "measured")
    assert list(found.columns) == names(STEPS)
    run_id = found["id"].iloc[0]
    ledgers = results.measured_ledger(run_id)
    own = found[found["id"] == run_id]
    assert [len(own[own["rank"] == rank]) for rank in ledgers] == list(map(len, ledgers.values()))
    for rank, rows in ledgers.items():
        table = own.loc[own["rank"] == rank, list(COLUMNS)]
        assert [tuple(line) for line in table.itertuples(index=False)] == [tuple(r) for r in rows]
    assert written["steps"] == len(found)


@pytest.mark.parametrize("form", FORMS)
def test_periods_join_runs_and_say_what_was_moved(results: Any, tmp_path: Path, form: str) -> None:
    export(results, tmp_path, form)
    periods, runs = read(tmp_path / f"periods.{form}"), read(tmp_path / f"runs.{form}")
    measured = periods[periods["side"] == "measured"]
    joined = runs.merge(measured, left_on="run_id", right_on="id")
    assert len(joined) == 2 * 4
    assert (measured["sent_bytes"] == measured["planned_bytes"]).all()
    assert measured["sent_bytes"].min() > 0
    steady = measured[~measured["warmup"].astype(bool)]
    assert steady.groupby("id")["seconds"].median().tolist() == [0.5, 0.5]
    predicted = periods[periods["side"] == "predicted"]
    assert predicted["seconds"].tolist()[:2] == [0.6, 0.4]


def test_a_prediction_joins_the_runs_of_its_configuration(results: Any, tmp_path: Path) -> None:
    export(results, tmp_path, "csv")
    runs, predictions = (read(tmp_path / f"{name}.csv") for name in ("runs", "predictions"))
    both = runs.merge(predictions, on="config_id", suffixes=("", "_predicted"))
    assert both["period_s_predicted"].tolist() == [0.4, 0.4]


def test_every_column_has_a_meaning_and_times_and_bytes_have_units() -> None:
    for line in documented():
        assert line["meaning"], line
        if line["column"].endswith("_s"):
            assert line["unit"] == "s", line
        if line["column"].endswith("bytes"):
            assert line["unit"] == "B", line


def test_columns_are_documented_beside_the_tables(results: Any, tmp_path: Path) -> None:
    export(results, tmp_path, "csv")
    table = read(tmp_path / "columns.csv")
    assert len(table) == sum(map(len, TABLES.values()))
    words = (tmp_path / "README.md").read_text()
    assert "steps/measured/*.csv" in words and "config_id" in words


def test_two_exports_are_the_same_bytes_and_forget_runs_that_are_gone(
    results: Any, tmp_path: Path
) -> None:
    form = "parquet" if ARROW else "csv"
    export(results, tmp_path / "a", form)
    (tmp_path / "a" / "steps" / "measured" / f"gone.{form}").write_bytes(b"old")
    export(results, tmp_path / "a", form)
    export(results, tmp_path / "b", form)
    files = {p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert files == {p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*.*")}
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


@pytest.mark.skipif(not ARROW, reason="pyarrow is not installed")
def test_a_parquet_column_carries_its_unit_and_meaning(results: Any, tmp_path: Path) -> None:
    from pyarrow import parquet

    export(results, tmp_path, "parquet")
    schema = parquet.read_schema(tmp_path / "runs.parquet")
    assert schema.field("period_s").metadata[b"unit"] == b"s"
    assert str(schema.field("ranks").type) == "int64"
    assert b"median" in schema.field("period_s").metadata[b"meaning"]


def test_without_pyarrow_the_tables_are_csv_and_the_command_says_so(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(writing, "find_spec", lambda name: None)
    assert main(["export", str(results.folder), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "pyarrow is not installed, so tables are CSV" in said
    assert "pip install 'gnnbench[parquet]'" in said
    assert "3 runs, 1 prediction, " in said
    assert (tmp_path / "out" / "runs.csv").is_file()
    with pytest.raises(MissingExtra, match=r"needs pyarrow.*gnnbench\[parquet\]"):
        export(results, tmp_path / "out", "parquet")


def test_an_unreadable_ledger_is_named_and_the_others_are_written(
    fabricator: Any, tmp_path: Path, capsys: Any
) -> None:
    for approach in ("single", "partition"):
        fabricator.run(fabricator.spec(approach=approach, ranks=1))
    folder = next(fabricator.results.folder.glob("runs/*single*"))
    (folder / "ledger-rank0.csv").write_text("no ledger\n")
    words = ["export", str(fabricator.results.folder), "--out", str(tmp_path / "out"), "--json"]
    assert main([*words, "--format", "csv"]) == 0
    printed = capsys.readouterr()
    assert "passed over" in printed.err and "ledger-rank0.csv" in printed.err
    assert json.loads(printed.out)["rows"]["runs"] == 2
    assert len(list((tmp_path / "out" / "steps" / "measured").iterdir())) == 1


def test_a_folder_without_records_is_refused(fabricator: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no runs and no predictions to export"):
        export(fabricator.results, tmp_path / "out", "csv")
