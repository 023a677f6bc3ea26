"""Mini-batches: sizes of sampled blocks, drawn on the real graph or estimated, and their steps.

Computation graph `per_layer` (sampling section 2): in every hop each destination is sampled again,
seeds included. Each rank takes an even slice of the global batch; the union of the ranks' blocks is
the block that one rank would draw, because draws are keyed by (seed, epoch, step, hop, vertex,
slot).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.writing.shape import LayerSizes, StackShape
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.data.sampling import NeighbourSampler, epoch_seeds, split_seeds
from gnnbench.spec import RunSpec
from gnnbench.steps import Ints, Size

COUNTED = "every batch drawn on the real graph"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchSizes:
    """One global batch, by rank: int64 [P] each.

    Args:
        vertices: n_0 ... n_L, input layer first.
        edges: e_1 ... e_L.
        requests: [P, P], input vertices of rank i that rank j owns; None where features are
            replicated.
    """

    vertices: tuple[Ints, ...]
    edges: tuple[Ints, ...]
    requests: Ints | None = None

    @property
    def world_size(self) -> int:
        return len(self.vertices[0])

    @property
    def num_edges(self) -> int:
        return int(sum(edges.sum() for edges in self.edges))

    def layers(self) -> list[LayerSizes]:
        """Sizes of each layer's block."""
        n = self.vertices
        return [
            LayerSizes(rows=n[i + 1], source_rows=n[i], nonzeros=edges)
            for i, edges in enumerate(self.edges)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Batches of a run: which of them runs when, and whether each was drawn."""

    batches: list[BatchSizes]
    schedule: tuple[int, ...]
    counted: bool
    basis: str


def draw_run(
    graph: Graph, run: RunSpec, steps: int, owner: NDArray[np.int32] | None, budget: int
) -> Drawn:
    """Draw the batches of a run until `budget` edges are spent.

    Whole epochs are drawn while they fit, else evenly spread steps of the first epoch, at least
    three of them.
    """
    fanouts = run.batch.fanouts(run.model.layers)
    sampler = NeighbourSampler(graph.indptr, graph.indices, fanouts, run.training.seed)
    train = graph.train_nodes()

    def draw(epoch: int, step: int, order: NDArray[np.int64]) -> BatchSizes:
        seeds = order[step * run.batch.size : (step + 1) * run.batch.size]
        return draw_batch(sampler, seeds, run.ranks, owner, epoch, step)

    batches: list[BatchSizes] = []
    drawn = 0
    for epoch in range(run.training.epochs):
        order = epoch_seeds(train, run.training.seed, epoch)
        for step in range(steps):
            batches.append(draw(epoch, step, order))
            drawn += batches[-1].num_edges
            if epoch == 0 and step == 2 and drawn * steps > 3 * budget:
                few = _spread(steps, max(3, int(3 * budget / max(drawn, 1))))
                if len(few) < steps:
                    return _sampled_steps(run, steps, few, partial(draw, 0, order=order))
        if drawn + drawn / (epoch + 1) > budget:
            break
    epochs = len(batches) // steps
    schedule = tuple(
        (epoch % epochs) * steps + step
        for epoch in range(run.training.epochs)
        for step in range(steps)
    )
    counted = epochs == run.training.epochs
    basis = COUNTED if counted else f"batches of {epochs} of {run.training.epochs} epochs drawn"
    return Drawn(batches=batches, schedule=schedule, counted=counted, basis=basis)


def _spread(steps: int, count: int) -> list[int]:
    return [int(i) for i in np.unique(np.linspace(0, steps - 1, count).astype(int))]


def _sampled_steps(
    run: RunSpec, steps: int, picks: Sequence[int], draw: Callable[[int], BatchSizes]
) -> Drawn:
    """Some steps of the first epoch stand for their neighbours, in every epoch."""
    nearest = np.searchsorted(picks, np.arange(steps), side="right") - 1
    return Drawn(
        batches=[draw(pick) for pick in picks],
        schedule=tuple(nearest.tolist()) * run.training.epochs,
        counted=False,
        basis=f"{len(picks)} of {steps} steps of the first epoch drawn",
    )


def draw_batch(
    sampler: NeighbourSampler,
    seeds: NDArray[np.int64],
    world_size: int,
    owner: NDArray[np.int32] | None,
    epoch: int,
    step: int,
) -> BatchSizes:
    """Sizes of every rank's share of one global batch."""
    sizes, asked = [], []
    for rank in range(world_size):
        batch = sampler.sample(split_seeds(seeds, world_size, rank), epoch, step)
        vertices, edges = batch.sizes
        sizes.append((*vertices, *edges))
        if owner is not None:
            asked.append(np.bincount(owner[batch.input_nodes], minlength=world_size))
    table = np.array(sizes, np.int64).T
    hops = len(table) // 2
    return BatchSizes(
        vertices=tuple(table[: hops + 1]),
        edges=tuple(table[hops + 1 :]),
        requests=None if owner is None else np.array(asked, np.int64),
    )


def profile_batch(profile: GraphProfile, run: RunSpec, *, partitioned: bool) -> BatchSizes:
    """Expected sizes of the ranks' batches from degrees alone (sampling section 3, estimator 2)."""
    ranks = run.ranks
    share = max(1, min(run.batch.size, profile.num_train) // ranks)
    fanouts = run.batch.fanouts(run.model.layers)
    vertices, edges = profile.expected_frontier(fanouts, share)
    n = [np.full(ranks, round(v), np.int64) for v in vertices]
    requests = None
    if partitioned:
        requests = np.full((ranks, ranks), -(-int(n[0][0]) // ranks), np.int64)
    return BatchSizes(
        vertices=tuple(n),
        edges=tuple(np.full(ranks, round(e), np.int64) for e in edges),
        requests=requests,
    )


def needs_transpose(shape: StackShape, layer: int) -> bool:
    """Return whether the backward pass aggregates along the transpose of this layer's block."""
    return layer > 1 or shape.orders[0] == "transform_first"


def turned_edges(shape: StackShape, layers: Sequence[LayerSizes]) -> Size:
    """Edges of the blocks that are transposed."""
    turned = [size.nonzeros for at, size in enumerate(layers, 1) if needs_transpose(shape, at)]
    return sum(turned, 0)


def block_bytes(shape: StackShape, layers: Sequence[LayerSizes]) -> Size:
    """Bytes of the blocks of a batch as they are trained on: patterns both ways, and scales."""
    total: Size = 0
    for at, size in enumerate(layers, 1):
        n, u, e, s = size.rows, size.source_rows, size.nonzeros, shape.element_bytes
        if shape.model.attention:
            # Self loops are entries, kept both ways, with the place of each transposed entry and,
            # for its dropout, an id.
            entries = e + n
            total = total + 8 * (n + 1) + 8 * (u + 1) + 16 * entries
            total = total + (8 * entries if shape.dropout > 0 else 0)
            continue
        total = total + 8 * (n + 1) + 4 * e
        if needs_transpose(shape, at):
            total = total + 8 * (u + 1) + 4 * e
        scales = {"symmetric": 2 * n + u, "mean": n}[shape.model.normalisation]
        total = total + scales * s
    return total
