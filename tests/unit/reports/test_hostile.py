"""Results, clusters and pages of strangers: names and files that would do harm do nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from gnnbench.cli import main
from gnnbench.cluster import load_cluster
from gnnbench.errors import SpecError
from gnnbench.results import Results
from gnnbench.spreadsheet import guarded, unguarded
from gnnbench_reports import kept
from gnnbench_reports.export.writing import export
from gnnbench_reports.price_table import _cell

FORMULA = '=HYPERLINK("http://x","y")'


@pytest.mark.parametrize("text", [FORMULA, "+1+cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", "\t=1"])
def test_a_cell_that_would_be_computed_is_text_and_is_read_back(text: str) -> None:
    assert guarded(text) == f"'{text}"
    assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("value", ["-1.5", "+3e4", "-", "a=b", "", 7, None, "'tis"])
def test_other_cells_stay(value: object) -> None:
    assert guarded(value) == value
    assert not isinstance(value, str) or unguarded(value) == value


def test_formulas_in_names_and_reasons_are_text_in_every_table(
    fabricator: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricator.run(fabricator.spec(dataset=FORMULA, ranks=1))
    fabricator.run(
        fabricator.spec(dataset="d", ranks=1), status="failed", reason="@SUM(1)", periods=[]
    )
    folder = fabricator.results.folder
    export(fabricator.results, tmp_path / "out", "csv")
    assert main(["report", str(folder), "--out", str(tmp_path / "page")]) == 0
    tables = [*(tmp_path / "out").rglob("*.csv"), *(tmp_path / "page").rglob("*.csv")]
    lines = [line for path in tables for line in csv.reader(io.StringIO(path.read_text()))]
    cells = [cell for line in lines for cell in line]
    assert f"'{FORMULA}" in cells and "'@SUM(1)" in cells
    assert not [cell for cell in cells if cell[:1] in "=@" and cell]
    assert {row.dataset for row in kept.read_comparisons(tmp_path / "page")} == {FORMULA, "d"}


@pytest.mark.parametrize("climb", ["../../evil", "/evil", "other"])
def test_a_record_that_names_another_place_is_passed_over(
    fabricator: Any, tmp_path: Path, climb: str
) -> None:
    record = fabricator.run(fabricator.spec(ranks=1))
    fabricator.prediction(fabricator.spec(ranks=1))
    folder = fabricator.results.run_folder(record.run_id)
    table = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**table, "run_id": climb}))
    results = Results(fabricator.results.folder, create=False)
    assert list(results.runs()) == []
    assert len(results.passed_over) == 1 and "run.json" in results.passed_over[0]
    export(results, tmp_path / "deep" / "out", "csv")
    assert not list((tmp_path / "deep").glob("evil*")) and not list(tmp_path.glob("evil*"))


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a\nb", "x" * 201])
def test_a_cluster_whose_name_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    from gnnbench.tomlwriter import format_toml

    table = load_cluster("cpu-2core").to_table()
    (tmp_path / "c.toml").write_text(format_toml({**table, "name": name}))
    with pytest.raises(SpecError, match="name"):
        load_cluster(tmp_path / "c.toml")


def test_links_in_a_results_folder_are_not_written_through(
    fabricator: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = fabricator.run(fabricator.spec(ranks=1))
    folder, precious = fabricator.results.folder, tmp_path / "precious"
    (precious / "measured").mkdir(parents=True)
    for name in ("index.html", "run.json", "measured/mine.csv"):
        (precious / name).write_text("mine")
    before = {p: p.read_text() for p in precious.rglob("*") if p.is_file()}
    (folder / "report").symlink_to(precious)
    assert main(["report", str(folder)]) == 2
    assert "a link" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "steps").symlink_to(precious)
    assert main(["export", str(folder), "--out", str(tmp_path / "out"), "--format", "csv"]) == 2
    own = fabricator.results.run_folder(record.run_id)
    shutil.rmtree(own)
    own.symlink_to(precious)
    with pytest.raises(Exception, match="a link"):
        fabricator.results.save_run(record)
    assert {p: p.read_text() for p in precious.rglob("*") if p.is_file()} == before


def test_a_device_or_a_pipe_in_the_place_of_a_record_is_passed_over(fabricator: Any) -> None:
    runs = [fabricator.run(fabricator.spec(ranks=1, repeat=at)) for at in range(3)]
    paths = [fabricator.results.run_folder(run.run_id) / "run.json" for run in runs]
    for path in paths[:2]:
        path.unlink()
    paths[0].symlink_to("/dev/zero")
    os.mkfifo(paths[1])
    results = Results(fabricator.results.folder, create=False)
    assert [run.run_id for run in results.runs()] == [runs[2].run_id]
    assert len(results.passed_over) == 2


def test_markup_in_a_price_page_stays_text() -> None:
    assert _cell("<img src=x>|`a`\nb") == r"\<img src=x\>\|\`a\` b"
