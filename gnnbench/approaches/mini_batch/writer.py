"""Steps of a mini-batch: draw, build blocks, fetch input rows, train, all-reduce, update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gnnbench import work
from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.mini_batch.batch import (
    PLAIN,
    BatchSizes,
    Form,
    block_bytes,
    scratch_bytes,
    turned_edges,
)
from gnnbench.approaches.mini_batch.fetching import FetchWriter, Store
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import LayerSizes, StackShape
from gnnbench.approaches.writing.stack import StackWriter, parameter_buffers
from gnnbench.iterations import Iteration, RankClass
from gnnbench.ledger import ROW_BYTES, ROWS_HELD
from gnnbench.steps import After, Buffer, Lane, Phase, Size, Space, Work
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
    partitioner: str = field(default="metis", metadata=choices("metis", "fennel", "hash", "chunk"))
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
        store: Store,
        device: str,
    ) -> None:
        self.shape, self.form = shape, form
        self.group, self.prefetch, self.device = tuple(range(ranks)), knobs.prefetch, device
        ahead = knobs.prefetch > 0
        self.local, self.remote = (
            (Lane.HOST, Lane.BACKGROUND) if ahead else (Lane.COMPUTE, Lane.COMM)
        )
        self.fetch = FetchWriter(shape, store, ranks, self.local, self.remote, device)

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
        drawn = sizes.drawing
        if drawn is None:
            drawn = work.draw_neighbours(n, sizes.edges, scanned, self.form.op)
        # Freed memory stays with the process's heap, so that temporary arrays are never given back.
        scratch = scratch_bytes(shape, sizes, self.form) + (0 if self.device == "cpu" else held)
        room = [Buffer("blocks", slots * held), Buffer("scratch", scratch, Space.HOST)]
        if sizes.waiting_bytes is not None:
            room.append(Buffer("waiting_batches", sizes.waiting_bytes, Space.HOST))
        self._step(
            chain,
            "sample/draw",
            drawn,
            Phase.SAMPLE,
            allocates=tuple(room),
            after=(After(update, lag),) if self.prefetch else (),
        )
        prepared = work.prepare_blocks(n, turned_edges(shape, blocks))
        self._step(chain, "sample/prepare", prepared, Phase.SAMPLE)
        if self.device != "cpu":
            chain.step("fetch/copy", work.to_device(held), phase=Phase.FETCH, lane=Lane.COPY)
        self.fetch.write(chain, sizes, Buffer("x", slots * n[0] * width * s))
        return blocks * (shape.num_layers // len(blocks))

    def freed(self, *names: str) -> tuple[str, ...]:
        """Buffers that end within a batch's preparation: none where it runs ahead of training."""
        return () if self.prefetch else names

    def _step(self, chain: Chain, name: str, done: Work, phase: Phase, **place: Any) -> None:
        chain.step(name, done, phase=phase, lane=self.local, **place)


def resident(
    shape: StackShape, data: GraphLike, store: Store, form: Form = PLAIN
) -> tuple[Buffer, ...]:
    """Buffers that live from before the first batch: features, topology, tables, parameters."""
    return sampled_data(shape, data, store, form) + parameter_buffers(shape)


def ledger_buffer(rows: int) -> Buffer:
    """The ledger of a period of so many steps, which is written when it ends, or is too long."""
    return Buffer("ledger", ROW_BYTES * min(rows, ROWS_HELD), Space.HOST)


def sampled_data(
    shape: StackShape, data: GraphLike, store: Store, form: Form = PLAIN
) -> tuple[Buffer, ...]:
    """What a rank that samples holds of the data: all but features lies in the host's memory."""
    s, n = shape.element_bytes, data.num_nodes
    # Float64, whatever the type of the run; batches that are normalised anew have none.
    scales = {"symmetric": 2, "mean": 1, "softmax": 0}[shape.model.normalisation]
    scales = 0 if form.renormalised else scales
    held: dict[str, Size] = {
        "topology": 8 * (n + 1) + 4 * data.num_edges,
        "labels": 8 * n,
        "sampler": 4 * n,
        "scales": scales * n * 8,
        "train_nodes": 2 * ID_BYTES * data.num_train,
    }
    features = store.buffers(shape.dims[0], s)
    return (*features, *(Buffer(name, size, Space.HOST) for name, size in held.items()))
