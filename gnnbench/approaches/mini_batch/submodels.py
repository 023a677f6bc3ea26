"""Sub-models of disjoint hidden dimensions (GIST), and who holds which parameter between rounds.

Every round, each hidden dimension is cut into m groups of equal size by a permutation that all
ranks draw alike. Sub-model g has the rows and columns of its groups; input and output dimensions
are whole. Between rounds the global model is sharded: each rank owns a range of its
flat parameters.

Groups rise, so the flat parameters of a sub-model lie in the flat global model in rising order: an
owner's share of them is a range. Sizes of ranges are closed forms, and a sub-model's part of a
parameter is a block, some rows and some columns: positions of single elements are never listed,
because models may be wider than memory.

Legend: m sub-models, P ranks, d hidden width, n parameters of the global model.

Source: Wolfe et al., GIST, 2021, section 3; sampling reference section 13.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data.keys import generator
from gnnbench.steps import Ints

_ROUNDS = 0x6157
"""Tells the draws of the groups from all other uses of the run's seed."""
AT_ONCE = 1 << 20
"""Parameters that are drawn, tested or, on a GPU, located at once."""
PIECE_ELEMENTS = 1 << 22
"""Elements of a weight matrix that an evaluation holds at once."""
Groups = Sequence[NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What a sub-model has of one parameter.

    Args:
        start: of the parameter in the flat global model.
        width: columns of the whole parameter; a vector is one row.
        rows, columns: that the sub-model has, rising, int64.
    """

    start: int
    width: int
    rows: Ints
    columns: Ints

    @property
    def count(self) -> int:
        return len(self.rows) * len(self.columns)

    def below(self, bounds: Ints) -> Ints:
        """How many of the elements have flat ids below each bound."""
        row, column = np.divmod(np.maximum(bounds - self.start, 0), self.width)
        whole = np.searchsorted(self.rows, row)
        at = np.minimum(whole, len(self.rows) - 1)
        cut = np.where(self.rows[at] == row, np.searchsorted(self.columns, column), 0)
        return np.minimum(whole * len(self.columns) + cut, self.count)


def piece_columns(shape: StackShape, layer: int) -> int:
    """Input columns of a layer, and rows of its matrices, that an evaluation holds at once."""
    fan_in, fan_out = shape.dims[layer - 1 : layer + 1]
    return min(fan_in, max(PIECE_ELEMENTS // fan_out, 1))


def widest_piece(shape: StackShape) -> int:
    """Columns of the widest rows that an evaluation exchanges."""
    return max(
        piece_columns(shape, layer) if order == "aggregate_first" else shape.dims[layer]
        for layer, order in enumerate(shape.orders, start=1)
    )


@dataclass(frozen=True, eq=False)
class SubModels:
    """How a model is cut, and where its parts are.

    Args:
        shape: of the global model.
        parts: sub-models m; every hidden width is a multiple of it.
        ranks: P. One of m and P is a multiple of the other: rank r trains the m/P sub-models from
            r m/P on, or P/m ranks train a sub-model together.
        seed: of the groups.
    """

    shape: StackShape
    parts: int
    ranks: int
    seed: int

    @property
    def per_rank(self) -> int:
        """Sub-models of a rank."""
        return max(self.parts // self.ranks, 1)

    @property
    def members(self) -> int:
        """Ranks that train a sub-model together."""
        return max(self.ranks // self.parts, 1)

    def of_rank(self, rank: int) -> range:
        """The sub-models that a rank trains."""
        first = rank // self.members * self.per_rank
        return range(first, first + self.per_rank)

    def leads(self, rank: int) -> bool:
        """Whether a rank returns its sub-models' parameters: the first of those that share one."""
        return rank % self.members == 0

    @property
    def teams(self) -> list[list[int]]:
        """The ranks of each sub-model, or of each rank's sub-models."""
        members = self.members
        return [list(range(at, at + members)) for at in range(0, self.ranks, members)]

    @cached_property
    def sub_shape(self) -> StackShape:
        """Of each sub-model."""
        whole = self.shape
        hidden = tuple(width // self.parts for width in whole.dims[1:-1])
        return whole.with_dims((whole.dims[0], *hidden, whole.dims[-1]))

    @cached_property
    def block_width(self) -> int:
        """Mean length of a row of a sub-model's blocks; a copy starts anew at each of them."""
        sub = self.sub_shape
        shapes = sub.model.parameters(sub.dims, sub.heads, norm=sub.norm)
        rows = sum(1 if len(shape) == 1 else shape[0] for _, shape in shapes)
        return max(sub.num_parameters // rows, 1)

    @cached_property
    def shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each global parameter."""
        whole = self.shape
        return whole.model.parameters(whole.dims, whole.heads, norm=whole.norm)

    @cached_property
    def bounds(self) -> NDArray[np.int64]:
        """Rank r owns the flat parameters bounds[r] ... bounds[r + 1] - 1; int64 [P + 1].

        Ranges are equally long, the last ones may be shorter, so that they can be gathered.
        """
        each = self.shard_length
        total = self.shape.num_parameters
        return np.minimum(np.arange(self.ranks + 1, dtype=np.int64) * each, total)

    @property
    def shard_length(self) -> int:
        """Parameters of each rank's range, rounded up."""
        return -(-self.shape.num_parameters // self.ranks)

    def groups(self, round_: int) -> list[NDArray[np.int64]]:
        """Per hidden dimension: the units of each group, int64 [m, d/m], rising within a group."""
        found = []
        for layer, width in enumerate(self.shape.dims[1:-1], start=1):
            order = generator(self.seed, _ROUNDS, round_, layer).permutation(width)
            found.append(np.sort(order.reshape(self.parts, -1), axis=1))
        return found

    def pieces(self, groups: Groups, part: int) -> list[Part]:
        """What a sub-model has of each parameter, in the order of its flat vector."""
        found, start = [], 0
        for name, shape in self.shapes:
            layer = int(name.rpartition("_")[2])
            rows = np.zeros(1, np.int64)
            if len(shape) == 2:
                rows = self._units(groups, part, layer - 1)
            columns = self._units(groups, part, layer)
            found.append(Part(start=start, width=shape[-1], rows=rows, columns=columns))
            start += math.prod(shape)
        return found

    def _units(self, groups: Groups, part: int, dim: int) -> Ints:
        """Units of a dimension that a sub-model has: its group, or all of input and output."""
        if dim in (0, self.shape.num_layers):
            return np.arange(self.shape.dims[dim], dtype=np.int64)
        units: Ints = groups[dim - 1][part]
        return units

    def blocks(
        self, groups: Groups, part: int, first: int, last: int
    ) -> Iterator[tuple[Part, int, int]]:
        """Yield the blocks that hold elements first ... last - 1 of a sub-model's flat vector.

        Each with the range of the block's own elements, numbered row by row; in rising order.
        """
        start = 0
        for piece in self.pieces(groups, part):
            low, high = max(first - start, 0), min(last - start, piece.count)
            if low < high:
                yield piece, low, high
            start += piece.count

    def shares(self, groups: Groups, part: int) -> Ints:
        """How many of a sub-model's parameters lie before each owner's range, int64 [P + 1].

        Owner j has the elements shares[j] ... shares[j + 1] - 1 of the sub-model's flat vector.
        """
        below = [piece.below(self.bounds) for piece in self.pieces(groups, part)]
        found: Ints = np.sum(below, axis=0)
        return found

    def every_share(self, groups: Groups) -> list[Ints]:
        """Shares of all sub-models, see `shares`."""
        return [self.shares(groups, part) for part in range(self.parts)]

    def counts(self, round_: int) -> Ints:
        """Parameters that rank i's sub-models need of rank j's range in a round; int64 [P, P]."""
        return self.counts_of(self.every_share(self.groups(round_)))

    def counts_of(self, shares: Sequence[Ints]) -> Ints:
        """The same, from the shares of all sub-models."""
        needed = np.zeros((self.ranks, self.ranks), np.int64)
        for part, of in enumerate(shares):
            first = part // self.per_rank * self.members
            needed[first : first + self.members] += np.diff(of)
        return needed

    def returned(self, needed: Ints) -> Ints:
        """Of what the ranks needed, what they return: ranks that share a sub-model do so once."""
        leaders = np.arange(self.ranks) % self.members == 0
        found: Ints = needed * leaders[:, None]
        return found

    @property
    def shared(self) -> range:
        """Flat ids of what every sub-model has: the bias of the last layer."""
        total, classes = self.shape.num_parameters, self.shape.dims[-1]
        return range(total - classes, total)

    @property
    def moved_elements(self) -> int:
        """Parameters of all sub-models: what is brought back in a round.

        As much is dispatched, times the ranks that share a sub-model. Between one hidden dimension
        and the next, only blocks of a group with its own group are trained. The bias of the last
        layer is in every sub-model (invariant G4).
        """
        return self.parts * self.sub_shape.num_parameters
