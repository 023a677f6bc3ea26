"""Sparse ranks aggregate, dense ranks update, row chunks travel between them in a pipeline.

Sends go out from the main thread. What dense ranks return is received by a thread of the sparse
rank on the background group, in the one order of chunks that all ranks share: so no two ranks can
wait for each other, however small the transport's buffers are.

Legend: N rows, n rows of a chunk, F input width, H output width, lowercase f a slice of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench import registry
from gnnbench.approaches.fullgraph import stack_shape
from gnnbench.approaches.mixed_accelerators import MixedStructure
from gnnbench.errors import Unsupported
from gnnbench.graph.graph import Graph
from gnnbench.graph.keys import fold
from gnnbench.plan import Kind, Lane, Phase
from gnnbench_runtime.approaches.partition import adam_step, correct
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.scales import vertex_scales
from gnnbench_runtime.protocol import RankContext


class _Rows:
    """CSR of a chunk's rows with loops, and the scale of each row and source."""

    __slots__ = ("indices", "indptr", "row_scale")

    def __init__(self, indptr: Tensor, indices: Tensor, row_scale: Tensor) -> None:
        self.indptr, self.indices, self.row_scale = indptr, indices, row_scale


class MixedTrainer:
    """One rank, sparse or dense, of full-graph training: one optimizer step per epoch."""

    def __init__(self, context: RankContext, graph: Graph, structure: MixedStructure) -> None:
        if context.device.type == "cuda":
            raise Unsupported(
                "mixed-accelerators runs on CPU ranks (gloo) for now: its receiving thread has no "
                "stream of its own on CUDA"
            )
        run = context.run
        self.context, self.structure = context, structure
        self.shape = stack_shape(graph, run, "aggregate_first")
        self.dtype = torch.float64 if run.training.precision == "float64" else torch.float32
        self.model = registry.model(run.model.kind)
        self.parameters = Parameters(
            self.model, self.shape.dims, run.training.seed, context.device, self.dtype
        )
        context.comm.open_background()
        graph = reopened_graph(graph)
        assert structure.row_order is not None
        self.loss_scale = 1.0 / max(graph.num_train, 1)
        self.mask_names = sorted(
            name for name in ("train", "val", "test") if getattr(graph, f"{name}_mask") is not None
        )
        role = _Sparse if context.rank < structure.sparse_ranks else _Dense
        self.role: _Sparse | _Dense = role(self, graph)
        self.row_ids = self.role.row_ids
        self.optimizer_steps = 0

    # -- training --------------------------------------------------------------------------------

    def train_epoch(self, epoch: int) -> float:
        """One forward, backward, all-reduce and Adam step over the whole graph."""
        self.gradients((self.context.run.training.seed, epoch))
        self.all_reduce()
        self.update()
        return float(self.parameters.loss.item())

    def gradients(self, counters: tuple[int, ...]) -> Tensor:
        """Fill this rank's share of loss and gradient; return the logits of its rows."""
        self.parameters.flat_grad.zero_()
        logits = self.role.forward(counters, Phase.FORWARD)
        self.role.backward()
        return logits

    def all_reduce(self) -> None:
        """Sum gradients and loss over all ranks, so that weights stay equal everywhere."""
        self.context.comm.all_reduce(self.parameters.flat_grad, "sync/gradients", Phase.SYNC)

    def update(self) -> None:
        """One Adam step."""
        self.optimizer_steps += 1
        adam_step(self.context, self.parameters, self.optimizer_steps)

    def evaluate(self) -> dict[str, float]:
        """Accuracy on every split, over the rows of all dense ranks."""
        logits = self.role.forward(None, Phase.EVALUATE)
        counts = torch.zeros((len(self.mask_names), 2), dtype=torch.float64)
        for i, name in enumerate(self.mask_names):
            mask = self.role.masks[name]
            right, asked = correct(logits[mask], self.role.labels[mask])
            counts[i, 0], counts[i, 1] = right, asked
        self.context.comm.all_reduce(counts, "evaluate/counts", Phase.EVALUATE)
        return {
            name: float(counts[i, 0] / counts[i, 1])
            for i, name in enumerate(self.mask_names)
            if counts[i, 1] > 0
        }

    def close(self) -> None:
        """Stop the receiving thread."""
        self.role.close()

    # -- recording -------------------------------------------------------------------------------

    def step(
        self, name: str, kind: Kind, op: str, lane: Lane, phase: Phase, layer: int, size: int,
        flops: int = 0,
    ) -> Any:  # fmt: skip
        return self.context.recorder.step(
            name, kind, op, lane=lane, phase=phase, layer=layer, bytes=size, flops=flops
        )


class _Sparse:
    """A rank that aggregates its slice of the columns, for all rows."""

    def __init__(self, trainer: MixedTrainer, graph: Graph) -> None:
        self.trainer, self.structure = trainer, trainer.structure
        self.rank, dims = trainer.context.rank, trainer.shape.dims
        order = self.structure.row_order
        assert order is not None and graph.features is not None
        first, end = self.structure.columns(dims[0])[self.rank]
        self.x = _tensor(np.asarray(graph.features)[:, first:end][order], trainer.dtype)
        self._adjacency(graph, order)
        rows = self.structure.num_rows
        inner = self.structure.widest_slice(dims[1:-1], self.rank) if len(dims) > 2 else 0
        self._columns = [torch.empty(rows * inner, dtype=trainer.dtype) for _ in range(2)]
        tallest = max(self.structure.rows(chunk) for chunk in self.structure.forward)
        widest = self.structure.widest_slice(dims[:-1], self.rank)
        self._piece = torch.empty(tallest * widest, dtype=trainer.dtype)
        self._owners = self.structure.owners()
        self._held = self.x
        self._next = 0
        self._pending: tuple[Future[None], Tensor] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="returns")
        self.row_ids = torch.empty(0, dtype=torch.int64)
        classes = dims[-1]
        self._logits = torch.empty((0, classes), dtype=trainer.dtype)
        multi = np.asarray(graph.labels).dtype.kind == "f"
        self.labels = (
            torch.empty((0, classes), dtype=trainer.dtype)
            if multi
            else torch.empty(0, dtype=torch.int64)
        )
        self.masks = {name: torch.empty(0, dtype=torch.bool) for name in trainer.mask_names}

    def _adjacency(self, graph: Graph, order: np.ndarray) -> None:
        """Rows of A + I and of its transpose in processing numbering, chunk by chunk."""
        as_destination, as_source = vertex_scales(graph, self.trainer.model)
        assert as_source is not None
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        destination = np.repeat(place, graph.in_degrees())
        source = place[np.asarray(graph.indices)]
        loops = np.arange(len(order))
        ends = (np.concatenate([destination, loops]), np.concatenate([source, loops]))
        to, back = as_destination[order], as_source[order]
        dtype = self.trainer.dtype
        self._scales = (_tensor(back, dtype), _tensor(to, dtype))
        self._forward_rows = self._chunked(ends[0], ends[1], _tensor(to, dtype))
        self._backward_rows = self._chunked(ends[1], ends[0], _tensor(back, dtype))

    def _chunked(self, rows: np.ndarray, columns: np.ndarray, scale: Tensor) -> list[_Rows]:
        count = self.structure.num_rows
        sorted_by_row = np.lexsort((columns, rows))
        indices = columns[sorted_by_row].astype(np.int32)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))])
        found = []
        for chunk in range(len(self.structure.forward)):
            a, b = self.structure.starts[chunk : chunk + 2]
            found.append(
                _Rows(
                    _tensor(indptr[a : b + 1] - indptr[a]),
                    _tensor(indices[indptr[a] : indptr[b]]),
                    scale[a:b],
                )
            )
        return found

    def forward(self, counters: tuple[int, ...] | None, phase: Phase) -> Tensor:
        """Aggregate every layer; what comes back is the next layer's input."""
        del counters  # dropout is the dense ranks' business
        dims, layers = self.trainer.shape.dims, self.trainer.shape.num_layers
        self._held = self.x
        for layer in range(1, layers + 1):
            if layer < layers:
                self._begin_returns(phase, layer, dims[layer], self.structure.forward)
            elif phase is Phase.FORWARD and layers > 1:
                # The dense ranks go on into the backward pass without a word.
                self._begin_returns(Phase.BACKWARD, layer, dims[layer - 1], self.structure.backward)
            self._aggregate(phase, layer, dims[layer - 1], self._forward_rows, self._scales[0])
            self._end_returns()
        return self._logits

    def backward(self) -> None:
        """Aggregate the gradients that came back, last layer first."""
        dims, order = self.trainer.shape.dims, self.structure.backward
        for layer in range(self.trainer.shape.num_layers, 1, -1):
            if layer > 2:
                self._begin_returns(Phase.BACKWARD, layer - 1, dims[layer - 2], order)
            self._aggregate(
                Phase.BACKWARD, layer - 1, dims[layer - 1], self._backward_rows, self._scales[1]
            )
            self._end_returns()

    def _slice(self, width: int) -> int:
        first, end = self.structure.columns(width)[self.rank]
        return end - first

    def _aggregate(
        self, phase: Phase, layer: int, width: int, rows: Sequence[_Rows], col_scale: Tensor
    ) -> None:
        cut, held, trainer = self._slice(width), self.structure, self.trainer
        if not cut:
            return
        x_Nf, s = self._held, self._held.element_size()
        for chunk in held.backward if phase is Phase.BACKWARD else held.forward:
            part, n = rows[chunk], held.rows(chunk)
            nnz = part.indices.numel()
            out_nf = self._piece[: n * cut].view(n, cut)
            size = 8 * (n + 1) + 4 * nnz + (min(held.num_rows, nnz) + n) * cut * s
            with trainer.step(
                f"{phase}/{layer}/spmm/{chunk}", Kind.SPMM, "spmm", Lane.SPARSE, phase, layer,
                size, 2 * nnz * cut,
            ):  # fmt: skip
                trainer.context.kernels.spmm(
                    part.indptr, part.indices, x_Nf, out_nf, row_scale=part.row_scale,
                    col_scale=col_scale,
                )  # fmt: skip
            trainer.context.comm.send(
                out_nf, self._owners[chunk], f"{phase}/{layer}/send/{chunk}", phase, layer=layer
            )

    def _begin_returns(self, phase: Phase, layer: int, width: int, order: tuple[int, ...]) -> None:
        """Let the thread receive the rows that dense ranks return, into the buffer not in use."""
        cut, rows = self._slice(width), self.structure.num_rows
        target = self._columns[self._next][: rows * cut].view(rows, cut)
        self._next = 1 - self._next
        comm, starts, owners = self.trainer.context.comm, self.structure.starts, self._owners

        def receive() -> None:
            for chunk in order if cut else ():
                comm.recv(
                    target[starts[chunk] : starts[chunk + 1]], owners[chunk],
                    f"{phase}/{layer}/return/{chunk}", phase, layer=layer, lane=Lane.BACKGROUND,
                )  # fmt: skip

        self._pending = (self._thread.submit(receive), target)

    def _end_returns(self) -> None:
        if self._pending is not None:
            future, target = self._pending
            future.result()
            self._held, self._pending = target, None

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


class _Dense:
    """A rank that updates the rows of its chunks. Its rows stand in forward order of the chunks."""

    def __init__(self, trainer: MixedTrainer, graph: Graph) -> None:
        self.trainer, self.structure = trainer, trainer.structure
        held, rank = self.structure, trainer.context.rank
        owners = held.owners()
        self.chunks = [c for c in held.forward if owners[c] == rank]
        self.backward_chunks = [c for c in held.backward if owners[c] == rank]
        assert held.row_order is not None
        blocks = [np.arange(held.starts[c], held.starts[c + 1]) for c in self.chunks]
        rows = held.row_order[np.concatenate([np.empty(0, np.int64), *blocks])]
        self.row_ids = _tensor(rows)
        self._at: dict[int, slice] = {}
        begin = 0
        for chunk in self.chunks:
            self._at[chunk] = slice(begin, begin + held.rows(chunk))
            begin += held.rows(chunk)
        self.labels = _labels(graph, rows, trainer.dtype)
        self.masks = {
            name: _tensor(np.asarray(getattr(graph, f"{name}_mask"))[rows])
            for name in trainer.mask_names
        }
        self.train_rows = self.masks["train"].nonzero().squeeze(1)
        dims, n, dtype = trainer.shape.dims, len(rows), trainer.dtype
        layers = range(1, len(dims))
        self.z = {layer: torch.empty((n, dims[layer - 1]), dtype=dtype) for layer in layers}
        self.h = {layer: torch.empty((n, dims[layer]), dtype=dtype) for layer in layers}
        self.g = {layer: torch.empty((n, dims[layer]), dtype=dtype) for layer in layers}
        piece = 0
        if held.sparse_ranks > 1:
            piece = max(held.rows(c) for c in held.forward) * -(-max(dims) // held.sparse_ranks)
        self._piece = torch.empty(piece, dtype=dtype)

    # -- one step each ---------------------------------------------------------------------------

    def _gemm(
        self, name: str, op: str, phase: Phase, layer: int, a: Tensor, b: Tensor, out: Tensor,
        add: Tensor | None = None,
    ) -> None:  # fmt: skip
        (m, k), n, s = a.shape, b.shape[1], out.element_size()
        size, flops = (m * k + k * n + m * n) * s, 2 * m * k * n
        with self.trainer.step(name, Kind.GEMM, op, Lane.DENSE, phase, layer, size, flops):
            if add is None:
                torch.mm(a, b, out=out)
            else:
                torch.addmm(add, a, b, out=out)

    def _elementwise(
        self, name: str, op: str, phase: Phase, layer: int, x: Tensor, passes: int
    ) -> Any:
        size = passes * x.numel() * x.element_size()
        return self.trainer.step(
            name, Kind.ELEMENTWISE, op, Lane.DENSE, phase, layer, size, x.numel()
        )

    def _copy(self, name: str, phase: Phase, layer: int, source: Tensor, target: Tensor) -> None:
        size = 2 * source.numel() * source.element_size()
        with self.trainer.step(name, Kind.GATHER, "gather", Lane.DENSE, phase, layer, size):
            target.copy_(source)

    def _receive(self, phase: Phase, layer: int, chunk: int, out_nF: Tensor) -> None:
        comm, rows = self.trainer.context.comm, out_nF.shape[0]
        for peer, (first, end) in enumerate(self.structure.columns(out_nF.shape[1])):
            if end == first:
                continue
            where = f"{chunk}/{peer}"
            alone = self.structure.sparse_ranks == 1
            cut = out_nF if alone else self._piece[: rows * (end - first)].view(rows, -1)
            comm.recv(cut, peer, f"{phase}/{layer}/recv/{where}", phase, layer=layer)
            if not alone:
                name = f"{phase}/{layer}/unpack/{where}"
                self._copy(name, phase, layer, cut, out_nF[:, first:end])

    def _return(self, phase: Phase, layer: int, chunk: int, rows_nF: Tensor) -> None:
        comm, rows = self.trainer.context.comm, rows_nF.shape[0]
        for peer, (first, end) in enumerate(self.structure.columns(rows_nF.shape[1])):
            if end == first:
                continue
            where, cut = f"{chunk}/{peer}", rows_nF
            if self.structure.sparse_ranks > 1:
                cut = self._piece[: rows * (end - first)].view(rows, -1)
                name = f"{phase}/{layer}/pack/{where}"
                self._copy(name, phase, layer, rows_nF[:, first:end], cut)
            comm.send(
                cut, peer, f"{phase}/{layer}/return/{where}", phase, layer=layer,
                lane=Lane.BACKGROUND,
            )  # fmt: skip

    # -- passes ----------------------------------------------------------------------------------

    def forward(self, counters: tuple[int, ...] | None, phase: Phase) -> Tensor:
        """Update every chunk of every layer; in training also the loss and its gradient."""
        trainer, shape = self.trainer, self.trainer.shape
        value = trainer.parameters.value
        for layer in range(1, shape.num_layers + 1):
            for chunk in self.chunks:
                at = self._at[chunk]
                z_nF, y_nH = self.z[layer][at], self.h[layer][at]
                self._receive(phase, layer, chunk, z_nF)
                self._gemm(
                    f"{phase}/{layer}/gemm/{chunk}", "gemm_nn_bias", phase, layer, z_nF,
                    value[f"weight_{layer}"], y_nH, value[f"bias_{layer}"],
                )  # fmt: skip
                if layer < shape.num_layers:
                    self._activate(phase, layer, chunk, y_nH, counters)
                    self._return(phase, layer, chunk, y_nH)
        if phase is Phase.FORWARD:
            self._loss()
        return self.h[shape.num_layers]

    def _activate(
        self, phase: Phase, layer: int, chunk: int, y_nH: Tensor, counters: tuple[int, ...] | None
    ) -> None:
        rate = self.trainer.shape.dropout if counters is not None else 0.0
        op = "relu_dropout" if rate > 0 else "relu"
        with self._elementwise(f"{phase}/{layer}/activation/{chunk}", op, phase, layer, y_nH, 2):
            key = fold(*counters, layer) if counters is not None else 0
            ids = self.row_ids[self._at[chunk]]
            self.trainer.context.kernels.relu_dropout(y_nH, y_nH, rate, key, ids)

    def _loss(self) -> None:
        trainer, last = self.trainer, self.trainer.shape.num_layers
        logits, train = self.h[last], self.train_rows.numel()
        rows, classes = logits.shape
        size = (rows + 2 * train) * classes * logits.element_size()
        with trainer.step(
            "forward/loss", Kind.ELEMENTWISE, "softmax_cross_entropy", Lane.DENSE, Phase.FORWARD,
            last, size, 5 * train * classes,
        ):  # fmt: skip
            value = trainer.context.kernels.softmax_cross_entropy(
                logits, self.labels, self.train_rows, trainer.loss_scale, self.g[last]
            )
            trainer.parameters.loss.fill_(float(value))

    def backward(self) -> None:
        """Gradients of every layer; those of the input go to the sparse ranks as they are ready."""
        trainer, shape, phase = self.trainer, self.trainer.shape, Phase.BACKWARD
        value, grads = trainer.parameters.value, trainer.parameters.grad
        for layer in range(shape.num_layers, 0, -1):
            g_NH = self.g[layer]
            for chunk in self.backward_chunks:
                at = self._at[chunk]
                g_nH, h_nH = g_NH[at], self.h[layer][at]
                if layer < shape.num_layers:
                    self._receive(phase, layer, chunk, g_nH)
                    name = f"backward/{layer}/activation/{chunk}"
                    with self._elementwise(name, "relu_backward", phase, layer, g_nH, 3):
                        trainer.context.kernels.relu_dropout_backward(
                            g_nH, h_nH, shape.dropout, g_nH
                        )
                if layer > 1:
                    dz_nF = self._input_gradient(layer, chunk, g_nH, value[f"weight_{layer}"])
                    self._return(phase, layer, chunk, dz_nF)
            with self._elementwise(f"backward/{layer}/bias", "column_sum", phase, layer, g_NH, 1):
                torch.sum(g_NH, 0, out=grads[f"bias_{layer}"])
            self._gemm(
                f"backward/{layer}/weight", "gemm_tn", phase, layer, self.z[layer].t(), g_NH,
                grads[f"weight_{layer}"],
            )  # fmt: skip

    def _input_gradient(self, layer: int, chunk: int, g_nH: Tensor, weight: Tensor) -> Tensor:
        """DZ of a chunk, in the rows of g of the layer below: they are free until dH comes."""
        out = self.g[layer - 1][self._at[chunk]]
        self._gemm(
            f"backward/{layer}/input/{chunk}", "gemm_nt", Phase.BACKWARD, layer, g_nH,
            weight.t(), out,
        )  # fmt: skip
        return out

    def close(self) -> None:
        """No thread of its own."""


def _tensor(array: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)


def _labels(graph: Graph, rows: np.ndarray, dtype: torch.dtype) -> Tensor:
    labels = np.asarray(graph.labels)[rows]
    return _tensor(labels, dtype if labels.dtype.kind == "f" else torch.int64)
