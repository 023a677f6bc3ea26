"""Steps in stages that many ranks share: written once, and taken by all whose they are.

A product on a grid of Q x Q ranks has Q stages on every rank, Q^3 in all, of which nearly all are
those of a whole row or column of the grid. A rank's own differ where it sends a block.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from gnnbench.approaches.writing.stack import Chain, StackShape, StackSteps
from gnnbench.steps import After, Kind, Lane, Phase, Step


@dataclass(slots=True)
class Shared:
    """What ranks' plans have in common: there are Q^3 stages, most of them of many ranks.

    steps    by all that tells them apart
    stages   of products, by row or column: their steps if no block is the rank's own, the same if
             all are, and which of them depend on it, by stage
    """

    steps: dict[Hashable, Step] = field(default_factory=dict)
    stages: dict[Hashable, Stages] = field(default_factory=dict)


Stages = tuple[list[Step], list[Step], dict[int, list[int]]]


class StageSteps(StackSteps):
    """Write steps that other ranks' plans may hold already."""

    def __init__(self, shape: StackShape, shared: Shared) -> None:
        super().__init__(shape, [], None, Chain())
        self.shared = shared
        self.owned: bool | None = None  # whether blocks are taken for the rank's own; None: if so

    def _compute(
        self, name: str, kind: Kind, op: str, phase: Phase, layer: int, **facts: object
    ) -> None:
        self._add(name, kind, op, phase, layer, Lane.COMPUTE, **facts)

    def _add(
        self, name: str, kind: Kind, op: str, phase: Phase, layer: int, lane: Lane, **facts: object
    ) -> None:
        """Add a step; equal ones of many ranks are one object."""
        last = self.chain.last
        before = last.name if last is not None and last.lane is not lane else ""
        key = (name, before, *facts.values())
        step = self.shared.steps.get(key)
        if step is None:
            waits = (After(before),) if before else ()
            step = self.shared.steps[key] = Step(
                name=name, kind=kind, op=op, phase=phase, layer=layer, lane=lane, after=waits,
                **facts,  # type: ignore[arg-type]
            )  # fmt: skip
        self.chain.steps.append(step)
        self.chain.last = step

    def _stages(self, key: tuple[Hashable, ...], write: Callable[[], None]) -> Stages:
        """Steps that `write` adds, for ranks alike in `key` and in the step before."""
        last = self.chain.last
        key = (*key, last and (last.name, last.lane))
        found = self.shared.stages.get(key)
        if found is None:
            others, own = self._written(write, owned=False), self._written(write, owned=True)
            places: dict[int, list[int]] = {}
            for place, step in enumerate(own):
                if step is not others[place]:
                    stage = int(step.name.rpartition("/")[2])
                    places.setdefault(stage, []).append(place)
            found = self.shared.stages[key] = others, own, places
        return found

    def _written(self, write: Callable[[], None], *, owned: bool) -> list[Step]:
        chain, self.owned = self.chain, owned
        self.chain = Chain(last=chain.last)
        write()
        steps, self.chain, self.owned = self.chain.steps, chain, None
        return steps

    def _extend(self, steps: list[Step]) -> None:
        if steps:
            self.chain.steps += steps
            self.chain.last = steps[-1]

    def _owns(self, mine: bool) -> bool:
        return mine if self.owned is None else self.owned
