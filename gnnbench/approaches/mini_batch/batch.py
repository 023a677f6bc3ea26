"""Mini-batches: sizes of the blocks that a source deals, drawn on the real graph or estimated.

A block serves one layer; where a batch is a subgraph, its single block serves all layers. The union
of the ranks' parts is the batch that one rank would train on (see `gnnbench.data.dealing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench import work
from gnnbench.approaches.mini_batch.caches import Ahead, CacheSizes, RowCache
from gnnbench.approaches.mini_batch.drawing import drawing_of, together
from gnnbench.approaches.writing.shape import LayerSizes
from gnnbench.data.caching import HitRates
from gnnbench.data.dealing import Dealt, Source
from gnnbench.spec import RunSpec
from gnnbench.steps import Ints, Size, Work

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
        by_lot: drawn edges that took a random number; None: none.
        tables: bytes of the graph that sampling looks up in any order.
        requests: [P, P], rows of rank j that rank i asks for, its own included; None where
            features are not partitioned.
        cached: what happens to the caches; None without caches.
        drawing: drawing of all batches that are drawn in this step; None is this batch alone.
        waiting_bytes: of batches that are drawn and wait for their turn.
        near: what ranks look at together, hop by hop from the seeds; empty where each looks alone.
    """

    vertices: tuple[Ints, ...]
    edges: tuple[Ints, ...]
    loss_rows: Ints | None = None
    scanned: Ints | None = None
    by_lot: Ints | None = None
    tables: int = 0
    requests: Ints | None = None
    cached: CacheSizes | None = None
    drawing: Work | None = None
    waiting_bytes: Ints | None = None
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

    def draws(self, form: Form = PLAIN) -> Work:
        """Drawing what is drawn with this batch."""
        if self.drawing is not None:
            return self.drawing
        scanned: Size = 0 if self.scanned is None else self.scanned
        by_lot: Size = 0 if self.by_lot is None else self.by_lot
        return work.draw_neighbours(
            self.vertices, self.edges, scanned, form.op, by_lot=by_lot, tables=self.tables
        )

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
            by_lot=each(self.by_lot),
            tables=self.tables,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Batches of a run: which of them runs when, and whether each was drawn.

    Of the first `whole_epochs` every batch was drawn, whether or not of all.
    """

    batches: list[BatchSizes]
    schedule: tuple[int, ...]
    counted: bool
    basis: str
    whole_epochs: int = 0

    def over(self, tables: int) -> Drawn:
        """The same batches, drawn from a graph whose tables have so many bytes."""
        batches = []
        for batch in self.batches:
            drawing = None if batch.drawing is None else batch.drawing._replace(width=tables)
            batches.append(replace(batch, tables=tables, drawing=drawing))
        return replace(self, batches=batches)

    def cache_notes(self, steps: int) -> dict[str, Any]:
        """Hits and misses of all ranks' caches in each period, and the hit rate of the last one.

        Empty without caches.
        """
        cached = [batch.cached for batch in self.batches]
        found: dict[str, Any] = {}
        for name in ("hits", "misses"):
            each = [int(getattr(c, name).sum()) for c in cached if c is not None]
            if each:
                used = np.array(each)[np.array(self.schedule)].reshape(-1, steps)
                found[f"cache_{name}"] = used.sum(axis=1).tolist()
        if found:
            last = [found[name][-1] for name in ("cache_hits", "cache_misses")]
            found["cache_hit_rate"] = last[0] / max(sum(last), 1)
        return found


Caches = Callable[[bool], Sequence[RowCache]]
"""Makes the caches of all ranks; True: static ones are full from the start."""


def no_caches(settled: bool) -> Sequence[RowCache]:
    """Ranks without caches."""
    return ()


def draw_run(
    source: Source,
    run: RunSpec,
    owner: NDArray[np.int32] | None,
    caches: Caches = no_caches,
    lookahead: int = 0,
    op: str = PLAIN.op,
) -> Drawn:
    """Draw the batches of a run until `DRAWN_EDGES` are spent.

    Whole epochs are drawn while they fit, else evenly spread steps of the first epoch, at least
    three of them. Caches whose content depends on earlier batches need the first steps instead.
    """
    steps, budget = source.steps, DRAWN_EDGES
    draw = _Draws(source, run, owner, caches(False), lookahead, op).sizes
    batches: list[BatchSizes] = []
    drawn = 0
    for epoch in range(run.training.epochs):
        for step in range(steps):
            batches.append(draw(epoch, step))
            drawn += batches[-1].cost
            if epoch == 0 and step == 2 and drawn * steps > 3 * budget:
                few = _spread(steps, max(3, int(3 * budget / max(drawn, 1))))
                if len(few) < steps:
                    apart = _Draws(source, run, owner, caches(True), lookahead, op)
                    if lookahead or any(not cache.fixed for cache in apart.caches):
                        few = list(range(len(few)))
                    return _sampled_steps(run, steps, few, partial(apart.sizes, 0))
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
    return Drawn(
        batches=batches, schedule=schedule, counted=counted, basis=basis, whole_epochs=epochs
    )


class _Draws:
    """Draws global batches and sizes them.

    Args:
        source: of the batches.
        run: how many ranks, epochs.
        owner: of the features, if they are partitioned.
        caches: of the ranks, or none.
        lookahead: batches that are drawn before their turn.
        op: cost class of the sampler.
    """

    def __init__(
        self,
        source: Source,
        run: RunSpec,
        owner: NDArray[np.int32] | None,
        caches: Sequence[RowCache],
        lookahead: int,
        op: str,
    ) -> None:
        self.caches, self._owner, self._lookahead = caches, owner, lookahead
        self._op = op
        total = source.steps * run.training.epochs
        self._ranks = [
            Ahead(
                partial(source.draw, world_size=run.ranks, rank=rank),
                source.steps,
                total,
                lookahead,
                caches[rank] if caches else None,
            )
            for rank in range(run.ranks)
        ]

    def sizes(self, epoch: int, step: int) -> BatchSizes:
        """The sizes of a batch, and what is drawn with it."""
        taken = [rank.take(epoch, step) for rank in self._ranks]
        found = sizes_of([dealt for dealt, _ in taken], self._owner, len(taken), self.caches)
        if not self._lookahead:
            return found
        drawn = [drawing_of([d.batch for d in ahead], self._op) for _, ahead in taken]
        waiting = [sum(d.batch.num_bytes for d in rank.waiting) for rank in self._ranks]
        return replace(found, drawing=together(drawn), waiting_bytes=np.array(waiting, np.int64))


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
    parts: Iterable[Dealt],
    owner: NDArray[np.int32] | None = None,
    world_size: int = 1,
    caches: Sequence[RowCache] = (),
) -> BatchSizes:
    """Sizes of parts that were drawn, one per rank, which take their turn in the ranks' caches."""
    sizes, asked, cached, looked = [], [], [], []
    for rank, dealt in enumerate(parts):
        looked.append([(hop.rows, hop.candidates, hop.edges) for hop in dealt.batch.near])
        vertices, edges = dealt.batch.sizes
        sizes.append((*vertices, *edges, dealt.num_rows, dealt.batch.scanned, dealt.batch.by_lot))
        ids = dealt.batch.input_nodes
        if caches:
            held, wanted = caches[rank].held_rows, caches[rank].wanted(ids)
            turn = caches[rank].turn(ids)
            missed = len(turn.misses)
            cached.append((len(wanted) - missed, missed, held + missed, len(turn.inserted)))
            if owner is not None:
                ids = np.concatenate([turn.misses, ids[owner[ids] == rank]])
        if owner is not None:
            asked.append(np.bincount(owner[ids], minlength=world_size))
    *columns, rows, scanned, by_lot = np.array(sizes, np.int64).T
    hops = len(columns) // 2
    return BatchSizes(
        vertices=tuple(columns[: hops + 1]),
        edges=tuple(columns[hops + 1 :]),
        loss_rows=rows,
        scanned=scanned,
        by_lot=by_lot,
        requests=None if owner is None else np.array(asked, np.int64),
        cached=CacheSizes(*np.array(cached, np.int64).T) if caches else None,
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
    by_lot: Expected = 0.0,
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
        by_lot=everywhere(by_lot),
        requests=requests,
    )


def with_cache(batch: BatchSizes, rates: HitRates, others: float, capacity: int) -> BatchSizes:
    """Expected sizes with a warm cache of a rank's rows.

    Args:
        batch: without a cache.
        rates: of the cache.
        others: share of the rows that a rank would have to fetch.
        capacity: rows of the cache.
    """

    def whole(size: Any) -> Ints:
        rounded: Ints = np.round(size).astype(np.int64)
        return rounded

    wanted = batch.vertices[0] * others
    misses = whole(wanted * (1 - rates.hits))
    requests = batch.requests
    if requests is not None:
        ranks = len(requests)
        requests = np.repeat(-(-misses // max(ranks - 1, 1))[:, None], ranks, axis=1)
        misses = requests.sum(axis=1) - requests.diagonal()
        np.fill_diagonal(requests, batch.vertices[0] - whole(wanted))
    cached = CacheSizes(
        hits=whole(wanted) - misses,
        misses=misses,
        ranked=misses + whole(rates.held * capacity),
        inserted=whole(wanted * rates.inserted),
    )
    return replace(batch, cached=cached, requests=requests)
