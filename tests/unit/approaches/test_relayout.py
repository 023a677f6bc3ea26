"""Re-layouts between rows and columns: splits, volumes, balance (FG-18 to FG-22)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.approaches.whole_graph.relayout import Relayouts, even_split, relayout_elements
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.models.names import MODELS
from gnnbench.spec import ModelSpec

counts, parts = st.integers(0, 200), st.integers(1, 40)


def shape_of(
    kind: str,
    dims: tuple[int, ...],
    order: str,
    input_dropout: float = 0.0,
    *,
    precompute: bool = False,
) -> StackShape:
    spec = ModelSpec(name="m", kind=kind, input_dropout=input_dropout)
    return StackShape.of(MODELS.get(kind), spec, dims, 4, order, precompute=precompute)


@given(total=counts, ranks=parts)
def test_an_even_split_keeps_the_total_and_differs_by_one_fg_21(total: int, ranks: int) -> None:
    shares = even_split(total, ranks)
    assert len(shares) == ranks
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert list(shares) == sorted(shares, reverse=True)


@given(rows=st.lists(st.integers(0, 9), min_size=1, max_size=6), width=st.integers(0, 15))
def test_a_relayout_moves_every_element_that_changes_hands_once_fg_18(
    rows: list[int], width: int
) -> None:
    columns = even_split(width, len(rows))
    row_owner = [rank for rank, n in enumerate(rows) for _ in range(n)]
    column_owner = [rank for rank, f in enumerate(columns) for _ in range(f)]
    changing = sum(a != b for a in row_owner for b in column_owner)
    assert relayout_elements(rows, columns) == changing


@given(nodes=st.integers(1, 300), width=st.integers(1, 80))
@settings(max_examples=60)
def test_the_total_never_falls_with_ranks_and_stays_below_its_bound_fg_20(
    nodes: int, width: int
) -> None:
    totals = [
        relayout_elements(even_split(nodes, ranks), even_split(width, ranks))
        for ranks in range(1, 70)
    ]
    assert totals[0] == 0
    assert totals == sorted(totals)
    assert totals[-1] <= nodes * width


@given(side=st.integers(1, 6), other=st.integers(1, 6))
def test_the_bytes_of_a_rank_fall_strictly_with_ranks_where_splits_are_equal_fg_20(
    side: int, other: int
) -> None:
    nodes, width = 840 * side, 840 * other  # divisible by every number of ranks below
    by_rank = []
    for ranks in (2, 3, 4, 5, 6, 7, 8):
        total = relayout_elements(even_split(nodes, ranks), even_split(width, ranks))
        assert total * ranks**2 == ranks * nodes * width * (ranks - 1)
        by_rank.append(total / ranks)
    assert all(a > b for a, b in pairwise(by_rank))


@pytest.mark.parametrize(
    ("dims", "order", "precompute", "input_dropout", "forward", "backward"),
    [
        ((6, 8, 4), "aggregate_first", False, 0.0, [(6,), (8, 8)], [(), (8, 8)]),
        ((6, 8, 4), "aggregate_first", False, 0.5, [(6, 6), (8, 8)], [(), (8, 8)]),
        ((6, 8, 4), "aggregate_first", True, 0.0, [(), (8, 8)], [(), (8, 8)]),
        ((6, 8, 4), "transform_first", False, 0.0, [(8, 8), (4, 4)], [(8, 8), (4, 4)]),
        ((6, 8, 4), "min_width", False, 0.0, [(6,), (4, 4)], [(), (4, 4)]),
        ((9, 8, 4), "min_width", False, 0.5, [(8, 8), (4, 4)], [(8, 8), (4, 4)]),
    ],
)
def test_an_epoch_takes_the_relayouts_of_the_table_fg_19(
    dims: tuple[int, ...],
    order: str,
    precompute: bool,
    input_dropout: float,
    forward: list[tuple[int, ...]],
    backward: list[tuple[int, ...]],
) -> None:
    shape = shape_of("gcn", dims, order, input_dropout, precompute=precompute)
    found = Relayouts.of(shape, ranks=4)
    assert list(found.forward) == forward
    assert list(found.backward) == backward
    assert found.epoch_elements((2, 1, 1, 1)) == sum(
        relayout_elements((2, 1, 1, 1), even_split(w, 4))
        for layer in forward + backward
        for w in layer
    )


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_aggregate_first_takes_four_collectives_a_layer_less_three(layers: int) -> None:
    dims = (7, *[5] * (layers - 1), 3)
    found = Relayouts.of(shape_of("gcn", dims, "aggregate_first"), ranks=2)
    assert len(found.widths) == 4 * layers - 3


@pytest.mark.parametrize(
    ("kind", "order", "ranks", "precompute", "rows", "columns"),
    [
        ("gcn", "aggregate_first", 2, False, False, True),
        ("gcn", "transform_first", 2, False, True, False),
        ("gcn", "aggregate_first", 2, True, False, False),
        ("sage", "aggregate_first", 2, False, True, True),
        ("sage", "aggregate_first", 2, True, True, False),
        ("gcn", "aggregate_first", 1, False, True, False),
    ],
)
def test_features_are_held_in_the_layouts_that_are_read(
    kind: str, order: str, ranks: int, precompute: bool, rows: bool, columns: bool
) -> None:
    shape = shape_of(kind, (6, 8, 4), order, precompute=precompute)
    found = Relayouts.of(shape, ranks=ranks)
    assert (found.x_rows, found.x_columns) == (rows, columns)
