"""Samplers and trainers: which rank draws which batch, and how far samplers may be ahead.

The first ranks train, the last ones sample. With T trainers and k samplers, trainer t's part of the
global batch of step s is batch b = s T + t of the epoch; sampler b mod k draws it and sends it to
trainer t. A trainer returns a credit for every batch that it has received. Before a sampler draws
batch b, it waits for the credit of b - queue x k, its own batch `queue` turns earlier: at most
`queue` batches of a sampler are drawn and not received.

Source: sampling reference section 14 (GNNLab, Yang et al., EuroSys 2022), invariant SA-P6. GNNLab
deals batches to whoever is free; here their order is fixed, so that a run repeats itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from gnnbench.steps import Lane

CREDITS = Lane.BACKGROUND.at(1)
"""Lane of the credits: they never queue behind blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The roles of a run's ranks.

    Args:
        trainers: ranks 0 ... T - 1.
        samplers: ranks T ... T + k - 1.
        queue: batches of a sampler that are drawn and not received, at most.
        steps: optimiser steps of an epoch.
    """

    trainers: int
    samplers: int
    queue: int
    steps: int

    @property
    def world_size(self) -> int:
        return self.trainers + self.samplers

    @property
    def groups(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ranks that train, and ranks that sample."""
        return tuple(range(self.trainers)), tuple(range(self.trainers, self.world_size))

    def trains(self, rank: int) -> bool:
        """Whether a rank trains."""
        return rank < self.trainers

    def number(self, step: int, trainer: int) -> int:
        """The number of a trainer's batch of a step, within the epoch."""
        return step * self.trainers + trainer

    def trainer_of(self, number: int) -> int:
        """The rank that trains on a batch."""
        return number % self.trainers

    def sampler_of(self, number: int) -> int:
        """The rank that draws a batch."""
        return self.trainers + number % self.samplers

    def drawn_by(self, rank: int, step: int) -> range:
        """The batches of a step that a sampler draws, in order."""
        first = self.number(step, 0)
        own = rank - self.trainers
        return range(first + (own - first) % self.samplers, first + self.trainers, self.samplers)

    def awaited(self, number: int) -> int | None:
        """The batch whose credit its sampler needs before it draws this one."""
        earlier = number - self.queue * self.samplers
        return earlier if earlier >= 0 else None

    def unclaimed(self, rank: int) -> range:
        """A sampler's last batches of an epoch, whose credits no draw waits for."""
        total, own = self.number(self.steps, 0), rank - self.trainers
        first = max(total - self.queue * self.samplers, 0)
        return range(first + (own - first) % self.samplers, total, self.samplers)
