"""Sweeps: the product of approaches, knobs, workloads and machines, each judged and timed.

What-ifs that differ in the machine only share a plan, its memory needs and its blocks, and are
replayed together. Times have no interval here: a few thousand constants differ between what-ifs,
and `sensitivity` tells for one of them which matter.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gnnbench.approaches.names import APPROACHES
from gnnbench.errors import SpecError, Unsupported, suggest
from gnnbench.machines import Machine
from gnnbench.spec import RunSpec
from gnnbench_simulator.energy import energy
from gnnbench_simulator.memory import FITS, judge_worst
from gnnbench_simulator.planner import SIMULATED_EPOCHS, Planned, Planner
from gnnbench_simulator.predict import estimate_together


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is varied.

    Args:
        workloads: model, batch and training of each; approach, knobs and ranks are replaced.
        approaches: names.
        machines: with their ranks and ranks of a host.
        knobs: values by knob, bare (for all approaches that have it) or "approach.knob". Approaches
            without any of these are tried in their own variants.
        epochs: of the training that is paid for.
        spot: rent at spot rates.
    """

    workloads: tuple[RunSpec, ...]
    approaches: tuple[str, ...]
    machines: tuple[Machine, ...]
    knobs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    epochs: int = 100
    spot: bool = False


@dataclass(slots=True, kw_only=True)
class WhatIf:
    """One what-if.

    Attributes:
        workload: index in `Grid.workloads`; times of different workloads are no alternatives.
        periods: of the whole training.
        steps_per_epoch: optimiser steps.
        memory: needs of the training and limit of the space with the least room, see
            `memory.judge`.
        energy_j: of the whole training; None where the machine's power is not known.
        usd: of the whole training; None where it has no price.
        reason: why it cannot run, or cannot be timed; "" where it can.
    """

    workload: int
    run: RunSpec
    machine: Machine
    periods: float = 0.0
    steps_per_epoch: float = 0.0
    period_s: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)
    energy_j: float | None = None
    energy_grade: str = ""
    usd: float | None = None
    reason: str = ""

    @property
    def total_s(self) -> float:
        return self.period_s * self.periods

    @property
    def fits(self) -> bool:
        return not self.reason and self.memory["verdict"] == FITS

    @property
    def needed_bytes(self) -> float:
        """Of the space with the least room, on the rank that needs most."""
        return float(self.memory.get("judged_bytes", 0))

    @property
    def setting(self) -> str:
        """The knobs that differ from the approach's defaults."""
        return ", ".join(f"{key}={value}" for key, value in self.run.knobs.items())

    def like(self, other: WhatIf) -> bool:
        """Whether an epoch of both has equally many optimiser steps, and the same workload."""
        return (self.workload, self.steps_per_epoch) == (other.workload, other.steps_per_epoch)


def sweep(grid: Grid, planner: Planner) -> list[WhatIf]:
    """Judge and time every what-if of a grid, in order of workload, approach, ranks and knobs.

    Raises:
        UnknownName: an approach does not exist.
        SpecError: no approach has one of the knobs, or a value is not allowed.
    """
    choices = _choices(grid)
    found: list[WhatIf] = []
    for number, workload in enumerate(grid.workloads):
        for name in grid.approaches:
            for group in _by_layout(grid.machines).values():
                run = _at(workload, name, {}, group[0].ranks)
                # An approach without any of the swept knobs is tried in its own variants.
                for knobs in choices[name] or APPROACHES.get(name).variants(run):
                    run = _at(workload, name, knobs, group[0].ranks)
                    found += _group(grid, planner, number, run, group)
    return found


# Epochs of the question are multiplied in later; only a few are simulated.
def _at(workload: RunSpec, name: str, knobs: Mapping[str, Any], ranks: int) -> RunSpec:
    training = dataclasses.replace(workload.training, epochs=SIMULATED_EPOCHS)
    return dataclasses.replace(
        workload, approach=name, knobs=dict(knobs), ranks=ranks, training=training
    )


def _by_layout(machines: Sequence[Machine]) -> dict[tuple[object, ...], list[Machine]]:
    """Machines whose ranks are placed alike, and so have equal plans."""
    groups: dict[tuple[object, ...], list[Machine]] = defaultdict(list)
    for machine in machines:
        # CPU and GPU plans differ: on a GPU there are copies between host and device.
        on_cpu = machine.cluster.device.kind == "cpu"
        groups[machine.ranks, machine.per_host, on_cpu].append(machine)
    return groups


def _choices(grid: Grid) -> dict[str, list[dict[str, Any]]]:
    """The products of each approach's own knobs; empty where none of the knobs is its own."""
    unused = dict.fromkeys(grid.knobs)
    found: dict[str, list[dict[str, Any]]] = {}
    problems: list[str] = []
    for name in grid.approaches:
        card = APPROACHES.get(name)
        own: dict[str, tuple[Any, ...]] = {}
        for key, values in grid.knobs.items():
            owner, _, knob = key.rpartition(".")
            if owner in ("", name) and knob in card.knob_names():
                own[knob] = values
                # A knob that no approach used is a typing error and is reported below.
                unused.pop(key, None)
        tables = [
            dict(zip(own, values, strict=True)) for values in itertools.product(*own.values())
        ]
        parsed = [card.parse_knobs(table, f"--knob {name}", problems) for table in tables if table]
        found[name] = [knobs for knobs in parsed if knobs is not None]
    # Several approaches may find the same problem.
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    if unused:
        key = next(iter(unused))
        known = {knob for name in grid.approaches for knob in APPROACHES.get(name).knob_names()}
        raise SpecError(
            f"--knob {key}: none of {', '.join(grid.approaches)} has it, "
            f"{suggest(key.rpartition('.')[2], known)}"
        )
    return found


def _group(
    grid: Grid, planner: Planner, number: int, run: RunSpec, machines: Sequence[Machine]
) -> Iterator[WhatIf]:
    """The what-ifs of one plan on several machines."""
    planned = planner.planned(run, machines[0])
    if isinstance(planned, str):
        for machine in machines:
            yield WhatIf(workload=number, run=run, machine=machine, reason=planned)
        return
    times = estimate_together(
        planned.plan,
        [machine.cluster for machine in machines],
        ranks_per_host=machines[0].per_host,
        element_bytes=run.training.element_bytes,
        known=planned.blocks,
    )
    for machine, seconds in zip(machines, times, strict=True):
        yield _what_if(grid, planned, number, machine, seconds)


def _what_if(
    grid: Grid, planned: Planned, number: int, machine: Machine, seconds: float | Unsupported
) -> WhatIf:
    run = planned.run
    found = WhatIf(
        workload=number,
        run=run,
        machine=machine,
        periods=planned.periods_per_epoch * grid.epochs,
        steps_per_epoch=planned.steps_per_epoch,
        memory=judge_worst(planned.needs, machine.cluster, machine.per_host, run.memory.caps()),
    )
    if isinstance(seconds, Unsupported):
        # The reason up to the colon: tables have no room for the remedy.
        found.reason = str(seconds).partition(":")[0]
        return found
    found.period_s = seconds
    rent = machine.usd_per_hour(spot=grid.spot)
    found.usd = None if rent is None else rent * found.total_s / 3600.0
    spent = energy(
        planned.volumes,
        machine.cluster,
        seconds,
        ranks=run.ranks,
        ranks_per_host=machine.per_host,
    )
    if spent is not None:
        found.energy_j, found.energy_grade = spent.joules * found.periods, spent.grade
    return found


OBJECTIVES = {
    "time": lambda one: one.total_s,
    "price": lambda one: one.usd,
    "memory": lambda one: one.needed_bytes,
    "energy": lambda one: one.energy_j,
}
"""What a Pareto set can minimise."""


def pareto(found: Sequence[WhatIf], objectives: Sequence[str]) -> list[WhatIf]:
    """What-ifs that fit and that no other of their kind beats in one objective and meets in all.

    Compared are what-ifs of one workload with equally many optimiser steps per epoch. Those with an
    unknown value of an objective are left out. Fastest first.

    Raises:
        SpecError: an unknown objective.
    """
    unknown = [name for name in objectives if name not in OBJECTIVES]
    if unknown:
        raise SpecError(f"--pareto {unknown[0]}: unknown, {suggest(unknown[0], OBJECTIVES)}")
    kinds: dict[tuple[int, float], list[tuple[tuple[float, ...], WhatIf]]] = defaultdict(list)
    for one in found:
        if one.fits:
            values = [OBJECTIVES[name](one) for name in objectives]
            # An unknown value cannot be compared: such a what-if neither beats nor is beaten.
            known = tuple(float(value) for value in values if value is not None)
            if len(known) == len(objectives):
                kinds[one.workload, one.steps_per_epoch].append((known, one))
    best = [one for points in kinds.values() for one in _undominated(points)]
    return sorted(best, key=lambda one: (one.workload, one.total_s))


def _undominated(points: list[tuple[tuple[float, ...], WhatIf]]) -> list[WhatIf]:
    """In rising order of the values, a point can only be beaten by one that was kept before it."""
    kept: list[tuple[tuple[float, ...], WhatIf]] = []
    for values, one in sorted(points, key=lambda point: point[0]):
        if not any(all(a <= b for a, b in zip(held, values, strict=True)) for held, _ in kept):
            kept.append((values, one))
    return [one for _, one in kept]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """A what-if and the rent of its hosts at which it costs as much as the cheapest one."""

    one: WhatIf
    usd_per_host_hour: float
    now: float | None


def break_even(found: Sequence[WhatIf], best: WhatIf) -> list[BreakEven]:
    """For the fastest what-if of each other machine of the kind of `best`: the rent that ties."""
    fastest: dict[str, WhatIf] = {}
    for one in found:
        name = one.machine.name
        if one.fits and one.like(best) and name != best.machine.name:
            held = fastest.get(name)
            if held is None or one.total_s < held.total_s:
                fastest[name] = one
    if best.usd is None:
        return []
    ties = [
        BreakEven(
            one=one,
            usd_per_host_hour=best.usd * 3600.0 / (one.total_s * one.machine.hosts),
            now=None if one.usd is None else one.usd * 3600.0 / (one.total_s * one.machine.hosts),
        )
        for one in fastest.values()
    ]
    return sorted(ties, key=lambda tie: (tie.now or float("inf")) / tie.usd_per_host_hour)
