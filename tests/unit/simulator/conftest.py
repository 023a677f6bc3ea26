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
from gnnbench.plan import After, Kind, Lane, Phase, Plan, RankSteps, Step


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
            devices_per_host=64, cores=100_000, memory_bytes=constant(1e12),
            memory_bytes_per_s=constant(1e9), hosts_max=64,
        ),
        device=Device(
            name="unit", kind="cpu", peak_flops_per_s=PeakFlops(float32=constant(1.0)),
            memory_bytes_per_s=constant(1.0), cache_bytes=constant(1.0), launch_s=constant(0.0),
            memory_bytes=constant(1e9), context_bytes=constant(100.0),
        ),
        links=Links(intra=link, inter=dataclasses.replace(link, shared=True)),
        storage=Storage(
            read_bytes_per_s=constant(1.0), write_bytes_per_s=constant(1.0), iops=constant(1e9),
            latency_s=constant(0.0),
        ),
        ops=(OpModel(op="work", kind="elementwise", form="linear", params={"s_per_byte": 1.0}),),
        collectives=tuple(
            CollectiveModel(op=kind, ranks=n, layout="intra", latency_s=1.0, bytes_per_s=10.0)
            for kind in kinds
            for n in range(2, 9)
        ),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def work(
    name: str,
    seconds: int,
    *,
    lane: Lane = Lane.COMPUTE,
    after: tuple[After, ...] = (),
    **facts: Any,
) -> Step:
    """A local step that takes this many seconds on the unit cluster."""
    return Step(
        name=name, kind=Kind.ELEMENTWISE, op="work", lane=lane, phase=Phase.FORWARD,
        bytes=seconds, after=after, **facts,
    )  # fmt: skip


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
    return Step(
        name=name, kind=kind, op=kind.value, lane=lane, phase=Phase.SYNC, bytes=size,
        buffer_bytes=size, group=group, after=after, **facts,
    )  # fmt: skip


def cast(name: str, group: tuple[int, ...], size: int, rank: int, root: int, **facts: Any) -> Step:
    """A rank's step of a broadcast, which takes 1 + size / 10 seconds on the unit cluster."""
    step = meet(name, group, size, kind=Kind.BROADCAST, **facts)
    return dataclasses.replace(step, bytes=size * (len(group) - 1) if rank == root else 0)


def plan_of(*ranks: RankSteps, epochs: int = 1, per_epoch: int = 1, **facts: Any) -> Plan:
    """A plan of one distinct iteration."""
    plan = Plan(
        approach="test",
        world_size=len(ranks),
        iterations=(tuple(ranks),),
        schedule=(0,) * (epochs * per_epoch),
        iterations_per_epoch=per_epoch,
        **facts,
    )
    plan.validate()
    return plan


class Kit:
    """The builders above, for tests that cannot import a conftest."""

    constant = staticmethod(constant)
    cluster = staticmethod(unit_cluster)
    work = staticmethod(work)
    meet = staticmethod(meet)
    cast = staticmethod(cast)
    plan = staticmethod(plan_of)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


@pytest.fixture(scope="session")
def epochs_by_both() -> Callable[..., list[float]]:
    """Epoch times by the engine, after asserting that the replay says the same."""
    from gnnbench_simulator.engine import simulate
    from gnnbench_simulator.program import compile_plan
    from gnnbench_simulator.replay import replay

    def both(plan: Plan, cluster: Cluster | None = None) -> list[float]:
        program = compile_plan(plan, cluster or unit_cluster())
        slow, fast = simulate(program).epoch_s.tolist(), replay(program).epoch_s.tolist()
        assert fast == pytest.approx(slow, rel=1e-9, abs=1e-9)
        return slow

    return both
