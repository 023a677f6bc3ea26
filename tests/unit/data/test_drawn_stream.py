"""Streams drawn from profiles keep the profile's statistics, and assume what it lacks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gnnbench.data.drawn_stream import MOST_EVENTS, drawn_stream, too_large
from gnnbench.data.profile import load_profile, overridden
from gnnbench.data.stream_profile import profile_stream
from gnnbench.data.synthetic_stream import synthetic_stream
from gnnbench.errors import SpecError


def test_it_has_the_statistics_of_the_profile() -> None:
    """Sizes, sides, split, span and ties exactly; activity and distinct pairs closely."""
    real = synthetic_stream(400, 9000, bipartite=True, num_edge_features=5, seed=3)
    profile = profile_stream(real)
    drawn = drawn_stream(profile)
    assert not drawn.problems()
    again = profile_stream(drawn)
    for name in ("num_nodes", "num_sources", "num_edges", "num_edge_features", "num_train"):
        assert getattr(again, name) == getattr(profile, name), name
    assert (again.first_time, again.last_time) == (profile.first_time, profile.last_time)
    assert again.num_times == profile.num_times
    assert abs(again.num_pairs / profile.num_pairs - 1) < 0.35
    # The busiest nodes are as busy.
    activity = [
        np.sort(np.bincount(np.concatenate([s.sources, s.destinations]), minlength=400))[::-1]
        for s in (real, drawn)
    ]
    assert abs(activity[1][:40].sum() / activity[0][:40].sum() - 1) < 0.2


def test_what_a_profile_lacks_is_assumed() -> None:
    """No times, no histogram, no pairs: a minute between events, Zipf's activity, no repeats."""
    profile = dataclasses.replace(
        profile_stream(synthetic_stream(50, 600, seed=1)),
        first_time=0,
        last_time=0,
        num_times=0,
        num_pairs=0,
        activity_values=(),
        activity_counts=(),
    )
    drawn = drawn_stream(profile)
    assert drawn.times.tolist() == [60 * event for event in range(600)]
    degrees = np.sort(np.bincount(drawn.sources, minlength=50))[::-1]
    assert degrees[0] > 3 * degrees[9] > 0


def test_a_profile_that_is_too_large_is_refused() -> None:
    profile = profile_stream(synthetic_stream(50, 600, seed=1))
    assert too_large(profile) is None
    many = dataclasses.replace(profile, num_edges=MOST_EVENTS + 1, num_train=MOST_EVENTS - 179)
    assert "20,000,000" in str(too_large(many))


def test_a_part_of_a_stream_keeps_its_split_and_its_nodes() -> None:
    whole = load_profile("gdelt")
    part = overridden(whole, {"num_edges": 1_000_000})
    assert (part.num_train, part.num_val, part.num_test) == (700_000, 150_000, 150_000)
    assert part.num_nodes == whole.num_nodes
    assert too_large(part) is None
    with pytest.raises(SpecError, match="allowed 1 to 191290882"):
        overridden(whole, {"num_edges": 10**9})
