"""Laws of simulated time, on plans small enough to do by hand."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.cluster import CollectiveModel
from gnnbench.errors import RunFailed
from gnnbench.plan import Plan
from gnnbench.steps import After, Kind, Lane, Step
from gnnbench_simulator.engine import Failure, simulate
from gnnbench_simulator.events import simulate_events
from gnnbench_simulator.outcome import ledger
from gnnbench_simulator.program import compile_plan

POSITIVE = st.integers(1, 9)


def _periods(plan: Plan, cluster: Any, **how: Any) -> list[float]:
    return simulate(compile_plan(plan, cluster), **how).period_s.tolist()


def test_a_lane_runs_its_steps_one_after_the_other(kit: Any, periods_by_all: Any) -> None:
    assert periods_by_all(kit.plan((kit.work("a", 2), kit.work("b", 3)), periods=2)) == [5.0, 5.0]


def test_lanes_overlap_unless_a_step_waits(kit: Any, periods_by_all: Any) -> None:
    free = (kit.work("a", 2), kit.work("b", 3, lane=Lane.HOST))
    bound = (kit.work("a", 2), kit.work("b", 3, lane=Lane.HOST, after=(After("a"),)))
    assert periods_by_all(kit.plan(free)) == [3.0]
    assert periods_by_all(kit.plan(bound)) == [5.0]


def test_a_collective_ends_together_after_the_last_arrival(kit: Any, periods_by_all: Any) -> None:
    ranks = [(kit.work("a", s), kit.meet("m", (0, 1), 20, after=(After("a"),))) for s in (1, 5)]
    assert periods_by_all(kit.plan(*ranks)) == [8.0]
    program = compile_plan(kit.plan(*ranks), kit.cluster())
    rows = {rank: ledger(program, simulate(program, record=(0, 1)), rank) for rank in (0, 1)}
    assert [(r.start_s, r.duration_s) for r in rows[0]] == [(0.0, 1.0), (1.0, 7.0)]
    assert [(r.start_s, r.duration_s) for r in rows[1]] == [(0.0, 5.0), (5.0, 3.0)]


def test_a_lag_lets_communication_trail_by_an_iteration(kit: Any, periods_by_all: Any) -> None:
    """PipeGCN's shape: compute uses what was sent an iteration ago, so both overlap."""

    def ranks(lag: int) -> list[Any]:
        use = (kit.work("use", 5, after=(After("m", lag),) if lag else ()),)
        send = kit.meet("m", (0, 1), 30, after=(After("use"),))
        return [(*use, send) for _ in range(2)]

    fresh = [
        (
            kit.meet("m", (0, 1), 30, after=(After("use", 1),)),
            kit.work("use", 5, after=(After("m"),)),
        )
        for _ in range(2)
    ]
    assert periods_by_all(kit.plan(*fresh, periods=4)) == [9.0] * 4
    assert periods_by_all(kit.plan(*ranks(2), periods=8))[-1] == pytest.approx(5.0)


def _pipeline(kit: Any, loads: list[int], works: list[int], depth: int) -> Plan:
    """Chunk k is loaded on the host lane, then used; at most `depth` loaded chunks wait."""
    steps: list[Step] = []
    for k, (load, use) in enumerate(zip(loads, works, strict=True)):
        room = (After(f"use{k - depth}"),) if k >= depth else ()
        steps.append(kit.work(f"load{k}", load, lane=Lane.HOST, after=room))
        steps.append(kit.work(f"use{k}", use, after=(After(f"load{k}"),)))
    return kit.plan(tuple(steps))


def _closed_form(loads: list[int], works: list[int], depth: int) -> float:
    """Recurrence of simulation section 9 for B_q = depth slots."""
    loaded, used = [0.0], [0.0]
    for k, (load, use) in enumerate(zip(loads, works, strict=True)):
        room = used[k + 1 - depth] if k >= depth else 0.0
        loaded.append(max(loaded[-1], room) + load)
        used.append(max(used[-1], loaded[-1]) + use)
    return used[-1]


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=8), depth=st.integers(1, 4)
)
def test_fg62_two_stage_pipeline_equals_its_recurrence(
    kit: Any, periods_by_all: Any, chunks: list[tuple[int, int]], depth: int
) -> None:
    loads, works = [c[0] for c in chunks], [c[1] for c in chunks]
    total = periods_by_all(_pipeline(kit, loads, works, depth))[0]
    assert total == pytest.approx(_closed_form(loads, works, depth))
    assert max(sum(loads), sum(works)) <= total <= sum(loads) + sum(works)


@pytest.mark.parametrize("chunks", [2, 4, 8])
def test_fg62_more_chunks_never_hurt_without_overhead(
    kit: Any, periods_by_all: Any, chunks: int
) -> None:
    fewer, more = [
        periods_by_all(_pipeline(kit, [48 // n] * n, [32 // n] * n, n))[0]
        for n in (chunks // 2, chunks)
    ]
    assert more <= fewer


@settings(max_examples=40, deadline=None)
@given(jobs=st.lists(st.tuples(POSITIVE, POSITIVE), min_size=2, max_size=6))
def test_fg63_johnsons_order_is_never_worse(
    kit: Any, periods_by_all: Any, jobs: list[tuple[int, int]]
) -> None:
    first = sorted((j for j in jobs if j[0] < j[1]), key=lambda j: j[0])
    last = sorted((j for j in jobs if j[0] >= j[1]), key=lambda j: -j[1])
    given_s, johnson_s = [
        periods_by_all(_pipeline(kit, [j[0] for j in order], [j[1] for j in order], len(jobs)))[0]
        for order in (jobs, first + last)
    ]
    assert johnson_s <= given_s


def test_sa_d1_one_throttled_stage_sets_the_epoch(kit: Any, periods_by_all: Any) -> None:
    slow = periods_by_all(_pipeline(kit, [100] * 20, [1] * 20, 4))[0]
    assert slow == pytest.approx(20 * 100 + 1)


def _exchange_plan(kit: Any, size: int) -> Plan:
    ranks = [
        (
            kit.work("a", w),
            kit.meet("m", (0, 1, 2), size, after=(After("a"),)),
            kit.work("b", 2, after=(After("m"),)),
        )
        for w in (3, 4, 5)
    ]
    return kit.plan(*ranks)


def test_fg60_sa_d1_free_communication_leaves_pure_compute(kit: Any) -> None:
    free = tuple(
        dataclasses.replace(m, latency_s=0.0, bytes_per_s=1e30) for m in kit.cluster().collectives
    )
    assert _periods(_exchange_plan(kit, 50), kit.cluster(collectives=free)) == [pytest.approx(7.0)]


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(0, 1000),
    latency=st.floats(0, 10),
    rate=st.floats(0.1, 1e3),
    more=st.floats(1, 5),
)
def test_fg61_time_is_monotone_in_bytes_latency_and_inverse_rate(
    kit: Any, size: int, latency: float, rate: float, more: float
) -> None:
    def time(size: float, latency: float, rate: float) -> float:
        models = tuple(
            dataclasses.replace(m, latency_s=latency, bytes_per_s=rate)
            for m in kit.cluster().collectives
        )
        return _periods(_exchange_plan(kit, int(size)), kit.cluster(collectives=models))[0]

    base = time(size, latency, rate)
    assert time(size * more, latency, rate) >= base - 1e-9
    assert time(size, latency * more, rate) >= base - 1e-9
    assert time(size, latency, rate / more) >= base - 1e-9


def test_fg64_busy_and_idle_make_the_makespan_on_every_lane(kit: Any) -> None:
    plan = _exchange_plan(kit, 50)
    program = compile_plan(plan, kit.cluster())
    result = simulate(program, record=range(3))
    makespan = float(result.period_s.sum())
    for rank in range(3):
        for lane, busy in result.busy_s.items():
            rows = [r for r in ledger(program, result, rank) if r.lane == lane]
            edges = [(r.start_s, r.start_s + r.duration_s) for r in rows]
            assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(edges))
            covered = sum(end - start for start, end in edges)
            gaps = [0.0, *(e for pair in edges for e in pair), makespan]
            idle = sum(b - a for a, b in zip(gaps[::2], gaps[1::2], strict=True))
            assert covered + idle == pytest.approx(makespan)
            assert busy[rank] <= covered + 1e-9


def test_oversubscribed_cores_are_shared(kit: Any) -> None:
    """Two ranks on one core take twice as long while both compute (processor sharing)."""
    host = dataclasses.replace(kit.cluster().host, cores=1)
    plan = kit.plan((kit.work("a", 4),), (kit.work("a", 2),))
    program = compile_plan(plan, kit.cluster(host=host))
    assert "cores" in program.contention()
    assert simulate(program).end_s.tolist() == pytest.approx([6.0, 4.0])


@pytest.mark.parametrize(("cores", "end_s"), [(4, 8.0), (2, 12.0)])
def test_a_transfer_in_the_background_takes_cores_from_what_else_runs(
    kit: Any, cores: int, end_s: float
) -> None:
    """Two ranks compute 8 s while 4 s of an exchange run: hidden only where cores are free.

    On two cores four threads share: 4 s of transfer take 8 s, in which 4 s of work are done.
    """
    host = dataclasses.replace(kit.cluster().host, cores=cores)
    exchange = kit.meet("x", (0, 1), 30, kind=Kind.ALL_TO_ALL, lane=Lane.BACKGROUND)
    plan = kit.plan(*[(exchange, kit.work("a", 8))] * 2)
    program = compile_plan(plan, kit.cluster(host=host))
    for run in (simulate, simulate_events):
        assert run(program).end_s.tolist() == pytest.approx([end_s] * 2)


def test_where_ranks_overlap_every_transfer_takes_cores(kit: Any) -> None:
    """Two ranks on one core: 8 s of work beside 4 s on the main lane; alone they would hide."""
    host = dataclasses.replace(kit.cluster().host, cores=1)
    first = kit.meet("x", (0, 1), 30)
    behind = kit.meet("y", (0, 1), lane=Lane.BACKGROUND)
    ends = []
    for transfers in ((first,), (first, behind)):
        plan = kit.plan(*[(*transfers, kit.work("a", 8))] * 2)
        program = compile_plan(plan, kit.cluster(host=host))
        ends.append(simulate(program).end_s.max())
        assert simulate_events(program).end_s.max() == pytest.approx(ends[-1])
    # All that needs the core: twice 8 s of work, then also 4 s and 1 s of transfers.
    assert ends == [pytest.approx(16.0), pytest.approx(16.0 + 4.0 + 1.0)]


def test_ranks_of_a_host_share_its_disk(kit: Any) -> None:
    one, two = (_periods(kit.plan(*[(kit.disk("r", 6),)] * n), kit.cluster()) for n in (1, 2))
    assert (one, two) == ([pytest.approx(6.0)], [pytest.approx(12.0)])


@pytest.mark.parametrize("lane", [Lane.DISK, Lane.DISK.at(1)], ids=["one lane", "two lanes"])
def test_reads_and_writes_share_one_disk(kit: Any, periods_by_all: Any, lane: Lane) -> None:
    """4 s of reading and 2 s of writing: one after the other, or both at half the speed."""
    steps = kit.disk("read", 4), kit.disk("write", 2, kind=Kind.WRITE, lane=lane)
    assert periods_by_all(kit.plan(steps)) == [pytest.approx(6.0)]


def test_messages_between_hosts_share_the_nic(kit: Any) -> None:
    """Ranks 0 and 1 on one host each send 5 B to ranks 2 and 3 on another over 1 B/s."""

    def message(kind: Kind, a: int, b: int) -> Step:
        return kit.meet(f"{kind}{a}", (a, b), 5, kind=kind)

    pairs = [(0, 2), (1, 3)]
    ranks: list[Any] = [()] * 4
    for a, b in pairs:
        ranks[a], ranks[b] = (message(Kind.SEND, a, b),), (message(Kind.RECV, a, b),)
    plan = kit.plan(*ranks)
    program = compile_plan(plan, kit.cluster(), ranks_per_host=2)
    assert simulate(program).period_s.tolist() == [pytest.approx(10.0)]
    apart = compile_plan(plan, kit.cluster(), ranks_per_host=4)
    assert simulate(apart).period_s.tolist() == [pytest.approx(5.0)]


def test_an_iteration_starts_no_earlier_than_its_release(kit: Any, periods_by_all: Any) -> None:
    """2 s of work each; the third has arrived at 1 s, but its lane is free at 9 s only."""
    steps = kit.work("a", 2), kit.work("b", 1, lane=Lane.HOST)
    plan = kit.plan(steps, periods=3, releases=(0.0, 7.0, 1.0))
    assert periods_by_all(plan) == [2.0, 2.0, 2.0], "waiting for input is no part of a period"


def test_a_dead_rank_ends_the_run_with_its_rank_and_phase(kit: Any) -> None:
    program = compile_plan(_exchange_plan(kit, 10), kit.cluster())
    with pytest.raises(RunFailed, match="died at 2 s") as failed:
        simulate(program, failure=Failure(rank=1, at_s=2.0))
    assert (failed.value.rank, failed.value.phase) == (1, "forward")


def test_a_deadlock_names_its_step(kit: Any) -> None:
    first = (kit.meet("m", (0, 1), lane=Lane.COMM), kit.meet("n", (0, 1, 2), lane=Lane.COMM))
    other = (kit.meet("n", (0, 1, 2), lane=Lane.COMM), kit.meet("m", (0, 1), lane=Lane.COMM))
    third = (kit.meet("n", (0, 1, 2), lane=Lane.COMM),)
    program = compile_plan(kit.plan(first, other, third), kit.cluster())
    with pytest.raises(RunFailed, match="deadlock"):
        simulate(program)


@pytest.mark.parametrize("execute", [simulate, simulate_events])
def test_ranks_that_wait_for_one_another_leave_the_cores_to_others(kit: Any, execute: Any) -> None:
    """A transfer of 5 s, 3 s of them waiting, beside 10 s of work; two cores for two ranks.

    From 3 s on two transfers and two works share them: transfers end at 7 s, and work at 12 s.
    """
    both = CollectiveModel(
        op="all_reduce", ranks=2, layout="intra", latency_s=5.0, bytes_per_s=1e9, co_located=2
    )
    alone = dataclasses.replace(both, op="all_reduce_transfer", latency_s=2.0)
    host = dataclasses.replace(kit.cluster().host, cores=2)
    steps = kit.work("w", 10), kit.meet("m", (0, 1), lane=Lane.BACKGROUND)
    program = compile_plan(
        kit.plan(steps, steps), kit.cluster(host=host, collectives=(both, alone))
    )
    result = execute(program, record=(0,))
    ends = {row.name: row.start_s + row.duration_s for row in ledger(program, result, 0)}
    assert ends == {"m": pytest.approx(7.0), "w": pytest.approx(12.0)}
