"""Profiles from counts and degree figures, and scaled graphs that behave like them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gnnbench.data.fitting import ASSUMED_SPREAD, fit_degrees, fit_profile
from gnnbench.data.partition import partition, report
from gnnbench.data.profile import GraphProfile, HaloPoint, load_profile
from gnnbench.data.scaled import compare, synthesise, worst
from gnnbench.errors import SpecError


def test_the_figures_of_log_normal_degrees_give_back_their_spread() -> None:
    rng = np.random.default_rng(0)
    degrees = np.exp(1.2 * rng.standard_normal(400_000))
    figures = {
        "median": float(np.median(degrees)),
        "p90": float(np.quantile(degrees, 0.9)),
        "p99": float(np.quantile(degrees, 0.99)),
    }
    spread, found = fit_degrees(400_000, float(degrees.mean()), figures)
    assert spread == pytest.approx(1.2, abs=0.01)
    assert all(abs(figure.error) < 0.02 for figure in found)


def test_one_figure_is_met_exactly_and_none_is_an_assumption() -> None:
    spread, (figure,) = fit_degrees(1000, 20.0, {"median": 10.0})
    assert spread == pytest.approx((2 * np.log(2)) ** 0.5, abs=0.002)  # mean / median = e^(s^2/2)
    assert figure.fitted == pytest.approx(10.0, rel=0.01)
    assert fit_degrees(1000, 20.0, {}) == (ASSUMED_SPREAD, [])


@pytest.mark.parametrize(
    ("figures", "problem"),
    [
        ({"median": 50.0, "p90": 20.0}, "--degree-median 50 is above --degree-p90 20"),
        ({"max": 3.0}, "--degree-max 3: below the mean degree 10"),
        ({"p99": -1.0}, "a degree is above 0"),
    ],
)
def test_figures_that_contradict_each_other_are_refused(
    figures: dict[str, float], problem: str
) -> None:
    with pytest.raises(SpecError, match=problem):
        fit_profile("g", num_nodes=100, num_edges=1000, figures=figures)


def test_a_profile_says_what_was_given_and_what_was_taken_over() -> None:
    like = load_profile("ogbn-products")
    profile, _ = fit_profile(
        "mine", num_nodes=1000, num_edges=30_000, figures={"p99": 200.0}, like=like
    )
    assert profile.halo == like.halo
    assert "p99 degree 200" in profile.source
    assert "halo curves taken over from ogbn-products" in profile.source
    assert profile.degree_p99 == 200.0
    with pytest.raises(SpecError, match=r"allowed up to N \(N - 1\) stored edges"):
        fit_profile("mine", num_nodes=3, num_edges=7)


@pytest.fixture(scope="module")
def profile() -> GraphProfile:
    """A graph of a million vertices that METIS cuts well."""
    return GraphProfile(
        name="web",
        source="made up for this test",
        status="published",
        num_nodes=1_000_000,
        num_edges=12_000_000,
        num_features=4,
        num_classes=3,
        num_train=200_000,
        degree_spread=1.0,
        halo=(
            HaloPoint(parts=2, method="metis-cut", halo_per_node=0.10),
            HaloPoint(parts=4, method="metis-cut", halo_per_node=0.22),
            HaloPoint(parts=8, method="metis-cut", halo_per_node=0.36),
        ),
    )


def test_a_scaled_graph_has_the_degrees_and_the_halo_of_the_profile(profile: GraphProfile) -> None:
    graph, q = synthesise(profile, 3000, seed=1)
    assert graph.num_edges / graph.num_nodes == pytest.approx(profile.degree_mean, rel=0.02)
    assignment = partition(graph, 4, "metis", objective="cut", seed=1)
    assert report(graph, assignment, 4).halo_per_node == pytest.approx(0.22, rel=0.1)
    assert q > 1  # local: most edges stay in small communities
    assert (graph.num_features, graph.num_classes) == (4, 3)
    assert graph.num_train == pytest.approx(0.2 * 3000, abs=2)
    found = {match.name: match for match in compare(profile, graph, seed=1)}
    assert abs(found["mean degree"].error) < 0.02
    assert abs(found["degree, quantile 0.5"].error) < 0.25
    assert abs(found["hits of a cache of 10 % by degree"].error) < 0.25
    assert abs(found["sampled edges per vertex of the batch"].error) < 0.5
    assert found["halo per vertex, 4 parts, metis-cut"].tuned
    assert not worst(list(found.values())).tuned


def test_a_graph_with_a_larger_halo_gets_a_less_local_stand_in(profile: GraphProfile) -> None:
    spread_out = dataclasses.replace(
        profile,
        halo=tuple(dataclasses.replace(p, halo_per_node=4 * p.halo_per_node) for p in profile.halo),
    )
    local, far = (synthesise(p, 1500, seed=1)[1] for p in (profile, spread_out))
    assert far < local


def test_without_a_halo_curve_none_is_claimed(profile: GraphProfile) -> None:
    bare = dataclasses.replace(profile, halo=())
    graph, q = synthesise(bare, 1000, seed=1)
    assert q == 1.0
    assert not [match for match in compare(bare, graph) if "halo" in match.name]


def test_too_small_a_stand_in_is_refused_with_what_is_allowed(profile: GraphProfile) -> None:
    with pytest.raises(SpecError, match="allowed 64 to 1,000,000"):
        synthesise(profile, 10)
