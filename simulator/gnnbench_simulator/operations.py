"""The products of a pass over a model, as operations of a sparse and a dense engine.

Each operation says what streams to and from off-chip memory. Elementwise steps belong to the
operation before them, which may fuse them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gnnbench.approaches.writing.shape import StackShape
from gnnbench_simulator.engine_costs import Gemm


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One product of a layer, with what streams to and from off-chip memory, in columns.

    in_width, out_width   rows taken and given, which a partner engine may hand over
    kept_width            rows read or written whoever the partner is (saved for backward)
    passes                elementwise steps as (name, columns)
    """

    engine: Literal["sparse", "dense"]
    phase: str
    layer: int
    in_width: int
    out_width: int
    gemms: tuple[Gemm, ...] = ()
    kept_width: int = 0
    passes: tuple[tuple[str, int], ...] = ()
    transpose: bool = False

    @property
    def name(self) -> str:
        return f"{self.phase}/{self.layer}/{self.engine}"


def operations(shape: StackShape, passes: str) -> list[Operation]:
    """The operations of a pass in order; dense ones that follow each other are one."""
    found: list[Operation] = []
    layers = range(1, shape.num_layers + 1)
    for layer in layers:
        found += _forward(shape, layer, saved=passes == "training")
    if passes == "training":
        for layer in reversed(layers):
            found += _backward(shape, layer)
    merged: list[Operation] = []
    for operation in found:
        last = merged[-1] if merged else None
        joins = last is not None and last.engine == operation.engine == "dense"
        if last is not None and joins and last.phase == operation.phase:
            merged[-1] = replace(
                last,
                gemms=last.gemms + operation.gemms,
                out_width=operation.out_width,
                kept_width=last.kept_width + operation.kept_width,
                passes=last.passes + operation.passes,
            )
        else:
            merged.append(operation)
    return merged


def _forward(shape: StackShape, layer: int, *, saved: bool) -> list[Operation]:
    fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
    twice = 2 if shape.model.self_weight else 1
    gemms = (Gemm(fan_in, fan_out),) * twice
    after: tuple[tuple[str, int], ...] = (("bias", fan_out),)
    if layer < shape.num_layers:
        after += (("activation", fan_out),)
    if shape.orders[layer - 1] == "aggregate_first":
        # A self weight reads the rows themselves beside the aggregated ones.
        kept = fan_in * (twice - 1)
        z = fan_in if saved else 0
        return [
            Operation(
                engine="sparse",
                phase="forward",
                layer=layer,
                in_width=fan_in,
                out_width=fan_in,
                kept_width=z,
                passes=(("scale", fan_in),),
            ),
            Operation(
                engine="dense",
                phase="forward",
                layer=layer,
                in_width=fan_in,
                out_width=fan_out,
                gemms=gemms,
                kept_width=kept,
                passes=after,
            ),
        ]
    own = fan_out * (twice - 1)
    return [
        Operation(
            engine="dense",
            phase="forward",
            layer=layer,
            in_width=fan_in,
            out_width=fan_out,
            gemms=gemms,
            kept_width=own,
        ),
        Operation(
            engine="sparse",
            phase="forward",
            layer=layer,
            in_width=fan_out,
            out_width=fan_out,
            kept_width=own,
            passes=(("scale", fan_out), *after),
        ),
    ]


def _backward(shape: StackShape, layer: int) -> list[Operation]:
    fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
    twice = 2 if shape.model.self_weight else 1
    first = shape.orders[layer - 1] == "aggregate_first"
    gemms: tuple[Gemm, ...] = (Gemm(fan_in, fan_out, reduces=True),)
    if layer > 1:
        gemms += (Gemm(fan_out, fan_in),)
    mask = (("activation", fan_out),) if layer < shape.num_layers else ()
    dense = Operation(
        engine="dense",
        phase="backward",
        layer=layer,
        in_width=fan_out,
        out_width=fan_in if layer > 1 else 0,
        gemms=gemms * twice,
        kept_width=fan_in * twice,
        passes=mask if first else (),
    )
    if first and layer == 1:
        return [dense]
    width = fan_in if first else fan_out
    sparse = Operation(
        engine="sparse",
        phase="backward",
        layer=layer,
        in_width=width,
        out_width=width,
        passes=(("scale", width), *(() if first else mask)),
        transpose=True,
    )
    return [dense, sparse] if first else [sparse, dense]
