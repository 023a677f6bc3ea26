"""Where the time of a period goes, by hand-written ledgers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gnnbench.errors import DataError
from gnnbench.ledger import Row, write_ledger
from gnnbench_reports.compare import compare
from gnnbench_reports.parts import part_seconds


def row(epoch: int, phase: str, seconds: float, lane: str = "compute", start: float = 0.0) -> Row:
    return Row(epoch, 0, phase, "gemm", "gemm", lane, phase, 0, 1, 0, 0, start, seconds)


def together(start: float, seconds: float, lane: str = "comm", name: str = "forward/halo") -> Row:
    return Row(0, 0, name, "all_to_all", "all_to_all", lane, "forward", 1, 2, 8, 0, start, seconds)


def test_steps_of_a_phase_add_up_and_epochs_give_the_median(tmp_path: Path) -> None:
    rows = [row(0, "forward", 9.0)]
    rows += [row(epoch, "forward", s) for epoch in (1, 2, 3) for s in (1.0, float(epoch))]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    assert part_seconds(tmp_path, warmup=1) == {"forward": 3.0}


def test_the_slowest_rank_speaks(tmp_path: Path) -> None:
    write_ledger(tmp_path / "ledger-rank0.csv", [row(0, "forward", 1.0)])
    write_ledger(tmp_path / "ledger-rank1.csv", [row(0, "forward", 1.0), row(0, "sync", 1.0)])
    assert part_seconds(tmp_path) == {"forward": 1.0, "sync": 1.0}


def test_the_rank_that_enters_a_step_last_does_not_wait(tmp_path: Path) -> None:
    write_ledger(tmp_path / "ledger-rank0.csv", [row(0, "forward", 1.0), together(1.0, 2.5)])
    write_ledger(tmp_path / "ledger-rank1.csv", [row(0, "forward", 2.6), together(3.0, 0.5)])
    assert part_seconds(tmp_path) == {"forward": 1.0, "communication": 0.5, "waiting": 2.0}


def test_of_one_rank_alone_all_its_communication_counts(tmp_path: Path) -> None:
    write_ledger(tmp_path / "ledger-rank0.csv", [together(0.0, 2.5)])
    assert part_seconds(tmp_path) == {"communication": 2.5}


def test_communication_behind_computation_is_hidden_and_what_sticks_out_is_not(
    tmp_path: Path,
) -> None:
    rows = [row(0, "forward", 2.0, start=0.0), together(1.0, 3.0, "background")]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    assert part_seconds(tmp_path) == {"forward": 2.0, "communication": 2.0, "hidden": 1.0}


def test_chunks_that_travel_while_others_are_computed_are_hidden(tmp_path: Path) -> None:
    """A pipeline of chunks: both lanes are in the foreground, and the parts make up the period."""
    rows = [
        row(0, "forward", 2.0, "dense", start=0.0),
        together(1.0, 4.0, name="forward/chunk"),
        row(0, "backward", 1.0, "dense", start=4.0),
    ]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    late = [row(0, "forward", 3.0, "sparse"), together(3.0, 2.0, name="forward/chunk")]
    write_ledger(tmp_path / "ledger-rank1.csv", late)
    assert part_seconds(tmp_path) == {
        "forward": 2.0,
        "backward": 1.0,
        # Half of the four seconds stick out, and the other rank was late for half of them.
        "communication": 1.0,
        "waiting": 1.0,
        "hidden": 2.0,
    }


def test_a_rank_waits_for_its_disk_only_while_it_does_nothing_else(tmp_path: Path) -> None:
    rows = [
        row(0, "load", 2.0, "disk", start=0.0),
        row(0, "load", 2.0, "disk:1", start=1.0),
        row(0, "forward", 1.5, start=2.5),
        row(0, "fetch", 1.0, "copy", start=3.5),
    ]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    assert part_seconds(tmp_path) == {"disk": 2.5, "forward": 1.5, "copy": 0.5}


def test_host_work_behind_computation_takes_no_time(tmp_path: Path) -> None:
    rows = [row(0, "forward", 1.0), row(0, "sample", 1.0, "host")]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    assert part_seconds(tmp_path) == {"forward": 1.0}


def test_a_rank_with_one_accelerator_of_a_mixed_pair_computes(tmp_path: Path) -> None:
    write_ledger(tmp_path / "ledger-rank0.csv", [row(0, "forward", 1.0, "sparse")])
    assert part_seconds(tmp_path) == {"forward": 1.0}


def test_evaluation_between_epochs_is_no_part_of_them(tmp_path: Path) -> None:
    rows = [row(0, "forward", 1.0), row(0, "evaluate", 7.0)]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    assert part_seconds(tmp_path) == {"forward": 1.0}


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "ledger-rank0.csv"
    write_ledger(path, [row(0, "forward", 1.0), row(0, "forward", 2.0)])
    path.write_text(path.read_text()[:-4])
    assert part_seconds(tmp_path) == {"forward": 1.0}


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger-rank0.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not a ledger"):
        part_seconds(tmp_path)


def test_both_worlds_are_split_alike(fabricator: Any) -> None:
    spec = fabricator.spec()
    fabricator.run(spec)
    record = fabricator.prediction(spec, phases={"forward": 5.0, "sample": 5.0})
    folder = fabricator.results.prediction_folder(record)
    rows = [row(1, "forward", 5.0), row(1, "sample", 5.0, "host")]
    write_ledger(folder / "ledger-rank0.csv", rows)
    (found,) = compare(fabricator.results)
    assert found.phases_predicted == {"forward": 5.0}
    assert set(found.phases_measured) == {"fetch", "forward", "backward", "sync", "update"}
