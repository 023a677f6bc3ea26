from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from gnnbench.data.generators import generate, planted_partition, rmat, uniform
from gnnbench.data.networkx_io import from_networkx, to_networkx
from gnnbench.data.splits import edge_homophily
from gnnbench.errors import DataError, SpecError, UnknownName


@pytest.mark.parametrize("homophily", [0.2, 0.8, 1.0])
@pytest.mark.parametrize("exponent", [None, 2.1, 3.0])
@pytest.mark.parametrize(("nodes", "degree", "classes"), [(2000, 4, 3), (800, 60, 8)])
def test_the_asked_degree_and_homophily_are_met(nodes, degree, classes, exponent, homophily):
    graph = planted_partition(
        nodes, degree, classes, 4, homophily=homophily, degree_exponent=exponent, seed=1
    )
    graph.check()
    assert graph.num_edges / graph.num_nodes == pytest.approx(degree, rel=0.03)
    assert edge_homophily(graph) == pytest.approx(homophily, abs=0.03)


def test_degrees_follow_the_power_law():
    graph = planted_partition(30_000, 10, 5, 2, degree_exponent=2.5, seed=3)
    degrees = np.sort(graph.in_degrees())
    # Hill's estimate over the upper two percent, less the largest few that the cut bends.
    tail = degrees[-600:-20].astype(float)
    exponent = 1 + 1 / np.mean(np.log(tail / tail[0]))
    assert 2.2 < exponent < 2.9
    assert degrees[-1] > 20 * degrees.mean()
    even = planted_partition(30_000, 10, 5, 2, degree_exponent=None, seed=3)
    assert even.in_degrees().max() < 4 * 10


def test_features_carry_the_class_and_noise_hides_it():
    def recovered(noise):
        g = planted_partition(2000, 4, 4, 32, feature_noise=noise, seed=5)
        centres = np.stack([g.features[g.labels == c].mean(0) for c in range(4)])
        distance = ((g.features[:, None] - centres[None]) ** 2).sum(-1)
        return (distance.argmin(1) == g.labels).mean()

    assert recovered(0.3) > 0.99
    assert recovered(20.0) < 0.5


def test_planted_graphs_come_with_balanced_classes_and_a_split():
    graph = planted_partition(1000, 6, 4, 2, train_fraction=0.5, val_fraction=0.1, seed=0)
    assert np.bincount(graph.labels).tolist() == [250] * 4
    masks = graph.train_mask, graph.val_mask, graph.test_mask
    assert [int(mask.sum()) for mask in masks] == [500, 100, 400]


@pytest.mark.parametrize("kind", ["planted_partition", "rmat", "uniform"])
def test_the_same_seed_gives_the_same_graph(kind):
    options = {"scale": 8} if kind == "rmat" else {"num_nodes": 300, "mean_degree": 6}
    options |= {"num_features": 3, "num_classes": 2}
    a, b, c = (generate(kind, **options, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(a.indices, b.indices) and np.array_equal(a.features, b.features)
    assert np.array_equal(a.train_mask, b.train_mask)
    assert not np.array_equal(a.indices, c.indices)


def test_a_complete_graph_can_be_asked_for():
    graph = uniform(6, 5)
    assert graph.num_edges == 30 and (graph.in_degrees() == 5).all()


def test_one_node_and_no_edges_can_be_asked_for():
    assert uniform(1, 0).num_edges == 0
    assert planted_partition(3, 0, 1, 2, homophily=1.0).num_edges == 0
    assert rmat(0, 4).num_nodes == 1


def test_rmat_is_skewed_and_its_quadrants_follow_the_chances():
    graph = rmat(12, 8, seed=1)
    assert graph.num_nodes == 4096 and graph.num_edges <= 2 * 8 * 4096
    assert graph.in_degrees().max() > 10 * graph.in_degrees().mean()
    flat = rmat(12, 8, a=0.25, b=0.25, c=0.25, seed=1)
    assert flat.in_degrees().max() < 4 * flat.in_degrees().mean()


def test_what_no_simple_graph_can_meet_is_refused():
    with pytest.raises(SpecError, match="distinct edges"):
        planted_partition(20, 18, 10, 2, homophily=1.0)
    with pytest.raises(SpecError) as error:
        planted_partition(10, 99, 0, 2, homophily=3.0, degree_exponent=1.5)
    assert len(error.value.problems) == 4


def test_unknown_generators_and_options_are_named():
    with pytest.raises(UnknownName, match="did you mean 'uniform'"):
        generate("unifrom")
    with pytest.raises(UnknownName, match="did you mean 'mean_degree'"):
        generate("uniform", mean_degre=3)
    with pytest.raises(SpecError, match="num_nodes, mean_degree"):
        generate("uniform")


class TestNetworkx:
    def test_there_and_back_gives_the_same_graph(self):
        graph = uniform(40, 5, seed=3)
        back = from_networkx(to_networkx(graph))
        assert np.array_equal(back.indptr, graph.indptr)
        assert np.array_equal(back.indices, graph.indices)

    def test_direction_attributes_and_node_names_are_kept(self):
        source = nx.DiGraph()
        source.add_node("b", x=[1, 2], y=1)
        source.add_node("a", x=[3, 4], y=0)
        source.add_edge("b", "a")
        source.add_edge("a", "a")
        graph = from_networkx(source, features="x", label="y")
        assert not graph.undirected and graph.indptr.tolist() == [0, 0, 1]
        assert graph.indices.tolist() == [0] and graph.notes["self_loops"] == 1
        assert graph.features.tolist() == [[1, 2], [3, 4]] and graph.labels.tolist() == [1, 0]
        assert list(to_networkx(graph).edges) == [(0, 1)]

    def test_a_missing_attribute_is_named(self):
        with pytest.raises(DataError, match="'x'"):
            from_networkx(nx.path_graph(2), features="x")
