"""Plans for questions about many machines: each plan, structure and memory need is made once.

A plan knows the ranks, the ranks of a host and whether ranks compute on accelerators, and no
constant of a machine. What-ifs that differ in the machine only share it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.errors import GnnbenchError
from gnnbench.machines import Machine
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench_simulator.batch_reserve import with_largest_batch
from gnnbench_simulator.energy import Volumes, volumes
from gnnbench_simulator.layout import Layout as Blocks
from gnnbench_simulator.layout import Rules
from gnnbench_simulator.needs import Needs, needs_of

SIMULATED_EPOCHS = 2
"""Periods of a question's plans: the first fills pipelines and caches, the second is steady."""


@dataclass(slots=True, kw_only=True)
class Planned:
    """A plan with what its buffers need in training, and its blocks by the rules of a machine."""

    run: RunSpec
    plan: Plan
    needs: Needs
    blocks: dict[Rules, list[Blocks]] = field(default_factory=dict)
    moved: Volumes | None = None

    def needs_of_all(self) -> Needs:
        """What the buffers need, those of the evaluation as well."""
        return needs_of(largest(self.run, self.plan), gpu=self.needs.gpu)

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps of an epoch."""
        return float(np.mean(self.plan.periods)) * self.periods_per_epoch

    @property
    def periods_per_epoch(self) -> float:
        return self.plan.num_periods / SIMULATED_EPOCHS

    @property
    def volumes(self) -> Volumes:
        """Flops and bytes of a period, for its energy."""
        if self.moved is None:
            self.moved = volumes(self.plan, element_bytes=self.run.training.element_bytes)
        return self.moved


class Planner:
    """Plans of one dataset, each made once.

    Args:
        data: a dataset or a profile.
        cache: folder for partitions; None keeps none.
    """

    def __init__(self, data: Any, cache: Path | None = None) -> None:
        self.data, self.cache = data, cache
        self._plans: dict[tuple[str, int, bool], Planned | str] = {}
        self._structures: dict[str, Any] = {}

    def planned(self, run: RunSpec, machine: Machine) -> Planned | str:
        """The plan of a run on a machine of `run.ranks` devices, or why there is none."""
        gpu = machine.cluster.device.kind != "cpu"
        key = repr(run), machine.per_host, gpu
        if key not in self._plans:
            self._plans[key] = self._make(run, machine.per_host, gpu=gpu)
        return self._plans[key]

    def _make(self, run: RunSpec, per_host: int, *, gpu: bool) -> Planned | str:
        card = APPROACHES.get(run.approach)
        problems = card.problems(run)
        reason = problems[0] if problems else card.cannot_run(run, self.data)
        if reason:
            return reason
        layout = Layout(
            world_size=run.ranks, ranks_per_host=per_host, device="cuda" if gpu else "cpu"
        )
        try:
            key = repr(run)
            if key not in self._structures:
                self._structures[key] = card.structure(self.data, run, self.cache)
            plan = card.plan(self.data, run, self._structures[key], layout)
        except GnnbenchError as error:
            return str(error).splitlines()[0]
        needs = needs_of(largest(run, plan), gpu=gpu, evaluates=False)
        return Planned(run=run, plan=plan, needs=needs)


def largest(run: RunSpec, plan: Plan) -> Plan:
    """The plan by which memory is judged: with the largest batch that an epoch likely has."""
    seeds = max(run.batch.size // run.ranks, 1) if run.batch.size else 0
    return with_largest_batch(plan, seeds=seeds)
