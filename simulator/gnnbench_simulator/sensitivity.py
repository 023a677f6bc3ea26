"""The tornado of an answer: how far each operation's error and each constant moves its time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnbench.cluster import Cluster, Constant
from gnnbench.errors import Unsupported
from gnnbench.ladder import grade
from gnnbench.machines import Machine
from gnnbench.plan import Plan
from gnnbench_simulator.layout import Layout, Rules
from gnnbench_simulator.planner import Planned
from gnnbench_simulator.predict import estimate_together
from gnnbench_simulator.program import Shared, compile_plan
from gnnbench_simulator.replay import replay

STEP = 1.25
"""Constants are divided and multiplied by this much: their own errors are not known."""
LEAST = 0.001
"""Shares of the time below which a swing is left out."""
_TIMELESS = ("price.", "power.", ".memory_bytes", ".context_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """What one cause does to the time of a period.

    Attributes:
        name: an operation, or a constant by its key in a cluster file.
        what: "operation" or "constant".
        grade: rung of the evidence for it.
        factor: the cause is divided and multiplied by this; of an operation, its 90 % error.
        low, high: time of the period over the predicted one, at the better and the worse end.
    """

    name: str
    what: str
    grade: str
    factor: float
    low: float
    high: float

    @property
    def width(self) -> float:
        return math.log(self.high / self.low)


def tornado(planned: Planned, machine: Machine) -> list[Swing]:
    """The swings of a plan's time on a machine, widest first."""
    return swings(
        planned.plan,
        machine.cluster,
        ranks_per_host=machine.per_host,
        element_bytes=planned.run.training.element_bytes,
        known=planned.blocks,
    )


def swings(
    plan: Plan,
    cluster: Cluster,
    *,
    ranks_per_host: int,
    element_bytes: float = 4.0,
    known: MutableMapping[Rules, list[Layout]] | None = None,
) -> list[Swing]:
    """The swings of a plan's time on a cluster, widest first.

    Args:
        plan: steps of all ranks.
        cluster: its constants are moved one at a time.
        ranks_per_host: how the ranks lie on hosts.
        element_bytes: bytes of a feature element.
        known: layouts of the plan by the rules of clusters; new ones are added.
    """
    case = _Case(
        plan=plan,
        cluster=cluster,
        ranks_per_host=ranks_per_host,
        element_bytes=element_bytes,
        known={} if known is None else known,
    )
    found = [*_operations(case), *_constants(case)]
    return sorted((s for s in found if s.width > LEAST), key=lambda swing: -swing.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What is moved: a plan on a cluster, see `swings`."""

    plan: Plan
    cluster: Cluster
    ranks_per_host: int
    element_bytes: float
    known: MutableMapping[Rules, list[Layout]]


def _operations(case: _Case) -> Iterator[Swing]:
    """Each cost class at both ends of its 90 % error, all in one replay."""
    program = compile_plan(
        case.plan,
        case.cluster,
        ranks_per_host=case.ranks_per_host,
        element_bytes=case.element_bytes,
        shared=Shared(case.known),
    )
    classes = sorted(program.cost_classes.items())
    factors = {name: np.ones(1 + 2 * len(classes)) for name, _ in classes}
    for place, (name, cost) in enumerate(classes):
        factors[name][1 + 2 * place : 3 + 2 * place] = np.exp([-cost.radius, cost.radius])
    periods = min(2, case.plan.num_periods)
    try:
        times = replay(program, periods=periods, factors=factors, ignore_contention=True)
    except Unsupported:
        return
    base, *moved = times.period_s[-1].tolist()
    for place, (name, cost) in enumerate(classes):
        low, high = sorted(moved[2 * place : 2 * place + 2])
        yield Swing(
            name=name,
            what="operation",
            grade=cost.grade,
            factor=math.exp(cost.radius),
            low=low / base,
            high=high / base,
        )


def _constants(case: _Case) -> Iterator[Swing]:
    """Each constant of the cluster `STEP` times smaller and larger."""
    known = [
        (key, constant)
        for key, constant in constants_of(case.cluster)
        if constant.value > 0 and not any(word in f".{key}" for word in _TIMELESS if word[0] == ".")
        if not key.startswith(tuple(word for word in _TIMELESS if word[0] != "."))
    ]
    clusters = [case.cluster]
    for key, constant in known:
        for factor in (1 / STEP, STEP):
            clusters.append(with_value(case.cluster, key, constant.value * factor))
    times = estimate_together(
        case.plan,
        clusters,
        ranks_per_host=case.ranks_per_host,
        element_bytes=case.element_bytes,
        known=case.known,
    )
    base, *moved = times
    if isinstance(base, Unsupported) or base <= 0:
        return
    for place, (key, constant) in enumerate(known):
        ends = [t for t in moved[2 * place : 2 * place + 2] if not isinstance(t, Unsupported)]
        if not ends:
            continue
        yield Swing(
            name=key,
            what="constant",
            grade=grade(constant.status),
            factor=STEP,
            low=min(ends) / base,
            high=max(ends) / base,
        )


def constants_of(item: object, prefix: str = "") -> Iterator[tuple[str, Constant]]:
    """Every constant of a cluster with its key in a cluster file, such as "device.launch_s"."""
    if not dataclasses.is_dataclass(item):
        return
    for spec in dataclasses.fields(item):
        value = getattr(item, spec.name)
        if isinstance(item, Cluster) and item.nodes and spec.name != "fabric":
            # The constants of a cluster of several kinds are those of the kinds.
            if spec.name == "nodes":
                for at, node in enumerate(item.nodes):
                    yield from constants_of(node.cluster, f"{prefix}nodes.{at}.cluster.")
            continue
        if isinstance(value, Constant):
            yield f"{prefix}{spec.name}", value
        else:
            yield from constants_of(value, f"{prefix}{spec.name}.")


def with_value(cluster: Cluster, key: str, value: float) -> Cluster:
    """The cluster with another value of one constant."""
    changed = _replaced(cluster, key.split("."), value)
    assert isinstance(changed, Cluster)
    return changed


def _replaced(item: object, path: list[str], value: float) -> Any:
    if isinstance(item, tuple):
        at = int(path[0])
        return (*item[:at], _replaced(item[at], path[1:], value), *item[at + 1 :])
    assert dataclasses.is_dataclass(item) and not isinstance(item, type)
    if not path:
        return dataclasses.replace(item, value=value)
    inner = _replaced(getattr(item, path[0]), path[1:], value)
    return dataclasses.replace(item, **{path[0]: inner})
