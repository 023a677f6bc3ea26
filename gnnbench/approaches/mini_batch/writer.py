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
)
from gnnbench.approaches.mini_batch.drawing import preparing
from gnnbench.approaches.mini_batch.fetching import FetchWriter, Store
from gnnbench.approaches.mini_batch.patterns import block_bytes, scratch_bytes, turned_edges
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
        self.train(chain, sizes, self.prepare(chain, sizes, first=first))
        return Iteration([RankClass(self.group, chain.done())])

    def train(self, chain: Chain, sizes: BatchSizes, layers: list[LayerSizes]) -> None:
        """Train on a batch that is prepared: forward, loss, backward, all-reduce, update."""
        stack = StackWriter(self.shape, layers, None, chain)
        stack.forward()
        stack.loss(sizes.counted_rows)
        stack.backward()
        stack.update(self.group)

    def prepare(self, chain: Chain, sizes: BatchSizes, *, first: bool) -> list[LayerSizes]:
        """Draw a batch, build its blocks, fetch its input rows; return the sizes of its layers."""
        room = self.room(sizes)
        if sizes.waiting_bytes is not None:
            room.append(Buffer("waiting_batches", sizes.waiting_bytes, Space.HOST))
        self._step(
            chain,
            "sample/draw",
            sizes.draws(self.form),
            Phase.SAMPLE,
            allocates=tuple(room),
            after=(self.slot_is_free(first=first),) if self.prefetch else (),
        )
        return self.build(chain, sizes)

    def slot_is_free(self, *, first: bool) -> After:
        """The end of the training step whose buffers the next batch takes over."""
        return After(f"update/{self.shape.optimizer}", 1 if first else self.prefetch + 1)

    def held(self, sizes: BatchSizes) -> Size:
        """Bytes of the blocks and ids of a batch that is ready to train on."""
        blocks = sizes.blocks(self.form)
        patterns = block_bytes(self.shape, blocks, self.form, sizes.counted_rows)
        return patterns + ID_BYTES * sizes.vertices[0]

    def room(self, sizes: BatchSizes) -> list[Buffer]:
        """What the blocks of a batch take, and temporary arrays while they are made."""
        held = self.held(sizes)
        # Freed memory stays with the process's heap, so that temporary arrays are never given back.
        scratch = scratch_bytes(self.shape, sizes, self.form)
        scratch = scratch + (0 if self.device == "cpu" else held)
        slots = self.prefetch + 1
        return [Buffer("blocks", slots * held), Buffer("scratch", scratch, Space.HOST)]

    def build(self, chain: Chain, sizes: BatchSizes) -> list[LayerSizes]:
        """Build the blocks of a batch, fetch its input rows; return the sizes of its layers."""
        shape, n, blocks = self.shape, sizes.vertices, sizes.blocks(self.form)
        turned, weighted = turned_edges(shape, blocks), self.form.edge_weights
        prepared = preparing(shape, n, turned, weighted=weighted)
        self._step(chain, "sample/prepare", prepared, Phase.SAMPLE)
        if self.device != "cpu":
            copied = work.to_device(self.held(sizes))
            chain.step("fetch/copy", copied, phase=Phase.FETCH, lane=Lane.COPY)
        slots, row_bytes = self.prefetch + 1, shape.dims[0] * shape.element_bytes
        self.fetch.write(chain, sizes, Buffer("x", slots * n[0] * row_bytes))
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
