"""Sizes of batches from a profile: degrees, corrected by counted batches of other sizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gnnbench.data import formats
from gnnbench.data.generators import generate
from gnnbench.data.graph import Graph
from gnnbench.data.overlap import corrected
from gnnbench.data.profile import GraphProfile, profile
from gnnbench.data.sampling import NeighbourSampler
from gnnbench.data.splits import random_split

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
OTHERS = [((5, 5), 40), ((15, 10), 256), ((10, 5), 900), ((8, 6, 4), 128)]
"""Fan-outs and batches that no profile counts."""


def truth(graph: Graph, fanouts: tuple[int, ...], batch: int) -> np.ndarray:
    rng, train = np.random.default_rng(5), graph.train_nodes()
    sampler = NeighbourSampler(graph.indptr, graph.indices, fanouts, seed=9)
    drawn = [sampler.sizes(rng.choice(train, batch, replace=False), 1, step) for step in range(6)]
    return np.mean([[*vertices, *edges] for vertices, edges in drawn], axis=0)


def errors(graph: Graph, known: GraphProfile) -> list[float]:
    """Largest error of any size, batch by batch."""
    found = []
    for fanouts, batch in OTHERS:
        size = min(batch, graph.num_train)
        vertices, edges = known.expected_frontier(fanouts, size)
        found.append(max(abs(np.array([*vertices, *edges]) / truth(graph, fanouts, size) - 1)))
    return found


def test_counted_batches_mend_what_degrees_do_not_know() -> None:
    """A grid: neighbours of neighbours are neighbours, so that degrees expect far too many."""
    options = {"num_nodes": 20_000, "mean_degree": 8.0, "num_features": 2, "num_classes": 2}
    graph = generate("grid", **options, seed=3)
    known = profile(graph, parts=())
    blind = dataclasses.replace(known, frontier=())
    *two_hops, three = errors(graph, known)
    assert max(two_hops) < 0.05 and three < 0.3
    assert min(errors(graph, blind)) > 0.25


@pytest.mark.skipif(not DATA.is_dir(), reason="no reference data beside this checkout")
@pytest.mark.parametrize(
    "name",
    [
        "tolokers",
        "planetoid_cora",
        "planetoid_citeseer",
        "deezer_hu",
        "facebook_page_page",
        "astro-ph/astro-ph.graph",
        "squirrel_filtered",
        "ego-twitter",
    ],
)
def test_sizes_of_real_graphs_are_within_a_tenth(name: str) -> None:
    graph = random_split(formats.read("auto", DATA / name), train=0.5, seed=1, replace=True)
    assert max(errors(graph, profile(graph, parts=()))) < 0.1


def test_ratios_are_interpolated_in_the_logarithm_and_stay_beyond() -> None:
    """Counted: half of 100 expected vertices, all of 10,000; half way up, the root of a half."""
    some, every = ((100.0, 10.0), (90.0,)), ((10_000.0, 1000.0), (9_000.0,))
    pairs = [((5,), some, ((50.0, 10.0), (90.0,))), ((5,), every, every)]
    at = {
        size: corrected(((size, 100.0), (900.0,)), (5,), pairs, 10**6)[0][0]
        for size in (110.0, 1000.0, 990.0)
    }
    assert at[1000.0] == pytest.approx(1000 * 0.5**0.5)
    alone = (1000.0, 100.0), (900.0,)
    assert corrected(alone, (5,), [], 10**6) == alone
    assert at[110.0] == 100.0, "a batch has at least the vertices of the hop before"
