"""Mini-batches: sizes of the blocks that a source deals, drawn on the real graph or estimated.

A block serves one layer; where a batch is a subgraph, its single block serves all layers. The union
of the ranks' parts is the batch that one rank would train on (see `gnnbench.data.dealing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.writing.shape import LayerSizes, StackShape
from gnnbench.data.dealing import Dealt, Source
from gnnbench.spec import RunSpec
from gnnbench.steps import Ints, Size
from gnnbench.work import ID_BYTES

COUNTED = "every batch drawn on the real graph"
Expected = float | NDArray[np.float64]
DRAWN_EDGES = 3_000_000
"""Edges drawn at most to count the sizes of a plan's batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What the batches of an approach look like.

    Args:
        op: cost class of its sampler.
        one_block: whether one block serves all layers.
        renormalised: whether degrees are those of the batch.
        column_weights, edge_weights: whether sources, or edges, have weights of their own.
        some_rows: whether the loss counts some output rows only.
        loss_weights: whether their losses have weights.
        drafted: room in which the picks of a hop are drawn before they are kept, in parts of them.
    """

    op: str = "sample"
    one_block: bool = False
    renormalised: bool = False
    column_weights: bool = False
    edge_weights: bool = False
    some_rows: bool = False
    loss_weights: bool = False
    drafted: float = 0.0


PLAIN = Form()
"""Blocks of sampled neighbours, without weights of their own; the loss counts all seeds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NearSizes:
    """What ranks look at in a hop whose candidates they look for together: int64 [P] each."""

    rows: Ints
    candidates: Ints
    edges: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchSizes:
    """One global batch, by rank: int64 [P] each.

    Args:
        vertices: of the blocks, input layer first: n_0 ... n_L, or n, n of the one block.
        edges: of the blocks: e_1 ... e_L, or e.
        loss_rows: output rows that the loss counts; None is all of them.
        scanned: edges of the graph that sampling looks at besides those it draws.
        requests: [P, P], input vertices of rank i that rank j owns; None where features are
            replicated.
        near: what ranks look at together, hop by hop from the seeds; empty where each looks alone.
    """

    vertices: tuple[Ints, ...]
    edges: tuple[Ints, ...]
    loss_rows: Ints | None = None
    scanned: Ints | None = None
    requests: Ints | None = None
    near: tuple[NearSizes, ...] = ()

    @property
    def world_size(self) -> int:
        return len(self.vertices[0])

    @property
    def cost(self) -> int:
        """What counting it costs, in drawn edges; to look at one takes about an eighth of that."""
        looked = 0 if self.scanned is None else int(self.scanned.sum())
        looked += sum(int(hop.edges.sum()) for hop in self.near)
        return looked // 8 + int(sum(edges.sum() for edges in self.edges))

    @property
    def counted_rows(self) -> Ints:
        """Rows that the loss counts."""
        return self.vertices[-1] if self.loss_rows is None else self.loss_rows

    def blocks(self, form: Form = PLAIN) -> list[LayerSizes]:
        """Sizes of each block."""
        n = self.vertices
        return [
            LayerSizes(
                rows=n[i + 1], source_rows=n[i], nonzeros=edges, edge_weights=form.edge_weights
            )
            for i, edges in enumerate(self.edges)
        ]

    def tiled(self, ranks: int) -> BatchSizes:
        """The same batch on every team of so many ranks, each as large as this batch's world."""
        teams = ranks // self.world_size

        def each(sizes: Ints | None) -> Ints | None:
            return None if sizes is None else np.tile(sizes, teams)

        return BatchSizes(
            vertices=tuple(np.tile(n, teams) for n in self.vertices),
            edges=tuple(np.tile(e, teams) for e in self.edges),
            loss_rows=each(self.loss_rows),
            scanned=each(self.scanned),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Batches of a run: which of them runs when, and whether each was drawn."""

    batches: list[BatchSizes]
    schedule: tuple[int, ...]
    counted: bool
    basis: str


def draw_run(source: Source, run: RunSpec, owner: NDArray[np.int32] | None) -> Drawn:
    """Draw the batches of a run until `DRAWN_EDGES` are spent.

    Whole epochs are drawn while they fit, else evenly spread steps of the first epoch, at least
    three of them.
    """
    steps, budget = source.steps, DRAWN_EDGES

    def draw(epoch: int, step: int) -> BatchSizes:
        return draw_batch(source, run.ranks, owner, epoch, step)

    batches: list[BatchSizes] = []
    drawn = 0
    for epoch in range(run.training.epochs):
        for step in range(steps):
            batches.append(draw(epoch, step))
            drawn += batches[-1].cost
            if epoch == 0 and step == 2 and drawn * steps > 3 * budget:
                few = _spread(steps, max(3, int(3 * budget / max(drawn, 1))))
                if len(few) < steps:
                    return _sampled_steps(run, steps, few, partial(draw, 0))
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


def estimated(batch: BatchSizes, run: RunSpec, steps: int, basis: str) -> Drawn:
    """One batch of expected sizes, used for every step."""
    schedule = (0,) * (steps * run.training.epochs)
    return Drawn(batches=[batch], schedule=schedule, counted=False, basis=basis)


def _spread(steps: int, count: int) -> list[int]:
    return [int(i) for i in np.unique(np.linspace(0, steps - 1, count).astype(int))]


def _sampled_steps(
    run: RunSpec, steps: int, picks: Sequence[int], draw: Callable[[int], BatchSizes]
) -> Drawn:
    """Draw some steps of the first epoch; every other step takes the sizes of the nearest one."""
    nearest = np.searchsorted(picks, np.arange(steps), side="right") - 1
    return Drawn(
        batches=[draw(pick) for pick in picks],
        schedule=tuple(nearest.tolist()) * run.training.epochs,
        counted=False,
        basis=f"{len(picks)} of {steps} steps of the first epoch drawn",
    )


def draw_batch(
    source: Source, world_size: int, owner: NDArray[np.int32] | None, epoch: int, step: int
) -> BatchSizes:
    """Sizes of every rank's part of one global batch."""
    parts = (source.draw(epoch, step, world_size, rank) for rank in range(world_size))
    return sizes_of(parts, owner, world_size)


def sizes_of(
    parts: Iterable[Dealt], owner: NDArray[np.int32] | None = None, world_size: int = 1
) -> BatchSizes:
    """Sizes of parts that were drawn, one per rank."""
    sizes, asked, looked = [], [], []
    for dealt in parts:
        looked.append([(hop.rows, hop.candidates, hop.edges) for hop in dealt.batch.near])
        vertices, edges = dealt.batch.sizes
        sizes.append((*vertices, *edges, dealt.num_rows, dealt.batch.scanned))
        if owner is not None:
            asked.append(np.bincount(owner[dealt.batch.input_nodes], minlength=world_size))
    *columns, rows, scanned = np.array(sizes, np.int64).T
    hops = len(columns) // 2
    return BatchSizes(
        vertices=tuple(columns[: hops + 1]),
        edges=tuple(columns[hops + 1 :]),
        loss_rows=rows,
        scanned=scanned,
        requests=None if owner is None else np.array(asked, np.int64),
        near=near_sizes(looked),
    )


def near_sizes(looked: Sequence[Sequence[tuple[int, int, int]]]) -> tuple[NearSizes, ...]:
    """Sizes by hop, of (rows, candidates, edges) by rank and hop."""
    hops = np.array(looked, np.int64).reshape(len(looked), -1, 3).transpose(1, 2, 0)
    return tuple(NearSizes(rows=r, candidates=c, edges=e) for r, c, e in hops)


def even_batch(
    ranks: int,
    vertices: Sequence[Expected],
    edges: Sequence[Expected],
    *,
    loss_rows: Expected | None = None,
    scanned: Expected = 0.0,
    partitioned: bool = False,
) -> BatchSizes:
    """Expected sizes, the same on every rank or one each; fetches are spread evenly over owners."""

    def everywhere(size: Expected) -> Ints:
        return np.broadcast_to(np.round(size), ranks).astype(np.int64)

    requests = None
    if partitioned:
        each = -(-everywhere(vertices[0]) // ranks)
        requests = np.repeat(each[:, None], ranks, axis=1)
    return BatchSizes(
        vertices=tuple(everywhere(n) for n in vertices),
        edges=tuple(everywhere(e) for e in edges),
        loss_rows=None if loss_rows is None else everywhere(loss_rows),
        scanned=everywhere(scanned),
        requests=requests,
    )


def needs_transpose(shape: StackShape, layer: int) -> bool:
    """Return whether the backward pass aggregates along the transpose of this layer's block."""
    return layer > 1 or shape.orders[0] == "transform_first"


def block_is_turned(shape: StackShape, block: int, blocks: int) -> bool:
    """Whether a block (counted from 1) is transposed: the one block serves all layers."""
    layers = range(1, shape.num_layers + 1) if blocks == 1 else (block,)
    return any(needs_transpose(shape, layer) for layer in layers)


def turned_edges(shape: StackShape, blocks: Sequence[LayerSizes]) -> Size:
    """Edges of the blocks that are transposed."""
    count = len(blocks)
    turned = [b.nonzeros for at, b in enumerate(blocks, 1) if block_is_turned(shape, at, count)]
    return sum(turned, 0)


def block_bytes(
    shape: StackShape,
    blocks: Sequence[LayerSizes],
    form: Form = PLAIN,
    loss_rows: Size = 0,
    *,
    first: int = 0,
) -> Size:
    """Bytes of a batch as it is trained on: patterns both ways, scales, rows of the loss.

    The first block is that of layer `first`; 0: blocks are those of all layers, or one is.
    """
    total: Size = 0
    s = shape.element_bytes
    if form.some_rows:
        total = total + (ID_BYTES + (s if form.loss_weights else 0)) * loss_rows
    for at, size in enumerate(blocks, first or 1):
        n, u, e = size.rows, size.source_rows, size.nonzeros
        if shape.model.attention:
            # Self loops are entries, kept both ways, with the place of each transposed entry and,
            # for its dropout, an id.
            entries = e + n
            total = total + 8 * (n + 1) + 8 * (u + 1) + 16 * entries
            total = total + (8 * entries if shape.dropout > 0 else 0)
            continue
        turned = needs_transpose(shape, at)
        if not first:
            turned = block_is_turned(shape, at, len(blocks))
        total = total + 8 * (n + 1) + 4 * e
        if turned:
            total = total + 8 * (u + 1) + 4 * e
        scales = {"symmetric": 2 * n + u, "mean": n + (u if form.column_weights else 0)}
        total = total + scales[shape.model.normalisation] * s
        if form.edge_weights:
            total = total + (2 if turned else 1) * e * s
    return total
