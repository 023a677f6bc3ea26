"""Plans as data: what fits together, what is sent, what lives in memory at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.errors import SpecError
from gnnbench.iterations import Iteration
from gnnbench.plan import Plan
from gnnbench.steps import COMMUNICATION, After, Kind, Lane, Phase, Step
from gnnbench.work import all_reduce_bytes


def work(name: str, **fields: Any) -> Step:
    defaults = {"kind": Kind.GEMM, "op": "gemm_nn", "lane": Lane.COMPUTE, "phase": Phase.FORWARD}
    return Step(name=name, **{**defaults, **fields})


def collective(name: str, group: tuple[int, ...] = (0, 1), **fields: Any) -> Step:
    defaults = {"kind": Kind.ALL_REDUCE, "op": "all_reduce", "lane": Lane.COMM, "bytes": 8}
    return work(name, **{**defaults, "phase": Phase.SYNC, "group": group, **fields})


def plan_of(*iterations: Iteration, **fields: Any) -> Plan:
    defaults = {
        "approach": "test",
        "world_size": len(iterations[0]),
        "schedule": tuple(range(len(iterations))),
        "iterations_per_epoch": 1,
    }
    return Plan(iterations=iterations, **{**defaults, **fields})


def problems_of(plan: Plan) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        plan.validate()
    return caught.value.problems


# What fits together


def test_ranks_that_agree_make_a_valid_plan() -> None:
    steps = (work("a"), collective("c", after=(After("a"),)))
    plan_of((steps, steps)).validate()


def test_a_name_twice_in_an_iteration_is_a_problem() -> None:
    (problem,) = problems_of(plan_of(((work("a"), work("a")),)))
    assert problem == "test iteration 0 rank 0: two steps named 'a'"


@pytest.mark.parametrize("waits_for", ["b", "nothing"])
def test_waiting_for_what_has_not_come_yet_is_a_problem(waits_for: str) -> None:
    (problem,) = problems_of(plan_of(((work("a", after=(After(waits_for),)), work("b")),)))
    assert f"waits for {waits_for!r}, which is not an earlier step" in problem


def test_a_lagged_wait_may_name_a_step_of_another_iteration() -> None:
    first, second = ((work("a", after=(After("b", lag=1),)),),), ((work("b"),),)
    plan_of(first, second).validate()


def test_a_lagged_wait_for_a_step_of_no_iteration_is_a_problem() -> None:
    (problem,) = problems_of(plan_of(((work("a", after=(After("b", lag=1),)),),)))
    assert "waits for unknown 'b'" in problem


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ((), "against []"),
        ((collective("c", kind=Kind.ALL_TO_ALL),), "all_to_all"),
        ((collective("c", layer=2),), "('all_reduce', 2)"),
        ((collective("c"), collective("d")), "('all_reduce', -1), ('all_reduce', -1)"),
    ],
)
def test_ranks_that_disagree_on_their_collectives_are_a_problem(
    other: tuple[Step, ...], difference: str
) -> None:
    (problem,) = problems_of(plan_of(((collective("c"),), other)))
    assert "ranks 0 and 1 disagree on the collectives of group (0, 1)" in problem
    assert difference in problem


def test_groups_are_matched_apart_from_one_another() -> None:
    left, right = collective("c", (0, 1)), collective("d", (1, 2))
    plan_of(((left,), (right, left), (right,))).validate()
    # The same steps, with rank 1 in the other order of its two groups: still each group agrees.
    plan_of(((left,), (left, right), (right,))).validate()


@pytest.mark.parametrize("group", [(1, 2), ()])
def test_a_collective_of_a_group_without_the_rank_is_a_problem(group: tuple[int, ...]) -> None:
    plan = plan_of(((collective("c", group),), (), ()))
    assert any("rank 0: 'c' is of a foreign group" in line for line in problems_of(plan))


def test_every_problem_is_told_at_once() -> None:
    steps = (work("a"), work("a"), work("b", after=(After("z"),)))
    assert len(problems_of(plan_of((steps,), schedule=(0, 3), iterations_per_epoch=3))) == 4


def test_too_few_ranks_are_a_problem() -> None:
    (problem,) = problems_of(plan_of(((work("a"),),), world_size=2))
    assert problem == "test iteration 0: steps for 1 ranks in a plan of 2"


def test_a_schedule_names_iterations_that_are_there_and_whole_epochs() -> None:
    iteration = ((work("a"),),)
    plan_of(iteration, schedule=(0, 0, 0, 0), iterations_per_epoch=2).validate()
    (problem,) = problems_of(plan_of(iteration, schedule=(0, 0, 0), iterations_per_epoch=2))
    assert problem == "test: schedule of 3 is not a whole number of epochs of 2"
    (problem,) = problems_of(plan_of(iteration, schedule=(0, 1)))
    assert problem == "test: schedule names iteration 1 of 1"


# Epochs and bytes


def test_an_epoch_is_its_slice_of_the_schedule() -> None:
    a, b, c = (((work(name),),) for name in "abc")
    plan = plan_of(a, b, c, schedule=(0, 1, 2, 1), iterations_per_epoch=2)
    assert plan.num_epochs == 2
    assert [it[0][0].name for it in plan.epoch(0)] == ["a", "b"]
    assert [it[0][0].name for it in plan.epoch(1)] == ["c", "b"]


def test_sent_bytes_sum_ranks_and_iterations_by_kind_and_phase() -> None:
    halo = collective("h", kind=Kind.ALL_TO_ALL, phase=Phase.FORWARD, bytes=5)
    first = ((halo, collective("c", bytes=3)), (halo, collective("c", bytes=4)))
    second = ((work("a", bytes=1000), collective("c", bytes=1)), (collective("c", bytes=1),))
    plan = plan_of(first, second, schedule=(0, 1, 0, 1), iterations_per_epoch=2)
    assert plan.sent_bytes() == {("all_to_all", "forward"): 10, ("all_reduce", "sync"): 9}


def test_a_repeated_iteration_counts_as_often_as_the_epoch_has_it() -> None:
    first, second = ((collective("c", bytes=3), work("a")),), ((collective("c", bytes=1),),)
    plan = plan_of(first, second, schedule=(1, 0, 0, 1, 1, 1), iterations_per_epoch=3)
    assert [plan.iteration_counts(epoch) for epoch in (0, 1)] == [{1: 1, 0: 2}, {1: 3}]
    assert [plan.num_steps(epoch) for epoch in (0, 1)] == [5, 3]
    assert [plan.sent_bytes(epoch) for epoch in (0, 1)] == [
        {("all_reduce", "sync"): 7},
        {("all_reduce", "sync"): 3},
    ]


def test_repeats_that_free_nothing_allocate_once_and_others_each_time() -> None:
    grows, frees = work("g", allocates=(("a", 5),)), work("f", frees=("a",))
    keeps = plan_of(((grows, work("w")),), schedule=(0, 0, 0), iterations_per_epoch=3)
    gives = plan_of(((grows, frees),), schedule=(0, 0), iterations_per_epoch=2)
    assert list(keeps.allocations(0)) == [grows]
    assert list(gives.allocations(0)) == [grows, frees, grows, frees]
    assert [plan.memory_peak_bytes(0) for plan in (keeps, gives)] == [5, 5]


def test_local_work_sends_nothing() -> None:
    kinds = [kind for kind in Kind if kind not in COMMUNICATION]
    steps = tuple(work(kind.value, kind=kind, bytes=7) for kind in kinds)
    assert plan_of((steps,)).sent_bytes() == {}


@settings(deadline=None)
@given(buffer=st.integers(0, 10**12), world=st.integers(1, 4096))
def test_a_ring_all_reduce_sends_less_than_twice_the_buffer(buffer: int, world: int) -> None:
    sent = all_reduce_bytes(buffer, world)
    assert sent * world <= 2 * (world - 1) * buffer < (sent + 1) * world
    assert sent <= 2 * buffer


def test_a_ring_of_one_sends_nothing() -> None:
    assert all_reduce_bytes(1 << 40, 1) == 0
    assert all_reduce_bytes(100, 2) == 100
    assert all_reduce_bytes(10, 3) == 13  # 2 * 2 * 10 / 3, rounded down


# Memory


def peak(*steps: Step, **fields: Any) -> int:
    return plan_of((steps,), **fields).memory_peak_bytes(0)


def test_living_buffers_add_up_and_freed_ones_do_not() -> None:
    a, b = work("a", allocates=(("x", 10),)), work("b", allocates=(("y", 5),))
    assert peak(a, b) == 15
    assert peak(a, work("f", frees=("x",)), b) == 10


def test_a_buffer_is_freed_after_its_step_and_not_before() -> None:
    assert (
        peak(work("a", allocates=(("x", 10),)), work("b", allocates=(("y", 5),), frees=("x",)))
        == 15
    )


def test_allocating_a_living_name_grows_it_and_never_shrinks_it() -> None:
    small, large = work("a", allocates=(("x", 4),)), work("b", allocates=(("x", 9),))
    other = work("c", allocates=(("y", 1),))
    assert peak(small, large) == 9
    assert peak(large, small, other) == 10


def test_a_workspace_lives_on_into_the_next_iteration() -> None:
    first, second = ((work("a", allocates=(("x", 9),)),),), ((work("b", allocates=(("y", 1),)),),)
    plan = plan_of(first, second)
    assert plan.memory_peak_bytes(0) == 10
    assert plan.memory_peak_bytes(0, epochs=1) == 9


def test_resident_buffers_are_there_from_the_start_and_can_be_grown_and_freed() -> None:
    resident = ({"graph": 100, "x": 10},)
    assert peak(work("a"), resident=resident) == 110
    assert peak(work("a", allocates=(("x", 30),)), resident=resident) == 130
    freed = (work("f", frees=("graph",)), work("a", allocates=(("y", 90),)))
    assert peak(*freed, resident=resident) == 110


def test_freeing_what_does_not_live_changes_nothing() -> None:
    assert peak(work("f", frees=("ghost",)), work("a", allocates=(("x", 3),))) == 3


def test_each_rank_has_its_own_peak() -> None:
    plan = plan_of(((work("a", allocates=(("x", 7),)),), (work("a"),)))
    assert [plan.memory_peak_bytes(rank) for rank in (0, 1)] == [7, 0]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 100), st.booleans())))
def test_the_peak_lies_between_the_largest_buffer_and_their_sum(
    events: list[tuple[str, int, bool]],
) -> None:
    steps = tuple(
        work(str(i), allocates=((name, size),), frees=(name,) if free else ())
        for i, (name, size, free) in enumerate(events)
    )
    most = {name: max((s for n, s, _ in events if n == name), default=0) for name in "xyz"}
    assert max(most.values()) <= peak(*steps) <= sum(most.values())


# One program under several names


def test_plans_of_the_same_steps_are_one_program_whatever_names_they_have() -> None:
    plan = plan_of(((work("a", rows=3), work("b", rows=4)),))
    named = plan_of(((work("x", rows=3), work("y", rows=4)),), approach="other")
    assert plan.program_key() == named.program_key() != ""


@pytest.mark.parametrize("change", [{"rows": 5}, {"lane": Lane.HOST}, {"op": "gemm_tn"}])
def test_plans_of_other_steps_are_other_programs(change: dict[str, Any]) -> None:
    plan, other = plan_of(((work("a", rows=3),),)), plan_of(((work("a", **{"rows": 3} | change),),))
    assert plan.program_key() != other.program_key()


def test_plans_of_very_many_steps_have_no_key() -> None:
    assert plan_of(((work("a"), work("b")),)).program_key(most_steps=1) == ""
