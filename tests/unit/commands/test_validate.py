"""`gnnbench validate`: every row is accounted for, and nothing fitted is scored."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "published"))

from published_cases import LOGGED, row

from gnnbench.cli import main
from gnnbench.published.rows import REQUIRED, PublishedRow


def written(folder: Path, rows: Sequence[PublishedRow]) -> Path:
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, REQUIRED, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(asdict(one) for one in rows)
    return path


MIXED = (
    row(),
    row(metric="comm_time", value=0.01),
    row(system="PipeGCN", value=0.02),
    row(model="GAT", hidden="83", notes=LOGGED, metric="comm_time", value=0.1159),
    row(model="GAT", hidden="96", notes=LOGGED, metric="comm_time", value=0.1632),
    row(dataset="an unseen graph"),
    row(hardware="an unseen machine"),
    row(metric="speedup_max", unit="x", value=3.0),
    row(
        system="METIS partition (cut)",
        metric="boundary_copies_total",
        unit="vertices",
        hardware="",
        value=3890,
    ),
)


def test_modelled_and_unmodelled_rows_add_up_and_every_one_is_in_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(written(tmp_path, MIXED)), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    total, rows = document["score"], document["rows"]
    assert (total["rows"], total["modelled"], total["unmodelled"]) == (9, 6, 3)
    assert len(rows) == 9
    assert all((r["predicted"] is None) == bool(r["reason"]) for r in rows)
    assert sum(total["reasons"].values()) == 3


def test_fitted_rows_and_inputs_are_shown_and_never_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(written(tmp_path, MIXED)), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    used = ["score", "score", "score", "fit", "held out", "", "", "", "input"]
    assert [r["used"] for r in document["rows"]] == used
    errors = [abs(r["error"]) for r in document["rows"] if r["used"] in ("score", "held out")]
    assert document["score"]["scored"] == len(errors) == 4
    assert document["score"]["median_error"] == pytest.approx(sum(sorted(errors)[1:3]) / 2)


def test_the_first_line_is_the_score_and_the_second_accounts_for_every_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(written(tmp_path, MIXED))]) == 0
    score, rows = capsys.readouterr().out.splitlines()[:2]
    assert score.startswith("median |error| ")
    assert "over 4 scored times and sizes" in score
    assert score.endswith("inside the 90 % interval")
    assert rows == "published rows: 9; predicted: 6; not predicted: 3"


def test_the_tables_have_every_prediction_and_every_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(written(tmp_path, MIXED))]) == 0
    out = capsys.readouterr().out
    assert sum(line.startswith("rows:") for line in out.splitlines()) == 6
    assert "graph without a profile" in out
    assert "hardware without a preset" in out
    assert "a ratio or claim" in out


def test_without_a_prediction_there_is_no_score_and_no_empty_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, [row(dataset="an unseen graph")])
    assert main(["validate", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("published rows: 1; predicted: 0; not predicted: 1")
    assert "median" not in out
    assert out.count("\n\n") == 1


def test_out_writes_every_row(tmp_path: Path) -> None:
    path = written(tmp_path, MIXED)
    assert main(["validate", str(path), "--out", str(tmp_path / "o"), "--json"]) == 0
    with (tmp_path / "o" / "validation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["row_id"] for r in rows] == [f"rows:{n}" for n in range(2, 11)]
    assert json.loads((tmp_path / "o" / "validation.json").read_text())["score"]["rows"] == 9
    assert "measured time per epoch" in (tmp_path / "o" / "parity.svg").read_text(encoding="utf-8")


def test_no_picture_is_drawn_of_no_epoch_time(tmp_path: Path) -> None:
    (tmp_path / "parity.svg").write_text("an earlier one")
    path = written(tmp_path, [row(dataset="an unseen graph")])
    assert main(["validate", str(path), "--out", str(tmp_path)]) == 0
    assert not (tmp_path / "parity.svg").exists()


def test_only_chooses_rows_and_says_when_none_matches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(written(tmp_path, MIXED))
    assert main(["validate", path, "--only", "pipe*", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score"]["rows"] == 1
    assert main(["validate", path, "--only", "nothing"]) == 2
    assert "matches none of 9 rows" in capsys.readouterr().err


def test_a_file_of_other_columns_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert main(["validate", str(tmp_path / "x.csv")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
