"""Memory is a timeline of named buffers; the allocator rounds, splits and keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gnnbench.iterations import Iteration, RankClass
from gnnbench.steps import Buffer
from gnnbench_simulator.allocator import MIB, CachingAllocator, replay_allocator
from gnnbench_simulator.memory import predict_memory
from gnnbench_simulator.needs import needs_of


def test_requests_are_rounded_up_to_512_bytes() -> None:
    allocator = CachingAllocator()
    allocator.allocate("a", 1)
    assert (allocator.allocated, allocator.reserved) == (512, 2 * MIB)


def test_segments_are_2_mib_20_mib_or_the_request() -> None:
    sizes = {MIB: 2 * MIB, MIB + 1: 20 * MIB, 10 * MIB: 10 * MIB, 11 * MIB: 12 * MIB}
    for size, segment in sizes.items():
        allocator = CachingAllocator()
        allocator.allocate("a", size)
        assert allocator.reserved == segment


def test_a_freed_block_is_used_again() -> None:
    allocator = CachingAllocator()
    for _ in range(5):
        allocator.allocate("a", 15 * MIB)
        allocator.free("a")
    assert (allocator.allocated, allocator.reserved) == (0, 16 * MIB)


def test_freed_neighbours_merge_within_a_segment() -> None:
    allocator = CachingAllocator()
    for name in "abc":
        allocator.allocate(name, 6 * MIB)
    for name in "acb":
        allocator.free(name)
    allocator.allocate("whole", 19 * MIB)
    assert allocator.reserved == 20 * MIB


def test_blocks_of_two_segments_never_merge() -> None:
    allocator = CachingAllocator()
    for name in "ab":
        allocator.allocate(name, 12 * MIB)
    for name in "ab":
        allocator.free(name)
    allocator.allocate("wide", 24 * MIB)
    assert allocator.reserved == 48 * MIB


def test_a_growing_buffer_is_freed_before_the_larger_one_is_made() -> None:
    allocator = CachingAllocator()
    allocator.allocate("w", 12 * MIB)
    allocator.allocate("w", 14 * MIB)
    assert (allocator.allocated, allocator.peak_allocated) == (14 * MIB, 14 * MIB)
    # The old segment is kept, and given back before anything runs out.
    assert (allocator.reserved, allocator.peak_held) == (26 * MIB, 14 * MIB)


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from("abcdef"), st.integers(1, 30 * MIB)), max_size=60
    )
)
def test_sa_d3_the_ledger_of_bytes_never_goes_negative_and_returns_to_zero(
    events: list[tuple[bool, str, int]],
) -> None:
    allocator = CachingAllocator()
    for allocate, name, size in events:
        if allocate:
            allocator.allocate(name, size)
        else:
            allocator.free(name)
        assert 0 <= allocator.allocated <= allocator.reserved
    for name in "abcdef":
        allocator.free(name)
    assert allocator.allocated == 0
    free = sum(size for pool in allocator._free.values() for size, _ in pool)
    assert free == allocator.reserved


def test_a_plan_is_replayed_with_its_resident_buffers(kit: Any) -> None:
    step = kit.work("a", 1, allocates=(Buffer("x", 12 * MIB),), frees=("x",))
    plan = kit.plan((step,), periods=3, resident=(Buffer("params", 20 * MIB),))
    allocator = replay_allocator(plan, 0, periods=3)
    assert (allocator.allocated, allocator.reserved) == (20 * MIB, 32 * MIB)


def test_on_a_cpu_the_peak_is_baseline_and_living_buffers(kit: Any) -> None:
    steps = (
        kit.work("a", 1, allocates=(Buffer("x", 100),)),
        kit.work("b", 1, allocates=(Buffer("y", 50),), frees=("x",)),
        kit.work("c", 1, allocates=(Buffer("z", 30),), frees=("y", "z")),
    )
    entry = predict_memory(kit.plan(steps, resident=(Buffer("p", 7),)), kit.cluster())[0]
    assert (entry["baseline_bytes"], entry["workload_bytes"], entry["peak_bytes"]) == (
        100,
        157,
        257,
    )
    assert entry["fits"]


# -- baseline ------------------------------------------------------------------------------------


def test_the_baseline_is_that_of_the_approachs_code(kit: Any) -> None:
    """Its own, else its family's; what is not listed adds nothing."""
    cluster = kit.cluster()
    more = {"temporal": kit.constant(40.0), "edgebank": kit.constant(5.0)}
    device = replace(cluster.device, code_bytes=more)
    cluster = replace(cluster, device=device)
    plan = kit.plan((kit.work("a", 1, allocates=(Buffer("x", 7),)),))
    found = {}
    for name in ("partition", "continuous", "edgebank", "nobody-knows-it"):
        own = replace(plan, approach=name)
        (entry,) = predict_memory(own, cluster, caps={"device": 147})
        (under,) = predict_memory(own, cluster, caps={"device": 146})
        found[name] = entry["baseline_bytes"], entry["peak_bytes"], under["fits"]
        assert entry["fits"]
        assert sum(entry["categories"]["memory"].values()) == entry["judged_bytes"]
    assert found == {
        "partition": (100, 107, True),
        "continuous": (140, 147, False),
        "edgebank": (105, 112, True),
        "nobody-knows-it": (100, 107, True),
    }


# -- evaluation ----------------------------------------------------------------------------------


def _evaluated(kit: Any, held: int, evaluated: int) -> Any:
    """A plan that trains with `held` bytes, and evaluates with more."""
    steps = (kit.work("a", 1, allocates=(Buffer("x", held),)),)
    step = kit.work("e", 1, allocates=(Buffer("evaluated_x", evaluated),), frees=("evaluated_x",))
    return replace(kit.plan(steps, periods=2), evaluation=(Iteration([RankClass([0], [step])]),))


def test_the_phase_that_needs_more_is_judged(kit: Any) -> None:
    (entry,) = predict_memory(_evaluated(kit, 100, 50), kit.cluster())
    assert (entry["workload_bytes"], entry["judged_bytes"]) == (100, 100 + 150)
    assert entry["spaces"]["memory"]["phase"] == "evaluation"
    assert entry["evaluation_bytes"] == {"memory": 250}
    assert entry["buffers"]["memory"] == {"x": 100, "evaluated_x": 50}
    assert sum(entry["categories"]["memory"].values()) == entry["judged_bytes"]


def test_an_evaluation_that_is_not_asked_about_is_not_judged(kit: Any) -> None:
    (entry,) = predict_memory(_evaluated(kit, 100, 50), kit.cluster(), evaluates=False)
    assert entry["judged_bytes"] == 200
    assert entry["spaces"]["memory"]["phase"] == "training"
    assert entry["buffers"]["memory"] == {"x": 100}
    assert entry["evaluation_bytes"] == {"memory": 250}


def test_on_a_device_an_evaluation_needs_the_segments_in_which_something_lives(kit: Any) -> None:
    plan = _evaluated(kit, 12 * MIB, 30 * MIB)
    needs = needs_of(plan, gpu=True)
    assert needs.evaluation is not None
    assert needs.training.reserved == [12 * MIB]
    assert needs.evaluation.reserved == [42 * MIB]
    assert needs_of(plan, gpu=True, evaluates=False).evaluation is None
