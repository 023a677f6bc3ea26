"""The commands `compare` and `report`, from the command line inwards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gnnbench.cli import main


def folder(fabricator: Any) -> str:
    fabricator.whole_suite(datasets=("cora",), models=("gcn",), predicted=(1, 2), repeats=2)
    return str(fabricator.results.folder)


def test_compare_prints_the_answer_then_the_verdict_then_tables_within_80_columns(
    fabricator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", folder(fabricator)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cora, gcn: ")
    assert " fastest per epoch" in lines[0]
    assert lines[1] == ""
    assert lines[2].startswith("Predicted epoch time against measured, 5 configurations")
    start = lines.index("cora, gcn: time per epoch")
    assert [line.split()[0] for line in lines[start + 2 : start + 8]].count("partition") == 2
    tables = [line for line in lines[start:] if not line.startswith(("skipped:", "failed:"))]
    assert max(map(len, tables)) <= 80


def test_compare_prints_each_reason_once_and_last(
    fabricator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricator.whole_suite(datasets=("a", "b", "c", "d"), models=("gcn",), predicted=(1, 2))
    assert main(["compare", str(fabricator.results.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (reason,) = (line for line in lines if "single uses 1 rank, not 2" in line)
    assert reason == lines[-1]
    assert reason.startswith("skipped: ") and reason.endswith(" and 1 more")


def test_compare_json_has_a_row_per_configuration_with_both_sides(
    fabricator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", folder(fabricator), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["summary"]["num_compared"] == 5
    rows = {(row["approach"], row["ranks"]): row for row in document["rows"]}
    row = rows["partition", 2]
    assert row["ratio"] == pytest.approx(row["predicted_period_s"] / row["measured_period_s"])
    assert row["bytes_equal"] is True
    assert {volume["kind"] for volume in row["volumes"]} == {"all_reduce", "all_to_all"}
    assert rows["single", 2]["status"] == "skipped"


def test_compare_prints_findings_as_lines_and_as_numbers(
    fabricator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    where = folder(fabricator)
    assert main(["compare", where]) == 0
    shown = capsys.readouterr().out
    assert "cora, gcn: Test accuracy against the reference" in shown
    assert "Kendall's tau between predicted and measured order of approaches: cora " in shown
    assert main(["compare", where, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert set(found) == {"fits", "order", "quality", "time_to_metric"}
    (order,) = found["order"]["rows"]
    assert order["pairs"] == 4
    assert -1 <= order["tau_all"] <= 1


def test_report_prints_where_the_page_is(
    fabricator: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "elsewhere"
    assert main(["report", folder(fabricator), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {out / 'index.html'}"
    assert (out / "index.html").stat().st_size > 10_000


@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_folder_that_is_not_there_is_one_line_and_not_made(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "nowhere"
    assert main([command, str(missing)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not missing.exists()


@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_cluster_without_predictions_is_one_line(
    command: str, fabricator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, folder(fabricator), "--cluster", "bnech"]) == 2
    assert "did you mean 'bench'" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 120])
def test_labels_of_streams_keep_their_names_within_the_terminal(
    width: int, fabricator: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long label is wrapped between its settings, none of which loses its name."""
    base = fabricator.spec("events", "tgn", "continuous")
    for knobs in ({}, {"replay": 0.1}):
        training = dataclasses.replace(base.training, increments=6, speedup=1e5 if knobs else 0.0)
        for ranks in (1, 2):
            run = dataclasses.replace(base, training=training, knobs=knobs, ranks=ranks)
            fabricator.run(run)
            fabricator.prediction(run)
    other = dataclasses.replace(base, knobs={"store": "partitioned", "partitioner": "degree"})
    fabricator.run(other)
    fabricator.prediction(other)
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["compare", str(fabricator.results.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("events, tgn: time per epoch")
    shown = " ".join(lines[start : start + 20])
    assert "replay=0.1" in shown and "increments=6" in shown
    assert max(map(len, lines)) <= width
