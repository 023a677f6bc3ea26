"""Edges put into rows by target."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.data.by_target import by_target


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=40))
def test_every_target_has_its_sources_in_rising_order(pairs):
    table = np.array(pairs, np.int32).reshape(-1, 2)
    indptr, indices = by_target(table[:, 0], table[:, 1], 9)
    assert indptr.tolist()[0] == 0 and indptr.dtype == np.int64 and indices.dtype == np.int32
    for target in range(9):
        wanted = sorted(source for source, found in pairs if found == target)
        assert indices[indptr[target] : indptr[target + 1]].tolist() == wanted
