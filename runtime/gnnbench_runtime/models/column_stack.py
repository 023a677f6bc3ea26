"""A stack whose aggregations run over all vertices, on this rank's columns of every matrix.

The plan's part is `gnnbench.approaches.whole_graph.column_writer`.

Legend: N vertices, n own rows, F width, f own columns of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gnnbench.approaches.whole_graph.relayout import Relayouts
from gnnbench.steps import Phase
from gnnbench_runtime.models.attention_scores import ScoreExchange
from gnnbench_runtime.models.patterns import Aggregation, Attention
from gnnbench_runtime.models.relayout import Relayout
from gnnbench_runtime.models.stack import Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliced:
    """A pattern over all vertices, for a rank that updates `rows` of them.

    `source_rows` equals `rows`: there are no halo rows.
    """

    rows: int
    source_rows: int
    whole: Aggregation | Attention


class ColumnStack(Stack):
    """Layers over `Sliced` patterns: sums by columns, dense products by rows.

    Args:
        relayout: between rows and columns.
        scores: the same for attention's scores.
        relayouts: which of them an epoch takes.
        x_columns: the input features (N, f) where they are held in columns.
    """

    def __init__(
        self,
        *given: Any,
        relayout: Relayout,
        scores: ScoreExchange,
        relayouts: Relayouts,
        x_columns: Tensor | None = None,
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self.relayout, self.scores, self.relayouts = relayout, scores, relayouts
        self.x_columns = x_columns

    def spmm(
        self,
        name: str,
        phase: Phase,
        layer: int,
        agg: Sliced,
        x: Tensor,
        out: Tensor,
        *,
        transpose: bool,
    ) -> None:
        """Fill own rows of A X, or of its transpose times X, from own rows of X.

        The first layer's `x` is not read where X is held in columns.
        """
        held = self.x_columns if layer == 1 and not transpose else None
        columns = self.relayout.to_columns(x, layer, phase) if held is None else held
        summed = self.relayout.aggregated(out.shape[1])
        if columns.shape[1]:
            super().spmm(name, phase, layer, agg.whole, columns, summed, transpose=transpose)
        self.relayout.to_rows(summed, out, layer, phase)
