"""A rank of `mixed-accelerators` that updates its share of the rows of every chunk.

Its rows are stored chunk by chunk in processing order. With a single sparse rank, whole rows are
received and sent in place; otherwise blocks of columns pass through two buffers in each direction.

Legend: n rows (own, or own of a chunk), F input width, H output width.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.whole_graph.mixed_structure import MixedStructure
from gnnbench.data.keys import fold
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.approaches.whole_graph.mixed_mail import Inbox, Mail
from gnnbench_runtime.approaches.whole_graph.mixed_norm import ChunkNorm
from gnnbench_runtime.approaches.whole_graph.mixed_rank import Counters, MixedRank
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.models.data import sizes_of
from gnnbench_runtime.models.parameters import Parameters


class DenseRank(MixedRank):
    """Updates chunks as they arrive, and returns them while the next ones are being sent."""

    lane = Lane.DENSE

    def __init__(self, loader: Loader, structure: MixedStructure, parameters: Parameters) -> None:
        super().__init__(loader, structure, parameters)
        rows = self._own_rows()
        self.row_ids = loader.tensor(rows)
        self.labels, self.masks = loader.labels(rows), loader.masks(rows)
        train = np.asarray(loader.graph.train_mask)[rows]
        self._train_rows = [loader.tensor(np.flatnonzero(train[at])) for at in self.at]
        n, dims, layers = len(rows), self.shape.dims, range(1, self.shape.num_layers + 1)
        self.z = {layer: self.empty(n, dims[layer - 1]) for layer in layers}
        self.h = {layer: self.empty(n, dims[layer]) for layer in layers}
        self.g = {layer: self.empty(n, dims[layer]) for layer in layers}
        self._norms = {
            layer: ChunkNorm(self, layer, self.h[layer], self.g[layer], self.at)
            for layer in layers
            if self.shape.has_norm(layer)
        }
        self.x, self._dropped = self.empty(0, 0), None
        if self.shape.model.self_weight:
            self.x = loader.features(rows, n)
            self._dropped = torch.empty_like(self.x) if self.shape.input_dropout > 0 else None
        self._hidden = self.x
        self._mail = Mail(self, self.at)

    def _own_rows(self) -> np.ndarray:
        """Vertices of the own rows, chunk by chunk; `at` says where each chunk's are."""
        held, place = self.structure, self.context.rank - self.structure.sparse_ranks
        assert held.row_order is not None
        ends = [held.shares[chunk, place : place + 2].tolist() for chunk in self.chunks]
        starts = list(accumulate((end - first for first, end in ends), initial=0))
        self.at = [slice(starts[chunk], starts[chunk + 1]) for chunk in self.chunks]
        return held.row_order[np.concatenate([np.arange(first, end) for first, end in ends])]

    # -- one step each ---------------------------------------------------------------------------

    def _gemm(
        self,
        name: str,
        op: str,
        phase: Phase,
        layer: int,
        product: tuple[Tensor, Tensor, Tensor],
        add: Tensor | None = None,
    ) -> None:
        """Run out = a b for a `product` (a, b, out), plus `add`: a row vector, or `out` itself."""
        a, b, out = product
        done = work.gemm(op, *sizes_of(a), b.shape[1], out.element_size())
        with self.step(name, done, phase, layer):
            if add is None:
                torch.mm(a, b, out=out)
            else:
                torch.addmm(add, a, b, out=out)

    # -- forward ---------------------------------------------------------------------------------

    def forward(self, counters: Counters, phase: Phase, *, turns: bool) -> Tensor:
        """Update every chunk of every layer; with `turns` also the loss and first gradients."""
        last = self.shape.num_layers
        self._hidden = self.x
        if counters is not None and self._dropped is not None:
            self._hidden = self.drop_input(self._dropped, counters, phase, self.row_ids)
        for layer in range(1, last + 1):
            self._forward_layer(layer, self._input_of(layer), counters, phase, turns=turns)
        if not turns:
            self._mail.close()
        return self.h[last]

    def _input_of(self, layer: int) -> Tensor:
        """The own rows of H_{layer - 1}: what a self weight multiplies."""
        return self._hidden if layer == 1 else self.output(layer - 1)

    def output(self, layer: int) -> Tensor:
        """The own rows of a layer's output."""
        return self._norms[layer].out if layer in self._norms else self.h[layer]

    def gradient(self, layer: int) -> Tensor:
        """The gradient of a layer's product and bias, own rows."""
        return self._norms[layer].grad if layer in self._norms else self.g[layer]

    def _forward_layer(
        self, layer: int, hidden: Tensor, counters: Counters, phase: Phase, *, turns: bool
    ) -> None:
        value, order, where = self.parameters.value, self.structure.forward, f"{phase}/{layer}"
        weight, bias = value[f"weight_{layer}"], value[f"bias_{layer}"]
        inbox = Inbox(self._mail, phase, layer, order, self.z[layer])
        own = self.shape.model.self_weight
        if own:
            product = hidden, value[f"self_weight_{layer}"], self.h[layer]
            self._gemm(f"{where}/self", "gemm_nn_bias", phase, layer, product, bias)
        for chunk in order:
            inbox.take(chunk)
            at = self.at[chunk]
            z_nF, y_nH = self.z[layer][at], self.h[layer][at]
            op, add = ("gemm_nn_add", y_nH) if own else ("gemm_nn_bias", bias)
            self._gemm(f"{where}/gemm/{chunk}", op, phase, layer, (z_nF, weight, y_nH), add)
            if layer < self.shape.num_layers:
                self._activate(phase, layer, chunk, counters)
                self._mail.put(phase, layer, chunk, self.output(layer)[at])
            elif turns:
                self._loss(chunk)
                self._input_gradient(layer, chunk)

    def _activate(self, phase: Phase, layer: int, chunk: int, counters: Counters) -> None:
        if layer in self._norms:
            self._norms[layer].forward(phase, chunk)
        at, rate = self.at[chunk], self.shape.dropout if counters is not None else 0.0
        y_nH, name = self.output(layer)[at], self.shape.model.activation
        done = work.activation(name, *sizes_of(y_nH), y_nH.element_size(), dropped=rate > 0)
        with self.step(f"{phase}/{layer}/activation/{chunk}", done, phase, layer):
            key = fold(*counters, layer) if counters is not None else 0
            self.kernels.relu_dropout(y_nH, y_nH, rate, key, self.row_ids[at])

    def _loss(self, chunk: int) -> None:
        last, at, train = self.shape.num_layers, self.at[chunk], self._train_rows[chunk]
        logits = self.h[last][at]
        done = work.cross_entropy(*sizes_of(logits), train.numel(), logits.element_size())
        with self.step(f"forward/loss/{chunk}", done, Phase.FORWARD, last):
            value = self.kernels.softmax_cross_entropy(
                logits, self.labels[at], train, self.scale, self.g[last][at]
            )
            self.parameters.loss.add_(value)

    # -- backward --------------------------------------------------------------------------------

    def backward(self) -> None:
        """Gradients below the last layer's product; they leave as they are ready."""
        order, phase = self.structure.backward, Phase.BACKWARD
        for layer in range(self.shape.num_layers - 1, 0, -1):
            # Joined before the weights' gradients, which fill the time until the first chunk.
            # Arriving rows take the place of leaving ones: no sparse rank sends any before it has
            # received all that leave.
            inbox = Inbox(self._mail, phase, layer, order, self.g[layer])
            self._weight_gradients(layer + 1, slice(None), "")
            for chunk in order:
                inbox.take(chunk)
                self._output_gradient(layer, chunk)
                self._input_gradient(layer, chunk)
        self._mail.close()

    def _output_gradient(self, layer: int, chunk: int) -> None:
        """Finish the gradient of H_l that arrived, down to before its activation."""
        value, at, phase, above = self.parameters.value, self.at[chunk], Phase.BACKWARD, layer + 1
        g_nH, h_nH = self.g[layer][at], self.output(layer)[at]
        if self.shape.model.self_weight:
            weight_t, name = (
                value[f"self_weight_{above}"].t(),
                f"backward/{above}/self_input/{chunk}",
            )
            product = self.gradient(above)[at], weight_t, g_nH
            self._gemm(name, "gemm_nt_add", phase, above, product, g_nH)
        s, rate = g_nH.element_size(), self.shape.dropout
        done = work.activation_backward(self.shape.model.activation, *sizes_of(g_nH), s)
        with self.step(f"backward/{layer}/activation/{chunk}", done, phase, layer):
            self.kernels.relu_dropout_backward(g_nH, h_nH, rate, g_nH)
        if layer in self._norms:
            self._norms[layer].backward(chunk)

    def _input_gradient(self, layer: int, chunk: int) -> None:
        """Send off the gradient of the product below; in layer 1, that of the weights is due."""
        phase, at = Phase.BACKWARD, self.at[chunk]
        if layer == 1:
            self._weight_gradients(layer, at, f"/{chunk}")
            return
        # The rows of g of the layer below are free until dH arrives.
        out, weight_t = self.g[layer - 1][at], self.parameters.value[f"weight_{layer}"].t()
        product, name = (self.gradient(layer)[at], weight_t, out), f"backward/{layer}/input/{chunk}"
        self._gemm(name, "gemm_nt", phase, layer, product)
        self._mail.put(phase, layer, chunk, out)

    def _weight_gradients(self, layer: int, at: slice, suffix: str) -> None:
        """Add to the weights' gradients, zero before the pass, those of some rows."""
        grads, phase, where = self.parameters.grad, Phase.BACKWARD, f"backward/{layer}"
        g_nH = self.gradient(layer)[at]
        done = work.column_sum(*sizes_of(g_nH), g_nH.element_size())
        with self.step(f"{where}/bias{suffix}", done, phase, layer):
            grads[f"bias_{layer}"].add_(g_nH.sum(0))
        inputs = {"weight": self.z[layer]}
        if self.shape.model.self_weight:
            inputs["self_weight"] = self._input_of(layer)
        for name, rows in inputs.items():
            grad = grads[f"{name}_{layer}"]
            product = rows[at].t(), g_nH, grad
            self._gemm(f"{where}/{name}{suffix}", "gemm_tn", phase, layer, product, grad)
