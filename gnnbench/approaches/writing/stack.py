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
        shape = self.shape
        if shape.input_dropout > 0:
            self.drop_input(self.input_rows(1), self.sizes[0].source_rows, shape.dims[0])
        for layer in range(1, shape.num_layers + 1):
            self.layer_forward(layer)
            self.activate(layer, self.sizes[layer - 1].rows)

    def drop_input(self, rows: Size, source_rows: Size, width: Size) -> None:
        """Write the dropout of the input's own rows."""
        done = work.dropout(rows, width, self.element_bytes)
        room = self.buffer("h0", source_rows, width)
        self.step("forward/0/dropout", done, Phase.FORWARD, 0, allocates=room)

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
            elements = self.reduced_parameters + 1
            staged = self.halo is not None and self.halo.staged
            if staged:
                self.copy("sync/to_host", work.to_host(elements * s), Phase.SYNC, -1)
            reduced = work.all_reduce(elements, s, members)
            self.chain.step(
                "sync/gradients", reduced, phase=Phase.SYNC, lane=Lane.COMM, group=group
            )
            if staged:
                self.copy("sync/to_device", work.to_device(elements * s), Phase.SYNC, -1)
        count = self.updated_parameters
        done = optimizer_work(shape, count)
        self.step(f"update/{done.op}", done, Phase.UPDATE, -1, **optimizer_scratch(shape, count))

    @property
    def reduced_parameters(self) -> int:
        """Parameters whose gradients are summed over ranks."""
        return self.shape.num_parameters

    @property
    def updated_parameters(self) -> Size:
        """Parameters that a rank's optimizer updates."""
        return self.shape.num_parameters


def optimizer_work(shape: StackShape, count: Size) -> Work:
    """One step of the optimizer over `count` parameters."""
    return OPTIMIZERS[shape.optimizer](count, shape.element_bytes)


def optimizer_scratch(shape: StackShape, count: Size) -> dict[str, Any]:
    """Buffer of the extra vector that an optimizer step needs while it runs.

    Adagrad stores the roots of its squared sums in it; Adam reuses the gradient's memory.
    """
    if shape.optimizer != "adagrad":
        return {}
    room = Buffer("update_scratch", count * shape.element_bytes)
    return {"allocates": (room,), "frees": ("update_scratch",)}


OPTIMIZERS = {"adam": work.adam, "sgd": work.sgd, "adagrad": work.adagrad}


def parameter_buffers(shape: StackShape, count: Size | None = None) -> tuple[Buffer, ...]:
    """Parameters, their gradient, the optimizer's state: of all parameters, or of `count`."""
    if count is None:
        return (Buffer("parameters", shape.parameter_bytes),)
    each = shape.parameter_bytes // shape.num_parameters
    return (Buffer("parameters", each * count),)
