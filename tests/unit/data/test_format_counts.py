"""Every reader against the counts of the data folder's README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gnnbench.data import formats
from gnnbench.data.splits import edge_homophily
from gnnbench.data.stream_profile import profile_stream
from gnnbench.data.triples import unpacked_names
from gnnbench.data.triples_profile import profile_triples
from gnnbench.metrics import SPLITS

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="no reference data beside this checkout (../shared/data)"
)

# path, format, nodes, undirected edges, features, classes, homophily, max degree, self loops
TABLE = [
    ("planetoid_cora", "planetoid", 2708, 5278, 1433, 7, 0.810, 168, 0),
    ("planetoid_citeseer", "planetoid", 3327, 4552, 3703, 6, 0.738, 99, 248),
    ("npz_cora", "npz_csr", 2708, 5278, 1433, 7, 0.810, 168, 0),
    ("npz_citeseer", "npz_csr", 3312, 4536, 3703, 6, 0.738, 99, 124),
    ("tolokers", "npz_dense", 11758, 519000, 10, 2, 0.595, 2138, 0),
    ("minesweeper", "npz_dense", 10000, 39402, 7, 2, 0.683, 8, 0),
    ("squirrel_filtered", "npz_dense", 2223, 46998, 2089, 5, 0.207, 693, 0),
    ("facebook100/Johns Hopkins55.mat", "facebook100", 5180, 186586, 2400, 2, 0.549, 886, 0),
    ("facebook100/Reed98.mat", "facebook100", 962, 18812, 740, 2, 0.522, 313, 0),
    ("twitch/ENGB", "musae", 7126, 35324, 3170, 2, 0.556, 720, 0),
    ("twitch/ES", "musae", 4648, 59382, 3170, 2, 0.580, 1022, 0),
    ("twitch/FR", "musae", 6549, 112666, 3170, 2, 0.559, 2040, 0),
    ("twitch/PTBR", "musae", 1912, 31299, 3169, 2, 0.571, 767, 0),
    ("twitch/RU", "musae", 4385, 37304, 3170, 2, 0.618, 1229, 0),
    ("twitch/TW", "musae", 2772, 63462, 3169, 2, 0.533, 1375, 0),
    ("facebook_page_page", "musae", 22470, 170823, 4714, 4, 0.885, 709, 179),
    ("deezer_hu", "musae", 47538, 222887, 0, 84, None, 112, 0),
    ("ogbl_ddi", "ogb", 4267, 1067911, 0, 0, None, 2234, 0),
    ("cnr-2000/cnr-2000.txt.xz", "snap", 325557, 2738969, 0, 0, None, 18236, 87442),
    ("cnr-2000/cnr-2000.graph", "webgraph", 325557, 2738969, 0, 0, None, 18236, 87442),
    ("ego-twitter", "graphs_jl", 81306, 1342296, 0, 0, None, 3383, 14),
    ("cit-HepPh/arxiv-cit-hep-ph.jlg", "graphs_jl", 34546, 420877, 0, 0, None, 846, 44),
    ("CollegeMsg", "snap", 1899, 13838, 0, 0, None, 255, 0),
    ("sx-mathoverflow", "snap", 24818, 187986, 0, 0, None, 2172, 116109),
    ("wave", "metis", 156317, 1059331, 0, 0, None, 44, 0),
    ("astro-ph", "metis", 16706, 121251, 0, 0, None, 360, 0),
]


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_counts_match_the_readme(row):
    path, kind, nodes, edges, features, classes, homophily, largest, loops = row
    assert formats.detect(DATA / path, "graph") == kind
    graph = formats.read(kind, DATA / path)
    assert (graph.num_nodes, graph.num_edges) == (nodes, 2 * edges)
    assert (graph.num_features, graph.num_classes) == (features, classes)
    assert graph.in_degrees().max() == largest
    assert graph.notes["self_loops"] == loops
    found = edge_homophily(graph)
    assert found is None if homophily is None else found == pytest.approx(homophily, abs=6e-4)


@pytest.mark.slow
def test_cornell_matches_the_readme():
    graph = formats.read("facebook100", DATA / "facebook100" / "Cornell5.mat")
    assert (graph.num_nodes, graph.num_edges) == (18660, 2 * 790777)
    assert edge_homophily(graph) == pytest.approx(0.546, abs=6e-4)


def test_cora_has_the_public_split():
    graph = formats.read("planetoid", DATA / "planetoid_cora")
    masks = graph.train_mask, graph.val_mask, graph.test_mask
    assert [int(mask.sum()) for mask in masks] == [140, 500, 1000]
    assert not (masks[0] & masks[1]).any() and not ((masks[0] | masks[1]) & masks[2]).any()
    assert np.bincount(graph.labels[graph.train_mask]).tolist() == [20] * 7
    assert graph.notes["repeated_edges"] == 302


def test_citeseer_gives_missing_test_ids_no_features_and_no_label():
    graph = formats.read("planetoid", DATA / "planetoid_citeseer")
    missing = np.flatnonzero(graph.labels < 0)
    assert len(missing) == 15 and missing.min() >= 2312 and missing.max() <= 3326
    assert not graph.features[missing].any() and not graph.test_mask[missing].any()
    assert int(graph.test_mask.sum()) == 1000


def test_planetoid_rows_of_the_test_set_are_put_at_their_ids():
    planetoid = formats.read("planetoid", DATA / "planetoid_cora")
    shchur = formats.read("npz_csr", DATA / "npz_cora")
    # Two sources number the nodes differently, but classes and word counts are the same multiset.
    words = [np.sort(g.features.astype(bool).sum(1)) for g in (planetoid, shchur)]
    assert np.array_equal(*words)
    assert sorted(np.bincount(planetoid.labels)) == sorted(np.bincount(shchur.labels))


def test_npz_cora_can_keep_the_citing_direction():
    graph = formats.read("npz_csr", DATA / "npz_cora", directed=True)
    assert graph.num_edges == 5429 and not graph.undirected


@pytest.mark.slow
def test_the_bit_stream_of_cnr_has_the_arcs_of_its_text():
    folder = DATA / "cnr-2000"
    pairs = (("snap", "cnr-2000.txt.xz"), ("webgraph", "cnr-2000.graph"))
    text, stream = (formats.read(kind, folder / file, directed=True) for kind, file in pairs)
    assert np.array_equal(text.indptr, stream.indptr)
    assert np.array_equal(text.indices, stream.indices)


@pytest.mark.slow
def test_cnr_can_keep_its_arcs():
    graph = formats.read("snap", DATA / "cnr-2000" / "cnr-2000.txt.xz", directed=True)
    assert graph.num_edges == 3216152 - 87442
    # The README counts the loop of the largest node, which the reader drops: 18,235 and 2,716.
    assert (graph.in_degrees().max(), graph.out_degrees().max()) == (18234, 2715)


def test_each_official_split_of_tolokers_differs():
    masks = [formats.read("npz_dense", DATA / "tolokers", split=s).train_mask for s in (0, 9)]
    assert not np.array_equal(*masks) and masks[0].sum() == masks[1].sum()


def test_twitch_widths_can_be_made_equal():
    graph = formats.read("musae", DATA / "twitch" / "TW", num_features=3170)
    assert graph.num_features == 3170


def test_facebook_labels_follow_the_option():
    graph = formats.read("facebook100", DATA / "facebook100" / "Reed98.mat", label="status")
    assert graph.num_classes <= 6 and graph.labels.min() >= -1
    assert graph.num_features != 740


# path, options, format, nodes, events, distinct times, largest tie, self loops, pairs, steps back
STREAMS = [
    ("CollegeMsg", {}, "temporal_text", 1899, 59835, 58911, 38, 0, 20296, 0),
    ("sx-mathoverflow", {}, "temporal_text", 24818, 506550, 505784, 3, 116109, 239978, 629),
    ("sociopatterns_SFHH", {}, "temporal_text", 403, 1417485, 3149, 3247, 0, 73557, 0),
    ("sociopatterns_LH10", {}, "temporal_text", 73, 150126, 12605, 101, 0, 1381, 0),
    (
        "tgc_patent/patent.txt.gz",
        {"time_scale": 10**9},
        "temporal_text",
        12214,
        41916,
        891,
        1354,
        0,
        41916,
        0,
    ),
]


@pytest.mark.parametrize("row", STREAMS, ids=[row[0] for row in STREAMS])
def test_streams_match_the_readme(row):
    path, options, kind, nodes, events, times, tie, loops, pairs, backward = row
    assert formats.detect(DATA / path, "stream") == kind
    stream = formats.read("auto", DATA / path, "stream", **options)
    found = profile_stream(stream)
    assert (found.num_nodes, found.num_edges, found.num_times) == (nodes, events, times)
    assert (found.largest_tie, found.self_loops, found.num_pairs) == (tie, loops, pairs)
    assert stream.notes.get("sorted", "0 ").split()[0] == str(backward)
    assert found.num_train / events == pytest.approx(0.7, abs=0.04)
    assert stream.cannot_train("temporal_link_prediction") is None


def test_facts_with_times_match_the_readme():
    stream = formats.read("auto", DATA / "tkg_yago")
    facts = stream.facts()
    assert (facts["num_nodes"], facts["num_classes"]) == (10585, 10)
    assert [facts[f"num_{part}"] for part in SPLITS] == [161540, 19523, 20026]
    assert (facts["first_time"], facts["last_time"]) == (0, 188)


# name, entities, relations, train, val, test, facts of val and test with an unseen entity
TRIPLES = [
    ("fb15k-237", 14541, 237, 272115, 17535, 20466, 37),
    ("wn18rr", 40943, 11, 86835, 3034, 3134, 420),
    ("kinship", 104, 25, 8544, 1068, 1074, 0),
]


@pytest.mark.parametrize("row", TRIPLES, ids=[row[0] for row in TRIPLES])
def test_triples_match_the_readme(row):
    name, entities, relations, *splits, unseen = row
    triples = formats.read("auto", DATA / name)
    found = profile_triples(triples)
    assert (found.num_entities, found.num_relations) == (entities, relations)
    assert [found.num_train, found.num_val, found.num_test] == splits
    assert found.num_unseen == unseen
    assert len(unpacked_names(triples.entity_names)) == entities
    assert triples.cannot_train("link_prediction") is None
