"""Weights of edges: read, kept in order, saved, and what is wrong with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gnnbench.approaches.base import example
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.formats import matrix_market, native, snap
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.orders import reordered
from gnnbench.errors import DataError


def weight(graph: Graph, source: int, target: int) -> float:
    """The weight of the edge between two vertices."""
    assert graph.edge_weights is not None
    first, last = graph.indptr[target : target + 2]
    at = first + graph.indices[first:last].tolist().index(source)
    return float(graph.edge_weights[at])


def test_both_directions_of_an_edge_have_its_weight_and_of_repeats_the_largest_stays() -> None:
    graph = from_edges(
        "g",
        np.array([0, 2, 1, 1, 3]),
        np.array([1, 1, 2, 1, 0]),
        4,
        edge_weights=np.array([0.5, 2.0, 3.0, 9.0, 0.25]),
    )
    assert graph.num_edges == 6
    assert weight(graph, 0, 1) == weight(graph, 1, 0) == 0.5
    assert weight(graph, 1, 2) == weight(graph, 2, 1) == 3.0
    assert weight(graph, 3, 0) == weight(graph, 0, 3) == 0.25
    assert graph.edge_weights is not None
    assert graph.edge_weights.dtype == np.float32
    graph.check()


def test_a_directed_edge_keeps_its_own_weight() -> None:
    ends = np.array([0, 1]), np.array([1, 0])
    graph = from_edges("g", *ends, 2, undirected=False, edge_weights=np.array([1.0, 4.0]))
    assert (weight(graph, 0, 1), weight(graph, 1, 0)) == (1.0, 4.0)


def test_weights_that_do_not_fit_the_edges_are_refused() -> None:
    with pytest.raises(DataError, match="1 edge weights for 2 edges"):
        from_edges("g", np.array([0, 1]), np.array([1, 2]), 3, edge_weights=np.ones(1))
    good = planted_partition(30, 4, 2, 3, weighted=True)
    short = dataclasses.replace(good, edge_weights=np.ones(3, np.float32))
    zero = dataclasses.replace(good, edge_weights=np.zeros(good.num_edges, np.float32))
    assert short.problems() == [f"edge_weights has 3 entries for {good.num_edges} edges"]
    assert zero.problems() == [f"edge_weights: {good.num_edges} are not positive and finite"]


def test_weights_do_not_change_the_graph_that_is_generated() -> None:
    plain, weighted = (planted_partition(40, 5, 2, 3, weighted=given) for given in (False, True))
    np.testing.assert_array_equal(plain.indices, weighted.indices)
    np.testing.assert_array_equal(plain.features, weighted.features)


@pytest.mark.parametrize("order", ["random", "degree", "rcm"])
def test_another_order_moves_weights_with_their_edges(order: str) -> None:
    graph = planted_partition(40, 5, 2, 3, weighted=True)
    moved = reordered(graph, order)
    moved.check()
    assert graph.features is not None and moved.features is not None
    old = {row.tobytes(): number for number, row in enumerate(graph.features)}
    number = [old[row.tobytes()] for row in moved.features]
    for target in range(40):
        for source in moved.indices[slice(*moved.indptr[target : target + 2])]:
            assert weight(moved, source, target) == weight(graph, number[source], number[target])


def test_a_miniature_keeps_the_weights_of_the_edges_that_it_keeps() -> None:
    graph = planted_partition(40, 8, 2, 3, weighted=True)
    small = graph.miniature(20)
    small.check()
    assert 0 < small.num_edges < graph.num_edges
    for target in range(20):
        for source in small.indices[slice(*small.indptr[target : target + 2])]:
            assert weight(small, source, target) == weight(graph, source, target)


def test_weights_are_saved_and_part_of_the_digest(tmp_path: Path) -> None:
    graph = planted_partition(30, 4, 2, 3, weighted=True)
    native.save(graph, tmp_path / "weighted")
    native.save(dataclasses.replace(graph, edge_weights=None), tmp_path / "plain")
    again = native.load(tmp_path / "weighted", verify=True)
    np.testing.assert_array_equal(again.edge_weights, graph.edge_weights)
    assert native.load(tmp_path / "plain").edge_weights is None
    assert native.digest(tmp_path / "weighted") != native.digest(tmp_path / "plain")


def test_values_of_a_matrix_are_weights_where_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "m.mtx"
    file.write_text("%%MatrixMarket matrix coordinate real symmetric\n3 3 2\n2 1 0.5\n3 2 4\n")
    assert matrix_market.read(file).edge_weights is None
    graph = matrix_market.read(file, weighted=True)
    assert (weight(graph, 0, 1), weight(graph, 2, 1)) == (0.5, 4.0)
    file.write_text("%%MatrixMarket matrix coordinate real symmetric\n3 3 1\n2 1 -0.5\n")
    with pytest.raises(DataError, match=r"entry 1 weighs -0\.5"):
        matrix_market.read(file, weighted=True)
    file.write_text("%%MatrixMarket matrix coordinate pattern symmetric\n3 3 1\n2 1\n")
    with pytest.raises(DataError, match="a pattern matrix has no weights"):
        matrix_market.read(file, weighted=True)


@pytest.mark.parametrize("text", ["0 1 0.5\n1 2 4\n", "source,target,weight\n0,1,0.5\n1,2,4\n"])
def test_the_third_column_of_an_edge_list_is_weights_where_that_is_asked_for(
    text: str, tmp_path: Path
) -> None:
    file = tmp_path / "edges.csv"
    file.write_text(text)
    assert snap.read(file).edge_weights is None
    graph = snap.read(file, weighted=True)
    assert (weight(graph, 1, 0), weight(graph, 1, 2)) == (0.5, 4.0)
    assert "columns_left_out" not in graph.notes
    file.write_text("0 1\n")
    with pytest.raises(DataError, match="option weighted: rows have no third field"):
        snap.read(file, weighted=True)
    file.write_text("0 1 0\n")
    with pytest.raises(DataError, match="entry 1 weighs 0"):
        snap.read(file, weighted=True)


def test_a_graph_without_weights_is_not_drawn_by_them() -> None:
    run = example("sampled", knobs={"weights": "edges"})
    card = APPROACHES.get("sampled")
    reason = card.cannot_run(run, planted_partition(30, 4, 2, 3))
    assert reason is not None
    assert reason.startswith("graph planted has no edge weights to draw by")
    assert card.cannot_run(run, planted_partition(30, 4, 2, 3, weighted=True)) is None
