"""Steps of the mixture of parallelism on two or more ranks.

Ranks whose columns have the same widths take the same steps and form a class. The runtime performs
them in `gnnbench_runtime.approaches.whole_graph.mixture`.
"""

from __future__ import annotations

from itertools import pairwise

from gnnbench.approaches.whole_graph.column_writer import ColumnWriter, Traffic
from gnnbench.approaches.whole_graph.relayout import Relayouts
from gnnbench.approaches.writing.layers import attention_columns
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.iterations import Iteration, RankClass
from gnnbench.reuse import Reuse
from gnnbench.steps import Ints


class MixtureWriter(ColumnWriter):
    """Writes convolution and attention layers on column slices."""

    def layer_forward(self, layer: int) -> None:
        if self.shape.model.attention:
            attention_columns.forward(self, layer)
        else:
            super().layer_forward(layer)

    def layer_backward(self, layer: int) -> None:
        if self.shape.model.attention:
            attention_columns.backward(self, layer)
        else:
            super().layer_backward(layer)


def mixture_iteration(
    shape: StackShape,
    rows: Ints,
    train_rows: Ints,
    nonzeros: int,
    relayouts: Relayouts,
    reuse: Reuse | None = None,
) -> Iteration:
    """One epoch of all ranks, two or more.

    Args:
        shape: the model.
        rows: n_i of every rank, int64 [P].
        train_rows: training vertices among them, int64 [P].
        nonzeros: entries of the whole graph.
        relayouts: which re-layouts an epoch takes.
        reuse: of the whole graph's rows.
    """
    traffic, world = Traffic(rows), len(rows)
    # Columns are dealt out from rank 0 on: a width below P leaves the last ranks without any.
    borders = {0, world, *(width for width in relayouts.widths if 0 < width < world)}
    classes = []
    for start, stop in pairwise(sorted(borders)):
        ranks = range(start, stop)
        writer = MixtureWriter(shape, nonzeros, relayouts, traffic, ranks, reuse)
        writer.forward()
        writer.loss(train_rows[start:stop])
        writer.backward()
        writer.update(traffic.group)
        classes.append(RankClass(ranks, writer.chain.done()))
    return Iteration(classes)
