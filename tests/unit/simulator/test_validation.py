"""Validation: each configuration is predicted once, and every row is compared or has a reason."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "published"))

from published_cases import row

from gnnbench.errors import SpecError
from gnnbench.published.systems import Case, case_of
from gnnbench_simulator.predict import Prediction
from gnnbench_simulator.validation import chosen, compare_rows, predict_case

PIPE = "PipeGCN"


def test_repeats_are_predicted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def counting(case: Case) -> Any:
        asked.append(case)
        return predict_case(case)

    monkeypatch.setattr("gnnbench_simulator.validation.predict_case", counting)
    found = compare_rows([row(), row(value=0.03), row(metric="grad_allreduce_time", value=0.01)])
    assert len(asked) == 1
    assert found[0].predicted == found[1].predicted
    assert found[0].error != found[1].error


def test_rows_keep_their_order_and_each_is_announced() -> None:
    rows = [row(row_id=f"made:{n}", **given) for n, given in enumerate(({}, {"dataset": "none"}))]
    done: list[str] = []
    found = compare_rows(rows, done.append)
    assert [c.row.row_id for c in found] == done == ["made:0", "made:1"]
    assert found[0].reason is None
    assert str(found[1].reason) == "graph without a profile: none"


def test_pipelining_hides_the_exchange_that_the_synchronous_code_shows() -> None:
    settings = {"dataset": "ogbn-products", "layers": "5"}
    vanilla, pipe = compare_rows([row(**settings), row(system=PIPE, **settings)])
    assert vanilla.predicted is not None
    assert pipe.predicted is not None
    assert pipe.predicted < vanilla.predicted


def test_the_interval_of_a_time_holds_its_prediction_and_memory_has_none() -> None:
    time, memory = compare_rows([row(), row(metric="peak_gpu_memory", unit="MB", value=700.0)])
    assert time.predicted is not None and time.low is not None and time.high is not None
    assert time.low < time.predicted < time.high
    assert memory.predicted is not None
    assert (memory.low, memory.high) == (None, None)
    assert memory.predicted > 2**20


def test_more_hosts_than_the_cluster_has_are_a_reason() -> None:
    (found,) = compare_rows([row(gpus="65", notes="65 hosts x 1 GPUs")])
    assert found.reason is not None
    assert "65 ranks need 65 hosts" in str(found.reason)


def test_normalised_layers_need_more_memory() -> None:
    def peak(notes: str) -> float:
        case = case_of(row(notes=notes))
        assert isinstance(case, Case)
        found = predict_case(case)
        assert isinstance(found, Prediction)
        return float(found.memory[0]["peak_bytes"])

    assert peak("") > peak("norm none")


def test_a_time_that_the_stated_link_cannot_have_carried_is_pointed_out() -> None:
    """Twelve ranks on three hosts of 1 Gb/s: gigabytes of halo do not fit into a second."""
    study = {"source": "Bajaj et al. 2025", "dataset": "ogbn-papers100m"}
    setting = {**study, "layers": "2", "hidden": "512", "gpus": "12"}
    (fast,) = compare_rows([row(system=PIPE, value=1.03, **setting)])
    assert "below" in fast.note
    assert fast.scored
    (slow,) = compare_rows([row(system=PIPE, value=1e4, **setting)])
    assert "below" not in slow.note


def test_a_prediction_that_exceeds_the_devices_memory_says_by_how_much() -> None:
    given = {"dataset": "ogbn-products", "model": "GAT", "hidden": "1024", "gpus": "1"}
    (found,) = compare_rows([row(**given)])
    assert found.predicted is not None
    assert "GB of device memory, of 24 GB" in found.note


def test_hardware_that_a_row_only_likens_is_noted() -> None:
    (found,) = compare_rows([row(hardware="GPU model not stated (p3.8xlarge-like)")])
    assert "hardware not stated: predicted on v100x4-gloo" in found.note


def test_rows_are_chosen_by_any_of_their_names_whatever_the_case() -> None:
    rows = [row(), row(system=PIPE), row(dataset="Reddit")]
    assert chosen(rows, "pipe*") == [rows[1]]
    assert chosen(rows, "reddit") == [rows[2]]
    assert chosen(rows, "EPOCH_TIME") == rows
    with pytest.raises(SpecError, match="'nothing' matches none of 3 rows"):
        chosen(rows, "nothing")
