"""Plans as data: what fits together, what moves, what lives at once, what is one program."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench import work
from gnnbench.disk_limit import DiskLimit
from gnnbench.errors import SpecError
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan, repeated
from gnnbench.steps import COUNTED, LATEST, After, Buffer, Kind, Lane, Phase, Space, Step, Work

Programs = Sequence[Sequence[Step]]


def local(name: str, rows: int = 1, **place: Any) -> Step:
    return Step(name=name, work=work.host("act", rows=rows), **{"phase": Phase.FORWARD, **place})


def reduce(name: str, group: tuple[int, ...] = (0, 1), size: int = 8, **place: Any) -> Step:
    done = Work(kind=Kind.ALL_REDUCE, op="all_reduce", bytes=size)
    where = {"lane": Lane.COMM, "phase": Phase.SYNC, "group": group}
    return Step(name=name, **{"work": done, **where, **place})


def plan_of(*iterations: Programs, **fields: Any) -> Plan:
    """A plan whose iterations run once each, each a period of its own, unless told otherwise."""
    made = [Iteration.of_ranks(programs) for programs in iterations]
    schedule = fields.get("schedule", tuple(range(len(made))))
    defaults = {"approach": "test", "world_size": len(iterations[0]), "schedule": schedule}
    return Plan(iterations=made, **{**defaults, "periods": (1,) * len(schedule), **fields})


def problems_of(plan: Plan) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        plan.validate()
    return caught.value.problems


# What fits together


def test_ranks_that_agree_make_a_valid_plan() -> None:
    steps = (local("a"), reduce("c", after=(After("a"),)))
    plan_of((steps, steps)).validate()


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ((local("a"), local("a")), "test iteration 0 rank 0: two steps named 'a'"),
        ((local("a", after=(After("b"),)), local("b")), "'b', which is not an earlier step"),
        ((local("a", after=(After("z"),)),), "'z', which is not an earlier step"),
        ((local("a", after=(After("z", LATEST),)),), "the latest 'z', which no iteration has"),
        ((local("a", after=(After("a", -2),)),), "'a' waits with lag -2"),
    ],
)
def test_a_step_has_its_own_name_and_waits_for_what_there_is(
    steps: tuple[Step, ...], problem: str
) -> None:
    (line,) = problems_of(plan_of((steps,)))
    assert problem in line


def test_a_lagged_wait_is_for_the_iteration_that_runs_so_much_earlier() -> None:
    first, second = ((local("b"),),), ((local("a", after=(After("b", lag=1),)),),)
    plan_of(first, second).validate()
    plan_of(second, first).validate()  # in the first iteration there is nothing to wait for
    (problem,) = problems_of(plan_of(first, second, schedule=(0, 1, 1)))
    assert "'a' waits for 'b', which is not in the iteration 1 before" in problem


def test_a_wait_for_the_latest_occurrence_takes_any_earlier_iteration() -> None:
    first, other = ((local("b"),),), ((local("c"),),)
    last = ((local("a", after=(After("b", LATEST),)),),)
    plan_of(first, other, other, last).validate()


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ((), "against []"),
        ((reduce("c", work=Work(kind=Kind.ALL_TO_ALL, op="x")),), "all_to_all"),
        ((reduce("c", layer=2),), "('all_reduce', 2)"),
        ((reduce("c"), reduce("d")), "('all_reduce', -1), ('all_reduce', -1)"),
    ],
)
def test_ranks_that_disagree_on_their_collectives_are_a_problem(
    other: tuple[Step, ...], difference: str
) -> None:
    (problem,) = problems_of(plan_of(((reduce("c"),), other)))
    assert "ranks 0 and 1 disagree on the collectives of group (0, 1)" in problem
    assert difference in problem


def test_groups_are_matched_apart_from_one_another() -> None:
    left, right = reduce("c", (0, 1)), reduce("d", (1, 2))
    plan_of(((left,), (right, left), (right,))).validate()
    # The same steps, with rank 1 in the other order of its two groups: still each group agrees.
    plan_of(((left,), (left, right), (right,))).validate()


def test_a_collective_of_a_group_without_the_rank_is_a_problem() -> None:
    lines = problems_of(plan_of(((reduce("c", (1, 2)),), (), ())))
    assert any("rank 0: 'c' is of a foreign group (1, 2)" in line for line in lines)


def test_every_problem_is_told_at_once() -> None:
    steps = (local("a"), local("a"), local("b", after=(After("z"),)))
    assert len(problems_of(plan_of((steps,), schedule=(0, 3), periods=(3,)))) == 4


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"world_size": 2}, "test iteration 0: steps for 1 ranks in a plan of 2"),
        (
            {"schedule": (0, 0, 0), "periods": (2, 2)},
            "test: a schedule of 3 iterations, but periods of 4",
        ),
        ({"schedule": (0, 1)}, "test: the schedule names iteration 1 of 1"),
        ({"releases": (0.0, 1.0)}, "test: 2 release times for 1 scheduled iterations"),
    ],
)
def test_ranks_schedule_periods_and_releases_fit(fields: dict[str, Any], problem: str) -> None:
    assert problems_of(plan_of(((local("a"),),), **fields)) == (problem,)


# Periods and bytes


def test_a_period_is_its_slice_of_the_schedule_and_may_have_any_length() -> None:
    a, b, c = (((local(name),),) for name in "abc")
    plan = plan_of(a, b, c, schedule=(0, 1, 2, 1), periods=(1, 3))
    assert plan.num_periods == 2
    found = [[iteration[0][0].name for iteration in plan.of_period(n)] for n in (0, 1)]
    assert found == [["a"], ["b", "c", "b"]]


def test_moved_bytes_count_what_is_sent_copied_read_and_written_and_nothing_else() -> None:
    every = [Step(name=k, work=Work(kind=k, op="x", bytes=7), phase=Phase.LOAD) for k in Kind]
    moved = plan_of((every,)).moved_bytes()
    assert moved == {(kind.value, "load"): 7 for kind in COUNTED}


def test_a_repeated_iteration_counts_as_often_as_the_period_has_it() -> None:
    first = ((reduce("c", size=3), local("a")), (reduce("c", size=4), local("a")))
    second = ((reduce("c", size=1),), (reduce("c", size=1),))
    plan = plan_of(first, second, schedule=(1, 0, 0, 1, 1, 1), periods=(3, 3))
    assert [plan.iteration_counts(period) for period in (0, 1)] == [{1: 1, 0: 2}, {1: 3}]
    assert [plan.num_steps(period) for period in (0, 1)] == [10, 6]
    moved = [plan.moved_bytes(period)["all_reduce", "sync"] for period in (0, 1)]
    assert moved == [2 * 7 + 2, 6]


# Classes of ranks, lazy iterations


def test_ranks_of_the_same_steps_are_one_class_and_come_back_as_they_were() -> None:
    programs = [
        (local("a", rows=rank, allocates=(Buffer("x", 10 * rank),)), reduce("c", (0, 1, 2, 3)))
        for rank in range(3)
    ]
    other = (reduce("c", (0, 1, 2, 3)),)
    made = Iteration.of_ranks([*programs, other])
    assert [len(of) for of in made.classes] == [3, 1]
    again = Iteration(made.classes)  # from the classes alone
    assert [again[rank] for rank in range(4)] == [*programs, other]
    assert again.num_steps() == 7
    with pytest.raises(IndexError, match="rank 4 of 4"):
        again[4]


def test_ranks_of_different_groups_share_a_class_if_they_meet_alike() -> None:
    pairs = [(0, 1), (0, 1), (2, 3), (2, 3)]
    made = Iteration.of_ranks([(reduce("c", pair),) for pair in pairs])
    assert len(made.classes) == 1
    assert [Iteration(made.classes)[rank][0].group for rank in range(4)] == pairs


def test_lazy_iterations_are_made_when_asked_for_and_few_are_kept() -> None:
    made: list[int] = []

    def make(number: int) -> Iteration:
        made.append(number)
        return Iteration.of_ranks([(local("a", rows=number),)])

    lazy = LazyIterations(10_000, make, keep=2)
    assert (len(lazy), made) == (10_000, [])
    assert [lazy[n][0][0].work.rows for n in (3, 3, -1)] == [3, 3, 9999]
    assert made == [3, 9999]
    assert [it[0][0].work.rows for it in lazy[4:6]] == [4, 5]
    assert lazy[3] is not None and made == [3, 9999, 4, 5, 3]  # it was dropped
    with pytest.raises(IndexError, match="iteration 10000 of 10000"):
        lazy[10_000]


def test_a_thousand_differing_iterations_are_checked_once_and_cost_less_than_a_ms_each() -> None:
    ranks, count = 64, 1000
    group = tuple(range(ranks))

    def make(number: int) -> Iteration:
        sizes = np.arange(ranks) + number
        steps = [local(f"s{n}", rows=sizes) for n in range(20)]
        return Iteration([RankClass(range(ranks), [*steps, reduce("c", group)])])

    plan = Plan(
        approach="test",
        world_size=ranks,
        iterations=LazyIterations(count, make),
        schedule=range(count),
        periods=(count,),
    )
    start = time.process_time()
    plan.validate()
    assert len(plan.layouts[1]) == 1
    assert (time.process_time() - start) / count < 1e-3


# Memory


def peak(*steps: Step, **fields: Any) -> int:
    return int(plan_of((steps,), **fields).peak_bytes()[0])


def holds(name: str, size: int, **place: Any) -> Step:
    """A step that allocates a buffer of its first letter."""
    return local(name, allocates=(Buffer(name[0], size),), **place)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((holds("x", 10), holds("y", 5)), 15),
        ((holds("x", 10), local("f", frees=("x",)), holds("y", 5)), 10),
        ((holds("x", 10), holds("y", 5, frees=("x",))), 15),  # freed after the step, not before
        ((holds("x", 4), holds("x2", 9)), 9),  # a living name grows
        ((holds("x", 9), holds("x2", 4), holds("y", 1)), 10),  # and does not shrink
        ((local("f", frees=("ghost",)), holds("x", 3)), 3),
    ],
)
def test_the_peak_is_the_most_that_lives_at_once(steps: tuple[Step, ...], expected: int) -> None:
    assert peak(*steps) == expected


def test_a_store_can_shrink_where_its_size_is_exact() -> None:
    sizes = [Buffer("store", 9, exact=True), Buffer("store", 4, exact=True)]
    steps = [local(str(n), allocates=(buffer,)) for n, buffer in enumerate(sizes)]
    assert peak(*steps, holds("y", 2)) == 9


def test_a_workspace_lives_on_into_the_next_iteration() -> None:
    plan = plan_of(((holds("x", 9),),), ((holds("y", 1),),))
    assert plan.peak_bytes().tolist() == [10]
    assert plan.peak_bytes(periods=1).tolist() == [9]


def test_resident_buffers_are_there_from_the_start_and_can_be_grown_and_freed() -> None:
    resident = (Buffer("graph", 100), Buffer("x", 10))
    assert peak(local("a"), resident=resident) == 110
    assert peak(holds("x", 30), resident=resident) == 130
    assert peak(local("f", frees=("graph",)), holds("y", 90), resident=resident) == 110


_work = st.builds(
    lambda size, exact, frees: (size, exact, frees),
    size=st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9), max_size=2),
    exact=st.booleans(),
    frees=st.sets(st.sampled_from("xyz"), max_size=2),
)


@given(
    content=st.lists(st.lists(_work, min_size=1, max_size=2), min_size=3, max_size=3),
    schedule=st.lists(st.integers(0, 2), min_size=1, max_size=40),
)
def test_turns_of_a_cycle_that_are_left_out_change_no_peak(
    content: list[list[tuple[dict[str, int], bool, set[str]]]], schedule: list[int]
) -> None:
    """Against following every iteration of the schedule."""
    iterations = [
        [
            tuple(
                local(
                    f"s{number}",
                    allocates=tuple(Buffer(n, size, exact=exact) for n, size in sizes.items()),
                    frees=tuple(sorted(frees)),
                )
                for number, (sizes, exact, frees) in enumerate(steps)
            )
        ]
        for steps in content
    ]
    live: dict[str, int] = {}
    most = 0
    for index in schedule:
        for sizes, exact, frees in content[index]:
            live |= {n: s if exact else max(s, live.get(n, 0)) for n, s in sizes.items()}
            most = max(most, sum(live.values()))
            live = {name: size for name, size in live.items() if name not in frees}
    plan = plan_of(*iterations, schedule=tuple(schedule))
    assert plan.peak_bytes().tolist() == [most]


def test_each_rank_and_each_space_has_its_own_peak() -> None:
    disk = local("w", allocates=(Buffer("file", 500, Space.DISK),))
    plan = plan_of(((holds("x", 7), disk), (local("x"), local("w"))), resident=(Buffer("r", 1),))
    assert plan.spaces() == (Space.DEVICE, Space.DISK)
    assert plan.peak_bytes().tolist() == [8, 1]
    assert plan.peak_bytes(Space.DISK).tolist() == [500, 0]
    assert plan.peak_bytes(*plan.spaces()).tolist() == [508, 1]


def test_repeats_that_free_nothing_allocate_once_and_others_twice() -> None:
    grows, frees = holds("a", 5), local("f", frees=("a",))
    for steps, seen in (((grows, local("w")), [grows]), ((grows, frees), [grows, frees] * 2)):
        plan = plan_of((steps,), schedule=(0, 0, 0), periods=(3,))
        assert [step for _, step in plan.allocations()] == seen
        assert plan.peak_bytes().tolist() == [5]


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 100), st.booleans())))
def test_the_peak_lies_between_the_largest_buffer_and_their_sum(
    events: list[tuple[str, int, bool]],
) -> None:
    steps = [
        local(str(i), allocates=(Buffer(name, size),), frees=(name,) if free else ())
        for i, (name, size, free) in enumerate(events)
    ]
    most = {name: max((s for n, s, _ in events if n == name), default=0) for name in "xyz"}
    assert max(most.values()) <= peak(*steps) <= sum(most.values())


# One program under several names


def test_plans_of_the_same_steps_are_one_program_whatever_names_they_have() -> None:
    plan = plan_of(((local("a", rows=3), local("b", rows=4)),))
    named = plan_of(((local("x", rows=3), local("y", rows=4)),), approach="other")
    assert plan.program_key() == named.program_key() != ""
    assert plan.program_key(most_steps=1) == ""  # very many steps have no key


@pytest.mark.parametrize("change", [{"rows": 5}, {"lane": Lane.HOST}, {"phase": Phase.LOAD}])
def test_plans_of_other_steps_are_other_programs(change: dict[str, Any]) -> None:
    plan, other = plan_of(((local("a"),),)), plan_of(((local("a", **change),),))
    assert plan.program_key() != other.program_key()


def test_increments_that_differ_later_are_other_programs() -> None:
    first, second, third = (local(name, rows=rows) for name, rows in (("a", 3), ("b", 4), ("c", 5)))

    def learnt(*steps: Step, period: str = "increment") -> Plan:
        iterations = [((step,),) for step in steps]
        order = {"schedule": (0, 1), "periods": (1, 1), "period": period}
        return plan_of(*iterations, **order)

    assert learnt(first, second).program_key() == learnt(first, second).program_key() != ""
    assert learnt(first, second).program_key() != learnt(first, third).program_key()
    # Epochs draw other batches each time and are one program all the same.
    early, late = learnt(first, second, period="epoch"), learnt(first, third, period="epoch")
    assert early.program_key() == late.program_key()


def test_the_same_steps_on_a_slower_disk_are_another_program() -> None:
    plan = plan_of(((local("a"),),))
    slower = dataclasses.replace(plan, disk=DiskLimit(bytes_per_s=5e6))
    assert plan.program_key() != slower.program_key()


def test_repeated_periods_run_the_same_iterations_in_the_same_order() -> None:
    fields = repeated([], 3, (0, 1, 0))
    assert (fields["schedule"], fields["periods"]) == ((0, 1, 0) * 3, (3, 3, 3))
