"""Sparse times dense, one row at a time, with the row's sums held in vector registers.

A compiled loop over columns of unknown width keeps its sums in memory: each edge then reads and
writes the output row again. Here the columns are cut into blocks of up to eight 64-byte vectors, a
loop over the row's edges is written in LLVM IR for every block width, and the sums stay in
registers. The next rows of the dense matrix are prefetched, because their order is random. LLVM
splits the vectors on machines whose registers are narrower.

Sums run in edge order in every lane, so a result depends neither on threads nor on ranges.

Legend: R rows, S source rows, F columns, E entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR_BYTES = 64
MOST_VECTORS = 8  # with the factor and a load in flight they fit in the registers of every target
PREFETCH_EDGES = 8  # ahead; measured flat between 4 and 16

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


@intrinsic
def _row_block(
    typing: Any,
    indices: Any,
    first: Any,
    stop: Any,
    end: Any,
    x: Any,
    col_scale: Any,
    col_mask: Any,
    edge_scale: Any,
    edge_mask: Any,
    out: Any,
    row: Any,
    column: Any,
    width: Any,
    row_scale: Any,
    keep: Any,
) -> Any:
    """out[row, column:column+width] = row_scale * sum over edges (+ what was there, if keep).

    Edges are `first` .. `stop`-1; `end` bounds the prefetch. A scale is read at `index & mask`, so
    mask 0 turns an array of one element into a constant.
    """
    i64, flag = types.int64, types.boolean
    signature = types.void(
        indices,
        i64,
        i64,
        i64,
        x,
        col_scale,
        i64,
        edge_scale,
        i64,
        out,
        i64,
        i64,
        i64,
        x.dtype,
        flag,
    )

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        arrays = {k: context.make_array(sig.args[k])(context, b, args[k]) for k in (0, 4, 5, 7, 9)}
        element = context.get_value_type(x.dtype)
        lanes = VECTOR_BYTES // (x.dtype.bitwidth // 8)
        stride = cgutils.unpack_tuple(b, arrays[4].shape, 2)[1]
        source = b.gep(arrays[4].data, [args[11]])
        target = b.gep(arrays[9].data, [b.add(b.mul(args[10], stride), args[11])])
        edge = _Edge(
            b,
            indices=arrays[0].data,
            source=source,
            stride=stride,
            end=args[3],
            col_scale=(arrays[5].data, args[6]),
            edge_scale=(arrays[7].data, args[8]),
        )
        vectors = b.udiv(b.add(args[12], _I64(lanes - 1)), _I64(lanes))
        partial = b.urem(args[12], _I64(lanes))
        masked = b.icmp_unsigned("!=", partial, _I64(0))
        case = b.add(b.mul(vectors, _I64(2)), b.zext(masked, _I64))
        after = b.append_basic_block("after")
        switch = b.switch(case, after)
        for count in range(1, MOST_VECTORS + 1):
            for tail in (False, True):
                block = b.append_basic_block(f"vectors{count}{'_masked' if tail else ''}")
                switch.add_case(_I64(2 * count + tail), block)
                b.position_at_end(block)
                rows = _Rows(b, element, lanes, count, partial if tail else None)
                _sum_edges(b, rows, edge, args[1], args[2], target, args[13], args[14])
                b.branch(after)
        b.position_at_end(after)
        return context.get_dummy_value()

    return signature, generate


class _Edge:
    """Emit what one edge needs: its source row, its factor, the prefetch of a later one."""

    def __init__(self, b: Any, **parts: Any) -> None:
        self.b, self.parts = b, parts

    def index(self, e: Any) -> Any:
        value = self.b.load(self.b.gep(self.parts["indices"], [e]))
        return value if value.type == _I64 else self.b.sext(value, _I64)

    def row(self, index: Any) -> Any:
        return self.b.gep(self.parts["source"], [self.b.mul(index, self.parts["stride"])])

    def factor(self, e: Any, index: Any) -> Any:
        (cols, col_mask), (edges, edge_mask) = self.parts["col_scale"], self.parts["edge_scale"]
        by_col = self.b.load(self.b.gep(cols, [self.b.and_(index, col_mask)]))
        by_edge = self.b.load(self.b.gep(edges, [self.b.and_(e, edge_mask)]))
        return self.b.fmul(by_col, by_edge)

    def prefetch(self, e: Any, num_bytes: int) -> None:
        b = self.b
        later = b.add(e, _I64(PREFETCH_EDGES))
        later = b.select(b.icmp_signed("<", later, self.parts["end"]), later, e)
        row = b.bitcast(self.row(self.index(later)), _BYTES)
        shape = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
        fetch = b.module.declare_intrinsic("llvm.prefetch", [_BYTES], shape)
        for offset in range(0, num_bytes, 64):
            b.call(fetch, [b.gep(row, [_I64(offset)]), _I32(0), _I32(3), _I32(1)])


class _Rows:
    """Emit loads and stores of `count` vectors, the last one masked to `partial` lanes if given."""

    def __init__(self, b: Any, element: Any, lanes: int, count: int, partial: Any) -> None:
        self.b, self.lanes, self.count, self.element = b, lanes, count, element
        self.vector = ir.VectorType(element, lanes)
        self.zero = ir.Constant(self.vector, [0.0] * lanes)
        self.mask = None
        if partial is not None:
            self.mask_type = ir.VectorType(ir.IntType(1), lanes)
            numbers = ir.Constant(ir.VectorType(_I64, lanes), list(range(lanes)))
            self.mask = b.icmp_unsigned("<", numbers, self.spread(partial))

    def spread(self, scalar: Any) -> Any:
        """Return a vector of one value in every lane."""
        kind = ir.VectorType(scalar.type, self.lanes)
        nothing = ir.Constant(kind, ir.Undefined)
        order = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(
            self.b.insert_element(nothing, scalar, _I32(0)), nothing, order
        )

    def _place(self, row: Any, k: int) -> tuple[Any, bool]:
        pointer = self.b.gep(row, [_I64(k * self.lanes)])
        masked = self.mask is not None and k == self.count - 1
        return self.b.bitcast(pointer, self.vector.as_pointer()), masked

    def load(self, row: Any, k: int) -> Any:
        pointer, masked = self._place(row, k)
        if masked:
            shape = ir.FunctionType(self.vector, [pointer.type, _I32, self.mask_type, self.vector])
            load = self._masked("load", shape)
            return self.b.call(load, [pointer, self._align(), self.mask, self.zero])
        value = self.b.load(pointer)
        value.align = self._align().constant
        return value

    def store(self, value: Any, row: Any, k: int) -> None:
        pointer, masked = self._place(row, k)
        if masked:
            shape = ir.FunctionType(
                ir.VoidType(), [self.vector, pointer.type, _I32, self.mask_type]
            )
            store = self._masked("store", shape)
            self.b.call(store, [value, pointer, self._align(), self.mask])
            return
        self.b.store(value, pointer).align = self._align().constant

    def _masked(self, verb: str, shape: Any) -> Any:
        # llvmlite cannot mangle vector types. This is the spelling for typed pointers; LLVM itself
        # renames it where pointers are opaque.
        kind = f"v{self.lanes}{self.element.intrinsic_name}"
        name = f"llvm.masked.{verb}.{kind}.p0{kind}"
        return cgutils.get_or_insert_function(self.b.module, shape, name)

    def _align(self) -> Any:
        return _I32(VECTOR_BYTES // self.lanes)


def _sum_edges(
    b: Any, rows: _Rows, edge: _Edge, first: Any, stop: Any, target: Any, row_scale: Any, keep: Any
) -> None:
    """Emit the loop over a row's edges and the store of its sums; ends in an open block."""
    before = b.block
    loop, done = b.append_basic_block("edges"), b.append_basic_block("store")
    old, write = b.append_basic_block("keep"), b.append_basic_block("write")
    b.cbranch(b.icmp_signed("<", first, stop), loop, done)

    b.position_at_end(loop)
    e = b.phi(_I64)
    sums = [b.phi(rows.vector) for _ in range(rows.count)]
    index = edge.index(e)
    edge.prefetch(e, rows.count * VECTOR_BYTES)
    factor, row = rows.spread(edge.factor(e, index)), edge.row(index)
    # "contract" lets LLVM fuse the two into one instruction where the machine has it.
    products = [b.fmul(rows.load(row, k), factor, flags=("contract",)) for k in range(rows.count)]
    added = [b.fadd(p, total, flags=("contract",)) for p, total in zip(products, sums, strict=True)]
    following = b.add(e, _I64(1))
    b.cbranch(b.icmp_signed("<", following, stop), loop, done)
    e.add_incoming(first, before)
    e.add_incoming(following, loop)
    for total, value in zip(sums, added, strict=True):
        total.add_incoming(rows.zero, before)
        total.add_incoming(value, loop)

    b.position_at_end(done)
    totals = [b.phi(rows.vector) for _ in range(rows.count)]
    for total, value in zip(totals, added, strict=True):
        total.add_incoming(rows.zero, before)
        total.add_incoming(value, loop)
    scale = rows.spread(row_scale)
    results = [b.fmul(total, scale) for total in totals]
    b.cbranch(keep, old, write)

    b.position_at_end(old)
    kept = [b.fadd(rows.load(target, k), results[k]) for k in range(rows.count)]
    b.branch(write)

    b.position_at_end(write)
    for k in range(rows.count):
        value = b.phi(rows.vector)
        value.add_incoming(results[k], done)
        value.add_incoming(kept[k], old)
        results[k] = value
    for k in range(rows.count):
        rows.store(results[k], target, k)


@njit(cache=True, nogil=True, error_model="numpy")
def spmm_rows(
    indptr: Any,
    indices: Any,
    x_SF: Any,
    out_RF: Any,
    row_scale: Any,
    col_scale: Any,
    self_scale: Any,
    edge_scale: Any,
    keep: bool,
    start: int,
    stop: int,
) -> None:
    """Compute rows start .. stop-1 of the product; an absent scale is an empty array.

    `keep` adds to what `out_RF` holds. Rows below `len(self_scale)` add self_scale[r] * x[r].
    """
    width = x_SF.shape[1]
    block = MOST_VECTORS * VECTOR_BYTES // x_SF.itemsize
    ones = np.ones(1, x_SF.dtype)
    cols, col_mask = (col_scale, -1) if len(col_scale) else (ones, 0)
    edges, edge_mask = (edge_scale, -1) if len(edge_scale) else (ones, 0)
    end = indptr[stop]
    for r in range(start, stop):
        scale = row_scale[r] if len(row_scale) else ones[0]
        for column in range(0, width, block):
            _row_block(
                indices,
                indptr[r],
                indptr[r + 1],
                end,
                x_SF,
                cols,
                col_mask,
                edges,
                edge_mask,
                out_RF,
                r,
                column,
                min(block, width - column),
                scale,
                keep,
            )
        if r < len(self_scale):
            scale = self_scale[r]
            for f in range(width):
                out_RF[r, f] += scale * x_SF[r, f]
