"""Batches that calibration draws and prepares without training on them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from gnnbench.approaches.operations import needed
from gnnbench_runtime import kernels
from gnnbench_runtime.calibration.draws import sweep_draws
from gnnbench_runtime.calibration.mix import Mix
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.recorder import Recorder

pytestmark = pytest.mark.distributed
SAMPLERS = ["sampled", "labor", "ladies", "cluster-gcn", "graphsaint"]


def test_every_sampler_and_every_preparation_is_timed_at_several_sizes() -> None:
    mix, device = Mix(SAMPLERS), torch.device("cpu")
    runs = mix.draws(1)
    recorder = Recorder(device)
    comm, backend = Comm(recorder, device=device), kernels.backend(device, 1)
    contexts = [
        RankContext(
            run=run,
            rank=0,
            world_size=1,
            device=device,
            comm=comm,
            recorder=recorder,
            kernels=backend,
            cache=None,
        )
        for run in runs
    ]
    samples = sweep_draws(contexts, comm)
    counts = Counter(sample["op"] for sample in samples)
    asked = {op for op in mix.needed if op.startswith(("sample", "prepare"))}
    assert asked == set(counts) and {"sample_saint", "prepare_attention"} < asked
    assert counts["sample"] == 4 and counts["prepare_blocks"] + counts["prepare_weighted"] > 4
    assert all(sample["probes"] > 0 and sample["width"] >= 0 for sample in samples)
    assert len({sample["rows"] for sample in samples if sample["op"] == "sample"}) == 4


def test_large_graphs_come_in_turn_and_only_for_those_that_prepare_nothing() -> None:
    mix = Mix(SAMPLERS)
    usual, large = mix.draws(1, 2), mix.draws(1, 3)
    names = {run.approach for run in large}
    assert {"sampled", "labor"} <= names and not names & {"cluster-gcn", "graphsaint"}
    assert {"cluster-gcn", "graphsaint"} <= {run.approach for run in usual}
    assert len({run.dataset.name for run in [*usual, *large]}) == 2


def test_operations_of_ranks_that_only_sample_are_needed() -> None:
    assert needed(["sampled"])["merge_blocks"] == ["sampled"]
