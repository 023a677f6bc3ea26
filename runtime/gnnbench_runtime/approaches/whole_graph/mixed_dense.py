"""A rank of `mixed-accelerators` that updates its share of every chunk's rows.

Its rows stand chunk by chunk in processing numbering. Where there is one sparse rank, whole rows
come in and go out in place; else blocks of columns pass through two buffers each way.

Legend: n rows (own, or own of a chunk), F input width, H output width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gnnbench.approaches.whole_graph.row_pipeline import BUFFERS
from gnnbench.data.graph import Graph
from gnnbench.data.keys import fold
from gnnbench.steps import Kind, Lane, Phase
from gnnbench_runtime.comm import Pending
from gnnbench_runtime.models.relayout import copy_blocks

if TYPE_CHECKING:
    from gnnbench_runtime.approaches.whole_graph.mixed_accelerators import MixedTrainer


class DenseRank:
    """Takes chunks as they come, updates them and returns them while the next ones travel."""

    def __init__(self, trainer: MixedTrainer, graph: Graph) -> None:
        self.trainer, self.structure = trainer, trainer.structure
        held, place = self.structure, trainer.context.rank - trainer.structure.sparse_ranks
        assert held.row_order is not None
        chunks = range(len(held.forward))
        ends = [held.shares[chunk, place : place + 2].tolist() for chunk in chunks]
        rows = held.row_order[np.concatenate([np.arange(first, end) for first, end in ends])]
        counts = [end - first for first, end in ends]
        starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
        self.at = [slice(starts[chunk], starts[chunk + 1]) for chunk in chunks]
        self.row_ids = _tensor(rows)
        dtype, dims = trainer.dtype, trainer.shape.dims
        self.labels = _labels(graph, rows, dtype)
        self.masks = {
            name: _tensor(np.asarray(getattr(graph, f"{name}_mask"))[rows])
            for name in trainer.mask_names
        }
        self.train_rows = [self.masks["train"][at].nonzero().squeeze(1) for at in self.at]
        n, layers = len(rows), range(1, len(dims))
        self.z = {layer: torch.empty((n, dims[layer - 1]), dtype=dtype) for layer in layers}
        self.h = {layer: torch.empty((n, dims[layer]), dtype=dtype) for layer in layers}
        self.g = {layer: torch.empty((n, dims[layer]), dtype=dtype) for layer in layers}
        self._input: Tensor | None = None
        self._dropped: Tensor | None = None
        if trainer.model.self_weight:
            assert graph.features is not None
            self._input = _tensor(np.asarray(graph.features)[rows], dtype)
            if trainer.shape.input_dropout > 0:
                self._dropped = torch.empty_like(self._input)
        self.alone, tallest = held.sparse_ranks == 1, 0 if held.sparse_ranks == 1 else max(counts)
        wide, back = max(dims[:-1]), max(dims[1:-1], default=0)
        self.arriving = [torch.empty(tallest * wide, dtype=dtype) for _ in chunks[:BUFFERS]]
        self.leaving = [torch.empty(tallest * back, dtype=dtype) for _ in chunks[:BUFFERS]]
        self.columns = {width: held.columns(width) for width in dims}
        self._outbox = Outbox(self)
        self.nobody, self.nothing = [0] * held.world_size, torch.empty(0, dtype=dtype)

    # -- one step each ---------------------------------------------------------------------------

    def _gemm(
        self, name: str, op: str, phase: Phase, layer: int, a: Tensor, b: Tensor, out: Tensor,
        add: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Out = a b, plus `add`: a row vector, or `out` itself."""
        (m, k), n, s = a.shape, b.shape[1], out.element_size()
        size, flops = (m * k + k * n + m * n) * s, 2 * m * k * n
        with self.trainer.step(name, Kind.GEMM, op, phase, layer, size, flops):
            if add is None:
                torch.mm(a, b, out=out)
            else:
                torch.addmm(add, a, b, out=out)

    def copy(self, name: str, phase: Phase, layer: int, packed: Tensor, rows_nF: Tensor) -> Any:
        """Blocks of columns into whole rows, or back."""
        pack = "/pack/" in name
        size = 2 * rows_nF.numel() * rows_nF.element_size()
        with self.trainer.step(name, Kind.GATHER, "gather", phase, layer, size):
            copy_blocks(packed, rows_nF, self.columns[rows_nF.shape[1]], pack=pack)

    # -- passes ----------------------------------------------------------------------------------

    def forward(self, counters: tuple[int, ...] | None, phase: Phase) -> Tensor:
        """Update every chunk of every layer; in training also the loss and first gradients."""
        hidden, last = self._own_input(counters, phase), self.trainer.shape.num_layers
        for layer in range(1, last + 1):
            self._forward_layer(layer, hidden, counters, phase)
            hidden = self.h[layer]
        if phase is not Phase.FORWARD:
            self._outbox.close()
        return self.h[last]

    def _own_input(self, counters: tuple[int, ...] | None, phase: Phase) -> Tensor | None:
        """The features of the own rows, which a self weight multiplies, behind their dropout."""
        x_nF = self._input
        if x_nF is None or self._dropped is None or counters is None:
            return x_nF
        with self.trainer.elementwise(f"{phase}/0/dropout", "dropout", phase, 0, x_nF, 2):
            rate, key = self.trainer.shape.input_dropout, fold(*counters, 0)
            self.trainer.context.kernels.dropout(x_nF, self._dropped, rate, key, self.row_ids)
        return self._dropped

    def _forward_layer(
        self, layer: int, hidden: Tensor | None, counters: tuple[int, ...] | None, phase: Phase
    ) -> None:
        shape, value = self.trainer.shape, self.trainer.parameters.value
        weight, bias = value[f"weight_{layer}"], value[f"bias_{layer}"]
        order, where, own = self.structure.forward, f"{phase}/{layer}", shape.model.self_weight
        inbox = Inbox(self, phase, layer, order, self.z[layer])
        if own:
            assert hidden is not None
            self._gemm(
                f"{where}/self", "gemm_nn_bias", phase, layer, hidden,
                value[f"self_weight_{layer}"], self.h[layer], bias,
            )  # fmt: skip
        for chunk in order:
            inbox.take(chunk)
            z_nF, y_nH = self.z[layer][self.at[chunk]], self.h[layer][self.at[chunk]]
            op, add = ("gemm_nn_add", y_nH) if own else ("gemm_nn_bias", bias)
            self._gemm(f"{where}/gemm/{chunk}", op, phase, layer, z_nF, weight, y_nH, add)
            if layer < shape.num_layers:
                self._activate(phase, layer, chunk, y_nH, counters)
                self._outbox.put(phase, layer, chunk, y_nH)
            elif phase is Phase.FORWARD:
                self._loss(chunk)
                self._input_gradient(layer, chunk)

    def _activate(
        self, phase: Phase, layer: int, chunk: int, y_nH: Tensor, counters: tuple[int, ...] | None
    ) -> None:
        rate = self.trainer.shape.dropout if counters is not None else 0.0
        op, name = "relu_dropout" if rate > 0 else "relu", f"{phase}/{layer}/activation/{chunk}"
        with self.trainer.elementwise(name, op, phase, layer, y_nH, 2):
            key = fold(*counters, layer) if counters is not None else 0
            ids = self.row_ids[self.at[chunk]]
            self.trainer.context.kernels.relu_dropout(y_nH, y_nH, rate, key, ids)

    def _loss(self, chunk: int) -> None:
        trainer, last, at = self.trainer, self.trainer.shape.num_layers, self.at[chunk]
        logits, train = self.h[last][at], self.train_rows[chunk]
        (rows, classes), t = logits.shape, train.numel()
        size = (rows + 2 * t) * classes * logits.element_size()
        with trainer.step(
            f"forward/loss/{chunk}", Kind.ELEMENTWISE, "softmax_cross_entropy", Phase.FORWARD,
            last, size, 5 * t * classes,
        ):  # fmt: skip
            value = trainer.context.kernels.softmax_cross_entropy(
                logits, self.labels[at], train, trainer.loss_scale, self.g[last][at]
            )
            trainer.parameters.loss.add_(float(value))

    def backward(self) -> None:
        """Gradients below the last layer's product; they leave as they are ready."""
        order, phase = self.structure.backward, Phase.BACKWARD
        for layer in range(self.trainer.shape.num_layers - 1, 0, -1):
            # Joined before the weights' gradients, which fill the time until the first chunk. The
            # rows that come lie where those that go lie; but no sparse rank begins to send before
            # it has all that go.
            inbox = Inbox(self, phase, layer, order, self.g[layer])
            self._weight_gradients(layer + 1, slice(None), "")
            for chunk in order:
                inbox.take(chunk)
                self._output_gradient(layer, chunk)
                self._input_gradient(layer, chunk)
        self._outbox.close()

    def _output_gradient(self, layer: int, chunk: int) -> None:
        """Finish the gradient of H_l that came in, down to before its activation."""
        shape, value, at = self.trainer.shape, self.trainer.parameters.value, self.at[chunk]
        g_nH, h_nH, phase = self.g[layer][at], self.h[layer][at], Phase.BACKWARD
        if shape.model.self_weight:
            above = layer + 1
            self._gemm(
                f"backward/{above}/self_input/{chunk}", "gemm_nt_add", phase, above,
                self.g[above][at], value[f"self_weight_{above}"].t(), g_nH, g_nH,
            )  # fmt: skip
        name = f"backward/{layer}/activation/{chunk}"
        with self.trainer.elementwise(name, "relu_backward", phase, layer, g_nH, 3):
            self.trainer.context.kernels.relu_dropout_backward(g_nH, h_nH, shape.dropout, g_nH)

    def _input_gradient(self, layer: int, chunk: int) -> None:
        """Send DZ of a chunk home; where nothing is below, take the weights' gradients instead."""
        at, phase = self.at[chunk], Phase.BACKWARD
        if layer == 1:
            self._weight_gradients(layer, at, f"/{chunk}")
            return
        # The rows of g of the layer below are free until dH comes.
        out, weight = self.g[layer - 1][at], self.trainer.parameters.value[f"weight_{layer}"]
        name = f"backward/{layer}/input/{chunk}"
        self._gemm(name, "gemm_nt", phase, layer, self.g[layer][at], weight.t(), out)
        self._outbox.put(phase, layer, chunk, out)

    def _weight_gradients(self, layer: int, at: slice, suffix: str) -> None:
        """Add to the weights' gradients, which were zeroed before the pass, those of some rows."""
        grads, phase, where = self.trainer.parameters.grad, Phase.BACKWARD, f"backward/{layer}"
        g_nH = self.g[layer][at]
        name = f"{where}/bias{suffix}"
        with self.trainer.elementwise(name, "column_sum", phase, layer, g_nH, 1):
            grads[f"bias_{layer}"].add_(g_nH.sum(0))
        z_t, weight, op = self.z[layer][at].t(), grads[f"weight_{layer}"], "gemm_tn"
        self._gemm(f"{where}/weight{suffix}", op, phase, layer, z_t, g_nH, weight, weight)
        if self.trainer.shape.model.self_weight:
            h_t = (self.h[layer - 1] if layer > 1 else self._trained_input())[at].t()
            own, name = grads[f"self_weight_{layer}"], f"{where}/self_weight{suffix}"
            self._gemm(name, op, phase, layer, h_t, g_nH, own, own)

    def _trained_input(self) -> Tensor:
        found = self._input if self._dropped is None else self._dropped
        assert found is not None
        return found


class Inbox:
    """Handovers of one layer, joined in order and ahead as far as there is room.

    `rows` are all own rows, into which chunks go.
    """

    def __init__(
        self, rank: DenseRank, phase: Phase, layer: int, order: Sequence[int], rows: Tensor
    ) -> None:
        self._rank, self._phase, self._layer, self._rows = rank, phase, layer, rows
        self._left = deque(order)
        self._pending: deque[tuple[Pending, Tensor]] = deque()
        self._joined = 0
        for _ in range(len(order) if rank.alone else BUFFERS):
            self._join()

    def _join(self) -> None:
        if not self._left:
            return
        rank, chunk = self._rank, self._left.popleft()
        out_nF, width = self._rows[rank.at[chunk]], self._rows.shape[1]
        flat = out_nF.view(-1)
        if not rank.alone:
            flat = rank.arriving[self._joined % len(rank.arriving)][: out_nF.numel()]
        self._joined += 1
        splits = [cut * len(out_nF) for cut in rank.columns[width]]
        pending = rank.trainer.context.comm.all_to_all_async(
            flat, rank.nothing, splits + rank.nobody[len(splits) :], rank.nobody,
            f"{self._phase}/{self._layer}/hand/{chunk}", self._phase, layer=self._layer,
            lane=Lane.COMM,
        )  # fmt: skip
        self._pending.append((pending, flat))

    def take(self, chunk: int) -> None:
        """Wait until the chunk's rows are in place. Chunks are taken in order."""
        pending, flat = self._pending.popleft()
        pending.wait()
        if not self._rank.alone:
            name = f"{self._phase}/{self._layer}/unpack/{chunk}"
            out_nF = self._rows[self._rank.at[chunk]]
            self._rank.copy(name, self._phase, self._layer, flat, out_nF)
            self._join()


class Outbox:
    """Returns under way."""

    def __init__(self, rank: DenseRank) -> None:
        self._rank = rank
        self._pending: deque[Pending] = deque()
        self._count = 0

    def put(self, phase: Phase, layer: int, chunk: int, rows_nF: Tensor) -> None:
        """Send a chunk's rows home. They stay as they are until the sparse ranks answer."""
        rank, where = self._rank, f"{phase}/{layer}"
        flat, width = rows_nF.view(-1), rows_nF.shape[1]
        if not rank.alone:
            while len(self._pending) >= len(rank.leaving):
                self._pending.popleft().wait()
            flat = rank.leaving[self._count % len(rank.leaving)][: rows_nF.numel()]
            self._count += 1
            rank.copy(f"{where}/pack/{chunk}", phase, layer, flat, rows_nF)
        splits = [cut * len(rows_nF) for cut in rank.columns[width]]
        self._pending.append(
            rank.trainer.context.comm.all_to_all_async(
                rank.nothing, flat, rank.nobody, splits + rank.nobody[len(splits) :],
                f"{where}/return/{chunk}", phase, layer=layer, lane=Lane.BACKGROUND,
            )
        )  # fmt: skip

    def close(self) -> None:
        """Wait until everything has been sent."""
        while self._pending:
            self._pending.popleft().wait()


def _tensor(array: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)


def _labels(graph: Graph, rows: np.ndarray, dtype: torch.dtype) -> Tensor:
    labels = np.asarray(graph.labels)[rows]
    return _tensor(labels, dtype if labels.dtype.kind == "f" else torch.int64)
