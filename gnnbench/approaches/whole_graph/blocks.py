"""Blocks of consecutive vertices of equal size, for CAGNET's grids, and their nonzeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.whole_graph.rows import ID_BYTES, buffers
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.approaches.writing.stack import parameter_buffers
from gnnbench.data.profile import GraphProfile
from gnnbench.reuse import Reuse
from gnnbench.steps import Buffer, Groups, Ints, Size
from gnnbench.strict import choices

COUNTED = "counted on the real graph"
EVEN = "entries of the profile dealt evenly to blocks"
PAPER = (
    "Tripathy, Yelick and Buluc, Reducing Communication in Graph Neural Network Training, SC 2020"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CagnetKnobs:
    """Knobs of `cagnet-1d` and `cagnet-2d`.

    Args:
        order: which product of a layer comes first. The paper aggregates first; min_width
            aggregates at the smaller of the layer's two widths.
    """

    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )


def even_bounds(total: int, parts: int) -> tuple[int, ...]:
    """Boundaries of `parts` ranges over `total` items; sizes differ by at most one, larger first.

    Example: even_bounds(5, 2) is (0, 3, 5).
    """
    base, left = divmod(total, parts)
    return tuple(part * base + min(part, left) for part in range(parts + 1))


def block_nonzeros(data: GraphLike, edges: Sequence[int]) -> Ints:
    """Entries of the adjacency by (block of the destination, block of the source), int64 [R, R].

    A profile's nonzeros are distributed evenly, which assumes a random order of the vertices.
    """
    count = len(edges) - 1
    if isinstance(data, GraphProfile):
        base, left = divmod(data.num_edges, count * count)
        table = np.full(count * count, base, np.int64)
        table[:left] += 1
        return table.reshape(count, count)
    inner = np.asarray(edges[1:-1])
    table = np.zeros((count, count), np.int64)
    for block, (low, high) in enumerate(pairwise(edges)):
        sources = np.asarray(data.indices[data.indptr[low] : data.indptr[high]])
        table[block] = np.bincount(np.searchsorted(inner, sources, side="right"), minlength=count)
    return table


def block_train_rows(data: GraphLike, edges: Sequence[int]) -> Ints:
    """Training vertices of each block, int64 [R]; those of a profile are distributed evenly."""
    if isinstance(data, GraphProfile):
        return np.diff(even_bounds(data.num_train, len(edges) - 1))
    return np.diff(np.searchsorted(data.train_nodes(), np.asarray(edges)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """N vertices in R blocks of consecutive ones.

    Args:
        edges: where blocks start and end, [R + 1].
        nonzeros: entries by block of the destination and block of the source, int64 [R, R].
            Neighbours keep their direction: a forward product of block row i uses nonzeros[i, t], a
            backward one, with the transpose, nonzeros[t, i].
        train_rows: training vertices of each block, int64 [R].
        reuse: of the rows that one block row reads of one block.
        counted, basis: as in a plan.
    """

    edges: tuple[int, ...]
    nonzeros: Ints
    train_rows: Ints
    reuse: Reuse | None = None
    counted: bool = True
    basis: str = COUNTED

    @classmethod
    def of(cls, data: GraphLike, parts: int, ranks: int, **grid: Any) -> Self:
        """Cut a graph into blocks; `grid` are the fields of a subclass."""
        edges = even_bounds(data.num_nodes, parts)
        profile = isinstance(data, GraphProfile)
        return cls(
            edges=edges,
            nonzeros=block_nonzeros(data, edges),
            train_rows=block_train_rows(data, edges),
            reuse=data.reuse_of_rows().split(parts),
            counted=not profile or ranks == 1,
            basis=EVEN if profile else COUNTED,
            **grid,
        )

    @property
    def num_blocks(self) -> int:
        return len(self.edges) - 1

    @property
    def num_nodes(self) -> int:
        return self.edges[-1]

    @property
    def rows(self) -> Ints:
        """Vertices of each block, int64 [R]."""
        return np.diff(self.edges)

    def own(self, block: int) -> slice:
        """The vertices of a block."""
        return slice(self.edges[block], self.edges[block + 1])


def axis_groups(world_size: int, columns: int) -> tuple[list[list[int]], list[list[int]]]:
    """Ranks of every row, and of every column, of a grid whose ranks are numbered row by row."""
    grid = np.arange(world_size).reshape(-1, columns)
    return grid.tolist(), grid.T.tolist()


def one_of(groups: Sequence[Sequence[int]], of: NDArray[Any]) -> tuple[int, ...] | Groups:
    """The groups of ranks that are in `groups[of]`; a plain group where there is only one."""
    table = tuple(tuple(group) for group in groups)
    return table[0] if len(table) == 1 else Groups(table, np.asarray(of, np.intp))


def plain(sizes: NDArray[Any]) -> Size:
    """Sizes of the ranks of a class; an integer where all are equal, which is cheaper."""
    first = int(sizes[0])
    return first if bool((sizes == first).all()) else sizes.astype(np.int64, copy=False)


def held_buffers(
    shape: StackShape, blocks: Blocks, row: NDArray[Any], **more: Any
) -> tuple[Buffer, ...]:
    """Buffers of ranks that hold block rows `row` [P]; scales are those of all vertices.

    Args:
        shape: the model.
        blocks: of the grid.
        row: the block row of each rank.
        more: bytes of features and patterns, by name.
    """
    s, n, whole = shape.element_bytes, blocks.rows[row], blocks.num_nodes
    symmetric = shape.model.normalisation == "symmetric"
    held = {
        "scales": (2 * whole + n if symmetric else whole) * s,
        "labels": 8 * n + 3 * n,
        "row_ids": ID_BYTES * n,
        "train_rows": ID_BYTES * blocks.train_rows[row],
    }
    return buffers(more | held) + parameter_buffers(shape)


def grid_notes(shape: StackShape, grid: tuple[int, int]) -> dict[str, object]:
    """Notes of a plan on a grid of (rows, columns)."""
    return {
        "order": shape.orders,
        "backward": "save_z: the weight gradient uses the saved aggregate",
        "grid": grid,
        "num_parameters": shape.num_parameters,
    }
