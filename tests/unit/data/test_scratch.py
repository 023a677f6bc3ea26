"""Memory of loops: scratch is used again, and hints change nothing."""

from __future__ import annotations

import numpy as np
from numba import njit

from gnnbench.data.prefetch import ask_for_rows, prefetch
from gnnbench.data.scratch import Scratch


def test_scratch_is_used_again_until_it_is_too_small() -> None:
    scratch = Scratch()
    first = scratch("ids", 80, np.int64)
    first[:] = 7
    again = scratch("ids", 50, np.int64)
    assert np.shares_memory(first, again) and len(again) == 50
    assert not np.shares_memory(scratch("ids", 1000, np.int64), first)
    assert len(scratch("ids", 1000, np.int64)) == 1000


def test_names_have_memory_of_their_own() -> None:
    scratch = Scratch()
    a, b = scratch("a", 9, np.int32), scratch("b", 9, np.float64)
    assert not np.shares_memory(a, b)
    assert (a.dtype, b.dtype) == (np.int32, np.float64)


def test_hints_behind_the_end_of_an_array_do_no_harm() -> None:
    indptr = np.array([0, 3, 3, 700], np.int64)
    indices, rows = np.arange(700, dtype=np.int32), np.array([2, 0, 1] * 9)
    indices.flags.writeable = False

    @njit
    def total() -> int:
        found = 0
        for i in range(len(rows)):
            ask_for_rows(indptr, indices, rows, i, len(rows))
            prefetch(indices, 10_000_000)
            for e in range(indptr[rows[i]], indptr[rows[i] + 1]):
                found += indices[e]
        return found

    assert total() == 9 * indices.sum()
