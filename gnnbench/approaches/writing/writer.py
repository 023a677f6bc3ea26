"""Writer of the steps of one layer: products, exchanges of halo rows, element-wise work.

`writing.layers` has one file per kind of layer; `writing.stack` has what the layers of a model
share (activation, loss, update). The runtime performs the same steps in `gnnbench_runtime.models`.

Sizes may be arrays with one entry per rank, so that the steps of all ranks of a class are written
at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnnbench import work
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import Halo, LayerSizes, StackShape, total
from gnnbench.reuse import Reuse
from gnnbench.steps import After, Buffer, Ints, Lane, Phase, Size, Work, smaller


class LayerWriter:
    """Writes steps of the layers of one rank, or of a class of ranks, into a chain.

    Args:
        shape: the model.
        sizes: of each layer's aggregation.
        halo: rows exchanged with other ranks; None where none are.
        chain: steps that came before are in it already.
    """

    def __init__(
        self, shape: StackShape, sizes: Sequence[LayerSizes], halo: Halo | None, chain: Chain
    ) -> None:
        self.shape, self.sizes, self.halo, self.chain = shape, sizes, halo, chain

    @property
    def element_bytes(self) -> int:
        return self.shape.element_bytes

    def buffer(self, name: str, rows: Size, width: Size) -> tuple[Buffer, ...]:
        """A buffer of rows, as `allocates` wants it."""
        return (Buffer(name, rows * width * self.element_bytes),)

    # -- one step each ---------------------------------------------------------------------------

    def step(self, name: str, done: Work, phase: Phase, layer: int, **place: Any) -> None:
        """Add a step on the lane `compute`, or on the one that `place` names."""
        self.chain.step(name, done, phase=phase, layer=layer, **place)

    def gemm(
        self,
        name: str,
        op: str,
        phase: Phase,
        layer: int,
        sizes: tuple[Size, Size, Size],
        **place: Any,
    ) -> None:
        """Add a dense product of sizes (M, K, N)."""
        self.step(name, work.gemm(op, *sizes, self.element_bytes), phase, layer, **place)

    def spmm(
        self, name: str, phase: Phase, layer: int, size: LayerSizes, width: Size, **place: Any
    ) -> None:
        """Add a product with all of a layer's pattern, or its transpose in the backward pass."""
        rows, sources = size.rows, size.source_rows
        if phase is Phase.BACKWARD:
            rows, sources = sources, rows
        done = work.spmm(
            rows=rows,
            nonzeros=size.nonzeros,
            width=width,
            source_rows=sources,
            element_bytes=self.element_bytes,
            edge_weights=size.edge_weights,
            reuse=size.reuse,
        )
        self.step(name, done, phase, layer, **place)

    def elementwise(
        self, name: str, op: str, phase: Phase, layer: int, rows: Size, width: Size, **place: Any
    ) -> None:
        """Add work that reads or writes each element `passes` times."""
        passes = place.pop("passes")
        done = work.elementwise(op, rows, width, passes=passes, element_bytes=self.element_bytes)
        self.step(name, done, phase, layer, **place)

    # -- aggregation and exchange ----------------------------------------------------------------

    def aggregate(self, phase: Phase, layer: int, width: int, **place: Any) -> None:
        """Add the sparse product, with the exchange before it (forward) or behind (backward)."""
        if self.halo is not None and self.halo.overlap:
            self._aggregate_overlapped(phase, layer, width, **place)
            return
        if phase is Phase.FORWARD:
            self.exchange(phase, layer, width)
        self.spmm(f"{phase}/{layer}/spmm", phase, layer, self.sizes[layer - 1], width, **place)
        if phase is not Phase.FORWARD:
            self.exchange(phase, layer, width)

    def _aggregate_overlapped(self, phase: Phase, layer: int, width: int, **place: Any) -> None:
        """Add the product in two halves: entries with own sources while halo rows travel.

        Forward, the halo's entries are added when its rows have arrived; backward, their gradients
        are computed first and travel while those of the own rows are computed.
        """
        size, where, s = self.sizes[layer - 1], f"{phase}/{layer}", self.element_bytes
        halo_rows, inner = size.source_rows - size.rows, size.nonzeros - size.halo_nonzeros
        arrived = (After(f"{where}/exchange"),)
        own = work.spmm(
            rows=size.rows,
            nonzeros=inner,
            width=width,
            source_rows=size.rows,
            element_bytes=s,
            reuse=size.reuse,
        )
        if phase is Phase.FORWARD:
            self.pack(phase, layer, width)
            self.transfer(phase, layer, width)
            self.step(f"{where}/spmm", own, phase, layer, **place)
            halo = work.spmm(
                rows=size.rows,
                nonzeros=size.halo_nonzeros,
                width=width,
                source_rows=halo_rows,
                element_bytes=s,
                adds=True,
                reuse=size.reuse,
            )
            self.step(f"{where}/spmm_halo", halo, phase, layer, after=arrived)
            return
        halo = work.spmm(
            rows=halo_rows,
            nonzeros=size.halo_nonzeros,
            width=width,
            source_rows=size.rows,
            element_bytes=s,
            reuse=size.reuse,
        )
        self.step(f"{where}/spmm_halo", halo, phase, layer, **place)
        self.transfer(phase, layer, width)
        self.step(f"{where}/spmm", own, phase, layer)
        self.unpack(phase, layer, width, after=arrived)

    def exchange(self, phase: Phase, layer: int, width: int) -> None:
        """Add a synchronous exchange of halo rows, or of their gradients; none on one rank."""
        halo = self.halo
        if halo is None:
            return
        if phase is Phase.FORWARD:
            self.pack(phase, layer, width)
        unit = width * self.element_bytes
        send, receive = self.directions(phase)
        if halo.staged:
            self.copy(f"{phase}/{layer}/to_host", work.to_host(total(send) * unit), phase, layer)
        self.transfer(phase, layer, width)
        if halo.staged:
            self.copy(
                f"{phase}/{layer}/to_device", work.to_device(total(receive) * unit), phase, layer
            )
        if phase is Phase.BACKWARD:
            self.unpack(phase, layer, width)

    def directions(self, phase: Phase) -> tuple[Ints, Ints]:
        """Rows sent and received: features go forward, gradients go back the same way."""
        assert self.halo is not None
        pair = self.halo.send, self.halo.receive
        return pair if phase is Phase.FORWARD else (pair[1], pair[0])

    def transfer(self, phase: Phase, layer: int, width: int, *, late: bool = False) -> None:
        """Add the all-to-all of an exchange; in the background if it overlaps or is used `late`."""
        assert self.halo is not None
        send, receive = self.directions(phase)
        beside = late or self.halo.overlap
        done = work.all_to_all(send, total(receive), width * self.element_bytes, width=width)
        self.chain.step(
            f"{phase}/{layer}/exchange",
            done,
            phase=phase,
            layer=layer,
            lane=Lane.BACKGROUND if beside else Lane.COMM,
            beside=beside,
            group=self.halo.group,
        )

    def pack(self, phase: Phase, layer: int, width: int) -> None:
        """Add the gathering of the rows that others need."""
        assert self.halo is not None
        rows = self.halo.sent_rows
        own = self.sizes[layer - 1].rows
        reuse = Reuse.in_turn(smaller(rows, own))
        done = work.gather(rows, width, own, self.element_bytes, reuse=reuse)
        room = self.buffer("halo_rows", rows, self.shape.widest_exchange)
        self.step(f"{phase}/{layer}/pack", done, phase, layer, allocates=room)

    def unpack(
        self, phase: Phase, layer: int, width: int, *, after: tuple[After, ...] = ()
    ) -> None:
        """Add the addition of returned gradients to those of the own rows."""
        assert self.halo is not None
        rows = self.halo.sent_rows
        own = self.sizes[layer - 1].rows
        reuse = Reuse.in_turn(smaller(rows, own))
        done = work.scatter_add(rows, width, own, self.element_bytes, reuse=reuse)
        self.step(f"{phase}/{layer}/unpack", done, phase, layer, after=after)

    def copy(self, name: str, done: Work, phase: Phase, layer: int) -> None:
        """Add a copy between device and host."""
        self.chain.step(name, done, phase=phase, layer=layer, lane=Lane.COPY)

    # -- sizes -----------------------------------------------------------------------------------

    def input_rows(self, layer: int) -> Size:
        """Rows of the layer's input that a dense product multiplies: own rows only.

        A block of a mini-batch has all of its source rows on the rank.
        """
        size = self.sizes[layer - 1]
        return size.rows if self.halo is not None else size.source_rows

    def out_rows(self, layer: int) -> Size:
        """Rows of the buffer of H_l: the next layer's halo rows lie behind the own rows."""
        if layer == self.shape.num_layers or self.shape.orders[layer] == "transform_first":
            return self.sizes[layer - 1].rows
        return self.sizes[layer].source_rows

    def output(self, layer: int, width: Size) -> tuple[Buffer, ...]:
        """The buffer that the layer's product or sum writes to.

        A normalised layer writes its rows there, and normalises them into a buffer that has room
        for halo rows.
        """
        rows = self.sizes[layer - 1].rows if self.shape.has_norm(layer) else self.out_rows(layer)
        return self.buffer(f"h{layer}", rows, width)
