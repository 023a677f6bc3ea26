"""A chain: steps that follow one another, as one rank or a class of ranks takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnnbench.steps import After, Lane, Phase, Step, Work


class Chain:
    """Steps in program order; a step on another lane than its predecessor waits for it.

    `prefix` is put before the name of every step; it distinguishes passes of several models.
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
            work: kind, operation, bytes and flops.
            phase: why the step happens.
            lane: where it runs.
            after: steps that it waits for in addition to its predecessor.
            beside: True lets the next step run at the same time, without waiting for this one.
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
