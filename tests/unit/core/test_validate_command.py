"""`gnnbench validate`: every row is accounted for, and nothing fitted is scored."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import LOGGED, row

from gnnbench.cli import main
from gnnbench.commands.validate import compare_rows, predict_case
from gnnbench.published.rows import REQUIRED, PublishedRow
from gnnbench.published.score import Comparison, score

VANILLA, PIPE = "Vanilla partition parallel", "PipeGCN"


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
    row(system=PIPE, value=0.02),
    row(model="GAT", hidden="83", notes=LOGGED, metric="comm_time", value=0.1159),
    row(model="GAT", hidden="96", notes=LOGGED, metric="comm_time", value=0.1632),
    row(dataset="an unseen graph"),
    row(hardware="an unseen machine"),
    row(metric="speedup_max", unit="x", value=3.0),
    row(system="METIS partition (cut)", metric="boundary_copies_total", unit="vertices",
        hardware="", value=3890),
)  # fmt: skip


def test_modelled_and_unmodelled_rows_add_up_and_every_one_is_told(
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
    assert [r["used"] for r in document["rows"]] == [
        "score", "score", "score", "fit", "held out", "", "", "", "input",
    ]  # fmt: skip
    errors = [abs(r["error"]) for r in document["rows"] if r["used"] in ("score", "held out")]
    assert document["score"]["scored"] == len(errors) == 4
    assert document["score"]["median_error"] == pytest.approx(sum(sorted(errors)[1:3]) / 2)


def test_the_table_names_every_prediction_and_every_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(written(tmp_path, MIXED))]) == 0
    out = capsys.readouterr().out
    assert sum(line.startswith("rows:") for line in out.splitlines()) == 6
    assert "graph without a profile" in out
    assert "9 rows = 6 modelled + 3 not modelled" in out


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


def test_repeats_are_predicted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def counting(case: Any) -> Any:
        asked.append(case)
        return predict_case(case)

    monkeypatch.setattr("gnnbench.commands.validate.predict_case", counting)
    found = compare_rows([row(), row(value=0.03), row(metric="grad_allreduce_time", value=0.01)])
    assert len(asked) == 1
    assert found[0].predicted == found[1].predicted
    assert found[0].error != found[1].error


def test_pipelining_hides_the_exchange_that_the_synchronous_code_shows() -> None:
    settings = {"dataset": "ogbn-products", "layers": "5"}
    vanilla, pipe = compare_rows([row(**settings), row(system=PIPE, **settings)])
    assert vanilla.predicted is not None
    assert pipe.predicted is not None
    assert pipe.predicted < vanilla.predicted


def compared(system: str, gpus: int, published: float, predicted: float) -> Comparison:
    one = row(system=system, gpus=str(gpus), value=published)
    return Comparison(row=one, published=published, predicted=predicted, used="score")


def test_fg_67_the_order_of_systems_and_of_ranks_is_counted_by_pairs() -> None:
    right = score([compared(VANILLA, 4, 2.0, 3.0), compared(PIPE, 4, 1.0, 0.5)])
    assert [(r.of, r.tau) for r in right.rankings] == [("systems", 1.0)]
    wrong = score([compared(VANILLA, 2, 2.0, 3.0), compared(VANILLA, 4, 1.0, 4.0)])
    assert [(r.of, r.tau) for r in wrong.rankings] == [("ranks", -1.0)]


def test_repeats_of_one_configuration_are_no_pair() -> None:
    assert not score([compared(VANILLA, 4, 2.0, 3.0), compared(VANILLA, 4, 1.0, 3.0)]).rankings


def test_an_error_is_relative_and_signed() -> None:
    assert compared(VANILLA, 4, 2.0, 1.0).error == -0.5
    assert compared(VANILLA, 4, 2.0, 1.0).inside is None


def test_a_time_that_the_stated_link_cannot_have_carried_is_pointed_out() -> None:
    """Twelve ranks on three hosts of 1 Gb/s: gigabytes of halo do not fit into a second."""
    setting = {"dataset": "ogbn-papers100m", "layers": "2", "hidden": "512", "gpus": "12"}
    (fast,) = compare_rows([row(system=PIPE, value=1.03, **setting)])
    assert "below" in fast.note
    assert fast.scored
    (slow,) = compare_rows([row(system=PIPE, value=1e4, **setting)])
    assert "below" not in slow.note


def test_a_machine_taken_by_likeness_is_said_to_be() -> None:
    (found,) = compare_rows([row(hardware="GPU model not stated (p3.8xlarge-like)")])
    assert "not stated" in found.note
