"""Push-pull exchange of the first layer: sizes, volumes, and the steps of a batch (P3).

Every rank multiplies its columns of the input rows of all ranks' batches with its rows of W_1. The
partial products are summed on the owner of each batch by a reduce-scatter (pull); the gradients of
the sums return by an all-gather (push). Ranks have differently many rows, and collectives want
equal blocks, so blocks are as long as the longest one; their tails are zeros.

Legend: P ranks, n_0, n_1, e_1 input vertices, rows and edges of a rank's first block, with a hat
for the largest over ranks; D input width, d own columns, H width of layer 1, s bytes per element.

Bytes that a rank sends per batch (closed form):

    structure    (P - 1) (24 + 8 n̂_0 + 4 (n̂_1 + ê_1))
    pull, push   (P - 1) n̂_1 H s each; with attention (P - 1) n̂_0 H s each, and no edges above

Source: sampling reference section 11, invariants SA-P2, SA-P5, SA-P7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.mini_batch.batch import BatchSizes, Form
from gnnbench.approaches.mini_batch.drawing import preparing
from gnnbench.approaches.mini_batch.fetching import Store
from gnnbench.approaches.mini_batch.patterns import block_bytes, scratch_bytes, turned_edges
from gnnbench.approaches.mini_batch.writer import BatchKnobs, BatchWriter
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.layers import attention
from gnnbench.approaches.writing.shape import LayerSizes, StackShape
from gnnbench.approaches.writing.stack import StackWriter
from gnnbench.iterations import Iteration, RankClass
from gnnbench.steps import After, Buffer, Ints, Lane, Phase, Size, Space

HEADER = 3
"""Counts that a rank announces: n_0, n_1 and e_1 of its first block."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merged:
    """The first blocks of all ranks as one block, and the sizes of their exchange.

    The rows of rank j are rows j n̂_1 ... of it; its sources are these rows, then the other sources
    of each rank in turn. With attention there are no rows: the sources of rank j are sources j n̂_0
    ..., because the exchange takes place between the transform of the sources and the softmax.

    Args:
        inputs, rows, edges: n_0, n_1 and e_1 of every rank, int64 [P] each.
        attention: whether the model's first layer is attention.
    """

    inputs: Ints
    rows: Ints
    edges: Ints
    attention: bool

    @classmethod
    def of(cls, sizes: BatchSizes, shape: StackShape) -> Merged:
        """Of a batch whose sizes are known."""
        n, attended = sizes.vertices, shape.model.attention
        return cls(inputs=n[0], rows=n[1], edges=sizes.edges[0], attention=attended)

    @property
    def ranks(self) -> int:
        return len(self.rows)

    @property
    def longest_inputs(self) -> int:
        return int(self.inputs.max())

    @property
    def longest_rows(self) -> int:
        return int(self.rows.max())

    @property
    def pattern_entries(self) -> int:
        """Numbers of a rank's pattern: edges of each row, then columns of all edges."""
        return 0 if self.attention else self.longest_rows + int(self.edges.max())

    @property
    def block_rows(self) -> int:
        """Rows of a rank's block in the exchange."""
        return self.longest_inputs if self.attention else self.longest_rows

    @property
    def exchanged_rows(self) -> int:
        """Rows of all blocks."""
        return self.ranks * self.block_rows

    @property
    def source_rows(self) -> int:
        """Input rows that every rank gathers its columns of."""
        others = 0 if self.attention else int((self.inputs - self.rows).sum())
        return self.exchanged_rows + others

    @property
    def nonzeros(self) -> int:
        return 0 if self.attention else int(self.edges.sum())

    def pattern_bytes(self, shape: StackShape) -> int:
        """Bytes of the merged block: pattern, scales and ids of its sources."""
        rows, sources = self.exchanged_rows, self.source_rows
        if self.attention:
            return work.ID_BYTES * sources
        scales = {"symmetric": 2 * rows + sources, "mean": rows}[shape.model.normalisation]
        pattern = 8 * (rows + 1) + work.INDEX_BYTES * self.nonzeros + work.ID_BYTES * sources
        return pattern + scales * shape.element_bytes

    @property
    def message_bytes(self) -> int:
        """Bytes of a rank's structure as it travels, the counts left out."""
        return work.ID_BYTES * self.longest_inputs + work.INDEX_BYTES * self.pattern_entries

    @property
    def announced_bytes(self) -> Ints:
        """Bytes of counts and structure of every rank, int64 [P], before they are padded.

        With attention the ids are those of the rank's own sources, which it has anyway.
        """
        counts = HEADER * work.ID_BYTES
        if self.attention:
            return np.full(self.ranks, counts)
        ids: Ints = work.ID_BYTES * self.inputs + work.INDEX_BYTES * (self.rows + self.edges)
        return counts + ids

    def sent_bytes(self, width: int, element_bytes: int) -> int:
        """Bytes that a rank sends for a batch: structure, pull and push (see the module)."""
        structure = HEADER * work.ID_BYTES + self.message_bytes
        return (self.ranks - 1) * (structure + 2 * self.block_rows * width * element_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """Which columns of the features, and which parameters, each rank has.

    Args:
        shape: the whole model.
        columns: d of every rank, int64 [P], in the order of the columns.
    """

    shape: StackShape
    columns: Ints

    @property
    def matrices(self) -> int:
        """Matrices of the first layer whose rows are split: W_1, and the self weight if any."""
        return 2 if self.shape.model.self_weight else 1

    @property
    def row_elements(self) -> int:
        """Parameters per column of the features."""
        return self.matrices * self.shape.dims[1]

    @property
    def replicated(self) -> int:
        """Parameters that every rank has."""
        return self.shape.num_parameters - self.row_elements * self.shape.dims[0]

    @property
    def held(self) -> Ints:
        """Parameters of every rank, int64 [P]."""
        found: Ints = self.columns * self.row_elements + self.replicated
        return found


class PushPullStack(StackWriter):
    """Writes the passes of a model whose first layer is split over columns of its input.

    Args:
        slices: of the model.
        merged: first blocks of all ranks.
        sizes: of the rank's own blocks.
        chain: steps that came before are in it already.
        copies: whether a reduce-scatter works on a copy of its buffer, as gloo's does.
    """

    def __init__(
        self,
        slices: Slices,
        merged: Merged,
        sizes: Sequence[LayerSizes],
        chain: Chain,
        *,
        copies: bool,
    ) -> None:
        super().__init__(slices.shape, sizes, None, chain)
        self.slices, self.merged, self.copies = slices, merged, copies
        self.group = tuple(range(merged.ranks))

    @property
    def reduced_parameters(self) -> int:
        return self.slices.replicated

    @property
    def updated_parameters(self) -> Size:
        return self.slices.held

    def drop_input(self, rows: Size, source_rows: Size, width: Size) -> None:
        sources = self.merged.source_rows
        super().drop_input(sources, sources, self.slices.columns)

    def layer_forward(self, layer: int) -> None:
        if layer > 1:
            super().layer_forward(layer)
            return
        columns, width, phase = self.slices.columns, self.shape.dims[1], Phase.FORWARD
        rows = self.merged.exchanged_rows
        room = self.partial("t1" if self.merged.attention else "h1")
        if self.merged.attention:
            sizes = rows, columns, width
            self.gemm("forward/1/gemm", "gemm_nn", phase, 1, sizes, allocates=room)
            # The gradient of T returns in blocks as long as T's.
            self._pull("t1", "gt1")
            attention.attend(self, 1)
            return
        block = LayerSizes(
            rows=rows, source_rows=self.merged.source_rows, nonzeros=self.merged.nonzeros
        )
        summed = self.buffer("z1", rows, columns)
        self.spmm("forward/1/spmm", phase, 1, block, columns, allocates=summed)
        sizes = rows, columns, width
        self.gemm("forward/1/gemm", "gemm_nn", phase, 1, sizes, allocates=room)
        if self.shape.model.self_weight:
            self.gemm("forward/1/self", "gemm_nn_add", phase, 1, sizes)
        self._pull("h1", "gn1" if self.shape.has_norm(1) else "g1")
        done = work.bias(self.sizes[0].rows, width, self.element_bytes)
        self.step("forward/1/bias", done, phase, 1)

    def layer_backward(self, layer: int) -> None:
        if layer > 1:
            super().layer_backward(layer)
            return
        columns, width, phase = self.slices.columns, self.shape.dims[1], Phase.BACKWARD
        if self.merged.attention:
            attention.attend_backward(self, 1)
        else:
            done = work.column_sum(self.sizes[0].rows, width, self.element_bytes)
            self.step("backward/1/bias", done, phase, 1)
        if self.merged.ranks > 1:
            elements = self.merged.block_rows * width
            done = work.all_gather(elements, self.element_bytes, self.merged.ranks)
            self._exchange("backward/1/push", done, phase, allocates=self.partial(""))
        sizes = columns, self.merged.exchanged_rows, width
        self.gemm("backward/1/weight", "gemm_tn", phase, 1, sizes)
        if self.shape.model.self_weight:
            self.gemm("backward/1/self_weight", "gemm_tn", phase, 1, sizes)

    def _pull(self, into: str, gradient: str) -> None:
        """Write the sum of partial products on the owner of each batch."""
        if self.merged.ranks == 1:
            return
        elements = self.merged.block_rows * self.shape.dims[1]
        room = (*self._block(into), *self._block(gradient))
        copy: tuple[Buffer, ...] = ()
        if self.copies:
            copy = self.buffer("reduced_copy", self.merged.exchanged_rows, self.shape.dims[1])
        frees = tuple(buffer.name for buffer in copy)
        done = work.reduce_scatter(elements, self.element_bytes, self.merged.ranks)
        self._exchange("forward/1/pull", done, Phase.FORWARD, allocates=(*room, *copy), frees=frees)

    def _exchange(self, name: str, done: Any, phase: Phase, **place: Any) -> None:
        self.step(name, done, phase, 1, lane=Lane.COMM, group=self.group, **place)

    def partial(self, alone: str) -> tuple[Buffer, ...]:
        """The buffer of partial products, which are the whole ones on a rank that is `alone`."""
        name = "partial" if self.merged.ranks > 1 else alone
        return self.buffer(name, self.merged.exchanged_rows, self.shape.dims[1])

    def _block(self, name: str) -> tuple[Buffer, ...]:
        return self.buffer(name, self.merged.block_rows, self.shape.dims[1])


class PushPullWriter(BatchWriter):
    """Writes iterations of P3: draw, gather structure, fetch columns, train, all-reduce, update."""

    def __init__(
        self,
        slices: Slices,
        form: Form,
        knobs: BatchKnobs,
        ranks: int,
        num_nodes: int,
        device: str,
    ) -> None:
        super().__init__(slices.shape, form, knobs, ranks, Store(num_rows=num_nodes), device)
        self.slices, self.num_nodes = slices, num_nodes

    def iteration(self, sizes: BatchSizes, *, first: bool) -> Iteration:
        chain = Chain()
        layers = self.prepare(chain, sizes, first=first)
        merged, copies = Merged.of(sizes, self.shape), self.device == "cpu"
        stack = PushPullStack(self.slices, merged, layers, chain, copies=copies)
        stack.forward()
        stack.loss(sizes.counted_rows)
        stack.backward()
        stack.update(self.group)
        return Iteration([RankClass(self.group, chain.done())])

    def prepare(self, chain: Chain, sizes: BatchSizes, *, first: bool) -> list[LayerSizes]:
        """Draw a batch, gather the first blocks of all ranks, fetch own columns of their inputs."""
        shape, n, blocks = self.shape, sizes.vertices, sizes.blocks(self.form)
        merged = Merged.of(sizes, shape)
        lag = 1 if first else self.prefetch + 1
        slots = self.prefetch + 1
        own = blocks if merged.attention else blocks[1:]
        held = block_bytes(shape, own, self.form, first=0 if merged.attention else 2)
        # Ids of the own rows that key dropout, and the labels' rows.
        held = held + work.ID_BYTES * (n[0] if merged.attention else n[1])
        kept = Buffer("blocks", slots * (held + merged.pattern_bytes(shape)))
        scratch = scratch_bytes(shape, sizes, self.form) + (0 if self.device == "cpu" else held)
        self._step(
            chain,
            "sample/draw",
            sizes.draws(self.form),
            Phase.SAMPLE,
            allocates=(kept, Buffer("scratch", scratch, Space.HOST)),
            after=(After(f"update/{shape.optimizer}", lag),) if self.prefetch else (),
        )
        prepared = preparing(shape, n, turned_edges(shape, blocks))
        room = Buffer("structure", (merged.ranks + 1) * merged.message_bytes)
        self._step(chain, "sample/prepare", prepared, Phase.SAMPLE, allocates=(room,))
        if self.device != "cpu":
            copied = work.to_device(held + merged.announced_bytes)
            chain.step("fetch/copy", copied, phase=Phase.FETCH, lane=Lane.COPY)
        self._gather_structure(chain, merged)
        columns, s = self.slices.columns, shape.element_bytes
        gathered = work.gather(merged.source_rows, columns, self.num_nodes, s)
        inputs = Buffer("x", slots * merged.source_rows * columns * s)
        self._step(chain, "fetch/gather", gathered, Phase.FETCH, allocates=(inputs,))
        return blocks

    def _gather_structure(self, chain: Chain, merged: Merged) -> None:
        """Gather counts, ids and patterns of all ranks, and merge them."""
        self._all_gather(chain, "counts", HEADER, work.ID_BYTES)
        self._all_gather(chain, "ids", merged.longest_inputs, work.ID_BYTES)
        if not merged.attention:
            self._all_gather(chain, "pattern", merged.pattern_entries, work.INDEX_BYTES)
        sizes = merged.exchanged_rows, merged.source_rows, merged.nonzeros
        # One rank's column numbers at a time are renumbered in passing, and as 64-bit numbers.
        scratch = 3 * work.ID_BYTES * (0 if merged.attention else int(merged.edges.max()))
        self._step(
            chain,
            "sample/merge",
            work.merge_blocks(*sizes),
            Phase.SAMPLE,
            allocates=(Buffer("merging", scratch),),
            frees=self.freed("structure", "merging"),
        )

    def _all_gather(self, chain: Chain, name: str, elements: int, element_bytes: int) -> None:
        if len(self.group) > 1:
            done = work.all_gather(elements, element_bytes, len(self.group))
            lane, group = self.remote, self.group
            chain.step(f"fetch/{name}", done, phase=Phase.FETCH, lane=lane, group=group)
