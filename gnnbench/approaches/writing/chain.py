"""A chain: steps that follow one another, as one rank or a class of ranks takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnnbench.steps import After, Lane, Phase, Step, Work


class Chain:
    """Steps in program order; a step on another lane than its predecessor waits for it.

    `prefix` goes before the name of every step; it tells the passes of several models apart.
    """

    def __init__(self, last: Step | None = None) -> None:
        self.steps: list[Step] = []
        self.last = last
        self.prefix = ""

    def step(
        self,
        name: str,
        work: Work,
        *,
        phase: Phase,
        lane: Lane = Lane.COMPUTE,
        after: Sequence[After] = (),
        beside: bool = False,
        **place: Any,
    ) -> None:
        """Add a step.

        Args:
            name: unique in the iteration.
            work: what it does.
            phase: why.
            lane: where.
            after: what it waits for besides its predecessor.
            beside: the step runs while the next one does, which does not wait for it.
            place: the other fields of `steps.Step`: layer, group, allocates, frees.
        """
        waits = tuple(after)
        if self.last is not None and (beside or self.last.lane is not lane):
            waits = (After(self.last.name), *waits)
        full = self.prefix + name
        made = Step(name=full, work=work, lane=lane, phase=phase, after=waits, **place)
        self.steps.append(made)
        if not beside:
            self.last = made

    def done(self) -> tuple[Step, ...]:
        """The steps."""
        return tuple(self.steps)
