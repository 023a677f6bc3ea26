"""A cluster whose steps take as many seconds as they have bytes, and steps written in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from gnnbench.cluster import (
    Cluster,
    CollectiveModel,
    Constant,
    Device,
    Host,
    Link,
    Links,
    OpModel,
    PeakFlops,
    Storage,
)
from gnnbench.iterations import Iteration, RankSteps
from gnnbench.plan import Plan, repeated
from gnnbench.steps import After, Kind, Lane, Phase, Step, Work


def constant(value: float) -> Constant:
    return Constant(value=value, status="assumed", source="test")


def unit_cluster(**changes: Any) -> Cluster:
    """One second per byte for op "work"; collectives: 1 s and 1 s per 10 bytes; links 1 B/s."""
    link = Link(bytes_per_s=constant(1.0), latency_s=constant(0.0))
    kinds = ("all_reduce", "all_to_all", "all_gather", "reduce_scatter", "broadcast", "barrier")
    base = Cluster(
        name="unit",
        transport="gloo",
        host=Host(
            devices_per_host=64,
            cores=100_000,
            memory_bytes=constant(1e12),
            memory_bytes_per_s=constant(1e9),
            hosts_max=64,
        ),
        device=Device(
            name="unit",
            kind="cpu",
            peak_flops_per_s=PeakFlops(float32=constant(1.0)),
            memory_bytes_per_s=constant(1.0),
            cache_bytes=constant(1.0),
            launch_s=constant(0.0),
            memory_bytes=constant(1e9),
            context_bytes=constant(100.0),
        ),
        links=Links(intra=link, inter=dataclasses.replace(link, shared=True)),
        storage=Storage(
            read_bytes_per_s=constant(1.0),
            write_bytes_per_s=constant(1.0),
            iops=constant(1e300),
            latency_s=constant(0.0),
        ),
        ops=(OpModel(op="work", kind="elementwise", form="linear", params={"s_per_byte": 1.0}),),
        collectives=tuple(
            CollectiveModel(op=kind, ranks=n, layout="intra", latency_s=1.0, bytes_per_s=10.0)
            for kind in kinds
            for n in range(2, 9)
        ),
    )
    return dataclasses.replace(base, **changes)


PLACE = ("phase", "layer", "allocates", "frees")
"""Fields of a step; other facts are those of its work."""


def _step(name: str, work: Work, facts: dict[str, Any], **place: Any) -> Step:
    own = {key: facts.pop(key) for key in PLACE if key in facts}
    return Step(name=name, work=work._replace(**facts), **{**place, **own})


def work(
    name: str,
    seconds: int,
    *,
    lane: Lane = Lane.COMPUTE,
    after: tuple[After, ...] = (),
    **facts: Any,
) -> Step:
    """A local step that takes this many seconds on the unit cluster."""
    done = Work(kind=Kind.ELEMENTWISE, op="work", bytes=seconds)
    return _step(name, done, facts, lane=lane, after=after, phase=Phase.FORWARD)


def disk(
    name: str,
    seconds: int,
    *,
    kind: Kind = Kind.READ,
    lane: Lane = Lane.DISK,
    after: tuple[After, ...] = (),
    **facts: Any,
) -> Step:
    """A read or write that takes this many seconds on the unit cluster while it is alone."""
    done = Work(kind=kind, op=kind.value, bytes=seconds, rows=1)
    return _step(name, done, facts, lane=lane, after=after, phase=Phase.LOAD)


def meet(
    name: str,
    group: tuple[int, ...],
    size: int = 0,
    *,
    kind: Kind = Kind.ALL_REDUCE,
    lane: Lane = Lane.COMM,
    after: tuple[After, ...] = (),
    **facts: Any,
) -> Step:
    """A collective that takes 1 + size / 10 seconds on the unit cluster."""
    done = Work(kind=kind, op=kind.value, bytes=size, buffer_bytes=size)
    return _step(name, done, facts, lane=lane, after=after, phase=Phase.SYNC, group=group)


def cast(name: str, group: tuple[int, ...], size: int, rank: int, root: int, **facts: Any) -> Step:
    """A rank's step of a broadcast, which takes 1 + size / 10 seconds on the unit cluster."""
    sent = size * (len(group) - 1) if rank == root else 0
    return meet(name, group, size, kind=Kind.BROADCAST, root=root, **{"bytes": sent}, **facts)


def plan_of(*ranks: RankSteps, periods: int = 1, per_period: int = 1, **facts: Any) -> Plan:
    """A plan of one distinct iteration."""
    plan = Plan(
        approach="test",
        world_size=len(ranks),
        **repeated([Iteration.of_ranks(ranks)], periods, (0,) * per_period),
        **facts,
    )
    plan.validate()
    return plan


class Kit:
    """The builders above, for tests that cannot import a conftest."""

    constant = staticmethod(constant)
    cluster = staticmethod(unit_cluster)
    work = staticmethod(work)
    disk = staticmethod(disk)
    meet = staticmethod(meet)
    cast = staticmethod(cast)
    plan = staticmethod(plan_of)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


@pytest.fixture(scope="session")
def periods_by_all() -> Callable[..., list[float]]:
    """Seconds of each period by the engine, after asserting that the fast paths say the same.

    The event loop always must. The replay must where no resource is shared, and refuses elsewhere.
    """
    from gnnbench_simulator.engine import simulate
    from gnnbench_simulator.events import simulate_events
    from gnnbench_simulator.program import compile_plan
    from gnnbench_simulator.replay import replay

    def by_all(plan: Plan, cluster: Cluster | None = None) -> list[float]:
        program = compile_plan(plan, cluster or unit_cluster())
        slow: list[float] = simulate(program).period_s.tolist()
        fast = [simulate_events(program)]
        if not program.contention():
            fast.append(replay(program))
        for result in fast:
            assert result.period_s.tolist() == pytest.approx(slow, rel=1e-9, abs=1e-9)
        return slow

    return by_all
