"""Batches within the part of a graph that a counted batch reached."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gnnbench.data.expected_hits import hits_of
from gnnbench.data.profile import FrontierPoint, GraphProfile, load_profile

FANOUTS = (5, 5)


def counted(inputs: float | None) -> GraphProfile:
    """100,000 vertices of degree about 20; a batch of 200 seeds had so many input vertices."""
    frontier = ()
    if inputs is not None:
        frontier = (FrontierPoint(fanouts_from_seeds=FANOUTS, batch=200, vertices=(inputs,)),)
    return GraphProfile(
        name="made",
        source="this test",
        status="published",
        num_nodes=100_000,
        num_edges=2_000_000,
        num_features=8,
        num_classes=2,
        num_train=2_000,
        degree_spread=1.0,
        frontier=frontier,
    )


@pytest.mark.parametrize("inputs", [None, 2_500.0])
def test_chances_add_up_to_the_input_vertices_of_a_batch(inputs: float | None) -> None:
    found = counted(inputs)
    chances, (vertices, _) = (
        found.expected_inclusion(FANOUTS, 200),
        found.expected_frontier(FANOUTS, 200),
    )
    assert float((chances.rows * chances.chance).sum()) == pytest.approx(vertices[0])
    assert float(chances.rows.sum()) == pytest.approx(found.num_nodes)
    assert float((chances.rows * chances.seed).sum()) == pytest.approx(200)
    if inputs is not None:
        assert vertices[0] == pytest.approx(inputs, rel=0.01)


def test_vertices_out_of_reach_are_never_read() -> None:
    found = counted(2_500.0)
    share = found.reached_share(FANOUTS, 200)
    chances = found.expected_inclusion(FANOUTS, 200)
    out = chances.chance == 0
    assert 0 < share < 1
    assert float(chances.rows[out].sum()) == pytest.approx((1 - share) * found.num_nodes)
    assert not chances.seed[out].any()
    assert counted(None).reached_share(FANOUTS, 200) == 1.0


def test_a_small_reach_makes_a_cache_by_use_hit_more() -> None:
    free, near = (
        hits_of(counted(inputs), FANOUTS, 200, "presampling", 0.1, steps=10).hits
        for inputs in (None, 2_500.0)
    )
    assert near > free + 0.1


def test_a_published_cache_of_papers100m_hits_nearly_always() -> None:
    """A tenth of the vertices by pre-sampling: 98.3 % (GNNLab, exp/fig4a); by degrees far less."""
    papers = load_profile("ogbn-papers100m")
    fanouts, batch = papers.frontier[0].fanouts_from_seeds, papers.frontier[0].batch
    reached = hits_of(papers, fanouts, batch, "presampling", 0.1, steps=151).hits
    plain = dataclasses.replace(papers, frontier=())
    free = hits_of(plain, fanouts, batch, "presampling", 0.1, steps=151).hits
    assert free < reached
    assert reached == pytest.approx(0.983, abs=0.1)


def test_classes_are_training_vertices_others_and_those_out_of_reach() -> None:
    found = counted(2_500.0)
    chances = found.expected_inclusion(FANOUTS, 200)
    assert len(chances.rows) % 3 == 0
    training = np.flatnonzero(chances.seed)
    assert float(chances.rows[training].sum()) == pytest.approx(found.num_train)
