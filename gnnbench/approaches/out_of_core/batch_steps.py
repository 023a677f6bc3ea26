"""Steps of a batch that every approach of this family has; what lies between them differs."""

from __future__ import annotations

from dataclasses import dataclass

from gnnbench import work
from gnnbench.approaches.mini_batch.batch import BatchSizes
from gnnbench.approaches.mini_batch.drawing import preparing
from gnnbench.approaches.mini_batch.patterns import block_bytes, turned_edges
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.approaches.writing.stack import StackWriter
from gnnbench.iterations import Iteration, RankClass
from gnnbench.steps import After, Buffer, Lane, Phase, Size, Space, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSteps:
    """Writes a batch into a chain: prepare, fetch the input rows, train.

    Args:
        shape: of the model.
        device: "cpu", or that of the accelerator, to which blocks and rows are copied.
        lane: of drawing and gathering.
        flight: batches that are prepared at once; each has its buffers.
    """

    shape: StackShape
    device: str
    lane: Lane
    flight: int = 1

    @property
    def on_cpu(self) -> bool:
        """Whether blocks and rows stay where they are made."""
        return self.device == "cpu"

    def prepare(
        self, chain: Chain, sizes: BatchSizes, drawn: Work | None, waits: tuple[After, ...] = ()
    ) -> None:
        """Draw the batch, turn its blocks, copy them.

        Args:
            chain: of the iteration.
            sizes: of the batch.
            drawn: drawing it; None if that has happened before.
            waits: of drawing.
        """
        held, lane = self.held_bytes(sizes), self.lane
        blocks: tuple[Buffer, ...] = (Buffer("blocks", self.flight * held),)
        if drawn is not None:
            chain.step(
                "sample/draw", drawn, phase=Phase.SAMPLE, lane=lane, allocates=blocks, after=waits
            )
            blocks = ()
        edges = turned_edges(self.shape, sizes.blocks())
        turned = preparing(self.shape, sizes.vertices, edges)
        chain.step("sample/prepare", turned, phase=Phase.SAMPLE, lane=lane, allocates=blocks)
        if not self.on_cpu:
            chain.step("fetch/copy", work.to_device(held), phase=Phase.FETCH, lane=Lane.COPY)

    def gather(self, chain: Chain, sizes: BatchSizes, table_rows: int, *, staged: int = 0) -> None:
        """Gather the input rows in host memory.

        Args:
            chain: of the iteration.
            sizes: of the batch.
            table_rows: of the table that they are gathered from.
            staged: copies of the rows that gathering holds besides its result.
        """
        rows, shape = self.row_bytes(sizes), self.shape
        if not self.on_cpu:
            staged = max(staged, 1)
        room = (Buffer("x", self.flight * rows),) if self.on_cpu else ()
        if staged:
            room = (*room, Buffer("staged_x", staged * rows, Space.HOST))
        done = work.gather(sizes.vertices[0], shape.dims[0], table_rows, shape.element_bytes)
        chain.step("fetch/gather", done, phase=Phase.FETCH, lane=self.lane, allocates=room)

    def copy(self, chain: Chain, sizes: BatchSizes) -> None:
        """Copy the gathered rows to the device; nothing on a CPU."""
        if self.on_cpu:
            return
        rows = self.row_bytes(sizes)
        room = (Buffer("x", self.flight * rows),)
        copied = work.to_device(rows)
        chain.step("fetch/rows", copied, phase=Phase.FETCH, lane=Lane.COPY, allocates=room)

    def train(self, chain: Chain, sizes: BatchSizes) -> Iteration:
        """Forward, loss, backward and update; return the iteration of the one rank."""
        stack = StackWriter(self.shape, sizes.blocks(), None, chain)
        stack.forward()
        stack.loss(sizes.vertices[-1])
        stack.backward()
        stack.update(())
        return Iteration([RankClass((0,), chain.done())])

    def held_bytes(self, sizes: BatchSizes) -> Size:
        """Bytes of the blocks of a batch and of the ids of its vertices."""
        return block_bytes(self.shape, sizes.blocks()) + work.ID_BYTES * sizes.vertices[0]

    def row_bytes(self, sizes: BatchSizes) -> Size:
        """Bytes of the input rows of a batch."""
        return sizes.vertices[0] * self.shape.dims[0] * self.shape.element_bytes
