"""Orders of vertices: the same graph with other numbers, and what each order is for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gnnbench.data.generators import generate
from gnnbench.data.orders import ORDERS, permuted, reordered, reuse_by_order, vertex_order
from gnnbench.data.source import Library, reference_problems
from gnnbench.errors import SpecError, UnknownName
from gnnbench.reuse import DISTANCES
from gnnbench.spec import DatasetRef


@pytest.fixture(scope="module")
def shuffled():  # type: ignore[no-untyped-def]
    grid = generate("grid", num_nodes=4096, mean_degree=8, num_features=5, num_classes=3, seed=1)
    return reordered(grid, "random", seed=3)


def edges(graph, names=None):  # type: ignore[no-untyped-def]
    names = np.arange(graph.num_nodes) if names is None else names
    ends = np.repeat(np.arange(graph.num_nodes), graph.in_degrees())
    return set(zip(names[ends].tolist(), names[graph.indices].tolist(), strict=True))


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_is_the_same_graph_with_other_numbers(shuffled, order) -> None:  # type: ignore[no-untyped-def]
    places = vertex_order(shuffled, order, seed=2)
    found = reordered(shuffled, order, seed=2)
    found.check()
    assert edges(found, places) == edges(shuffled)
    assert np.array_equal(found.features, shuffled.features[places])
    assert np.array_equal(found.labels, shuffled.labels[places])
    assert np.array_equal(found.train_mask, shuffled.train_mask[places])
    rows = np.split(found.indices, found.indptr[1:-1])
    assert all(np.all(np.diff(row) > 0) for row in rows)


def test_degree_puts_hubs_first_and_the_others_bring_neighbours_together(shuffled) -> None:  # type: ignore[no-untyped-def]
    assert np.all(np.diff(reordered(shuffled, "degree").in_degrees()) <= 0)
    found = reuse_by_order(shuffled)
    mean = {o: float((r.shares * np.log2(DISTANCES)).sum()) for o, r in found.items()}
    assert set(mean) == set(ORDERS)
    assert mean["rcm"] < mean["random"] - 2 and mean["metis"] < mean["random"] - 1
    assert mean["given"] == pytest.approx(mean["random"], abs=0.3)  # it was shuffled


def test_a_directed_graph_is_reordered_too() -> None:
    graph = dataclasses.replace(generate("web", num_nodes=300, mean_degree=6), undirected=False)
    for order in ORDERS:
        assert reordered(graph, order).num_edges == graph.num_edges
    places = vertex_order(graph, "rcm")
    assert edges(permuted(graph, places, "rcm"), places) == edges(graph)


def test_a_reference_names_an_order_and_its_digest_differs(tmp_path) -> None:  # type: ignore[no-untyped-def]
    options = {"num_nodes": 200, "mean_degree": 6, "num_features": 3, "num_classes": 2}
    refs = {o: DatasetRef(generator="web", options=options, order=o) for o in ("given", "rcm")}
    kept = Library([], tmp_path)
    found = {order: kept.open(ref) for order, ref in refs.items()}
    assert found["given"].digest != found["rcm"].digest
    assert found["rcm"].notes["order"] == "rcm" and "order" not in found["given"].notes
    assert found["rcm"].num_train == found["given"].num_train
    assert not reference_problems(refs["rcm"])


def test_unknown_orders_and_orders_of_profiles_are_refused(shuffled) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnknownName, match="rcm"):
        vertex_order(shuffled, "rmc")
    with pytest.raises(SpecError, match="order: found 'rcm' for a profile"):
        DatasetRef(profile="reddit", order="rcm")
    stream = DatasetRef(name="s", generator="synthetic_stream", order="random")
    with pytest.raises(SpecError, match="order: allowed for graphs only"):
        Library([]).open(dataclasses.replace(stream, options={"num_nodes": 30, "num_edges": 90}))
