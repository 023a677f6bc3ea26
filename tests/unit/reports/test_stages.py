"""Sampling, loading and training: split from ledgers, and judged one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gnnbench.cli import main
from gnnbench.ledger import Row, write_ledger
from gnnbench_reports.opening import read_study
from gnnbench_reports.parts import split_seconds
from gnnbench_reports.stages import finding, stage_rows


def local(phase: str, start: float, seconds: float, lane: str = "compute") -> Row:
    return Row(0, 0, f"{phase}/step", "gemm", "gemm", lane, phase, 0, 1, 0, 0, start, seconds)


def fetched(start: float, seconds: float) -> Row:
    kind = "all_to_all"
    return Row(0, 0, "fetch/rows", kind, kind, "comm", "fetch", 0, 2, 8, 0, start, seconds)


def test_communication_is_part_of_its_stage_and_waiting_of_none(tmp_path: Path) -> None:
    """Rank 1 samples for two seconds more; rank 0 waits for it in the exchange of rows."""
    train = [local("forward", 4.0, 1.0), local("sync", 5.0, 0.5), local("update", 5.5, 0.25)]
    write_ledger(
        tmp_path / "ledger-rank0.csv", [local("sample", 0.0, 1.0), fetched(1.0, 3.0), *train]
    )
    write_ledger(
        tmp_path / "ledger-rank1.csv", [local("sample", 0.0, 3.0), fetched(3.0, 1.0), *train]
    )
    stages = split_seconds(tmp_path).stages
    assert stages["loading"] == 1.0
    assert stages["training"] == 1.75
    assert stages["sampling"] == 3.0  # of the rank that the other waits for


def test_a_stage_counts_in_full_where_another_hides_it(tmp_path: Path) -> None:
    rows = [local("forward", 0.0, 3.0), local("sample", 0.5, 2.0, "host")]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    split = split_seconds(tmp_path)
    assert split.parts == {"forward": 3.0}
    assert split.stages == {"sampling": 2.0, "training": 3.0}


def test_evaluation_and_warm_up_are_in_no_stage(tmp_path: Path) -> None:
    rows = [local("sample", 0.0, 9.0), local("evaluate", 9.0, 9.0)]
    rows += [local("sample", 20.0, 1.0)._replace(period=1)]
    write_ledger(tmp_path / "ledger-rank0.csv", rows)
    assert split_seconds(tmp_path, warmup=1).stages == {"sampling": 1.0}


def both(fabricator: Any, measured: dict[str, float], predicted: dict[str, float], seed: int = 0):
    """One configuration of which both worlds have a ledger; seconds by phase."""
    spec = fabricator.spec(approach="sampled", ranks=1, knobs={"prefetch": seed})
    record = fabricator.run(spec, seconds=1.0, ledgers=False)
    prediction = fabricator.prediction(spec, seconds=1.0)
    folders = (
        (fabricator.results.run_folder(record.run_id), measured),
        (fabricator.results.prediction_folder(prediction), predicted),
    )
    for folder, table in folders:
        rows = [local(phase, 0.0, took)._replace(period=1) for phase, took in table.items()]
        write_ledger(folder / "ledger-rank0.csv", rows)


def test_errors_of_stages_that_cancel_are_shown_one_by_one(fabricator: Any) -> None:
    both(fabricator, {"sample": 2.0, "fetch": 1.0, "forward": 1.0}, {"sample": 1.0, "fetch": 2.0})
    study = read_study(fabricator.results)
    found = {(row.approach, row.stage): row for row in stage_rows(study.rows)}
    assert found["all", "sampling"].median_error == pytest.approx(0.5)
    assert found["all", "loading"].median_error == pytest.approx(1.0)
    assert found["all", "training"].median_error == pytest.approx(1.0)
    assert found["sampled", "sampling"].share == pytest.approx(0.5)
    assert found["sampled", "loading"].bias == pytest.approx(2.0)
    table = finding(study)
    assert table is not None
    assert table.cells[0] == ("all", "sampling", 1, "50 %", "50 %", "50 %", "0.50×", "0 of 1")
    assert "sampling 50 % (n = 1), loading 100 % (n = 1)" in table.verdict[0]


def test_a_stage_of_almost_no_time_is_not_judged(fabricator: Any) -> None:
    whole = {"sample": 1.0, "fetch": 0.001, "forward": 1.0}
    both(fabricator, whole, {**whole, "fetch": 1.0})
    (row,) = [
        row
        for row in stage_rows(read_study(fabricator.results).rows)
        if (row.approach, row.stage) == ("all", "loading")
    ]
    assert (row.configurations, row.median_error) == (0, None)


def test_approaches_that_do_not_sample_have_no_stages(fabricator: Any) -> None:
    spec = fabricator.spec(approach="single", ranks=1)
    fabricator.run(spec)
    fabricator.prediction(spec)
    assert finding(read_study(fabricator.results)) is None


def test_compare_prints_the_stages_and_gives_each_configuration_its_own(
    fabricator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {"sample": 2.0, "fetch": 1.0, "forward": 1.0}
    both(fabricator, table, {**table, "sample": 2.5})
    folder = str(fabricator.results.folder)
    assert main(["compare", folder]) == 0
    text = capsys.readouterr().out
    assert "Median error of the stages of a mini-batch epoch: sampling 25 %" in " ".join(
        text.split()
    )
    assert main(["compare", folder, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (row,) = document["rows"]
    assert row["stages_measured"] == {"sampling": 2.0, "loading": 1.0, "training": 1.0}
    assert row["stages_predicted"]["sampling"] == 2.5
    assert document["findings"]["stages"]["rows"][0]["median_error"] == pytest.approx(0.25)
