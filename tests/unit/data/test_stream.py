"""The edge stream: order, split by time, invariants, miniature, native form, generator, profile."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.data import generators
from gnnbench.data.formats import native
from gnnbench.data.profile import load_profile, overridden, save_profile
from gnnbench.data.stream import EdgeStream, from_events, time_ends, time_split
from gnnbench.data.stream_profile import profile_stream
from gnnbench.errors import DataError, SpecError


def stream(times: list[int], **fields) -> EdgeStream:
    ids = np.arange(len(times))
    return from_events("s", ids % 3, ids % 2, np.array(times, np.int64), num_nodes=3, **fields)


@st.composite
def streams(draw: st.DrawFn) -> EdgeStream:
    count = draw(st.integers(0, 12))
    nodes = draw(st.integers(1, 6))
    times = draw(st.lists(st.integers(-5, 5), min_size=count, max_size=count))
    ends = [draw(st.lists(st.integers(0, nodes - 1), min_size=count, max_size=count)) for _ in "st"]
    features = np.arange(2.0 * count, dtype=np.float32).reshape(count, 2)
    return from_events(
        draw(st.text(max_size=5)),
        np.array(ends[0], np.int64),
        np.array(ends[1], np.int64),
        np.array(times, np.int64),
        num_nodes=nodes,
        edge_features=draw(st.sampled_from([None, features])),
        labels=draw(st.sampled_from([None, np.arange(count)])),
        num_classes=count,
        notes={"drawn": True},
    )


@given(streams())
def test_a_stream_survives_its_native_form(tmp_path_factory, data: EdgeStream) -> None:
    folder = tmp_path_factory.mktemp("s") / "native"
    back = native.load(native.save(data, folder), verify=True)
    assert data.problems() == []
    assert back.kind == native.kind(folder) == "stream"
    for name in (*EdgeStream.ARRAYS, *EdgeStream.PLAIN, "name", "notes"):
        np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
    assert back.digest == native.digest(folder)
    other = dataclasses.replace(data, num_nodes=data.num_nodes + 1)
    assert native.load(native.save(other, folder)).digest != back.digest


@given(streams(), st.floats(0, 1), st.floats(0, 1))
def test_events_of_one_time_are_on_one_side_of_a_border(
    data: EdgeStream, a: float, b: float
) -> None:
    train, both = min(a, b), max(a, b)
    ends = time_ends(data.times, train, both - train)
    for end in ends:
        assert end in (0, data.num_edges) or data.times[end - 1] < data.times[end]
    assert 0 <= ends[0] <= ends[1] <= data.num_edges


def test_borders_are_the_quantiles_of_the_times() -> None:
    times = np.array([0, 1, 1, 2, 3, 3, 3, 4, 5, 9], np.int64)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        below = int((times <= np.quantile(times, share)).sum())
        assert time_ends(times, share, 0.0)[0] == below
    assert time_ends(times, 0.5, 0.2, tear=True) == (5, 7)


def test_unsorted_events_are_sorted_stably_and_that_is_noted() -> None:
    data = stream([5, 1, 5, 1], edge_features=np.arange(4, dtype=np.float32)[:, None])
    assert data.times.tolist() == [1, 1, 5, 5]
    assert data.edge_features[:, 0].tolist() == [1, 3, 0, 2]
    assert data.notes["sorted"].startswith("2 steps back")
    with pytest.raises(DataError, match="out of order"):
        stream([5, 1], own_ends=(1, 1))


def test_a_split_of_the_data_is_replaced_only_on_demand() -> None:
    own = stream([1, 2, 3, 4], own_ends=(1, 2))
    assert (own.facts()["num_train"], own.facts()["num_val"], own.facts()["num_test"]) == (1, 1, 2)
    with pytest.raises(SpecError, match="of its own"):
        time_split(own, 0.5, 0.25)
    assert time_split(own, 0.5, 0.25, replace=True).train_end == 2
    assert "no events to validate" in (stream([7] * 9).cannot_train("") or "")


def test_every_broken_invariant_is_a_line() -> None:
    good = stream([1, 2, 3], edge_features=np.zeros((3, 1), np.float32))
    broken = dataclasses.replace(
        good,
        times=np.array([3, 1, 2], np.int64),
        sources=np.array([0, 9, -1], np.int32),
        edge_features=np.array([[0], [np.nan], [0]], np.float32),
        labels=np.array([0, 1, 5]),
        num_classes=2,
        train_end=7,
    )
    assert broken.problems() == [
        "sources: found 9 at 1, allowed 0..2",
        "times: fall 1 times, first at event 0: 3 before 1",
        "split: ends at 7 and 3, allowed rising ends in 0..3",
        "edge_features: nan in row 1, column 0; allowed are finite numbers",
        "labels: found 5 at 2, allowed -1..1",
    ]
    with pytest.raises(DataError, match="unlike lengths"):
        dataclasses.replace(good, times=np.zeros(2, np.int64))


@pytest.mark.parametrize("bipartite", [False, True])
def test_the_generator_draws_repeats_hubs_and_ties_and_is_repeatable(bipartite: bool) -> None:
    options = {"num_nodes": 200, "num_edges": 4000, "bipartite": bipartite, "seed": 3}
    data = generators.generate("synthetic_stream", **options, num_edge_features=5, num_features=4)
    found = profile_stream(data)
    assert data.problems() == []
    assert (found.num_sources, found.num_edges) == (100 if bipartite else 0, 4000)
    assert found.num_pairs < 0.6 * found.num_edges  # half of the events repeat a pair
    assert 0.6 < found.num_times / found.num_edges < 0.8  # three in ten share a time
    busiest = np.sort(np.bincount(data.sources))[-10:].sum()
    assert busiest > 0.3 * data.num_edges
    again = generators.generate("synthetic_stream", **options, num_edge_features=5, num_features=4)
    for name, array in data.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])


@pytest.mark.parametrize("bipartite", [False, True])
def test_a_miniature_has_the_widths_and_kinds_of_the_stream(bipartite: bool) -> None:
    data = generators.generate(
        "synthetic_stream",
        num_nodes=90,
        num_edges=5000,
        bipartite=bipartite,
        num_edge_features=3,
        num_features=2,
    )
    small = data.miniature(20)
    assert small.problems() == []
    assert small.cannot_train("") is None
    assert (small.num_nodes, small.num_edges) == (20, 320)
    for name, array in small.arrays().items():
        assert array.dtype == data.arrays()[name].dtype
        assert array.shape[1:] == data.arrays()[name].shape[1:]
        assert not array.flags.writeable
    assert small.bipartite == bipartite
    assert data.miniature(10_000).problems() == []


def test_a_profile_counts_what_is_there_and_survives_its_file(tmp_path: Path) -> None:
    ends = np.array([[0, 1], [0, 1], [1, 0], [2, 2], [0, 1], [3, 0]])
    times = np.array([1, 1, 4, 6, 6, 6], np.int64)
    data = from_events("s", ends[:, 0], ends[:, 1], times, num_nodes=4, own_ends=(3, 4))
    found = profile_stream(data)
    assert (found.num_pairs, found.num_times, found.largest_tie, found.self_loops) == (4, 3, 3, 1)
    assert found.new_pair_share == 0.5  # of (0, 1) and (3, 0)
    assert found.new_node_share == 0.5
    assert found.activity_values == (1.0, 2.0, 4.0, 5.0)
    kept = load_profile(save_profile(found, tmp_path / "s.toml"))
    assert kept == found
    assert overridden(kept, {"num_edge_features": 9}).num_edge_features == 9
    with pytest.raises(SpecError, match="num_train"):
        overridden(kept, {"num_train": 9})
