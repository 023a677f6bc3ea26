from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gnnbench.data import formats
from gnnbench.data.generators import planted_partition, uniform
from gnnbench.data.graph import from_edges
from gnnbench.data.halo import halo_counts
from gnnbench.data.histogram import log_normal_degrees
from gnnbench.data.partition import partition
from gnnbench.data.profile import (
    FrontierPoint,
    GraphProfile,
    HaloPoint,
    list_profiles,
    load_profile,
    profile,
    read_profile,
    save_profile,
)
from gnnbench.errors import SpecError, UnknownName

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


@pytest.fixture(scope="module")
def graph():
    return planted_partition(3000, 12, 6, 5, homophily=0.8, seed=2)


@pytest.fixture(scope="module")
def measured(graph):
    return profile(
        graph, parts=(2, 4), methods=("metis-vol", "hash"), fanouts=((5, 5),), batch=64, seed=1
    )


def bare(**changes):
    fields = {"name": "g", "source": "here", "status": "published", "num_nodes": 10}
    return GraphProfile(**{**fields, "num_edges": 40, "num_train": 10, **changes})


class TestMeasuring:
    def test_counts_are_those_of_the_graph(self, graph, measured):
        assert (measured.num_nodes, measured.num_edges) == (3000, graph.num_edges)
        assert (measured.num_train, measured.num_val, measured.num_test) == (1800, 600, 600)
        assert measured.edge_homophily == pytest.approx(0.8, abs=0.01)
        assert measured.degree_max == graph.in_degrees().max()

    def test_the_histogram_keeps_nodes_and_edges(self, graph, measured):
        values, counts = map(np.array, (measured.degree_values, measured.degree_counts))
        assert counts.sum() == 3000 and len(counts) < 80
        assert (values * counts).sum() == pytest.approx(graph.num_edges, rel=1e-4)
        assert counts[values == 3].sum() == (graph.in_degrees() == 3).sum()

    def test_the_halo_curve_is_that_of_the_partitions(self, graph, measured):
        assignment = partition(graph, 4, "metis", objective="vol", seed=1)
        counts = halo_counts(graph, assignment, 4)[0]
        point, basis = measured.expected_halo(4, "metis-vol")
        assert point.halo_per_node == pytest.approx(counts.sum() / 3000, abs=1e-6)
        assert "interpolated" not in basis

    def test_the_frontier_is_returned_for_what_was_measured_and_estimated_else(self, measured):
        exact, estimate = (measured.expected_frontier((5, 5), batch) for batch in (64, 65))
        assert exact[0] == measured.frontier[0].vertices
        assert np.concatenate(estimate) == pytest.approx(np.concatenate(exact), rel=0.06)

    def test_a_graph_without_a_split_has_no_frontier(self):
        assert profile(uniform(20, 3), parts=(2,)).frontier == ()

    def test_an_empty_graph_has_a_profile(self):
        found = profile(from_edges("none", [], [], 0), parts=(2,))
        assert found.num_nodes == 0 and found.degree_max is None


class TestHalo:
    def test_random_owners_need_no_curve(self, graph):
        without = dataclasses.replace(profile(graph, parts=(), fanouts=()), halo=())
        counts = halo_counts(graph, partition(graph, 8, "hash"), 8)[0]
        point, basis = without.expected_halo(8, "hash")
        assert point.halo_per_node == pytest.approx(counts.sum() / 3000, rel=0.02)
        assert "random owners" in basis

    def test_between_two_points_a_power_law_holds(self):
        points = [HaloPoint(parts=p, method="metis-cut", halo_per_node=p**0.5) for p in (4, 16)]
        found = bare(halo=tuple(points))
        assert found.expected_halo(8, "metis-cut")[0].halo_per_node == pytest.approx(8**0.5)
        assert found.expected_halo(64, "metis-cut")[0].halo_per_node == pytest.approx(8)

    def test_no_node_has_more_copies_than_other_parts(self):
        points = [HaloPoint(parts=p, method="metis-cut", halo_per_node=p - 1.5) for p in (2, 3)]
        found = bare(halo=tuple(points)).expected_halo(9, "metis-cut")[0]
        assert found.halo_per_node == 8

    def test_one_part_has_no_halo(self):
        assert bare().expected_halo(1)[0].halo_per_node == 0

    def test_where_one_objective_ends_the_other_is_scaled(self):
        cut = [HaloPoint(parts=p, method="metis-cut", halo_per_node=x) for p, x in ((2, 1), (8, 3))]
        vol = HaloPoint(parts=2, method="metis-vol", halo_per_node=0.9)
        point, basis = bare(halo=(*cut, vol)).expected_halo(8, "metis-vol")
        assert point.halo_per_node == pytest.approx(2.7) and "times 0.9" in basis

    def test_without_a_metis_curve_metis_is_refused(self):
        with pytest.raises(SpecError, match="no halo curve"):
            bare().expected_halo(4)


class TestFiles:
    def test_a_profile_survives_its_file(self, measured, tmp_path):
        assert read_profile(save_profile(measured, tmp_path / "g.toml")) == measured

    def test_odd_names_survive(self, tmp_path):
        odd = bare(name='a "b" \\ \n é 😀', frontier=())
        assert read_profile(save_profile(odd, tmp_path / "g.toml")) == odd

    def test_every_problem_of_a_file_is_told(self, tmp_path):
        file = tmp_path / "g.toml"
        file.write_text(
            'name = 3\nsource = "s"\nstatus = "guessed"\nnum_nodes = -1\nnum_edge = 4\n'
            '[[halo]]\nparts = 0\nmethod = "metis"\nhalo_per_node = 1.0\n'
        )
        with pytest.raises(SpecError) as error:
            read_profile(file)
        told = str(error.value)
        for key in ("name", "status", "num_nodes", "num_edge", "num_edges", "parts", "method"):
            assert f"{key}:" in told
        assert all(str(file) in line for line in error.value.problems)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"degree_values": (1.0,), "degree_counts": (3,)}, "sum of 3"),
            ({"degree_values": (1.0,)}, "lengths differ"),
            ({"num_test": 9}, "more than num_nodes"),
        ],
    )
    def test_contradictions_are_refused(self, changes, problem):
        with pytest.raises(SpecError, match=problem):
            bare(**changes)

    def test_a_frontier_of_the_wrong_length_is_refused(self):
        with pytest.raises(SpecError, match="2 hops"):
            FrontierPoint(fanouts_from_seeds=(5, 5), batch=1, vertices=(3.0, 2.0))

    def test_an_unknown_profile_is_named(self):
        with pytest.raises(UnknownName, match="did you mean 'reddit'"):
            load_profile("redit")


class TestPublished:
    def test_all_that_come_with_gnnbench_load(self):
        known = {"ogbn-arxiv", "ogbn-products", "papers100m-2hop", "pubmed", "reddit"}
        known |= {"ogbn-papers100m", "mag240m", "igb-full", "orkut", "friendster", "yelp"}
        known |= {"freebase86m", "wikikg90m", "gdelt", "amazon2m", "reddit-saint"}
        assert known <= set(list_profiles())
        for name in list_profiles():
            found = load_profile(name)
            assert found.name == name and found.status == "published" and found.source

    # Fullgraph section 15, METIS edge cut.
    @pytest.mark.parametrize(
        ("name", "curve"),
        [
            ("ogbn-arxiv", (0.159, 0.438, 0.812, 1.186, 1.641, 2.092)),
            ("reddit", (0.721, 1.732, 3.388, 5.757, 9.968, 17.034)),
            ("ogbn-products", (0.181, 0.411, 0.708, 1.112, 1.508, 2.082)),
            ("pubmed", (0.110, 0.197, 0.389, 0.573, 0.728, 0.910)),
        ],
    )
    def test_halo_curves_are_those_of_the_reference(self, name, curve):
        found = load_profile(name)
        points = [found.expected_halo(p, "metis-cut")[0] for p in (2, 4, 8, 16, 32, 64)]
        assert [round(point.halo_per_node, 3) for point in points] == pytest.approx(curve, abs=6e-4)
        assert all(1.0 <= point.halo_imbalance < 2.7 for point in points)

    # Fullgraph section 17: stored edges with self loops, so N more than a profile counts.
    @pytest.mark.parametrize(
        ("name", "nodes", "edges", "train"),
        [
            ("reddit", 232_965, 114_848_857, 153_431),
            ("ogbn-products", 2_449_029, 126_167_053, 196_615),
            ("ogbn-arxiv", 169_343, 2_484_941, 90_941),
        ],
    )
    def test_counts_are_those_of_the_reference(self, name, nodes, edges, train):
        found = load_profile(name)
        assert (found.num_nodes, found.num_edges + nodes) == (nodes, edges)
        assert found.num_train == train
        assert found.num_train + found.num_val + found.num_test == nodes

    # Outofcore 73: 68,843,320,800 B of 100-wide rows with Adagrad; edge file of 12 B a triple.
    # Temporal 98: 2 x 191,290,882 x 20 B. Sampling 375: 94,605,581 training seeds.
    def test_sizes_of_the_large_graphs_are_those_of_published_files(self):
        triples = load_profile("freebase86m")
        assert triples.num_entities * 2 * 100 * 4 == 68_843_320_800
        assert triples.num_train * 12 == pytest.approx(3_656_731_800, abs=12)
        assert load_profile("gdelt").num_edges == 191_290_882
        assert load_profile("igb-full").num_train == 94_605_581

    @pytest.mark.parametrize("name", ["reddit", "ogbn-products", "pubmed"])
    def test_the_degree_estimate_meets_every_published_frontier(self, name):
        found = load_profile(name)
        for point in found.frontier:
            vertices, _ = found.expected_frontier(point.fanouts_from_seeds, point.batch)
            assert vertices[0] == pytest.approx(point.vertices[0], rel=0.06)


def test_log_normal_degrees_keep_mean_and_spread():
    values, counts = map(np.array, log_normal_degrees(10_000, 50.0, 1.2, bins=400))
    assert counts.sum() == pytest.approx(10_000)
    assert (values * counts).sum() / 10_000 == pytest.approx(50)
    logs = np.log(values)
    mean = (logs * counts).sum() / 10_000
    assert np.sqrt(((logs - mean) ** 2 * counts).sum() / 10_000) == pytest.approx(1.2, rel=0.03)


@pytest.mark.skipif(
    not DATA.is_dir(), reason="no reference data beside this checkout (../shared/data)"
)
def test_degree_quantiles_match_the_readme():
    found = profile(formats.read("npz_dense", DATA / "tolokers"), parts=(), fanouts=((10, 5),))
    assert found.degree_mean == pytest.approx(88.28, abs=0.005)
    assert (round(found.degree_p99, 1), found.degree_max) == (826.9, 2138)
    assert found.frontier[0].batch == 1024
