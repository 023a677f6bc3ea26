"""Steps of a mini-batch: draw, build blocks, fetch input rows, train, all-reduce, update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.mini_batch.batch import BatchSizes, Form, block_bytes, turned_edges
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import LayerSizes, StackShape, total
from gnnbench.approaches.writing.stack import StackWriter, parameter_buffers
from gnnbench.iterations import Iteration, RankClass
from gnnbench.steps import After, Buffer, Ints, Lane, Phase, Size, Work
from gnnbench.strict import bounds, choices

ID_BYTES = work.ID_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchKnobs:
    """Knobs of every approach that trains on batches.

    Args:
        placement: replicated keeps all features on every rank; partitioned keeps them on their
            owner, from which they are fetched by all-to-all.
        prefetch: batches that a thread prepares ahead; 0 is serial, and stage times add up.
        partitioner: how feature rows are assigned to owners, if partitioned.
        objective: what METIS minimises: communication volume (vol) or edge cut (cut).
        order: which product of a layer comes first.
    """

    placement: str = field(default="replicated", metadata=choices("replicated", "partitioned"))
    prefetch: int = field(default=0, metadata=bounds(0, 64))
    partitioner: str = field(default="metis", metadata=choices("metis", "hash", "chunk"))
    objective: str = field(default="vol", metadata=choices("vol", "cut"))
    order: str = field(
        default="aggregate_first",
        metadata=choices("min_width", "aggregate_first", "transform_first"),
    )


class BatchWriter:
    """Writes iterations: draw, fetch, forward, backward, all-reduce, update."""

    def __init__(
        self,
        shape: StackShape,
        form: Form,
        knobs: BatchKnobs,
        ranks: int,
        num_nodes: int,
        owned_rows: Ints | None,
        device: str,
    ) -> None:
        self.shape, self.form = shape, form
        self.num_nodes, self.owned_rows = num_nodes, owned_rows
        self.group, self.prefetch, self.device = tuple(range(ranks)), knobs.prefetch, device
        ahead = knobs.prefetch > 0
        self.local, self.remote = (
            (Lane.HOST, Lane.BACKGROUND) if ahead else (Lane.COMPUTE, Lane.COMM)
        )

    def iteration(self, sizes: BatchSizes, *, first: bool) -> Iteration:
        """One batch of all ranks; the `first` of an epoch waits for the epoch before."""
        chain = Chain()
        layers = self.prepare(chain, sizes, first=first)
        stack = StackWriter(self.shape, layers, None, chain)
        stack.forward()
        stack.loss(sizes.counted_rows)
        stack.backward()
        stack.update(self.group)
        return Iteration([RankClass(self.group, chain.done())])

    def prepare(self, chain: Chain, sizes: BatchSizes, *, first: bool) -> list[LayerSizes]:
        """Draw a batch, build its blocks, fetch its input rows; return the sizes of its layers."""
        shape, n, blocks = self.shape, sizes.vertices, sizes.blocks(self.form)
        s, width = shape.element_bytes, shape.dims[0]
        update = f"update/{shape.optimizer}"
        lag = 1 if first else self.prefetch + 1
        slots = self.prefetch + 1
        held = block_bytes(shape, blocks, self.form, sizes.counted_rows) + ID_BYTES * n[0]
        scanned: Size = 0 if sizes.scanned is None else sizes.scanned
        self._step(
            chain,
            "sample/draw",
            work.draw_neighbours(n, sizes.edges, scanned, self.form.op),
            Phase.SAMPLE,
            allocates=(Buffer("blocks", slots * held), *self.draft(sizes)),
            after=(After(update, lag),) if self.prefetch else (),
        )
        prepared = work.prepare_blocks(n, turned_edges(shape, blocks))
        freed = self.freed(*(buffer.name for buffer in self.draft(sizes)))
        self._step(chain, "sample/prepare", prepared, Phase.SAMPLE, frees=freed)
        if self.device != "cpu":
            chain.step("fetch/copy", work.to_device(held), phase=Phase.FETCH, lane=Lane.COPY)
        inputs = Buffer("x", slots * n[0] * width * s)
        if sizes.requests is not None:
            self._fetch(chain, sizes.requests, inputs)
        else:
            gathered = work.gather(n[0], width, self.num_nodes, s)
            self._step(chain, "fetch/gather", gathered, Phase.FETCH, allocates=(inputs,))
        return blocks * (shape.num_layers // len(blocks))

    def freed(self, *names: str) -> tuple[str, ...]:
        """Buffers that end within a batch's preparation: none where it runs ahead of training."""
        return () if self.prefetch else names

    def draft(self, sizes: BatchSizes) -> tuple[Buffer, ...]:
        """The buffer in which the picks of the largest hop are drawn, where the sampler has one."""
        if not self.form.drafted:
            return ()
        room = work.INDEX_BYTES * self.form.drafted * np.max(sizes.edges, axis=0)
        return (Buffer("draft", np.ceil(room).astype(np.int64)),)

    def _fetch(self, chain: Chain, requests: Ints, inputs: Buffer) -> None:
        """Fetch feature rows from their owners: counts, ids, rows, then back into order."""
        s, width = self.shape.element_bytes, self.shape.dims[0]
        wanted, given = requests.sum(axis=1), requests.sum(axis=0)
        others = requests.copy()
        np.fill_diagonal(others, 0)
        assert self.owned_rows is not None
        self._step(chain, "fetch/route", work.route(wanted), Phase.FETCH)
        ones = np.ones_like(others)
        np.fill_diagonal(ones, 0)
        self._exchange(chain, "fetch/counts", ones, ID_BYTES)
        self._exchange(chain, "fetch/ids", others, ID_BYTES)
        served = Buffer("served_rows", given * width * s)
        gathered = work.gather(given, width, self.owned_rows, s)
        self._step(chain, "fetch/gather", gathered, Phase.FETCH, allocates=(served,))
        self._exchange(chain, "fetch/rows", others.T, width * s)
        placed = work.gather(wanted, width, wanted, s)
        fetched = Buffer("fetched_rows", wanted * width * s)
        self._step(chain, "fetch/place", placed, Phase.FETCH, allocates=(fetched, inputs))

    def _exchange(self, chain: Chain, name: str, send: Ints, unit_bytes: int) -> None:
        done = work.all_to_all(send, total(send.T), unit_bytes)
        chain.step(name, done, phase=Phase.FETCH, lane=self.remote, group=self.group)

    def _step(self, chain: Chain, name: str, done: Work, phase: Phase, **place: Any) -> None:
        chain.step(name, done, phase=phase, lane=self.local, **place)


def resident(shape: StackShape, data: GraphLike, owned_rows: Ints | None) -> tuple[Buffer, ...]:
    """Buffers that live from before the first batch: features, topology, tables, parameters."""
    return sampled_data(shape, data, owned_rows) + parameter_buffers(shape)


def sampled_data(shape: StackShape, data: GraphLike, owned_rows: Ints | None) -> tuple[Buffer, ...]:
    """What a rank that samples holds of the data; features of `owned_rows`, or of all vertices."""
    s, n = shape.element_bytes, data.num_nodes
    rows: Size = n if owned_rows is None else owned_rows
    scales = {"symmetric": 2, "mean": 0, "softmax": 0}[shape.model.normalisation]
    held: dict[str, Size] = {
        "features": rows * shape.dims[0] * s,
        "topology": 8 * (n + 1) + 4 * data.num_edges,
        "labels": 8 * n,
        "sampler": 4 * n,
        "scales": scales * n * s,
        "train_nodes": 2 * ID_BYTES * data.num_train,
    }
    if owned_rows is not None:
        held["owners"] = 4 * n + ID_BYTES * n
    return tuple(Buffer(name, size) for name, size in held.items())
