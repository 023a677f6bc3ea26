"""Steps of a stack of GNN layers, forward and backward: what every approach's plan is made of.

The runtime performs the same steps in `gnnbench_runtime.models.stack`; a conformance test holds
names, order, bytes and flops equal.

Legend: n rows (destinations), u source rows (own and halo, or all vertices of a block's input),
s bytes per element. One layer is, aggregate-first, Z = A H, Y = Z W + b; transform-first, T = H W,
Y = A T + b; with a self weight, Y += H[:n] W_self.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from gnnbench.models.base import Model, Order, layer_order
from gnnbench.plan import After, Kind, Lane, Phase, RankSteps, Step, all_reduce_bytes
from gnnbench.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSizes:
    """Sizes of one layer's aggregation on one rank, in rows and entries (no self loops)."""

    rows: int
    source_rows: int
    nonzeros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Halo:
    """Rows exchanged by one rank: per peer, in the order of the group; own entry 0."""

    group: tuple[int, ...]
    send_rows: tuple[int, ...]
    recv_rows: tuple[int, ...]


@dataclass(slots=True)
class Chain:
    """Steps that follow one another: a step on another lane waits for its predecessor."""

    steps: list[Step] = field(default_factory=list)
    last: Step | None = None

    def add(self, step: Step, *, after: tuple[After, ...] = ()) -> None:
        waits = after
        if self.last is not None and self.last.lane is not step.lane:
            waits = (After(self.last.name), *after)
        if waits:
            step = replace(step, after=waits)
        self.steps.append(step)
        self.last = step

    def beside(self, step: Step) -> None:
        """Add a step that waits for the last one and that the next one does not wait for."""
        assert self.last is not None
        self.steps.append(replace(step, after=(After(self.last.name), *step.after)))

    def done(self) -> RankSteps:
        return tuple(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackShape:
    """A model at given widths, with the product order of each layer fixed."""

    model: Model
    dims: tuple[int, ...]
    orders: tuple[Order, ...]
    element_bytes: int
    dropout: float
    input_dropout: float

    @classmethod
    def of(
        cls, model: Model, spec: ModelSpec, dims: tuple[int, ...], element_bytes: int, order: str
    ) -> StackShape:
        """Fix the product order of every layer by policy (see `models.base.layer_order`)."""
        orders = tuple(layer_order(a, b, order) for a, b in pairwise(dims))
        return cls(
            model=model,
            dims=dims,
            orders=orders,
            element_bytes=element_bytes,
            dropout=spec.dropout,
            input_dropout=spec.input_dropout,
        )

    @property
    def num_layers(self) -> int:
        return len(self.dims) - 1

    @property
    def num_parameters(self) -> int:
        return self.model.num_parameters(self.dims)

    def exchange_width(self, layer: int) -> int:
        """Width w_l at which layer l's aggregation is communicated."""
        first = self.orders[layer - 1] == "aggregate_first"
        return self.dims[layer - 1] if first else self.dims[layer]

    def forward_widths(self) -> int:
        """Phi: the sum of w_l over layers that exchange in the forward pass."""
        return sum(self.exchange_width(layer) for layer in range(1, self.num_layers + 1))

    def backward_widths(self) -> int:
        """Psi: layer 1 exchanges in the backward pass only when transform-first."""
        return sum(
            self.exchange_width(layer)
            for layer in range(1, self.num_layers + 1)
            if layer > 1 or self.orders[0] == "transform_first"
        )


class StackSteps:
    """Write the steps of one pass of the stack on one rank into a chain."""

    def __init__(
        self, shape: StackShape, sizes: Sequence[LayerSizes], halo: Halo | None, chain: Chain
    ) -> None:
        self.shape, self.sizes, self.halo, self.chain = shape, sizes, halo, chain

    # -- one step each ---------------------------------------------------------------------------

    def _compute(
        self, name: str, kind: Kind, op: str, phase: Phase, layer: int, **facts: object
    ) -> None:
        self.chain.add(
            Step(name=name, kind=kind, op=op, lane=Lane.COMPUTE, phase=phase, layer=layer, **facts)  # type: ignore[arg-type]
        )

    def _gemm(
        self, name: str, op: str, phase: Phase, layer: int, m: int, k: int, n: int, **facts: object
    ) -> None:
        s = self.shape.element_bytes
        self._compute(
            name, Kind.GEMM, op, phase, layer, rows=m, inner=k, width=n,
            flops=2 * m * k * n, bytes=(m * k + k * n + m * n) * s, **facts,
        )  # fmt: skip

    def _spmm(
        self, name: str, phase: Phase, layer: int, rows: int, source: int, nnz: int, width: int,
        **facts: object,
    ) -> None:  # fmt: skip
        s = self.shape.element_bytes
        self._compute(
            name, Kind.SPMM, "spmm", phase, layer, rows=rows, source_rows=source, nonzeros=nnz,
            width=width, flops=2 * nnz * width,
            bytes=8 * (rows + 1) + 4 * nnz + (min(source, nnz) + rows) * width * s, **facts,
        )  # fmt: skip

    def _elementwise(
        self, name: str, op: str, phase: Phase, layer: int, rows: int, width: int, passes: int,
        **facts: object,
    ) -> None:  # fmt: skip
        s = self.shape.element_bytes
        self._compute(
            name, Kind.ELEMENTWISE, op, phase, layer, rows=rows * width, width=width,
            flops=rows * width, bytes=passes * rows * width * s, **facts,
        )  # fmt: skip

    # -- exchange --------------------------------------------------------------------------------

    def _exchange(self, phase: Phase, layer: int, width: int) -> None:
        halo = self.halo
        if halo is None:
            return
        s, send, recv = self.shape.element_bytes, halo.send_rows, halo.recv_rows
        if phase is Phase.BACKWARD:
            send, recv = recv, send
        packed = sum(halo.send_rows)
        buffer = (("halo_rows", packed * self._widest() * s),)
        gather_facts = {
            "rows": packed, "width": width, "source_rows": self.sizes[layer - 1].rows,
            "bytes": packed * (8 + 2 * width * s),
        }  # fmt: skip
        where = f"{phase}/{layer}"
        if phase is Phase.FORWARD:
            self._compute(
                f"{where}/pack",
                Kind.GATHER,
                "gather",
                phase,
                layer,
                allocates=buffer,
                **gather_facts,
            )
        self.chain.add(
            Step(
                name=f"{where}/exchange", kind=Kind.ALL_TO_ALL, op="all_to_all", lane=Lane.COMM,
                phase=phase, layer=layer, rows=sum(send) * width, width=width,
                bytes=sum(send) * width * s, send_bytes=tuple(r * width * s for r in send),
                buffer_bytes=max(sum(send), sum(recv)) * width * s, group=halo.group,
            )
        )  # fmt: skip
        if phase is Phase.BACKWARD:
            self._compute(
                f"{where}/unpack", Kind.SCATTER, "scatter_add", phase, layer, **gather_facts
            )

    def _widest(self) -> int:
        return max(
            self.shape.exchange_width(layer) for layer in range(1, self.shape.num_layers + 1)
        )

    # -- passes ----------------------------------------------------------------------------------

    def forward(self) -> None:
        """Write the forward pass; `h0` are the input features in buffer "x"."""
        shape, s = self.shape, self.shape.element_bytes
        if shape.input_dropout > 0:
            size, width = self.sizes[0], shape.dims[0]
            rows = size.rows if self.halo is not None else size.source_rows
            self._elementwise(
                "forward/0/dropout", "dropout", Phase.FORWARD, 0, rows, width, 2,
                allocates=(("h0", size.source_rows * width * s),),
            )  # fmt: skip
        for layer in range(1, shape.num_layers + 1):
            self._forward_layer(layer)

    def _out_rows(self, layer: int) -> int:
        """Rows of the buffer of H_l: the next layer's halo rows lie behind the own rows."""
        if layer == self.shape.num_layers or self.shape.orders[layer] == "transform_first":
            return self.sizes[layer - 1].rows
        return self.sizes[layer].source_rows

    def _forward_layer(self, layer: int) -> None:
        shape, size, s = self.shape, self.sizes[layer - 1], self.shape.element_bytes
        fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
        where, phase = f"forward/{layer}", Phase.FORWARD
        out = ((f"h{layer}", self._out_rows(layer) * fan_out * s),)
        if shape.orders[layer - 1] == "aggregate_first":
            self._exchange(phase, layer, fan_in)
            self._spmm(
                f"{where}/spmm", phase, layer, size.rows, size.source_rows, size.nonzeros, fan_in,
                allocates=((f"z{layer}", size.rows * fan_in * s),),
            )  # fmt: skip
            self._gemm(
                f"{where}/gemm", "gemm_nn_bias", phase, layer, size.rows, fan_in, fan_out,
                allocates=out,
            )  # fmt: skip
        else:
            rows = size.rows if self.halo is not None else size.source_rows
            self._gemm(
                f"{where}/gemm", "gemm_nn", phase, layer, rows, fan_in, fan_out,
                allocates=((f"t{layer}", size.source_rows * fan_out * s),),
            )  # fmt: skip
            self._exchange(phase, layer, fan_out)
            self._spmm(
                f"{where}/spmm", phase, layer, size.rows, size.source_rows, size.nonzeros, fan_out,
                allocates=out,
            )  # fmt: skip
            self._elementwise(f"{where}/bias", "bias", phase, layer, size.rows, fan_out, 2)
        if shape.model.self_weight:
            self._gemm(f"{where}/self", "gemm_nn_add", phase, layer, size.rows, fan_in, fan_out)
        if layer < shape.num_layers:
            op = "relu_dropout" if shape.dropout > 0 else "relu"
            self._elementwise(f"{where}/activation", op, phase, layer, size.rows, fan_out, 2)

    def loss(self, train_rows: int) -> None:
        """Write the loss and its gradient with respect to the logits."""
        shape, rows, s = self.shape, self.sizes[-1].rows, self.shape.element_bytes
        classes = shape.dims[-1]
        self._compute(
            "forward/loss", Kind.ELEMENTWISE, "softmax_cross_entropy", Phase.FORWARD,
            shape.num_layers, rows=rows * classes, nonzeros=train_rows * classes, width=classes,
            flops=5 * train_rows * classes, bytes=(rows + 2 * train_rows) * classes * s,
            allocates=((f"g{shape.num_layers}", rows * classes * s),),
        )  # fmt: skip

    def backward(self) -> None:
        """Write the backward pass, last layer first."""
        for layer in range(self.shape.num_layers, 0, -1):
            self._backward_layer(layer)

    def _backward_layer(self, layer: int) -> None:
        shape, size, s = self.shape, self.sizes[layer - 1], self.shape.element_bytes
        fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
        where, phase = f"backward/{layer}", Phase.BACKWARD
        self._elementwise(f"{where}/bias", "column_sum", phase, layer, size.rows, fan_out, 1)
        grad = ((f"g{layer - 1}", size.source_rows * fan_in * s),)
        if shape.orders[layer - 1] == "aggregate_first":
            self._gemm(f"{where}/weight", "gemm_tn", phase, layer, fan_in, size.rows, fan_out)
            if layer > 1:
                self._gemm(f"{where}/input", "gemm_nt", phase, layer, size.rows, fan_out, fan_in)
                self._spmm(
                    f"{where}/spmm", phase, layer, size.source_rows, size.rows, size.nonzeros,
                    fan_in, allocates=grad,
                )  # fmt: skip
                self._exchange(phase, layer, fan_in)
        else:
            self._spmm(
                f"{where}/spmm", phase, layer, size.source_rows, size.rows, size.nonzeros, fan_out
            )
            self._exchange(phase, layer, fan_out)
            rows = size.rows if self.halo is not None else size.source_rows
            self._gemm(f"{where}/weight", "gemm_tn", phase, layer, fan_in, rows, fan_out)
            if layer > 1:
                self._gemm(
                    f"{where}/input", "gemm_nt", phase, layer, rows, fan_out, fan_in, allocates=grad
                )
        if shape.model.self_weight:
            self._gemm(f"{where}/self_weight", "gemm_tn", phase, layer, fan_in, size.rows, fan_out)
            if layer > 1:
                self._gemm(
                    f"{where}/self_input", "gemm_nt_add", phase, layer, size.rows, fan_out, fan_in
                )
        if layer > 1:
            # In a block every source row wants its gradient: those are the previous layer's rows.
            rows = self.sizes[layer - 2].rows
            name = f"{where}/activation"
            self._elementwise(name, "relu_backward", phase, layer - 1, rows, fan_in, 3)

    def update(self, group: tuple[int, ...]) -> None:
        """Write the gradient all-reduce (loss rides as one more element) and Adam."""
        s, theta = self.shape.element_bytes, self.shape.num_parameters
        if len(group) > 1:
            size = (theta + 1) * s
            self.chain.add(
                Step(
                    name="sync/gradients", kind=Kind.ALL_REDUCE, op="all_reduce", lane=Lane.COMM,
                    phase=Phase.SYNC, rows=theta + 1, buffer_bytes=size, group=group,
                    bytes=all_reduce_bytes(size, len(group)),
                )
            )  # fmt: skip
        self._compute(
            "update/adam", Kind.OPTIMIZER, "adam", Phase.UPDATE, -1, rows=theta,
            flops=12 * theta, bytes=7 * theta * s,
        )  # fmt: skip
