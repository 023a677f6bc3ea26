"""Blocks of a batch as one message: nothing is lost, and its length is the closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench import work
from gnnbench.data import messages
from gnnbench.data.generators import planted_partition
from gnnbench.data.sampling import Batch, NeighbourSampler
from gnnbench.data.weighted import WeightedSampler

GRAPH = planted_partition(60, 5, 3, 2, seed=4)


def drawn(seeds: list[int], *, weighted: bool) -> Batch:
    topology = GRAPH.indptr, GRAPH.indices, (3, 2), 9
    if not weighted:
        return NeighbourSampler(*topology).sample(np.array(seeds, np.int64), 1, 2)
    weights = np.maximum(GRAPH.out_degrees(), 1.0)
    return WeightedSampler(*topology, weights=weights).sample(np.array(seeds, np.int64), 1, 2)


@given(seeds=st.lists(st.integers(0, 59), unique=True, max_size=20), weighted=st.booleans())
def test_a_batch_arrives_as_it_was_drawn(seeds: list[int], weighted: bool) -> None:
    batch = drawn(seeds, weighted=weighted)
    body = messages.packed(batch, weighted=weighted)
    header = messages.header_of(batch, 50)
    assert len(header) == work.header_numbers(2)
    num_seeds, vertices, edges = messages.sizes_in(header.tolist())
    assert num_seeds == 50
    assert len(body) == work.message_bytes(vertices, edges, weighted=weighted)
    got = messages.unpacked(body, vertices, edges, weighted=weighted)
    assert got.sizes == batch.sizes
    np.testing.assert_array_equal(got.input_nodes, batch.input_nodes)
    np.testing.assert_array_equal(got.seeds, batch.seeds)
    for ours, theirs in zip(got.blocks, batch.blocks, strict=True):
        for name in ("indptr", "indices", "degrees", "edge_weights"):
            a, b = getattr(ours, name), getattr(theirs, name)
            assert (a is None) == (b is None)
            if a is not None:
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(ours.weights_of_rows(), theirs.weights_of_rows())


@pytest.mark.parametrize(("weighted", "size"), [(False, 196), (True, 268)])
def test_a_message_has_the_bytes_worked_out_by_hand(weighted: bool, size: int) -> None:
    """9 ids, pointers of 4 and 2 rows, 9 edges, 6 degrees: 72 + 64 + 36 + 24; 9 weights: 72."""
    assert work.message_bytes([9, 4, 2], [6, 3], weighted=weighted) == size
