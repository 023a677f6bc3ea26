"""Writes aggregations over all vertices on column slices (two or more ranks), and re-layouts.

The runtime performs them in `gnnbench_runtime.models.column_stack` and `.relayout`.

Legend: P ranks, N vertices, n the rows of a rank, f its columns of a width F.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.whole_graph.relayout import Relayouts, even_split, regroup_work
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import LayerSizes, StackShape
from gnnbench.approaches.writing.stack import StackWriter
from gnnbench.reuse import Reuse
from gnnbench.steps import Buffer, Ints, Lane, Phase, larger


class Traffic:
    """Elements that each rank sends to each other rank, int64 [P, P]; computed once per width.

    Args:
        rows: n_i of every rank, int64 [P].
    """

    def __init__(self, rows: Ints) -> None:
        self.rows, self.group = rows, tuple(range(len(rows)))
        self.columns = cache(self._columns)
        self.to_columns = cache(self._to_columns)
        self.scores_to_columns = cache(self._scores_to_columns)

    def _columns(self, width: int) -> Ints:
        """f_i of every rank, int64 [P]."""
        return np.array(even_split(width, len(self.rows)))

    def _to_columns(self, width: int) -> Ints:
        """n_i x f_j from rank i to rank j; the way back is the transpose."""
        return self._between_ranks(self.columns(width))

    def _scores_to_columns(self, heads: tuple[int, ...]) -> Ints:
        """Two scores of n_i rows and k_j heads from rank i to rank j; gradients go back alike."""
        return self._between_ranks(2 * np.array(heads))

    def _between_ranks(self, taken: Ints) -> Ints:
        sent = np.outer(self.rows, taken)
        np.fill_diagonal(sent, 0)
        return sent


class ColumnWriter(StackWriter):
    """Writes the steps of a class of ranks: aggregations over all vertices, by columns.

    Args:
        shape: the model.
        nonzeros: entries of the whole graph.
        relayouts: which re-layouts an epoch takes.
        traffic: between all ranks.
        ranks: of the class, neighbours.
        reuse: of the whole graph's rows.
    """

    def __init__(
        self,
        shape: StackShape,
        nonzeros: int,
        relayouts: Relayouts,
        traffic: Traffic,
        ranks: range,
        reuse: Reuse | None = None,
    ) -> None:
        self.own = slice(ranks.start, ranks.stop)
        self.rows, self.num_nodes = traffic.rows[self.own], int(traffic.rows.sum())
        self.relayouts, self.traffic, self.world_size = relayouts, traffic, len(traffic.rows)
        size = LayerSizes(rows=self.rows, source_rows=self.rows, nonzeros=nonzeros, reuse=reuse)
        super().__init__(shape, [size] * shape.num_layers, None, Chain())

    def columns(self, width: int) -> Ints:
        """Columns of the class's ranks of a matrix so wide."""
        return self.traffic.columns(width)[self.own]

    def aggregated(self) -> tuple[Buffer, ...]:
        """The buffer of a local product, with room for the widest."""
        return self.buffer("aggregated", self.num_nodes, self.columns(self.relayouts.widest))

    def arriving(self) -> tuple[Buffer, ...]:
        """The buffer of columns that are needed for one product, with room for the widest."""
        return self.buffer("columns", self.num_nodes, self.columns(self.relayouts.widest_there))

    # -- aggregation -----------------------------------------------------------------------------

    def aggregate(self, phase: Phase, layer: int, width: int, **place: Any) -> None:
        """Row layout to row layout: to columns, the local product, back to rows.

        An input held in columns skips the first third.
        """
        of_phase = self.relayouts.forward if phase is Phase.FORWARD else self.relayouts.backward
        if len(of_phase[layer - 1]) == 2:
            self.to_columns(phase, layer, width, self.arriving())
        columns, room = self.columns(width), self.aggregated()
        if columns.any():
            whole = LayerSizes(
                rows=self.num_nodes,
                source_rows=self.num_nodes,
                nonzeros=self.sizes[layer - 1].nonzeros,
                reuse=self.sizes[layer - 1].reuse,
            )
            self.spmm(f"{phase}/{layer}/spmm", phase, layer, whole, columns, allocates=room)
        self.to_rows(phase, layer, width, **place)

    # -- re-layout -------------------------------------------------------------------------------

    def to_columns(
        self, phase: Phase, layer: int, width: int, arriving: tuple[Buffer, ...]
    ) -> None:
        """Own rows of a matrix to own columns, which are `arriving`."""
        self._regroup("pack", phase, layer, width, self._packed())
        mine, where = self.columns(width), f"{phase}/{layer}/to_columns"
        sent = self.traffic.to_columns(width)[self.own]
        received = (self.num_nodes - self.rows) * mine
        whole = larger(self.rows * width, self.num_nodes * mine)
        self.transfer_blocks(where, phase, layer, (sent, received, whole), arriving)

    def to_rows(self, phase: Phase, layer: int, width: int, **place: Any) -> None:
        """Own columns of a matrix to own rows, which `place` allocates."""
        mine, where = self.columns(width), f"{phase}/{layer}/to_rows"
        sent = self.traffic.to_columns(width).T[self.own]
        received = self.rows * (width - mine)
        whole = larger(self.rows * width, self.num_nodes * mine)
        self.transfer_blocks(where, phase, layer, (sent, received, whole), self._packed())
        self._regroup("unpack", phase, layer, width, place.get("allocates", ()))

    def transfer_blocks(
        self,
        name: str,
        phase: Phase,
        layer: int,
        elements: tuple[Ints, Ints, Any],
        room: tuple[Buffer, ...],
    ) -> None:
        """Add an all-to-all of elements: sent to each rank, received, in the larger buffer."""
        (sent, received, whole), s = elements, self.element_bytes
        done = work.all_to_all(sent, received, s, width=1, buffer_bytes=whole * s)
        lane, group = Lane.COMM, self.traffic.group
        self.step(name, done, phase, layer, lane=lane, group=group, allocates=room)

    def _packed(self) -> tuple[Buffer, ...]:
        return self.buffer("packed", self.rows, self.relayouts.widest)

    def _regroup(
        self, name: str, phase: Phase, layer: int, width: int, room: Sequence[Buffer]
    ) -> None:
        """Between whole rows and blocks of rows by owner of the columns, either way."""
        done = regroup_work(self.rows, width, self.world_size, self.element_bytes)
        self.step(f"{phase}/{layer}/{name}", done, phase, layer, allocates=tuple(room))
