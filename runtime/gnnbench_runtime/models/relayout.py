"""Changing a matrix between row slices and column slices, by one all-to-all each way.

Blocks are packed so that every message is contiguous: to columns, by owner of the columns before
sending; to rows, by owner of the rows, whose blocks are contiguous already, and whole rows are
assembled after receiving. Splits may be uneven and empty; nothing is padded.

Legend: N vertices, n own rows, F width, f own columns, P ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gnnbench.approaches.whole_graph.relayout import Relayouts, even_split, regroup_work
from gnnbench.steps import Phase
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext


class Relayout:
    """The two directions on one rank. Buffers are sized for the widest re-layout at once.

    Args:
        context: the rank.
        rows: n_i of every rank; rank i owns the rows after those of rank i - 1.
        relayouts: which re-layouts there will be.
        workspace: where the buffers "packed", "columns" and "aggregated" live.
    """

    def __init__(
        self,
        context: RankContext,
        rows: Sequence[int],
        relayouts: Relayouts,
        workspace: Workspace,
    ) -> None:
        self._context, self._rows, self._workspace = context, tuple(rows), workspace
        self.num_nodes, self.own_rows = sum(rows), rows[context.rank]
        self._widest, self._widest_there = relayouts.widest, relayouts.widest_there

    @property
    def rank(self) -> int:
        return self._context.rank

    def columns(self, width: int) -> tuple[int, ...]:
        """f_i of every rank."""
        return even_split(width, len(self._rows))

    def own_columns(self, width: int) -> int:
        """Columns that this rank holds of a matrix in column layout."""
        return self.columns(width)[self._context.rank]

    def aggregated(self, width: int) -> Tensor:
        """The buffer (N, f) that a local product writes to."""
        return self._slice("aggregated", self._widest, width)

    def to_columns(
        self, x_nF: Tensor, layer: int, phase: Phase, out_Nf: Tensor | None = None
    ) -> Tensor:
        """Return this rank's columns of the matrix whose rows `x_nF` the ranks hold (N, f).

        They are in `out_Nf`, if given, else in a buffer that the next call overwrites.
        """
        width, mine = x_nF.shape[1], self.own_columns(x_nF.shape[1])
        packed = self._packed(width)
        with self._regrouping("pack", phase, layer, width):
            copy_blocks(packed, x_nF, self.columns(width), pack=True)
        if out_Nf is None:
            out_Nf = self._slice("columns", self._widest_there, width)
        self._context.comm.all_to_all(
            out_Nf.view(-1),
            packed,
            [rows * mine for rows in self._rows],
            [self.own_rows * columns for columns in self.columns(width)],
            f"{phase}/{layer}/to_columns",
            phase,
            layer=layer,
        )
        return out_Nf

    def to_rows(self, x_Nf: Tensor, out_nF: Tensor, layer: int, phase: Phase) -> None:
        """Fill this rank's rows of the matrix whose columns `x_Nf` the ranks hold."""
        width, mine = out_nF.shape[1], x_Nf.shape[1]
        packed = self._packed(width)
        self._context.comm.all_to_all(
            packed,
            x_Nf.view(-1),
            [self.own_rows * columns for columns in self.columns(width)],
            [rows * mine for rows in self._rows],
            f"{phase}/{layer}/to_rows",
            phase,
            layer=layer,
        )
        with self._regrouping("unpack", phase, layer, width):
            copy_blocks(packed, out_nF, self.columns(width), pack=False)

    def _packed(self, width: int) -> Tensor:
        flat = self._workspace.get("packed", self.own_rows, self._widest)
        return flat.view(-1)[: self.own_rows * width]

    def _slice(self, name: str, widest: int, width: int) -> Tensor:
        flat = self._workspace.get(name, self.num_nodes, self.own_columns(widest)).view(-1)
        mine = self.own_columns(width)
        return flat[: self.num_nodes * mine].view(self.num_nodes, mine)

    def _regrouping(self, name: str, phase: Phase, layer: int, width: int) -> Any:
        s = self._workspace.dtype.itemsize
        done = regroup_work(self.own_rows, width, len(self._rows), s)
        recorder = self._context.recorder
        return recorder.step(f"{phase}/{layer}/{name}", done, phase=phase, layer=layer)


def copy_blocks(packed: Tensor, rows_nF: Tensor, columns: Sequence[int], *, pack: bool) -> None:
    """Copy between whole rows and blocks (n, f_0), (n, f_1), ... laid one after another.

    Shares differ by at most one, the larger first, so two strided copies do for any number of
    ranks.
    """
    n, start = len(rows_nF), 0
    for share in sorted(set(columns), reverse=True):
        count = columns.count(share)
        stop = start + count * share
        blocks = packed[n * start : n * stop].view(count, n, share)
        pieces = rows_nF[:, start:stop].unflatten(1, (count, share)).transpose(0, 1)
        if share:
            blocks.copy_(pieces) if pack else pieces.copy_(blocks)
        start = stop
