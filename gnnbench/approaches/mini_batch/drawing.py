"""The work of drawing batches and of making their blocks ready to train on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data.sampling import Batch
from gnnbench.steps import Size, Work

_SUMMED = ("rows", "nonzeros", "source_rows", "inner", "bytes")


def drawing_of(batches: Sequence[Batch], op: str = "sample", tables: int = 0) -> Work:
    """The work of drawing some batches, one after the other.

    Args:
        batches: that are drawn.
        op: cost class of the sampler.
        tables: bytes that it looks up in any order, see `work.graph_tables`.
    """
    parts = [
        work.draw_neighbours(*batch.sizes, batch.scanned, op, by_lot=batch.by_lot)
        for batch in batches
    ]
    sizes: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in _SUMMED}
    nothing = work.sample(seeds=0, edges=0, vertices=0, read=0, tables=tables, op=op)
    return nothing._replace(**sizes)


def together(of_ranks: Sequence[Work]) -> Work:
    """One work whose sizes are arrays over the ranks."""
    sizes: dict[str, Any] = {
        name: np.array([getattr(done, name) for done in of_ranks], np.int64) for name in _SUMMED
    }
    return of_ranks[0]._replace(**sizes)


def preparing(
    shape: StackShape, vertices: Sequence[Size], turned: Size, *, weighted: bool = False
) -> Work:
    """The work of making the blocks of a batch ready to train on.

    Blocks with weights of edges also carry the weights to the transposed pattern; those of
    attention get self loops and are transposed in every layer. Each is a cost class of its own.

    Args:
        shape: the model.
        vertices: n_0 ... n_L, input layer first.
        turned: entries that are transposed.
        weighted: whether edges have weights.
    """
    op = "prepare_blocks"
    if shape.model.attention:
        op = "prepare_attention"
    elif weighted:
        op = "prepare_weighted"
    return work.prepare_blocks(vertices, turned, op)
