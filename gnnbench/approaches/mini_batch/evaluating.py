"""The evaluation of approaches that train on batches: the full graph, vertices in even chunks.

Each rank builds the pattern of its chunk, loads the rows that layer 1 reads, and lets go of both
afterwards. Rows that a rank has on its device for the training are read in place where layer 1
needs no row of another rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.whole_graph.partition import PartitionStructure, profile_structure
from gnnbench.approaches.whole_graph.rows import (
    Options,
    RowSizes,
    row_halo,
    row_layer,
    share_buffers,
)
from gnnbench.approaches.writing.evaluating import (
    ANSWER_BYTES,
    EvaluationWriter,
    quiet,
    reads_own_rows,
)
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data.profile import GraphProfile
from gnnbench.iterations import Iteration, LazyIterations
from gnnbench.spec import RunSpec
from gnnbench.steps import Ints, Size, larger

READ_BYTES = 1 << 22
"""Features are read in parts of this size."""


def chunks(data: GraphLike, ranks: int) -> RowSizes:
    """Sizes of even, contiguous chunks of the vertices."""
    if ranks == 1:
        return RowSizes.whole(data)
    if isinstance(data, GraphProfile):
        return profile_structure(data, ranks, "chunk").sizes
    n = data.num_nodes
    owner = (np.arange(n, dtype=np.int64) * ranks // max(n, 1)).astype(np.int32)
    return PartitionStructure.of_assignment(data, owner, ranks).sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class FullGraph:
    """An evaluation on the full graph.

    Args:
        data: the graph or its profile.
        run: of all ranks.
        in_place: whether each rank has all rows on its device, bool [P] or of all ranks.
        parameters: bytes of parameters that are put together for it.
    """

    data: GraphLike
    run: RunSpec
    in_place: bool | np.ndarray[Any, Any]
    parameters: Size = 0

    def iterations(self) -> Sequence[Iteration]:
        """The evaluation, made when it is asked for: chunks of a graph are counted for it."""
        return LazyIterations(1, lambda _: self._written())

    def _written(self) -> Iteration:
        ranks = self.run.ranks
        shape, sizes = evaluated_shape(self.data, self.run), chunks(self.data, ranks)
        writer = EvaluationWriter(ranks)
        if np.any(self.parameters):
            writer.step("parameters", {"parameters": self.parameters})
        load(writer, self.data, shape, sizes, in_place=self.in_place)
        halo = row_halo(sizes, Options(order="")) if ranks > 1 else None
        writer.forward(shape, [row_layer(sizes)] * shape.num_layers, halo)
        writer.step("answers", {"answers": ANSWER_BYTES * sizes.rows})
        return writer.iteration()


def evaluated_shape(data: GraphLike, run: RunSpec) -> StackShape:
    """The model of an evaluation: aggregated at the narrower width, nothing dropped."""
    return quiet(stack_shape(data, run, "min_width"))


def load(
    writer: EvaluationWriter,
    data: GraphLike,
    shape: StackShape,
    sizes: RowSizes,
    *,
    in_place: bool | np.ndarray[Any, Any],
    halo_rows: bool = True,
) -> None:
    """Write how a rank builds the pattern of its chunk, and loads its rows.

    Args:
        writer: gets the steps.
        data: the graph or its profile.
        shape: of the model that is evaluated.
        sizes: of the chunks.
        in_place: whether a rank has the rows of its chunk already.
        halo_rows: whether there must be room for rows of others where layer 1 reads them.
    """
    s, ranks = shape.element_bytes, sizes.world_size
    held: dict[str, Size] = {b.name: b.bytes for b in share_buffers(shape, sizes)}
    own = not halo_rows or reads_own_rows(shape, ranks)
    rows = sizes.rows if own else sizes.rows + sizes.halo_rows
    x: Size = rows * shape.dims[0] * s
    if own:
        x = x * (1 - np.asarray(in_place, np.int64))
    if not shape.model.attention:
        held["topology_t"] = 0 * sizes.rows  # no way back
    kept = {name: size for name, size in held.items() if name != "x"}
    writer.step(
        "pattern", kept, on_host={"scratch": _scratch(data, shape, sizes)}, frees=["scratch"]
    )
    writer.step("features", {"x": x}, on_host={"read": READ_BYTES}, frees=["read"])


def _scratch(data: GraphLike, shape: StackShape, sizes: RowSizes) -> Ints:
    """Bytes of temporary arrays while patterns are built, besides the patterns.

    The topology as it is mapped; per vertex its owner, a place in the order by owner and a mark;
    ids of the halos of all ranks and of who gets them. Then per own entry its place, from two
    arrays of the same length, and its source by its id; then float64 scales of all vertices, while
    the places are still there. With attention also the pattern with self loops, twice turned.
    """
    n, entries, copies = data.num_nodes, sizes.nonzeros, int(sizes.received.sum())
    mapped = 8 * n + 4 * data.num_edges
    places = (20 if not shape.model.attention else 44) * entries
    scales = {"symmetric": 6, "mean": 3, "softmax": 0}[shape.model.normalisation]
    most = larger(places, 8 * entries + 8 * scales * n)
    found: Ints = np.asarray(mapped + 16 * n + 16 * copies + most, np.int64)
    return found
