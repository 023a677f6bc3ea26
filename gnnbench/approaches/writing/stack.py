"""Steps of a stack of GNN layers, forward and backward: what every approach's plan is made of.

The runtime performs the same steps in `gnnbench_runtime.models.stack`; a conformance test holds
names, order, bytes and flops equal.

What one layer does is said by its kind, in `approaches.steps`; here is what layers share: shapes,
exchanges, activations, loss and update.

Legend: n rows (destinations), u source rows (own and halo, or all vertices of a block's input),
s bytes per element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from gnnbench.approaches.writing.layers import attention, convolution
from gnnbench.models.base import Model, Order, layer_order
from gnnbench.plan import After, Kind, Lane, Phase, RankSteps, Step, all_reduce_bytes
from gnnbench.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSizes:
    """Sizes of one layer's aggregation on one rank, in rows and entries (no self loops).

    `halo_nonzeros` are the entries whose source row is another rank's; wanted by overlap only.
    """

    rows: int
    source_rows: int
    nonzeros: int
    halo_nonzeros: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Halo:
    """Rows exchanged by one rank: per peer, in the order of the group; own entry 0.

    overlap   rows travel on lane `background` while entries with own sources are summed up
    staged    rows travel through host memory: a copy before and after every exchange
    """

    group: tuple[int, ...]
    send_rows: tuple[int, ...]
    recv_rows: tuple[int, ...]
    overlap: bool = False
    staged: bool = False


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
    """A model at given widths, with the product order of each layer fixed.

    heads        attention heads of each layer; ones where there is no attention
    precompute   the first aggregation is done once, before training: layer 1 moves nothing
    """

    model: Model
    dims: tuple[int, ...]
    orders: tuple[Order, ...]
    element_bytes: int
    dropout: float
    input_dropout: float
    heads: tuple[int, ...]
    precompute: bool = False

    @classmethod
    def of(
        cls,
        model: Model,
        spec: ModelSpec,
        dims: tuple[int, ...],
        element_bytes: int,
        order: str,
        *,
        precompute: bool = False,
    ) -> StackShape:
        """Fix the product order of every layer by policy (see `models.base.layer_order`).

        Attention needs its transformed rows first, precomputation its aggregated ones.
        """
        if model.attention:
            order = "transform_first"
        orders = [layer_order(a, b, order) for a, b in pairwise(dims)]
        if precompute:
            orders[0] = "aggregate_first"
        return cls(
            model=model,
            dims=dims,
            orders=tuple(orders),
            element_bytes=element_bytes,
            dropout=spec.dropout,
            input_dropout=spec.input_dropout,
            heads=model.heads(spec),
            precompute=precompute,
        )

    @property
    def num_layers(self) -> int:
        return len(self.dims) - 1

    @property
    def num_parameters(self) -> int:
        return self.model.num_parameters(self.dims, self.heads)

    def is_precomputed(self, layer: int) -> bool:
        """Whether the layer's aggregated input is held from before the first epoch."""
        return self.precompute and layer == 1

    def exchange_width(self, layer: int) -> int:
        """Width w_l at which layer l's aggregation is communicated."""
        first = self.orders[layer - 1] == "aggregate_first"
        return self.dims[layer - 1] if first else self.dims[layer]

    @property
    def widest_exchange(self) -> int:
        """The widest row that is ever exchanged; 0 if none is."""
        return max(
            (
                self.exchange_width(layer)
                for layer in range(1, self.num_layers + 1)
                if not self.is_precomputed(layer)
            ),
            default=0,
        )

    def forward_widths(self) -> int:
        """Phi: the sum of w_l over layers that exchange in the forward pass."""
        return sum(
            self.exchange_width(layer)
            for layer in range(1, self.num_layers + 1)
            if not self.is_precomputed(layer)
        )

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
        self._sent: dict[tuple[bool, int], tuple[int, ...]] = {}

    # -- one step each ---------------------------------------------------------------------------

    def _compute(
        self,
        name: str,
        kind: Kind,
        op: str,
        phase: Phase,
        layer: int,
        *,
        after: tuple[After, ...] = (),
        **facts: Any,
    ) -> None:
        self.chain.add(
            Step(name=name, kind=kind, op=op, lane=Lane.COMPUTE, phase=phase, layer=layer, **facts),
            after=after,
        )

    def _gemm(
        self, name: str, op: str, phase: Phase, layer: int, m: int, k: int, n: int, **facts: Any
    ) -> None:
        s = self.shape.element_bytes
        self._compute(
            name, Kind.GEMM, op, phase, layer, rows=m, inner=k, width=n,
            flops=2 * m * k * n, bytes=(m * k + k * n + m * n) * s, **facts,
        )  # fmt: skip

    def _spmm(
        self, name: str, phase: Phase, layer: int, rows: int, source: int, nnz: int, width: int,
        *, extra_bytes: int = 0, after: tuple[After, ...] = (), **facts: Any,
    ) -> None:  # fmt: skip
        """`extra_bytes` is what a product that adds to its output reads of it."""
        s = self.shape.element_bytes
        self._compute(
            name, Kind.SPMM, "spmm", phase, layer, rows=rows, source_rows=source, nonzeros=nnz,
            width=width, flops=2 * nnz * width, after=after,
            bytes=8 * (rows + 1) + 4 * nnz + (min(source, nnz) + rows) * width * s + extra_bytes,
            **facts,
        )  # fmt: skip

    def _elementwise(
        self, name: str, op: str, phase: Phase, layer: int, rows: int, width: int, passes: int,
        **facts: Any,
    ) -> None:  # fmt: skip
        s = self.shape.element_bytes
        self._compute(
            name, Kind.ELEMENTWISE, op, phase, layer, rows=rows * width, width=width,
            flops=rows * width, bytes=passes * rows * width * s, **facts,
        )  # fmt: skip

    # -- exchange --------------------------------------------------------------------------------

    def _aggregate(self, phase: Phase, layer: int, width: int, **facts: Any) -> None:
        """Write the sparse product with the exchange before it (forward) or behind (backward)."""
        size, halo, where = self.sizes[layer - 1], self.halo, f"{phase}/{layer}"
        forward = phase is Phase.FORWARD
        if halo is not None and halo.overlap:
            self._aggregate_overlapped(phase, layer, width, **facts)
            return
        if forward:
            self._exchange(phase, layer, width)
        rows, source = (size.rows, size.source_rows)[:: 1 if forward else -1]
        self._spmm(f"{where}/spmm", phase, layer, rows, source, size.nonzeros, width, **facts)
        if not forward:
            self._exchange(phase, layer, width)

    def _aggregate_overlapped(self, phase: Phase, layer: int, width: int, **facts: Any) -> None:
        """Write the product in two halves: entries with own sources while halo rows travel.

        Forward, the halo's entries are added when its rows are here; backward, their gradients are
        computed first and travel while the own rows' are.
        """
        size, where, s = self.sizes[layer - 1], f"{phase}/{layer}", self.shape.element_bytes
        halo_rows, inner = size.source_rows - size.rows, size.nonzeros - size.halo_nonzeros
        arrived = (After(f"{where}/exchange"),)
        if phase is Phase.FORWARD:
            self._pack(phase, layer, width)
            self.chain.beside(self._transfer(phase, layer, width))
            self._spmm(f"{where}/spmm", phase, layer, size.rows, size.rows, inner, width, **facts)
            self._spmm(
                f"{where}/spmm_halo", phase, layer, size.rows, halo_rows, size.halo_nonzeros,
                width, extra_bytes=size.rows * width * s, after=arrived,
            )  # fmt: skip
        else:
            self._spmm(
                f"{where}/spmm_halo", phase, layer, halo_rows, size.rows, size.halo_nonzeros,
                width, **facts,
            )  # fmt: skip
            self.chain.beside(self._transfer(phase, layer, width))
            self._spmm(f"{where}/spmm", phase, layer, size.rows, size.rows, inner, width)
            self._unpack(phase, layer, width, after=arrived)

    def _exchange(self, phase: Phase, layer: int, width: int) -> None:
        """Write a synchronous exchange of halo rows or of their gradients; none on one rank."""
        halo, s = self.halo, self.shape.element_bytes
        if halo is None:
            return
        if phase is Phase.FORWARD:
            self._pack(phase, layer, width)
        send, recv = self._directions(phase)
        if halo.staged:
            self._copy("to_host", "copy_d2h", phase, layer, sum(send) * width * s)
        self.chain.add(self._transfer(phase, layer, width))
        if halo.staged:
            self._copy("to_device", "copy_h2d", phase, layer, sum(recv) * width * s)
        if phase is Phase.BACKWARD:
            self._unpack(phase, layer, width)

    def _directions(self, phase: Phase) -> tuple[tuple[int, ...], tuple[int, ...]]:
        assert self.halo is not None
        pair = self.halo.send_rows, self.halo.recv_rows
        return pair if phase is Phase.FORWARD else (pair[1], pair[0])

    def _transfer(self, phase: Phase, layer: int, width: int) -> Step:
        assert self.halo is not None
        send, recv = self._directions(phase)
        unit = width * self.shape.element_bytes
        return Step(
            name=f"{phase}/{layer}/exchange", kind=Kind.ALL_TO_ALL, op="all_to_all",
            lane=Lane.BACKGROUND if self.halo.overlap else Lane.COMM,
            phase=phase, layer=layer, rows=sum(send) * width, width=width,
            bytes=sum(send) * unit, send_bytes=self._bytes_to_peers(phase, unit),
            buffer_bytes=max(sum(send), sum(recv)) * unit, group=self.halo.group,
        )  # fmt: skip

    def _bytes_to_peers(self, phase: Phase, unit: int) -> tuple[int, ...]:
        """Bytes to each rank at `unit` bytes per row: layers of one width share the tuple."""
        key = phase is Phase.FORWARD, unit
        if key not in self._sent:
            send, _ = self._directions(phase)
            self._sent[key] = tuple((np.asarray(send, dtype=np.int64) * unit).tolist())
        return self._sent[key]

    def _pack(self, phase: Phase, layer: int, width: int) -> None:
        assert self.halo is not None
        packed = sum(self.halo.send_rows) * self._widest() * self.shape.element_bytes
        self._compute(
            f"{phase}/{layer}/pack", Kind.GATHER, "gather", phase, layer,
            allocates=(("halo_rows", packed),), **self._packed_facts(layer, width),
        )  # fmt: skip

    def _unpack(
        self, phase: Phase, layer: int, width: int, *, after: tuple[After, ...] = ()
    ) -> None:
        self._compute(
            f"{phase}/{layer}/unpack", Kind.SCATTER, "scatter_add", phase, layer, after=after,
            **self._packed_facts(layer, width),
        )  # fmt: skip

    def _packed_facts(self, layer: int, width: int) -> dict[str, Any]:
        assert self.halo is not None
        packed = sum(self.halo.send_rows)
        return {
            "rows": packed, "width": width, "source_rows": self.sizes[layer - 1].rows,
            "bytes": packed * (8 + 2 * width * self.shape.element_bytes),
        }  # fmt: skip

    def _copy(self, name: str, op: str, phase: Phase, layer: int, size: int) -> None:
        where = f"{phase}/{layer}" if layer >= 0 else f"{phase}"
        self.chain.add(
            Step(
                name=f"{where}/{name}", kind=Kind.COPY, op=op, lane=Lane.COPY, phase=phase,
                layer=layer, bytes=size,
            )
        )  # fmt: skip

    def _widest(self) -> int:
        return self.shape.widest_exchange

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
        shape, size = self.shape, self.sizes[layer - 1]
        kind = attention if shape.model.attention else convolution
        kind.forward(self, layer)
        if layer < shape.num_layers:
            name = shape.model.activation
            op = f"{name}_dropout" if shape.dropout > 0 else name
            where = f"forward/{layer}/activation"
            self._elementwise(where, op, Phase.FORWARD, layer, size.rows, shape.dims[layer], 2)

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
        shape = self.shape
        kind = attention if shape.model.attention else convolution
        kind.backward(self, layer)
        if layer > 1:
            # In a block every source row wants its gradient: those are the previous layer's rows.
            rows, width = self.sizes[layer - 2].rows, shape.dims[layer - 1]
            op = f"{shape.model.activation}_backward"
            where = f"backward/{layer}/activation"
            self._elementwise(where, op, Phase.BACKWARD, layer - 1, rows, width, 3)

    def update(self, group: tuple[int, ...]) -> None:
        """Write the gradient all-reduce (loss rides as one more element) and Adam."""
        s, theta = self.shape.element_bytes, self.shape.num_parameters
        if len(group) > 1:
            size = (theta + 1) * s
            staged = self.halo is not None and self.halo.staged
            if staged:
                self._copy("to_host", "copy_d2h", Phase.SYNC, -1, size)
            self.chain.add(
                Step(
                    name="sync/gradients", kind=Kind.ALL_REDUCE, op="all_reduce", lane=Lane.COMM,
                    phase=Phase.SYNC, rows=theta + 1, buffer_bytes=size, group=group,
                    bytes=all_reduce_bytes(size, len(group)),
                )
            )  # fmt: skip
            if staged:
                self._copy("to_device", "copy_h2d", Phase.SYNC, -1, size)
        self._compute(
            "update/adam", Kind.OPTIMIZER, "adam", Phase.UPDATE, -1, rows=theta,
            flops=12 * theta, bytes=7 * theta * s,
        )  # fmt: skip
