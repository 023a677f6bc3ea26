"""What a rank holds before any data: measured by approach, and right for its other runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.approaches.names import APPROACHES, family_of
from gnnbench.results import Results
from gnnbench_runtime.calibration.baselines import (
    ELSEWHERE_BYTES,
    baseline_run,
    context_constants,
    held_bytes,
    measure_baselines,
)
from gnnbench_runtime.session import run_all

pytestmark = pytest.mark.distributed


def test_a_baseline_is_read_from_an_example_on_few_ranks() -> None:
    run = baseline_run("sampled", threads=3)
    assert run.ranks == min(example.ranks for example in APPROACHES.get("sampled").examples())
    assert (run.training.threads_per_rank, run.training.precision) == (3, "float32")


def test_families_that_were_not_measured_are_as_far_as_elsewhere() -> None:
    context, more = context_constants({"sampled": 400e6}, ELSEWHERE_BYTES)
    assert set(more) == {"sampled"} | {family_of(name) for name in APPROACHES.names()}
    assert context.value == 400e6 - ELSEWHERE_BYTES["mini_batch"]
    for family, size in ELSEWHERE_BYTES.items():
        assert more[family].value == size
        assert more[family].status == ("measured" if family == "mini_batch" else "transferred")
    assert set(context_constants({"sampled": 400e6}, {})[1]) == {"sampled", "mini_batch"}


def test_a_family_is_as_the_median_of_its_approaches() -> None:
    """The least one may be of any family."""
    sizes = {"edgebank": 370e6, "tgl": 420e6, "continuous": 430e6, "single": 380e6}
    context, more = context_constants(sizes, ELSEWHERE_BYTES)
    assert (context.value, context.status) == (370e6, "measured")
    assert {name: more[name].value for name in sizes} == {
        name: size - 370e6 for name, size in sizes.items()
    }
    assert (more["temporal"].value, more["temporal"].status) == (50e6, "measured")
    assert all(constant.value >= 0 for constant in more.values())


@pytest.mark.parametrize(
    ("memory", "held"),
    [
        ({"baseline_bytes": 7, "peak_bytes": 9}, 7.0),
        ({"baseline_bytes": 7, "reserved_bytes": 20, "device_used_bytes": 500}, 480.0),
    ],
    ids=["cpu", "gpu"],
)
def test_a_gpu_holds_what_its_allocator_did_not_reserve(
    memory: dict[str, Any], held: float
) -> None:
    assert held_bytes(memory) == held


@pytest.mark.slow
def test_baselines_hold_for_other_runs_of_an_approach(tmp_path: Path) -> None:
    """Within 3 %, with another model, in float64 and on two ranks; streams load more code."""
    names = ["continuous", "edgebank", "partition"]
    found = measure_baselines(names, device="cpu", threads=1, progress=lambda word, share: None)
    assert found["continuous"] > 1.08 * found["partition"]
    for name, place in zip(names, (4, 0, 1), strict=True):
        other = APPROACHES.get(name).examples()[place]
        assert other.training.precision == "float64"
        # As in a calibration: the first run may hold the compiler.
        runs = [replace(other, repeat=repeat) for repeat in range(2)]
        held = []
        for record, _ in run_all(runs, Results(tmp_path), [tmp_path], device="cpu"):
            assert record.status == "ok", record.reason
            held.append(max(rank["baseline_bytes"] for rank in record.memory))
        assert min(held) == pytest.approx(found[name], rel=0.03)
