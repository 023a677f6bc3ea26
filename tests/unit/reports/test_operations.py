"""Errors of single operations, from ledgers of a run and of its prediction."""

from __future__ import annotations

from typing import Any

import pytest

from gnnbench.ledger import Row, write_ledger
from gnnbench_reports.opening import read_study
from gnnbench_reports.operations import finding, operations


def step(period: int, name: str, kind: str, took: float, phase: str = "forward") -> Row:
    return Row(period, 0, name, kind, kind, "compute", phase, 1, 1, 0, 0, 0.0, took)


def study(fabricator: Any, measured: list[Row], predicted: list[Row], **notes: Any) -> Any:
    spec = fabricator.spec("cora", "gcn", "single", 1)
    fabricator.run(spec, ledgers=False)
    record = fabricator.prediction(spec, notes={"slowest_rank": 0, **notes})
    write_ledger(fabricator.results.run_folder(spec.run_id) / "ledger-rank0.csv", measured)
    write_ledger(fabricator.results.prediction_folder(record) / "ledger-rank0.csv", predicted)
    return read_study(fabricator.results)


def test_steps_are_paired_by_name_and_judged_by_kind(fabricator: Any) -> None:
    """Two products are 10 % and 30 % off, the gather twice too slow; warm-up is left out."""
    measured = [step(0, "f/1", "spmm", 9.0)]
    measured += [
        row
        for period in (1, 2)
        for row in (
            step(period, "f/1", "spmm", 0.010),
            step(period, "f/2", "spmm", 0.020),
            step(period, "g", "gather", 0.004),
            step(period, "e", "spmm", 7.0, "evaluate"),
        )
    ]
    predicted = [
        step(1, "f/1", "spmm", 0.011),
        step(1, "f/2", "spmm", 0.014),
        step(1, "g", "gather", 0.008),
    ]
    spmm, gather = operations(study(fabricator, measured, predicted))
    assert (spmm.kind, spmm.steps) == ("spmm", 2)
    assert spmm.median == pytest.approx(0.2) and spmm.bias == pytest.approx(0.9)
    assert spmm.share == pytest.approx(30 / 34)
    assert gather.median == pytest.approx(1.0) and gather.bias == pytest.approx(2.0)
    found = finding(read_study(fabricator.results))
    assert found is not None
    assert found.verdict == ("Median error of single operations: spmm 20 %, gather 100 %.",)


def test_a_step_of_many_batches_is_a_mean_over_them(fabricator: Any) -> None:
    measured = [step(1, "b", "gemm", took) for took in (0.001, 0.003)]
    (row,) = operations(study(fabricator, measured, [step(1, "b", "gemm", 0.002)]))
    assert row.median == pytest.approx(0.0)


def test_small_steps_and_steps_of_one_side_are_left_out(fabricator: Any) -> None:
    measured = [step(1, "a", "gemm", 5e-5), step(1, "b", "gemm", 0.1)]
    found = study(fabricator, measured, [step(1, "a", "gemm", 5e-5), step(1, "c", "gemm", 0.1)])
    assert operations(found) == [] and finding(found) is None
