"""Hit rates without the draws: measured curves, and chances of independent draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gnnbench.data.expected_hits import Chances, expected_hits, hits_of
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph
from gnnbench.data.hit_curves import POLICIES, SHARES, HitCurve, hit_curves
from gnnbench.data.profile import GraphProfile, profile, read_profile, save_profile
from gnnbench.errors import SpecError

ALIKE = Chances(
    weight=np.array([4000.0]),
    seed=np.array([0.0]),
    inclusion=np.array([0.1]),
    degree=np.array([5.0]),
)


@pytest.fixture(scope="module")
def planted() -> Graph:
    return planted_partition(2000, 10, 4, 5, seed=1)


@pytest.fixture(scope="module")
def measured(planted: Graph) -> GraphProfile:
    return profile(planted, parts=(), fanouts=((4, 3),), batch=60, hits=True)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_where_all_rows_are_alike_the_hit_rate_is_the_share(policy: str, share: float) -> None:
    """Whatever the cache holds; knowing the future is worth something all the same.

    Of 8,000 uses the share of hits has a standard error of at most 0.006.
    """
    found = expected_hits(ALIKE, policy, share, 20, lookahead=5).hits
    if policy == "planned":
        assert found >= share - 0.02
    else:
        assert found == pytest.approx(share, abs=0.02)


def test_rows_of_two_kinds_are_cached_by_their_chances() -> None:
    """100 rows in every second batch, 900 in every hundredth: a tenth catches 50 of 59 uses."""
    two = Chances(
        weight=np.array([100.0, 900.0]),
        seed=np.zeros(2),
        inclusion=np.array([0.5, 0.01]),
        degree=np.array([9.0, 1.0]),
    )
    for policy in ("degree", "inclusion", "presampling"):
        assert expected_hits(two, policy, 0.1, 100).hits == pytest.approx(50 / 59, abs=0.02)
    assert expected_hits(two, "lru", 0.1, 100).hits < 50 / 59
    assert expected_hits(two, "planned", 0.1, 100, lookahead=100).hits > 50 / 59 - 0.02


def test_seeds_come_back_after_an_epoch_only() -> None:
    """Rows that are nothing but seeds are dealt once in each epoch of 20 batches.

    LRU of 800 rows spans 8 batches of distinct rows, and up to 9 where two epochs share some of
    them. It hits a row of batch i and of batch j of the next epoch if 20 + j - i is within them: 36
    to 45 of 400 pairs. A static cache hits its share.
    """
    seeds = Chances(
        weight=np.array([2000.0]),
        seed=np.array([0.05]),
        inclusion=np.array([0.05]),
        degree=np.array([1.0]),
    )
    assert 36 / 400 - 0.01 < expected_hits(seeds, "lru", 0.4, 20).hits < 45 / 400 + 0.01
    assert expected_hits(seeds, "degree", 0.4, 20).hits == pytest.approx(0.4, abs=0.01)


def test_curves_rise_and_end_at_one(measured: GraphProfile) -> None:
    assert {curve.policy for curve in measured.hits} == set(POLICIES)
    for curve in measured.hits:
        assert curve.shares == SHARES
        assert list(curve.hits) == sorted(curve.hits)
        assert curve.at(1.0).hits == 1.0
        assert curve.at(0.0).hits == 0.0
        assert curve.at(0.2).hits == curve.hits[SHARES.index(0.2)]


def test_a_profile_prefers_its_curve(measured: GraphProfile) -> None:
    asked = {"lookahead": 32, "presample": 1, "steps": 20}
    bare = replace(measured, hits=())
    # LRU comes out high: a vertex is seldom found in batches that follow each other, because its
    # neighbours are seeds once an epoch.
    for policy, off in (("inclusion", 0.03), ("degree", 0.03), ("lru", 0.05)):
        curve = next(curve for curve in measured.hits if curve.policy == policy)
        found = hits_of(measured, (4, 3), 60, policy, 0.25, **asked)
        assert found == curve.at(0.25)
        estimated = hits_of(bare, (4, 3), 60, policy, 0.25, **asked)
        assert estimated != found
        assert estimated.hits == pytest.approx(found.hits, abs=off)
    # Another lookahead than the curve's is estimated.
    other = hits_of(measured, (4, 3), 60, "planned", 0.25, **{**asked, "lookahead": 2})
    assert other != next(c for c in measured.hits if c.policy == "planned").at(0.25)


def test_curves_are_kept_in_the_file(measured: GraphProfile, tmp_path: Path) -> None:
    read = read_profile(save_profile(measured, tmp_path / "p.toml"))
    assert read.hits == measured.hits
    assert profile(planted_partition(200, 4, 2, 3, seed=1), parts=()).hits == ()


def test_shares_that_do_not_rise_are_refused() -> None:
    with pytest.raises(SpecError, match="rise"):
        HitCurve(
            fanouts_from_seeds=(3,),
            batch=4,
            policy="lru",
            shares=(0.2, 0.1),
            hits=(0.1, 0.2),
            inserted=(0.0, 0.0),
        )


def test_a_curve_is_that_of_the_sampler(planted: Graph) -> None:
    """The hit rate of a static cache is the share of uses of its rows."""
    curves = {c.policy: c for c in hit_curves(planted, (4, 3), 60)}
    best = curves["inclusion"].hits
    assert all(p >= d - 0.02 for p, d in zip(best, curves["degree"].hits, strict=True))
    planned, lru = curves["planned"].hits, curves["lru"].hits
    assert all(p >= r for p, r in zip(planned, lru, strict=True))
