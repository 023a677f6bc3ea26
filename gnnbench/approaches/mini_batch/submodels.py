"""Sub-models of disjoint hidden dimensions (GIST), and who holds which parameter between rounds.

Every round, each hidden dimension is cut into m groups of equal size by a permutation that all
ranks draw alike. Sub-model g has the rows and columns of its groups; input and output dimensions
are whole. Between rounds the global model is sharded: each rank owns a range of its
flat parameters.

Legend: m sub-models, P ranks, d hidden width, n parameters of the global model.

Source: Wolfe et al., GIST, 2021, section 3; sampling reference section 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data.keys import generator
from gnnbench.steps import Ints

_ROUNDS = 0x6157
"""Tells the draws of the groups from all other uses of the run's seed."""


@dataclass(frozen=True, eq=False)
class SubModels:
    """How a model is cut, and where its parts are.

    Args:
        shape: of the global model.
        parts: sub-models m; every hidden width is a multiple of it.
        ranks: P, of which m is a multiple: rank r trains the sub-models r m/P ... (r+1) m/P - 1.
        seed: of the groups.
    """

    shape: StackShape
    parts: int
    ranks: int
    seed: int

    @property
    def per_rank(self) -> int:
        return self.parts // self.ranks

    def of_rank(self, rank: int) -> range:
        """The sub-models that a rank trains."""
        return range(rank * self.per_rank, (rank + 1) * self.per_rank)

    @cached_property
    def sub_shape(self) -> StackShape:
        """Of each sub-model."""
        whole = self.shape
        hidden = tuple(width // self.parts for width in whole.dims[1:-1])
        return whole.with_dims((whole.dims[0], *hidden, whole.dims[-1]))

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

    def flat_ids(self, groups: Sequence[NDArray[np.int64]], part: int) -> NDArray[np.int64]:
        """Where each parameter of a sub-model lies in the flat global model.

        Returns:
            int64 [parameters of the sub-model], in the order of its own flat vector.
        """
        found, start = [], 0
        for name, shape in self.shapes:
            layer = int(name.rpartition("_")[2])
            columns = self._units(groups, part, layer)
            if len(shape) == 2:
                rows = self._units(groups, part, layer - 1)
                ids = rows[:, None] * shape[1] + columns[None, :]
            else:
                ids = columns
            found.append(start + ids.reshape(-1))
            start += int(np.prod(shape))
        return np.concatenate(found)

    def _units(self, groups: Sequence[NDArray[np.int64]], part: int, dim: int) -> Ints:
        """Units of a dimension that a sub-model has: its group, or all of input and output."""
        if dim in (0, self.shape.num_layers):
            return np.arange(self.shape.dims[dim], dtype=np.int64)
        units: Ints = groups[dim - 1][part]
        return units

    def ids_of_rank(self, groups: Sequence[NDArray[np.int64]], rank: int) -> NDArray[np.int64]:
        """Flat ids of all parameters of a rank's sub-models, one sub-model after the other."""
        return np.concatenate([self.flat_ids(groups, part) for part in self.of_rank(rank)])

    def owners(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ranks that own flat parameters."""
        found: NDArray[np.int64] = ids // self.shard_length
        return found

    def counts(self, round_: int) -> Ints:
        """Parameters that rank i's sub-models need of rank j's range in a round; int64 [P, P]."""
        groups = self.groups(round_)
        return np.array(
            [
                np.bincount(self.owners(self.ids_of_rank(groups, rank)), minlength=self.ranks)
                for rank in range(self.ranks)
            ],
            np.int64,
        )

    @property
    def shared(self) -> range:
        """Flat ids of what every sub-model has: the bias of the last layer."""
        total, classes = self.shape.num_parameters, self.shape.dims[-1]
        return range(total - classes, total)

    @property
    def moved_elements(self) -> int:
        """Parameters of all sub-models: what is dispatched, and brought back, in a round.

        Between one hidden dimension and the next, only blocks of a group with its own group are
        trained. The bias of the last layer is in every sub-model (invariant G4).
        """
        return self.parts * self.sub_shape.num_parameters
