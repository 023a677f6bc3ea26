"""Exchange of attention scores (two per vertex and head) between rows and columns, by all-to-all.

To columns, a rank sends each peer the scores of its rows for the heads of which the peer has
columns. Gradients return, one from every rank that shares a head, and are added. The plan of these
steps is in `gnnbench.approaches.writing.layers.attention_columns`.

Legend: N vertices, n own rows, K heads, k those of own columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.whole_graph.relayout import HeadSlice, score_blocks_work
from gnnbench.steps import Phase, Work
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext


class ScoreExchange:
    """The two directions on one rank. Scores of destinations and sources are two matrices.

    Args:
        context: the rank.
        rows: n_i of every rank; rank i owns the rows after those of rank i - 1.
        workspace: where the buffers "row_blocks" and "column_blocks" live.
    """

    def __init__(self, context: RankContext, rows: Sequence[int], workspace: Workspace) -> None:
        self._context, self._workspace, self._rows = context, workspace, tuple(rows)
        self._bounds = np.concatenate([[0], np.cumsum(self._rows)]).tolist()

    def to_columns(
        self,
        scores_2nK: Tensor,
        slices: Sequence[HeadSlice],
        out_2Nk: Tensor,
        layer: int,
        phase: Phase,
    ) -> None:
        """Fill the scores of all vertices for own heads."""
        leaving, arriving = self._by_peer(slices), self._by_owner(slices)
        with self._step("score_pack", self._row_work(slices), phase, layer):
            for block, heads in self._row_blocks(leaving, slices):
                block.copy_(scores_2nK[:, :, heads.first : heads.stop])
        self._transfer("scores_to_columns", arriving, leaving, slices, layer, phase)
        if arriving.numel():
            with self._step("score_unpack", self._column_work(arriving), phase, layer):
                for block, (start, stop) in self._column_blocks(arriving, slices):
                    out_2Nk[:, start:stop].copy_(block)

    def to_rows(
        self, grad_2Nk: Tensor, slices: Sequence[HeadSlice], out_2nK: Tensor, layer: int
    ) -> None:
        """Fill the gradients of own rows and all heads with the sum of what all ranks found."""
        phase = Phase.BACKWARD
        leaving, arriving = self._by_owner(slices), self._by_peer(slices)
        if leaving.numel():
            with self._step("score_pack", self._column_work(leaving), phase, layer):
                for block, (start, stop) in self._column_blocks(leaving, slices):
                    block.copy_(grad_2Nk[:, start:stop])
        self._transfer("scores_to_rows", arriving, leaving, slices, layer, phase)
        with self._step("score_sum", self._row_work(slices, adds=True), phase, layer):
            out_2nK.zero_()
            for block, heads in self._row_blocks(arriving, slices):
                out_2nK[:, :, heads.first : heads.stop].add_(block)

    # -- blocks ----------------------------------------------------------------------------------

    def _by_peer(self, slices: Sequence[HeadSlice]) -> Tensor:
        heads = sum(part.count for part in slices)
        return self._workspace.get("row_blocks", self._own_rows, 2 * heads).view(-1)

    def _by_owner(self, slices: Sequence[HeadSlice]) -> Tensor:
        heads = slices[self._context.rank].count
        return self._workspace.get("column_blocks", self._bounds[-1], 2 * heads).view(-1)

    @property
    def _own_rows(self) -> int:
        return self._rows[self._context.rank]

    def _row_blocks(
        self, flat: Tensor, slices: Sequence[HeadSlice]
    ) -> Iterator[tuple[Tensor, HeadSlice]]:
        """Blocks (2, n, k_j) of every rank j with columns."""
        start, n = 0, self._own_rows
        for part in slices:
            stop = start + 2 * n * part.count
            if part.count:
                yield flat[start:stop].view(2, n, part.count), part
            start = stop

    def _column_blocks(
        self, flat: Tensor, slices: Sequence[HeadSlice]
    ) -> Iterator[tuple[Tensor, tuple[int, int]]]:
        """Blocks (2, n_i, k) of every rank i, and which rows of all they are."""
        heads = slices[self._context.rank].count
        for start, stop in pairwise(self._bounds):
            block = flat[2 * start * heads : 2 * stop * heads]
            yield block.view(2, stop - start, heads), (start, stop)

    def _transfer(
        self,
        name: str,
        arriving: Tensor,
        leaving: Tensor,
        slices: Sequence[HeadSlice],
        layer: int,
        phase: Phase,
    ) -> None:
        by_peer = [2 * self._own_rows * part.count for part in slices]
        by_owner = [2 * rows * slices[self._context.rank].count for rows in self._rows]
        forward = phase is not Phase.BACKWARD
        received, sent = (by_owner, by_peer) if forward else (by_peer, by_owner)
        where = f"{phase}/{layer}/{name}"
        self._context.comm.all_to_all(arriving, leaving, received, sent, where, phase, layer=layer)

    # -- steps -----------------------------------------------------------------------------------

    def _row_work(self, slices: Sequence[HeadSlice], *, adds: bool = False) -> Work:
        counts, s = [part.count for part in slices], self._workspace.dtype.itemsize
        return score_blocks_work(self._own_rows, counts, s, adds=adds)

    def _column_work(self, blocks: Tensor) -> Work:
        rows = 2 * self._bounds[-1]
        return work.gather(rows, blocks.numel() // rows, rows, blocks.element_size(), ids=False)

    def _step(self, name: str, done: Work, phase: Phase, layer: int) -> Any:
        recorder = self._context.recorder
        return recorder.step(f"{phase}/{layer}/{name}", done, phase=phase, layer=layer)
