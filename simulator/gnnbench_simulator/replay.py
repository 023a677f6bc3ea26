"""The replay: a plan without contention as a max-plus recurrence, vectorised over ranks.

Equal to the engine where nothing is contended for (a property test holds that), and about a
thousand times faster (simulation 3, L1). Uncertainty draws ride along as a second axis: every
array is (ranks, draws).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gnnbench.costs.facts import Floats
from gnnbench.errors import Unsupported
from gnnbench.plan import Lane
from gnnbench_simulator.compute import GAP_OP
from gnnbench_simulator.order import evaluation_order
from gnnbench_simulator.outcome import SimResult, Span
from gnnbench_simulator.program import Block, Ints, Iteration, Mode, Program, RankClass

Select = slice | Ints


@dataclass(slots=True)
class _Part:
    """A class's share of an operation."""

    block: Block
    ranks: Ints
    select: Select
    duration: Floats
    groups: Ints | None = None


@dataclass(slots=True)
class _Operation:
    """One local block, or one place at which collectives of one or more groups complete."""

    parts: list[_Part]
    num_groups: int = 0
    transfer: Floats | None = None


def replay(
    program: Program,
    *,
    epochs: int | None = None,
    record: Iterable[int] = (),
    factors: Mapping[str, Floats] | None = None,
    ignore_contention: bool = False,
) -> SimResult:
    """Replay a program.

    Args:
        program: a compiled plan.
        epochs: how many epochs; by default all of the plan.
        record: ranks whose blocks are kept for ledgers (of the first draw).
        factors: per cost class, one factor on its times for each draw, shape (draws,).
        ignore_contention: replay although links or cores are contended for (a lower bound).

    Raises:
        Unsupported: the plan has contention, queues or circular waits; the message says which.
    """
    reason = program.contention()
    if reason and not ignore_contention:
        raise Unsupported(f"the replay cannot do this plan, use the engine: {reason}")
    draws = 1 if not factors else len(next(iter(factors.values())))
    return _Replay(program, draws, factors or {}, set(record)).run(
        program.plan.num_epochs if epochs is None else epochs
    )


class _Replay:
    def __init__(
        self, program: Program, draws: int, factors: Mapping[str, Floats], record: set[int]
    ) -> None:
        self.program, self.draws, self.factors = program, draws, factors
        self.shape = (program.world_size, draws)
        self.free: dict[Lane, Floats] = {}
        self.busy: dict[Lane, Floats] = {}
        self.ends: list[dict[str, Floats]] = []
        self.orders = [self._prepare(iteration) for iteration in program.iterations]
        self.recorded: dict[int, list[Span]] = {rank: [] for rank in sorted(record)}
        lanes = {b.lane for it in program.iterations for c in it.classes for b in c.blocks}
        for lane in sorted(lanes):
            self.free[lane] = np.zeros(self.shape)
            self.busy[lane] = np.zeros(self.shape)

    def run(self, epochs: int) -> SimResult:
        plan = self.program.plan
        per_epoch = plan.iterations_per_epoch
        finished: list[Floats] = []
        for number, index in enumerate(plan.schedule[: epochs * per_epoch]):
            self.ends.append({})
            if len(self.ends) > self.program.max_lag + 1:
                self.ends.pop(0)
            for operation in self.orders[index]:
                if operation.transfer is None:
                    self._local(operation.parts[0], number)
                else:
                    self._collective(operation, number)
            if (number + 1) % per_epoch == 0:
                finished.append(self._now().max(axis=0))
        ends = np.maximum.accumulate(np.array(finished).reshape(-1, self.draws), axis=0)
        epoch_s = np.diff(ends, axis=0, prepend=np.zeros((1, self.draws)))
        return SimResult(
            method="replay",
            epoch_s=epoch_s if self.factors else epoch_s[:, 0],
            end_s=self._now()[:, 0],
            busy_s={lane.value: busy[:, 0] for lane, busy in self.busy.items()},
            spans=self.recorded,
        )

    def _now(self) -> Floats:
        total = np.zeros(self.shape)
        for free in self.free.values():
            np.maximum(total, free, out=total)
        return total

    def _ready(self, part: _Part) -> Floats:
        block = part.block
        ready: Floats = self.free[block.lane][part.select]
        for name, lag in block.waits:
            if lag < len(self.ends) and (ended := self.ends[-1 - lag].get(name)) is not None:
                ready = np.maximum(ready, ended[part.select])
        if block.release_s > 0:
            ready = np.maximum(ready, block.release_s)
        return ready

    def _finish(self, part: _Part, ready: Floats, end: Floats, number: int) -> None:
        block = part.block
        if isinstance(part.select, slice):
            self.free[block.lane] = end
            self.busy[block.lane] += part.duration
        else:
            self.free[block.lane][part.select] = end
            self.busy[block.lane][part.select] += part.duration
        if block.publishes:
            self._publish(part, block.publishes, end)
        if self.recorded:
            for rank, spans in self.recorded.items():
                place = np.flatnonzero(part.ranks == rank)
                if len(place):
                    at = int(place[0])
                    spans.append(Span(number, block, float(ready[at, 0]), float(end[at, 0])))

    def _publish(self, part: _Part, name: str, end: Floats) -> None:
        if isinstance(part.select, slice):
            self.ends[-1][name] = end
            return
        # Ranks of another class that lack the step have nothing to wait for: zero.
        table = self.ends[-1].setdefault(name, np.zeros(self.shape))
        table[part.select] = end

    def _local(self, part: _Part, number: int) -> None:
        ready = self._ready(part)
        self._finish(part, ready, ready + part.duration, number)

    def _collective(self, operation: _Operation, number: int) -> None:
        arrivals = [self._ready(part) for part in operation.parts]
        assert operation.transfer is not None
        if operation.num_groups == 1:
            last = arrivals[0].max(axis=0)
            for arrival in arrivals[1:]:
                last = np.maximum(last, arrival.max(axis=0))
            ends = last + operation.transfer
        else:
            latest = np.zeros((operation.num_groups, self.draws))
            for part, arrival in zip(operation.parts, arrivals, strict=True):
                assert part.groups is not None
                np.maximum.at(latest, part.groups, arrival)
            ends = latest + operation.transfer
        for part, arrival in zip(operation.parts, arrivals, strict=True):
            end = ends[part.groups] if operation.num_groups > 1 else ends[0]
            self._finish(part, arrival, np.broadcast_to(end, arrival.shape).copy(), number)

    # -- preparation -----------------------------------------------------------------------------

    def _prepare(self, iteration: Iteration) -> list[_Operation]:
        operations = []
        for members in evaluation_order(iteration):
            parts = [self._part(iteration.classes[c], block) for c, block in members]
            if members[0][1].mode is Mode.COLLECTIVE:
                operations.append(self._rendezvous(parts))
            else:
                operations.append(_Operation(parts))
        return operations

    def _rendezvous(self, parts: list[_Part]) -> _Operation:
        numbers = np.unique(np.concatenate([part.block.groups for part in parts]))
        transfer = np.zeros((len(numbers), self.draws))
        for part in parts:
            assert part.block.groups is not None
            part.groups = np.searchsorted(numbers, part.block.groups)
            transfer[part.groups] = part.duration
        return _Operation(parts, len(numbers), transfer)

    def _part(self, cls: RankClass, block: Block) -> _Part:
        whole = len(cls.ranks) == self.program.world_size
        select: Select = slice(None) if whole else cls.ranks
        if self.factors:
            scale = np.array(
                [self.factors.get(cls.labels[s], np.ones(self.draws)) for s in block.steps]
            )
            duration: Floats = np.einsum("sr,sd->rd", block.seconds, scale)
            duration += block.gap_s * self.factors.get(GAP_OP, np.ones(self.draws))
        else:
            duration = block.total[:, None]
        return _Part(block, cls.ranks, select, duration)
