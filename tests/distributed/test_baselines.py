"""What a rank holds before any data: measured by family, and right for other runs of the family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.approaches.names import APPROACHES, family_of
from gnnbench.results import Results
from gnnbench_runtime.calibration.baselines import (
    ELSEWHERE_BYTES,
    baseline_runs,
    context_constants,
    held_bytes,
    measure_baselines,
)
from gnnbench_runtime.session import run_all

pytestmark = pytest.mark.distributed


def test_every_family_has_a_run_on_few_ranks() -> None:
    runs = baseline_runs(["partition", "single", "sampled"], threads=3)
    assert {of: run.approach for of, run in runs.items()} == {
        "whole_graph": "partition",
        "mini_batch": "sampled",
    }
    assert {run.training.threads_per_rank for run in runs.values()} == {3}
    assert runs["mini_batch"].ranks == min(e.ranks for e in APPROACHES.get("sampled").examples())


def test_families_that_were_not_measured_are_as_far_as_elsewhere() -> None:
    context, more = context_constants({"mini_batch": 400e6}, ELSEWHERE_BYTES)
    assert set(more) == {family_of(name) for name in APPROACHES.names()}
    assert context.value == 400e6 - ELSEWHERE_BYTES["mini_batch"]
    for family, constant in more.items():
        assert constant.value == ELSEWHERE_BYTES[family]
        assert constant.status == "transferred"


def test_measured_families_are_as_they_were_measured() -> None:
    """Also where the least one is none of whole graphs."""
    measured = {"whole_graph": 410e6, "mini_batch": 400e6}
    context, more = context_constants(measured, ELSEWHERE_BYTES)
    assert (context.value, context.status) == (400e6, "measured")
    assert (more["whole_graph"].value, more["whole_graph"].status) == (10e6, "measured")
    assert more["temporal"].status == "transferred"
    assert all(constant.value >= 0 for constant in more.values())
    assert set(context_constants(measured, {})[1]) == set(measured)


@pytest.mark.parametrize(
    ("memory", "held"),
    [
        ({"baseline_bytes": 7, "peak_bytes": 9}, 7.0),
        ({"baseline_bytes": 7, "reserved_bytes": 20, "device_used_bytes": 500}, 480.0),
    ],
    ids=["cpu", "gpu"],
)
def test_a_gpu_holds_what_its_allocator_did_not_reserve(memory: dict[str, Any], held: float) -> None:
    assert held_bytes(memory) == held


@pytest.mark.slow
def test_baselines_hold_for_runs_of_their_families(tmp_path: Path) -> None:
    """Within 4 % of the baseline of another approach, on more ranks; streams load more code."""
    names = APPROACHES.names()
    found = measure_baselines(names, device="cpu", threads=1, progress=lambda word, share: None)
    assert set(found) == {family_of(name) for name in APPROACHES.names()}
    assert found["temporal"] > 1.05 * found["whole_graph"]
    others = [
        APPROACHES.get(name).examples()[place]
        for name, place in (("cagnet-1d", 0), ("sampled", 0), ("out-of-core", 0), ("tgl", 0))
    ]
    for record, _ in run_all(others, Results(tmp_path), [tmp_path], device="cpu"):
        assert record.status == "ok", record.reason
        for rank in record.memory:
            expected = found[family_of(record.run.approach)]
            assert rank["baseline_bytes"] == pytest.approx(expected, rel=0.04)
