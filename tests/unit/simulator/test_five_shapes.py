"""The five shapes that decide whether the words of a plan suffice, as whole plans done by hand.

One byte takes one second on the unit cluster, on the compute lanes and on the disk; a collective
takes 1 + size / 10 seconds. Bytes, memory and makespan of each shape were worked out on paper;
engine, event loop and (where nothing is shared) replay must all arrive at them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gnnbench.cluster import OpModel
from gnnbench.errors import SpecError, Unsupported
from gnnbench.iterations import Iteration, LazyIterations
from gnnbench.plan import Plan, repeated
from gnnbench.steps import LATEST, After, Buffer, Kind, Lane, Phase, Space, Step
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.memory import predict_memory
from gnnbench_simulator.outcome import ledger
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.timeline import memory_timeline


def _plan(
    iterations: Any, schedule: tuple[int, ...], periods: tuple[int, ...], **facts: Any
) -> Plan:
    plan = Plan(
        approach="shape",
        world_size=iterations[0].world_size,
        iterations=iterations,
        schedule=schedule,
        periods=periods,
        **facts,
    )
    plan.validate()
    return plan


def _times(kit: Any, plan: Plan, rank: int = 0) -> dict[tuple[int, str], tuple[float, float]]:
    """Start and end of each step of a rank, by place in the schedule and name."""
    program = compile_plan(plan, kit.cluster())
    rows = ledger(program, simulate(program, record=(rank,)), rank)
    return {
        (plan.starts[row.period] + row.iteration, row.name): (
            pytest.approx(row.start_s),
            pytest.approx(row.start_s + row.duration_s),
        )
        for row in rows
    }


def _timeline(kit: Any, plan: Plan, *spaces: Space, rank: int = 0) -> list[tuple[float, int]]:
    program = compile_plan(plan, kit.cluster())
    rows = ledger(program, simulate(program, record=(rank,)), rank)
    return [tuple(point) for point in memory_timeline(plan, rows, rank, *spaces)]


# -- 1: halo exchange, synchronous, on four ranks ------------------------------------------------


def _halo_exchange(kit: Any) -> Plan:
    def rank(r: int) -> tuple[Step, ...]:
        group = (0, 1, 2, 3)
        halo = Buffer("halo", 10 * (r + 1))
        return (
            kit.work("pack", r + 1),
            kit.meet(
                "exchange", group, 20, kind=Kind.ALL_TO_ALL, after=(After("pack"),),
                allocates=(halo,),
            ),
            kit.work("forward", 8 - 2 * r, after=(After("exchange"),)),
            kit.meet("return", group, 20, kind=Kind.ALL_TO_ALL, after=(After("forward"),)),
            kit.work("backward", 1, after=(After("return"),), frees=("halo",)),
            kit.meet(
                "sum", group, 10, after=(After("backward"),), allocates=(Buffer("gradients", 5),)
            ),
            kit.work("update", 1, after=(After("sum"),)),
        )  # fmt: skip

    iteration = Iteration.of_ranks([rank(r) for r in range(4)])
    return _plan(
        resident=(Buffer("features", 100),), **repeated([iteration], 2)
    )  # fmt: skip


def test_halo_exchange_takes_the_slowest_ranks_time(kit: Any, periods_by_all: Any) -> None:
    """Pack 4, exchange 3, forward 8, return 3, backward 1, sum 2, update 1."""
    plan = _halo_exchange(kit)
    assert periods_by_all(plan) == [22.0, 22.0]
    # The fastest rank waits for the others in the first exchange, from 1 s to 7 s.
    assert _times(kit, plan)[0, "exchange"] == (1.0, 7.0)
    assert _times(kit, plan, 3)[0, "return"] == (9.0, 18.0)


def test_halo_exchange_moves_its_bytes_and_frees_its_halo(kit: Any) -> None:
    plan = _halo_exchange(kit)
    assert plan.moved_bytes(0) == {("all_to_all", "sync"): 160, ("all_reduce", "sync"): 40}
    # In the second period the gradients of the first are still there.
    assert plan.peak_bytes().tolist() == [115, 125, 135, 145]
    assert _timeline(kit, plan, rank=1) == [
        (0.0, 100), (2.0, 120), (19.0, 100), (19.0, 105), (24.0, 125), (41.0, 105), (41.0, 105),
    ]  # fmt: skip


def test_ranks_that_disagree_are_an_error_before_they_hang(kit: Any) -> None:
    one = (kit.meet("x", (0, 1)), kit.meet("y", (0, 1), kind=Kind.BROADCAST))
    other = (kit.meet("y", (0, 1), kind=Kind.BROADCAST), kit.meet("x", (0, 1)))
    with pytest.raises(SpecError, match="ranks 0 and 1 disagree"):
        _plan(**repeated([Iteration.of_ranks([one, other])], 1))


# -- 2: sampling with prefetch and a planned cache -----------------------------------------------

SAMPLE, FETCH, TRAIN = (2, 3, 1, 2), (4, 1, 5, 2), 3


def _sampling(kit: Any) -> Plan:
    """Two slots for prepared batches; the cache is planned, so that every fetch is known."""

    def batch(k: int) -> Iteration:
        slot = Buffer(f"batch/{k % 2}", 10 * FETCH[k], exact=True)
        return Iteration.of_ranks(
            [
                (
                    kit.work("sample", SAMPLE[k], lane=Lane.HOST, after=(After("train", 2),)),
                    kit.work(
                        "fetch", FETCH[k], lane=Lane.COPY, after=(After("sample"),),
                        allocates=(slot,), phase=Phase.FETCH, kind=Kind.COPY,
                    ),
                    kit.work("train", TRAIN, after=(After("fetch"),)),
                )
            ]
        )  # fmt: skip

    return _plan(LazyIterations(4, batch), tuple(range(4)), (4,), resident=(Buffer("cache", 50),))


def test_sampling_runs_ahead_by_two_batches_and_no_further(kit: Any, periods_by_all: Any) -> None:
    plan = _sampling(kit)
    assert periods_by_all(plan) == [21.0]
    times = _times(kit, plan)
    assert [times[k, "sample"] for k in range(4)] == [(0, 2), (2, 5), (9, 10), (12, 14)]
    assert [times[k, "fetch"] for k in range(4)] == [(2, 6), (6, 7), (10, 15), (15, 17)]
    assert [times[k, "train"] for k in range(4)] == [(6, 9), (9, 12), (15, 18), (18, 21)]


def test_sampling_holds_two_batches_beside_its_cache(kit: Any) -> None:
    plan = _sampling(kit)
    assert plan.moved_bytes(0) == {("copy", "fetch"): sum(FETCH)}
    assert _timeline(kit, plan) == [(0, 50), (2, 90), (6, 100), (10, 110), (15, 120)]
    assert plan.peak_bytes().tolist() == [120]


# -- 3: PipeGCN ----------------------------------------------------------------------------------


def _stale(kit: Any, size: int, *, lag: int = 1, periods: int = 3) -> Plan:
    """Aggregation uses the halo of the epoch before, while this epoch's is on its way."""
    steps = (
        kit.work("pack", 1, after=(After("sum", 1),)),
        kit.meet(
            "exchange", (0, 1), size, kind=Kind.ALL_TO_ALL, lane=Lane.BACKGROUND,
            after=(After("pack"),),
        ),
        kit.work("aggregate", 4, after=(After("exchange", lag),)),
        kit.meet("sum", (0, 1), after=(After("aggregate"),)),
    )  # fmt: skip
    old_and_new = Buffer("halo/old", size), Buffer("halo/new", size)
    iteration = Iteration.of_ranks([steps, steps])
    return _plan(resident=old_and_new, **repeated([iteration], periods))


def test_a_stale_exchange_hides_behind_the_work(kit: Any, periods_by_all: Any) -> None:
    """Fresh: pack 1, exchange 3, aggregate 4, sum 1. Stale: the exchange's 3 s are hidden."""
    assert periods_by_all(_stale(kit, 20, lag=0)) == [9.0, 9.0, 9.0]
    assert periods_by_all(_stale(kit, 20)) == [6.0, 6.0, 6.0]


def test_a_stale_exchange_longer_than_an_epoch_sets_the_pace(kit: Any) -> None:
    """An exchange of 10 s, beside 6 s of work: aggregation k waits for exchange k-1."""
    times = _times(kit, _stale(kit, 90))
    assert [times[k, "exchange"] for k in range(3)] == [(1, 11), (11, 21), (21, 31)]
    assert [times[k, "aggregate"] for k in range(3)] == [(1, 5), (11, 15), (21, 25)]


def test_staleness_costs_a_second_halo_and_no_byte_on_the_wire(kit: Any) -> None:
    stale, fresh = _stale(kit, 20), _stale(kit, 20, lag=0)
    moved = {("all_to_all", "sync"): 40, ("all_reduce", "sync"): 0}
    assert stale.moved_bytes(0) == fresh.moved_bytes(0) == moved
    assert stale.peak_bytes().tolist() == [40, 40]


# -- 4: MariusGNN --------------------------------------------------------------------------------

PARTITIONS, CAPACITY = 8, 3


def _out_of_core(kit: Any, train: int, *, lanes: int = 2) -> Plan:
    """Eight partitions on disk, three in memory, one slot more to read ahead.

    State k swaps one partition: the one that leaves is written back after state k - 1 was trained;
    the one that comes was read meanwhile, into the slot whose last write-back has ended. Reads of 4
    bytes take turns on two lanes, writes of 2 bytes have a lane of their own, and all share one
    disk.
    """
    slots = CAPACITY + 1
    writer = Lane.DISK.at(2) if lanes == 2 else Lane.DISK

    def read(slot: int, lane: int) -> Step:
        return kit.disk(
            f"read/{slot}", 4, lane=Lane.DISK.at(lane % lanes),
            after=(After(f"write/{slot}", LATEST),),
            allocates=(Buffer(f"slot/{slot}", 4, Space.HOST, exact=True),),
        )  # fmt: skip

    def state(k: int) -> Iteration:
        if k == 0:
            reads = [read(slot, slot) for slot in range(CAPACITY)]
            steps: list[Step] = [
                *reads,
                kit.work("train", train, after=tuple(After(step.name) for step in reads)),
            ]
        else:
            leaves, spare = (k - 1) % slots, (k + CAPACITY - 1) % slots
            write = kit.disk(
                f"write/{leaves}", 2, kind=Kind.WRITE, lane=writer, after=(After("train", 1),)
            )
            fill = read(spare, k)
            ahead = [fill, write] if lanes == 1 else [write, fill]
            steps = [*ahead, kit.work("train", train, after=(After(fill.name),))]
        return Iteration.of_ranks([steps])

    states = PARTITIONS - CAPACITY
    return _plan(LazyIterations(states, state), tuple(range(states)), (states,))


def test_out_of_core_hides_the_disk_behind_long_training(kit: Any, periods_by_all: Any) -> None:
    """Four reads at half speed end at 16 s; five states of 10 s follow without a pause."""
    assert periods_by_all(_out_of_core(kit, 10)) == [66.0]


def test_out_of_core_waits_for_the_slot_and_for_the_shared_disk(
    kit: Any, periods_by_all: Any
) -> None:
    """Training of 3 s: every read waits for the write-back of its slot and shares the disk."""
    plan = _out_of_core(kit, 3)
    assert periods_by_all(plan) == [42.0]
    times = _times(kit, plan)
    assert [times[k, "train"] for k in range(5)] == [
        (16, 19), (19, 22), (28, 31), (31, 34), (39, 42),
    ]  # fmt: skip
    assert (times[1, "write/0"], times[2, "read/0"]) == ((19, 21), (21, 28))
    assert (times[2, "write/1"], times[3, "read/1"]) == ((22, 26), (26, 31))
    assert (times[4, "write/3"], times[4, "read/2"]) == ((34, 38), (33, 39))


def test_out_of_core_on_one_disk_lane_needs_no_sharing(kit: Any, periods_by_all: Any) -> None:
    """Three reads end at 12 s; five states of 10 s follow, each longer than a read and a write."""
    plan = _out_of_core(kit, 10, lanes=1)
    assert not compile_plan(plan, kit.cluster()).contention()
    assert periods_by_all(plan) == [62.0]


def test_out_of_core_counts_reads_and_writes_and_keeps_four_slots(kit: Any) -> None:
    plan = _out_of_core(kit, 3)
    assert plan.moved_bytes(0) == {("read", "load"): 7 * 4, ("write", "load"): 4 * 2}
    assert plan.peak_bytes(Space.HOST).tolist() == [16]
    assert plan.peak_bytes(Space.DEVICE).tolist() == [0]
    assert _timeline(kit, plan, Space.HOST)[:5] == [(0, 0), (0, 4), (0, 8), (8, 12), (8, 16)]


def test_out_of_core_is_judged_by_the_hosts_cap(kit: Any) -> None:
    """100 bytes of an idle process and 16 of slots."""
    plan = _out_of_core(kit, 3)
    fits = [
        predict_memory(plan, kit.cluster(), caps={"host": cap})[0]["fits"] for cap in (116, 115)
    ]
    assert fits == [True, False]


def test_out_of_core_without_a_disk_in_the_cluster_is_refused(kit: Any) -> None:
    """Also where reads were calibrated: nothing says how they share the disk with writes."""
    reads = OpModel(op="read", kind="read", form="linear", params={"s_per_byte": 1.0})
    for ops in (kit.cluster().ops, (*kit.cluster().ops, reads)):
        cluster = dataclasses.replace(kit.cluster(), storage=None, ops=ops)
        with pytest.raises(Unsupported, match=r"has no \[storage\]"):
            compile_plan(_out_of_core(kit, 3), cluster)


# -- 5: a continuous stream ----------------------------------------------------------------------


def _stream(kit: Any) -> Plan:
    """Three increments of unlike length; the store grows by two and expires in the third."""

    def increment(append: int, evaluate: int, train: int, store: int) -> tuple[Step, ...]:
        kept = Buffer("store", store, Space.HOST, exact=True)
        return (
            kit.work("append", append, phase=Phase.LOAD, allocates=(kept,)),
            kit.work("evaluate", evaluate, phase=Phase.EVALUATE),
            *learn(train),
        )

    def learn(train: int) -> tuple[Step, ...]:
        return (
            kit.work("train", train),
            kit.meet("sum", (0, 1), after=(After("train"),)),
            kit.work("update", 0, after=(After("sum"),), phase=Phase.UPDATE),
        )

    each = [increment(1, 2, 3, 10), increment(2, 2, 4, 30), learn(4), increment(1, 1, 1, 20)]
    return _plan(
        [Iteration.of_ranks([steps, steps]) for steps in each],
        (0, 1, 2, 3),
        (1, 2, 1),
        period="increment",
        releases=(0.0, 10.0, 10.0, 40.0),
    )


def test_a_stream_waits_for_what_has_not_arrived(kit: Any, periods_by_all: Any) -> None:
    """Ends at 7, 24 and 44 s: the second increment arrives at 10 s, the third at 40 s."""
    plan = _stream(kit)
    assert periods_by_all(plan) == [7.0, 14.0, 4.0], "from the arrivals at 10 and 40 s on"
    times = _times(kit, plan)
    assert [times[k, "train"] for k in range(4)] == [(3, 6), (14, 18), (19, 23), (42, 43)]
    assert times[1, "append"] == (10, 12)


def test_a_stream_is_evaluated_before_it_is_learnt_from(kit: Any) -> None:
    times = _times(kit, _stream(kit))
    assert all(times[k, "evaluate"][1] == times[k, "train"][0] for k in (0, 1, 3))


def test_a_streams_store_grows_and_expires(kit: Any) -> None:
    plan = _stream(kit)
    assert _timeline(kit, plan, Space.HOST) == [(0, 0), (0, 10), (10, 30), (40, 20)]
    assert plan.peak_bytes(Space.HOST).tolist() == [30, 30]
