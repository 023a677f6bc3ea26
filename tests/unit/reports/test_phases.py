"""Phases are summed from ledgers on the lanes that hold a rank up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gnnbench.errors import DataError
from gnnbench.ledger import Row, write_ledger
from gnnbench_reports.compare import compare
from gnnbench_reports.ledgers import phase_seconds


def row(epoch: int, phase: str, seconds: float, lane: str = "compute") -> Row:
    return Row(epoch, 0, phase, "gemm", "gemm", lane, phase, 0, 1, 0, 0, 0.0, seconds)


def test_steps_of_a_phase_add_up_and_epochs_give_the_median(tmp_path: Path) -> None:
    rows = [row(0, "forward", 9.0)]
    rows += [row(epoch, "forward", s) for epoch in (1, 2, 3) for s in (1.0, float(epoch))]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    assert phase_seconds(tmp_path, warmup=1) == {"forward": 3.0}


def test_the_slowest_rank_speaks(tmp_path: Path) -> None:
    write_ledger(tmp_path / "ledger-rank0.csv", [row(0, "forward", 1.0)])
    write_ledger(tmp_path / "ledger-rank1.csv", [row(0, "forward", 1.0), row(0, "sync", 1.0)])
    assert phase_seconds(tmp_path) == {"forward": 1.0, "sync": 1.0}


def test_lanes_beside_the_rank_do_not_count(tmp_path: Path) -> None:
    rows = [row(0, "forward", 1.0), row(0, "fetch", 1.0, "comm"), row(0, "sample", 5.0, "host")]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    assert phase_seconds(tmp_path) == {"fetch": 1.0, "forward": 1.0}


def test_evaluation_between_epochs_is_no_part_of_them(tmp_path: Path) -> None:
    rows = [row(0, "forward", 1.0), row(0, "evaluate", 7.0)]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    assert phase_seconds(tmp_path) == {"forward": 1.0}


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "ledger-rank0.csv"
    write_ledger(path, [row(0, "forward", 1.0), row(0, "forward", 2.0)])
    path.write_text(path.read_text()[:-4])
    assert phase_seconds(tmp_path) == {"forward": 1.0}


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger-rank0.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not a ledger"):
        phase_seconds(tmp_path)


def test_both_worlds_are_summed_over_the_same_lanes(fabricator: Any) -> None:
    spec = fabricator.spec()
    fabricator.run(spec)
    record = fabricator.prediction(spec, phases={"forward": 1.0, "sample": 5.0})
    folder = fabricator.results.prediction_folder(record)
    rows = [row(1, "forward", 1.0), row(1, "sample", 5.0, "host")]
    write_ledger(folder / "ledger-rank0.csv", rows)
    (found,) = compare(fabricator.results)
    assert found.phases_predicted == {"forward": 1.0}
    assert set(found.phases_measured) == {"fetch", "forward", "backward", "sync", "update"}
