"""The launcher on CUDA: NCCL ranks (practice mode where GPUs are few), events, allocator, NVML."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from gnnbench.data.formats import native
from gnnbench.data.generators import generate
from gnnbench.results import Results, RunRecord
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench_runtime.launch import launch

pytestmark = [pytest.mark.distributed, pytest.mark.gpu, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = generate(
        "planted_partition", num_nodes=500, mean_degree=8, num_classes=4, num_features=12
    )
    return native.save(made, tmp_path_factory.mktemp("gpu") / "graph")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return Results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def train(graph: Path, kept: Results) -> Callable[..., RunRecord]:
    """Return what trains a GCN in float64 and hands back the record; each run is done once."""
    from gnnbench.approaches.names import APPROACHES

    done: dict[tuple[str, int, str], RunRecord] = {}

    def run(approach: str, ranks: int, device: str = "cuda") -> RunRecord:
        key = (approach, ranks, device)
        if key not in done:
            knobs = APPROACHES.get(approach).parse_knobs({}, "knobs", [])
            spec = RunSpec(
                suite="gpu",
                dataset=DatasetRef(name="small", path=str(graph)),
                model=ModelSpec(name="gcn", hidden=16, dropout=0.5),
                training=TrainingSpec(epochs=5, precision="float64"),
                approach=approach,
                ranks=ranks,
                knobs=dataclasses.asdict(knobs),
            )
            done[key] = launch(spec, graph, kept, device=device)
        assert done[key].status == "ok", done[key].reason
        return done[key]

    return run


@pytest.mark.parametrize(("approach", "ranks"), [("single", 1), ("partition", 2)])
def test_losses_on_the_gpu_are_those_of_the_cpu(
    train: Callable[..., RunRecord], approach: str, ranks: int
) -> None:
    expected = [epoch["loss"] for epoch in train("single", 1, "cpu").periods]
    found = [epoch["loss"] for epoch in train(approach, ranks).periods]
    assert found == pytest.approx(expected, rel=1e-9)


def test_bytes_do_not_depend_on_the_backend(train: Callable[..., RunRecord]) -> None:
    by_nccl, by_gloo = train("partition", 2), train("partition", 2, "cpu")
    assert [e["bytes"] for e in by_nccl.periods] == [e["bytes"] for e in by_gloo.periods]
    assert (by_nccl.device["backend"], by_gloo.device["backend"]) == ("nccl", "gloo")


def test_sampled_training_runs_on_two_ranks(train: Callable[..., RunRecord]) -> None:
    losses = [epoch["loss"] for epoch in train("sampled", 2).periods]
    assert losses[-1] < losses[0]


def test_ranks_that_share_a_gpu_are_marked_as_practice(train: Callable[..., RunRecord]) -> None:
    record = train("partition", 2)
    assert record.device["practice"] == (torch.cuda.device_count() < 2)
    if record.device["practice"]:
        assert "nothing" in record.device["note"]


def test_memory_comes_from_the_allocator_and_the_device(train: Callable[..., RunRecord]) -> None:
    (memory,) = train("single", 1).memory
    assert memory["source"] == "allocator"
    assert memory["peak_bytes"] > memory["baseline_bytes"]
    assert memory["reserved_bytes"] >= memory["peak_bytes"]


def test_steps_timed_by_events_lie_one_after_another_within_their_epoch(
    train: Callable[..., RunRecord], kept: Results
) -> None:
    record = train("single", 1)
    rows = [r for r in kept.measured_ledger(record.run_id)[0] if r.phase != "evaluate"]
    slack_s = 5e-6  # events resolve half a microsecond
    for epoch in record.periods:
        steps = [row for row in rows if row.period == epoch["period"] and row.lane == "compute"]
        assert all(row.duration_s > 0 for row in steps)
        for earlier, later in pairwise(steps):
            assert earlier.start_s + earlier.duration_s <= later.start_s + slack_s
        assert sum(row.duration_s for row in steps) <= epoch["seconds"] + slack_s


def test_the_record_says_which_cuda_and_nccl_it_was(train: Callable[..., RunRecord]) -> None:
    record = train("single", 1)
    assert record.device["kind"] == "cuda"
    assert {"cuda", "nccl"} <= record.versions.keys()
