"""Hints to the processor, inside compiled loops, which memory is needed soon.

Rows of a sparse matrix that are visited in random order miss the caches, and the end of a short row
is a branch that is guessed wrong: without hints the processor waits for every row anew. Hints
change no value, and an address behind the end of an array does no harm.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

POINTERS_AHEAD = 16
"""Rows between the one that is worked on and the one whose pointers are asked for."""
COLUMNS_AHEAD = 8
"""Rows between the one that is worked on and the one whose columns are asked for."""
LINE = 16
"""Columns of 4 bytes in a cache line."""
MOST_LINES = 16
"""Lines of a row that are asked for at most; the processor follows a long run by itself."""


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of `array[index]`, to read it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.bitcast(builder.gep(view.data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # Read, keep in all caches, data.
        builder.call(hint, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@njit(inline="always")
def ask_for_rows(indptr: Any, indices: Any, rows: Any, at: Any, stop: Any) -> None:
    """Ask for pointers and columns of rows behind place `at`, if they are before `stop`."""
    if at + POINTERS_AHEAD < stop:
        prefetch(indptr, rows[at + POINTERS_AHEAD])
    if at + COLUMNS_AHEAD < stop:
        first, last = indptr[rows[at + COLUMNS_AHEAD]], indptr[rows[at + COLUMNS_AHEAD] + 1]
        for place in range(first, min(last, first + MOST_LINES * LINE), LINE):
            prefetch(indices, place)
