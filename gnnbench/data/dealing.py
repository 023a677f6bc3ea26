"""Global batches, dealt to ranks: what every mini-batch approach draws from.

A source names the global batch of each step and the part of it that each rank trains on. Both are
pure functions of (seed, epoch, step), so both worlds draw the same batches, and the parts of any
number of ranks make up the batch that one rank would train on (SA-P1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gnnbench.data.sampling import (
    Batch,
    Ids,
    Weights,
    batch_seeds,
    epoch_seeds,
    split_seeds,
    steps,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dealt:
    """A rank's part of a global batch.

    Args:
        batch: blocks and vertices.
        rows: outputs that the loss counts, int64; None is all of them.
        weights: of their losses, float64; None is ones.
        scale: of each of their losses, so that the ranks' sums add up to the batch's mean loss.
        share: what part of the epoch's loss the batch's is.
    """

    batch: Batch
    rows: Ids | None = None
    weights: Weights | None = None
    scale: float
    share: float

    @property
    def outputs(self) -> Ids:
        """Graph ids of the output rows."""
        return self.batch.seeds

    @property
    def num_rows(self) -> int:
        """Rows that the loss counts."""
        return len(self.outputs) if self.rows is None else len(self.rows)


def undivided(batch: Batch, num_train: int) -> Dealt:
    """A batch that one rank trains on alone, of an epoch over so many training vertices."""
    count = len(batch.seeds)
    return Dealt(batch=batch, scale=1.0 / max(count, 1), share=count / max(num_train, 1))


class Source(Protocol):
    """A run's global batches; `steps` of them make an epoch."""

    @property
    def steps(self) -> int: ...

    def draw(self, epoch: int, step: int, world_size: int, rank: int) -> Dealt:
        """Draw a rank's part of a global batch. One caller at a time."""


class BlockSampler(Protocol):
    """Draws the blocks of a part of the seeds of a global batch."""

    def part(self, seeds: Ids, part: Ids, epoch: int, step: int) -> Batch: ...


class SeedSource:
    """Training vertices in an order drawn anew each epoch, cut into batches, each into slices.

    Args:
        sampler: draws the blocks of seeds.
        train_nodes: int64.
        size: seeds of a global batch.
        seed: of the order.
    """

    def __init__(self, sampler: BlockSampler, train_nodes: Ids, size: int, seed: int) -> None:
        self.sampler, self.train_nodes, self.size, self.seed = sampler, train_nodes, size, seed
        self._epoch, self._order = -1, train_nodes

    @property
    def steps(self) -> int:
        return max(1, steps(len(self.train_nodes), self.size))

    def seeds(self, epoch: int, step: int) -> Ids:
        """The seeds of a global batch."""
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_seeds(self.train_nodes, self.seed, epoch)
        return batch_seeds(self._order, self.size, step)

    def draw(self, epoch: int, step: int, world_size: int, rank: int) -> Dealt:
        """The blocks of a rank's slice of the seeds."""
        seeds = self.seeds(epoch, step)
        return Dealt(
            batch=self.blocks(seeds, epoch, step, world_size, rank),
            scale=1.0 / max(len(seeds), 1),
            share=len(seeds) / max(len(self.train_nodes), 1),
        )

    def blocks(self, seeds: Ids, epoch: int, step: int, world_size: int, rank: int) -> Batch:
        """The blocks of a rank's slice of the seeds of a global batch."""
        return self.sampler.part(seeds, split_seeds(seeds, world_size, rank), epoch, step)
