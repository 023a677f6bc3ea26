"""Rank classes, memory and volume of a pipeline of row chunks between sparse and dense ranks.

Every rank takes part in all handovers and returns, in the same order: handover k of a layer, then
return k. Sparse ranks have two buffers for products, so the product of chunk k waits for handover k
- 2. With a single sparse rank, dense ranks receive rows in place; otherwise blocks of columns
arrive in one of two buffers and are copied into whole rows. Returns work the same way in reverse.

Dense ranks process each chunk of the last layer through loss and first gradient at once, so that
there is no barrier between the forward and backward pass. In the backward pass of the first layer,
which returns nothing, the gradients of the weights follow chunk by chunk; in other layers they are
computed in idle time between layers.

Legend: s bytes per element, S sparse ranks, D dense ranks, N rows.
"""

from __future__ import annotations

import numpy as np

from gnnbench.approaches.whole_graph.mixed_structure import MixedStructure
from gnnbench.approaches.whole_graph.pipeline_steps import (
    BUFFERS,
    DenseSteps,
    Pipeline,
    SparseSteps,
)
from gnnbench.approaches.whole_graph.rows import buffers
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.approaches.writing.stack import parameter_buffers
from gnnbench.iterations import Iteration, RankClass
from gnnbench.steps import Buffer, Ints


def exchanged_bytes(shape: StackShape, num_rows: int) -> int:
    """Bytes that sparse and dense ranks send each other in an epoch.

    s N (sum of d_{l-1} over layers + 3 times the sum of d_l over inner layers): forward, every
    layer's product and every inner layer's output; backward, both gradients of the latter.
    """
    dims = shape.dims
    return shape.element_bytes * num_rows * (sum(dims[:-1]) + 3 * sum(dims[1:-1]))


def column_buffers(num_layers: int) -> int:
    """Buffers of a sparse rank's columns: one is read while another fills."""
    return 2 if num_layers > 1 else 0


class RowPipeline:
    """The plan of all ranks. Ranks with slices or shares of equal sizes form a class."""

    def __init__(self, shape: StackShape, structure: MixedStructure) -> None:
        self.shape, self.structure = shape, structure
        self._cuts = np.array([structure.columns(width) for width in shape.dims[:-1]])

    def iteration(self) -> Iteration:
        """The steps of one epoch of every rank."""
        held = self.structure
        pipeline = Pipeline(self.shape, held)
        classes = []
        for ranks, cuts in _alike(self._cuts):
            steps = SparseSteps(pipeline, dict(zip(self.shape.dims, cuts, strict=False)))
            classes.append(RankClass(ranks, steps.written()))
        for places, rows in _alike(held.dealt):
            trained = [_one(held.train_rows[places, chunk]) for chunk in range(held.num_chunks)]
            steps_of = DenseSteps(pipeline, rows, trained)
            classes.append(RankClass(held.sparse_ranks + places, steps_of.written()))
        return Iteration(classes)

    # -- memory ----------------------------------------------------------------------------------

    def resident(self) -> tuple[Buffer, ...]:
        """Buffers that live from before the first epoch: all but what the loss takes."""
        sparse, dense = self._sparse_bytes(), self._dense_bytes()
        none = {
            "sparse": np.zeros(self.structure.sparse_ranks, np.int64),
            "dense": np.zeros(self.structure.dense_ranks, np.int64),
        }
        held = {
            name: np.concatenate([sparse.get(name, none["sparse"]), dense.get(name, none["dense"])])
            for name in {**sparse, **dense}
        }
        return buffers(held) + parameter_buffers(self.shape)

    def _sparse_bytes(self) -> dict[str, Ints]:
        """Bytes of each sparse rank, int64 [S]."""
        shape, held = self.shape, self.structure
        s, n, cuts = shape.element_bytes, held.num_rows, self._cuts
        inner = cuts[1:].max(axis=0, initial=0)
        each = np.ones(held.sparse_ranks, np.int64)
        pointers, drops = 8 * (n + held.num_chunks), int(shape.input_dropout > 0)
        scales = 2 if shape.model.normalisation == "symmetric" else 1
        return {
            "x": n * cuts[0] * s,
            "h0": drops * n * cuts[0] * s,
            "row_ids": drops * 8 * n * each,
            "topology": (pointers + 4 * sum(held.nonzeros)) * each,
            "topology_t": (pointers + 4 * sum(held.nonzeros_t)) * each,
            "scales": scales * n * s * each,
            "columns": column_buffers(shape.num_layers) * n * inner * s,
            "pieces": min(BUFFERS, held.num_chunks) * held.tallest * cuts.max(axis=0) * s,
        }

    def _dense_bytes(self) -> dict[str, Ints]:
        """Bytes of each dense rank, int64 [D]."""
        shape, structure = self.shape, self.structure
        s, dims, rows = shape.element_bytes, shape.dims, structure.dealt.sum(axis=0)
        held = {
            "labels": 8 * rows + 3 * rows,
            "row_ids": 8 * rows,
            "train_rows": 8 * structure.train_rows.sum(axis=1),
        }
        if shape.model.self_weight:
            copies = 2 if shape.input_dropout > 0 else 1
            held["x"] = copies * rows * dims[0] * s
        if structure.sparse_ranks > 1:
            wide = max(dims[:-1]) + max(dims[1:-1], default=0)
            tallest = structure.dealt.max(axis=0)
            held["pieces"] = min(BUFFERS, structure.num_chunks) * tallest * wide * s
        for layer in range(1, shape.num_layers + 1):
            held[f"z{layer}"] = rows * dims[layer - 1] * s
            held[f"h{layer}"] = rows * dims[layer] * s
            held[f"g{layer}"] = rows * dims[layer] * s
            if shape.has_norm(layer):
                held[f"n{layer}"] = held[f"gn{layer}"] = rows * dims[layer] * s
                held[f"statistics{layer}"] = 2 * rows * s
        return held


def _alike(sizes: Ints) -> list[tuple[Ints, tuple[int, ...]]]:
    """Columns of a table with equal entries: their numbers, rising, and the entries."""
    table, which = np.unique(sizes, axis=1, return_inverse=True)
    return [
        (np.flatnonzero(which.ravel() == number), tuple(table[:, number].tolist()))
        for number in range(table.shape[1])
    ]


def _one(sizes: Ints) -> int | Ints:
    """One integer where all ranks of a class have the same size."""
    return int(sizes[0]) if (sizes == sizes[0]).all() else sizes
