"""The performer: runs and records one step of a layer, by the sizes of the tensors it holds.

Layers (`models.layers`) call it, and `models.stack` puts layers together. The plan's part is
`gnnbench.approaches.writing.writer`.

Legend: n rows, u source rows (own and halo, or a block's inputs), F input width, H output width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.steps import Phase, Work
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.pending import Pending


class Exchange(Protocol):
    """Exchange of halo rows and of their gradients."""

    def forward(self, x_uF: Tensor, layer: int, phase: Phase) -> None:
        """Fill rows n..u of `x_uF` with the owners' current rows."""

    def backward(self, grad_uF: Tensor, layer: int) -> None:
        """Send rows n..u to their owners and add the received gradients to rows 0..n."""

    def begin_forward(self, x_uF: Tensor, layer: int, phase: Phase) -> Pending:
        """As `forward`, in the background; rows n..u must not be used until `wait`."""

    def begin_backward(self, grad_uF: Tensor, layer: int) -> Pending:
        """Send rows n..u to their owners in the background; then `wait`, then `end_backward`."""

    def end_backward(self, grad_uF: Tensor, layer: int) -> None:
        """Add the received gradients to rows 0..n."""


class Performer:
    """Runs the steps of layers over given patterns.

    Args:
        shape: the model.
        parameters: values and gradients.
        workspace: buffers by the names of the plan.
        kernels: arithmetic of the device.
        recorder: of the rank.
        exchange: of rows with other ranks; None where all rows are here.
        precomputed: the first aggregation of the features, (n, d_0), where the shape says so.
    """

    def __init__(
        self,
        shape: StackShape,
        parameters: Parameters,
        workspace: Workspace,
        kernels: Any,
        recorder: Any,
        exchange: Exchange | None = None,
        precomputed: Tensor | None = None,
    ) -> None:
        self.shape, self.parameters, self.workspace = shape, parameters, workspace
        self.kernels, self.recorder, self.exchange = kernels, recorder, exchange
        self.precomputed = precomputed
        self.counters: tuple[int, ...] | None = None
        self.aggregations: Sequence[Any] = ()
        self.row_ids: Sequence[Tensor] = ()

    def aggregation(self, layer: int) -> Any:
        """What the layer sums over: an `Aggregation`, or an `Attention`."""
        return self.aggregations[layer - 1]

    # -- one step each ---------------------------------------------------------------------------

    def step(self, name: str, done: Work, phase: Phase, layer: int) -> Any:
        """The span of a step on the lane `compute`."""
        return self.recorder.step(name, done, phase=phase, layer=layer)

    def mm(
        self,
        name: str,
        op: str,
        phase: Phase,
        layer: int,
        product: tuple[Tensor, Tensor, Tensor],
        *,
        add: Tensor | None = None,
        accumulate: bool = False,
    ) -> None:
        """Run out = a b for a `product` (a, b, out).

        `add` is a row vector that is added; with `accumulate` the product is added to `out`.
        """
        a, b, out = product
        (m, k), n = a.shape, b.shape[1]
        with self.step(name, work.gemm(op, m, k, n, out.element_size()), phase, layer):
            if accumulate:
                out.addmm_(a, b)
            elif add is not None:
                torch.addmm(add, a, b, out=out)
            else:
                torch.mm(a, b, out=out)

    def spmm(
        self,
        name: str,
        phase: Phase,
        layer: int,
        agg: Any,
        x: Tensor,
        out: Tensor,
        *,
        transpose: bool,
    ) -> None:
        """Run out = A x with all of an aggregation, or its transpose."""
        forward = (agg.indptr, agg.indices, agg.row_scale, agg.col_scale, agg.edge_scale)
        backward = (agg.indptr_t, agg.indices_t, agg.col_scale, agg.row_scale, agg.edge_scale_t)
        indptr, indices, row_scale, col_scale, edge_scale = backward if transpose else forward
        sources = agg.rows if transpose else agg.source_rows
        with self.sparse(name, phase, layer, (indptr, indices), sources, x, weighted=edge_scale):
            self.kernels.spmm(
                indptr,
                indices,
                x,
                out,
                row_scale=row_scale,
                col_scale=col_scale,
                self_scale=agg.self_scale,
                edge_scale=edge_scale,
            )

    def sparse(
        self,
        name: str,
        phase: Phase,
        layer: int,
        pattern: tuple[Tensor, Tensor],
        sources: int,
        x: Tensor,
        *,
        adds: bool = False,
        weighted: Tensor | None = None,
    ) -> Any:
        """The span of a sparse product with a pattern (indptr, indices) over `sources` rows."""
        indptr, indices = pattern
        done = work.spmm(
            rows=indptr.numel() - 1,
            nonzeros=indices.numel(),
            width=x.shape[1],
            source_rows=sources,
            element_bytes=x.element_size(),
            adds=adds,
            edge_weights=weighted is not None,
        )
        return self.step(name, done, phase, layer)

    def elementwise(
        self, name: str, op: str, phase: Phase, layer: int, x: Tensor, *, passes: int
    ) -> Any:
        """The span of work that reads or writes each element of x `passes` times."""
        s = x.element_size()
        done = work.elementwise(op, *x.shape, passes=passes, element_bytes=s)
        return self.step(name, done, phase, layer)

    # -- buffers ---------------------------------------------------------------------------------

    def input_rows(self, layer: int) -> int:
        """Rows that a dense product of the layer's input has."""
        agg = self.aggregation(layer)
        rows: int = agg.rows if self.exchange is not None else agg.source_rows
        return rows

    def out_rows(self, layer: int) -> int:
        """Rows of the buffer of H_l: the next layer's halo rows lie behind the own rows."""
        if layer == self.shape.num_layers or self.shape.orders[layer] == "transform_first":
            rows: int = self.aggregation(layer).rows
            return rows
        rows = self.aggregation(layer + 1).source_rows
        return rows

    def output(self, layer: int, width: int) -> Tensor:
        """The buffer that the layer's product or sum writes to."""
        normed = self.shape.has_norm(layer)
        rows = self.aggregation(layer).rows if normed else self.out_rows(layer)
        return self.workspace.get(f"h{layer}", rows, width)
