"""Steps of a stack of GNN layers, forward and backward; most plans consist of them.

The runtime performs the same steps in `gnnbench_runtime.models.stack`; conformance requires equal
names, order, bytes and flops.
"""

from __future__ import annotations

from typing import Any

from gnnbench import work
from gnnbench.approaches.writing.layers import attention, convolution
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.approaches.writing.writer import LayerWriter
from gnnbench.steps import Buffer, Groups, Lane, Phase, Size, Work


class StackWriter(LayerWriter):
    """Writes the passes of a model: forward, loss, backward, update."""

    def forward(self) -> None:
        """Write the forward pass; the input features are in buffer "x"."""
        shape, s = self.shape, self.element_bytes
        if shape.input_dropout > 0:
            done = work.dropout(self.input_rows(1), shape.dims[0], s)
            room = self.buffer("h0", self.sizes[0].source_rows, shape.dims[0])
            self.step("forward/0/dropout", done, Phase.FORWARD, 0, allocates=room)
        for layer in range(1, shape.num_layers + 1):
            self.layer_forward(layer)
            self.activate(layer, self.sizes[layer - 1].rows)

    def layer_forward(self, layer: int) -> None:
        """Write one layer up to, not including, its normalisation and activation."""
        kind = attention if self.shape.model.attention else convolution
        kind.forward(self, layer)

    def activate(self, layer: int, rows: Size) -> None:
        """Write normalisation and activation of a hidden layer."""
        shape, s, phase, where = self.shape, self.element_bytes, Phase.FORWARD, f"forward/{layer}"
        if layer == shape.num_layers:
            return
        width = shape.dims[layer]
        if shape.has_norm(layer):
            room = (
                *self.buffer(f"n{layer}", self.out_rows(layer), width),
                *self.buffer(f"statistics{layer}", rows, 2),
            )
            done = work.layer_norm(rows, width, s)
            self.step(f"{where}/norm", done, phase, layer, allocates=room)
        done = work.activation(shape.model.activation, rows, width, s, dropped=shape.dropout > 0)
        self.step(f"{where}/activation", done, phase, layer)

    def loss(self, train_rows: Size) -> None:
        """Write the loss and its gradient with respect to the logits."""
        last, rows, classes = self.shape.num_layers, self.sizes[-1].rows, self.shape.dims[-1]
        done = work.cross_entropy(rows, classes, train_rows, self.element_bytes)
        # Two copies of the training rows' logits, and two numbers a row, live while it is computed.
        room = self.buffer(f"g{last}", rows, classes)
        scratch = self.buffer("loss_scratch", 2 * train_rows, classes + 1)
        self.step(
            "forward/loss",
            done,
            Phase.FORWARD,
            last,
            allocates=(*room, *scratch),
            frees=("loss_scratch",),
        )

    def backward(self) -> None:
        """Write the backward pass, last layer first."""
        for layer in range(self.shape.num_layers, 0, -1):
            self.layer_backward(layer)
            if layer > 1:
                # In a block every source row wants its gradient: those are the previous layer's
                # rows.
                self.activate_backward(layer, self.sizes[layer - 2].rows)

    def layer_backward(self, layer: int) -> None:
        """Write the gradients of one layer's parameters and input."""
        kind = attention if self.shape.model.attention else convolution
        kind.backward(self, layer)

    def activate_backward(self, layer: int, rows: Size) -> None:
        """Write the gradients of the activation and normalisation of layer - 1."""
        shape, s, phase, below = self.shape, self.element_bytes, Phase.BACKWARD, layer - 1
        width, where = shape.dims[below], f"backward/{layer}"
        done = work.activation_backward(shape.model.activation, rows, width, s)
        self.step(f"{where}/activation", done, phase, below)
        if shape.has_norm(below):
            done = work.layer_norm_backward(rows, width, s)
            room = self.buffer(f"gn{below}", rows, width)
            self.step(f"{where}/norm", done, phase, below, allocates=room)

    def update(self, group: tuple[int, ...] | Groups) -> None:
        """Write the all-reduce of the gradient (the loss is one more element) and the optimizer."""
        shape, s = self.shape, self.element_bytes
        members = group.size if isinstance(group, Groups) else len(group)
        if members > 1:
            elements = shape.num_parameters + 1
            staged = self.halo is not None and self.halo.staged
            if staged:
                self.copy("sync/to_host", work.to_host(elements * s), Phase.SYNC, -1)
            reduced = work.all_reduce(elements, s, members)
            self.chain.step(
                "sync/gradients", reduced, phase=Phase.SYNC, lane=Lane.COMM, group=group
            )
            if staged:
                self.copy("sync/to_device", work.to_device(elements * s), Phase.SYNC, -1)
        done = optimizer_work(shape)
        self.step(f"update/{done.op}", done, Phase.UPDATE, -1, **optimizer_scratch(shape))


def optimizer_work(shape: StackShape) -> Work:
    """One step of the optimizer over all parameters."""
    return OPTIMIZERS[shape.optimizer](shape.num_parameters, shape.element_bytes)


def optimizer_scratch(shape: StackShape) -> dict[str, Any]:
    """Buffer of the extra vector that an optimizer step needs while it runs.

    Adagrad stores the roots of its squared sums in it; Adam reuses the gradient's memory.
    """
    if shape.optimizer != "adagrad":
        return {}
    room = Buffer("update_scratch", shape.num_parameters * shape.element_bytes)
    return {"allocates": (room,), "frees": ("update_scratch",)}


OPTIMIZERS = {"adam": work.adam, "sgd": work.sgd, "adagrad": work.adagrad}


def parameter_buffers(shape: StackShape) -> tuple[Buffer, ...]:
    """Parameters, their gradient, the optimizer's state."""
    return (Buffer("parameters", shape.parameter_bytes),)
