"""Temporal CSR, counts without samples, owners, fixed negatives, EdgeBank.

Source: temporal reference sections 4, 6, 9, 12 and invariants S1, D1, E2.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.data import keys
from gnnbench.data.edgebank import EdgeBank
from gnnbench.data.fixed_negatives import FixedNegatives
from gnnbench.data.stream import EdgeStream
from gnnbench.data.synthetic_stream import synthetic_stream
from gnnbench.data.temporal_counting import Asked, count_samples
from gnnbench.data.temporal_csr import TemporalCsr
from gnnbench.data.temporal_partition import PARTITIONERS, SLACK, stream_owners
from gnnbench.data.temporal_sampling import TemporalSampler
from gnnbench.data.temporal_store import TemporalStore


def tables(stream: EdgeStream) -> tuple[TemporalStore, TemporalCsr]:
    ends = stream.sources, stream.destinations, stream.times
    store = TemporalStore(stream.num_nodes)
    store.insert(*ends, 0)
    return store, TemporalCsr(stream.num_nodes, *ends)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 5),
    st.sampled_from(["recent", "uniform"]),
    st.sampled_from([0, 40]),
    st.integers(0, 400),
    st.integers(0, 300),
)
def test_the_csr_samples_what_the_store_samples(
    seed: int, strategy: str, window: int, known: int, since: int
) -> None:
    """S1: the second oracle, with ties, self loops, windows, hidden and expired edges."""
    stream = synthetic_stream(15, 400, seed=seed, mean_gap=1.0, burst=0.5)
    nodes, times = np.asarray(stream.sources[300:], np.int64), stream.times[300:]
    found = [
        TemporalSampler(table, (4, 3), strategy, 9, window=window).sample(
            nodes, times, 1, since=since, before_event=known
        )
        for table in tables(stream)
    ]
    for name in ("nodes", "times"):
        np.testing.assert_array_equal(*(getattr(sample, name) for sample in found))
    for hops in zip(*(sample.hops for sample in found), strict=True):
        np.testing.assert_array_equal(*(hop.events for hop in hops))


def test_the_csr_has_the_bytes_of_its_formula() -> None:
    _, csr = tables(synthetic_stream(15, 400))
    assert csr.num_bytes == sum(array.nbytes for array in csr.rows) == 20 * 800 + 8 * 16


@pytest.mark.parametrize("strategy", ["recent", "uniform"])
@pytest.mark.parametrize("fanouts", [(5,), (4, 3)])
def test_counts_are_those_of_samples(strategy: str, fanouts: tuple[int, ...]) -> None:
    """Sizes of plans equal those of the samples that ranks draw, batch by batch."""
    stream = synthetic_stream(25, 600, seed=3, mean_gap=1.0)
    _, csr = tables(stream)
    rng = np.random.default_rng(0)
    events = np.arange(200, 560, dtype=np.int64)
    batches = np.array([0, 50, 50, 170, 360])
    each = rng.integers(0, 4, len(events))
    indptr = np.concatenate([[0], np.cumsum(each)])
    candidates = rng.integers(0, 25, indptr[-1])
    owner = rng.integers(0, 3, 25).astype(np.int32)
    hop_keys = [keys.fold(7, 1, hop) for hop in range(len(fanouts))]
    found = count_samples(
        csr,
        (stream.sources, stream.destinations, stream.times),
        Asked(
            events=events,
            batches=batches,
            indptr=indptr,
            candidates=candidates,
            keys=np.array(hop_keys, np.uint64),
            since=20,
            known=500,
        ),
        fanouts,
        uniform=strategy == "uniform",
        window=90,
        owner=owner,
        ranks=3,
    )
    sampler = TemporalSampler(csr, fanouts, strategy, 7, window=90)
    for batch, row in enumerate(found.tolist()):
        part = slice(*batches[batch : batch + 2])
        own = events[part]
        when = stream.times[own]
        nodes = np.concatenate(
            [
                stream.sources[own],
                stream.destinations[own],
                candidates[indptr[part.start] : indptr[part.stop]],
            ]
        ).astype(np.int64)
        times = np.concatenate([when, when, np.repeat(when, each[part])])
        sample = sampler.sample(nodes, times, 1, since=20, before_event=500)
        counts = [*sample.sizes, len(np.unique(sample.nodes))]
        for hop in range(len(fanouts)):
            asked = sample.nodes[: sample.sizes[hop]]
            counts += np.bincount(owner[asked], minlength=3).tolist()
        assert row == counts


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_every_vertex_has_one_owner(partitioner: str) -> None:
    """D1: total, within the cap of LDG; a later chunk moves nobody; all edges at their owners."""
    stream = synthetic_stream(200, 2000, seed=5)
    cuts = [0, 600, 1300, 2000]
    owner = stream_owners(stream, 4, partitioner, cuts)
    assert owner.dtype == np.int32 and set(owner.tolist()) == {0, 1, 2, 3}
    if partitioner == "ldg":
        assert np.bincount(owner).max() <= -(-SLACK * 200 // 4)
    if partitioner == "degree":
        degree = np.bincount(stream.sources, minlength=200)
        degree += np.bincount(stream.destinations, minlength=200)
        loads = np.bincount(owner, degree)
        # Hubs grow after they were placed; without new ones, loads differ by one hub at most.
        assert loads.max() - loads.min() <= degree.max()
    early = np.unique(np.concatenate([stream.sources[:600], stream.destinations[:600]]))
    before = stream_owners(stream, 4, partitioner, cuts[:2])
    np.testing.assert_array_equal(owner[early], before[early])
    stored = []
    for rank in range(4):
        store = TemporalStore(200, owned=owner == rank)
        store.insert(stream.sources, stream.destinations, stream.times, 0)
        assert not store.degrees()[owner != rank].any()
        stored.append(store.num_edges)
    assert sum(stored) == 2 * 2000


def test_owners_do_not_depend_on_the_process() -> None:
    """D1: the same table under another PYTHONHASHSEED."""
    code = (
        "from gnnbench.data.synthetic_stream import synthetic_stream as s\n"
        "from gnnbench.data.temporal_partition import stream_owners as o\n"
        "print([int(o(s(50, 300), 3, p, [0, 100, 300]).dot(range(50))) for p in ('hash', 'ldg')])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def lists(found: tuple[Any, Any]) -> list[list[int]]:
    indptr, ids = found
    return [ids[a:b].tolist() for a, b in pairwise(indptr.tolist())]


@pytest.mark.parametrize("count", [6, 1000])
def test_fixed_negatives_follow_the_benchmarks_rule(count: int) -> None:
    """E2: half of them met in training, the others not; none true; all where too few remain."""
    stream = synthetic_stream(40, 800, bipartite=True, burst=0.7, mean_gap=1.0, seed=2)
    fixed = FixedNegatives(stream, count)
    events = np.arange(400, 800, dtype=np.int64)
    found = lists(fixed.of(events))
    sources, destinations = stream.sources.tolist(), stream.destinations.tolist()
    times = stream.times.tolist()
    triples = set(zip(sources, destinations, times, strict=True))
    met = set(zip(sources[: stream.train_end], destinations[: stream.train_end], strict=True))
    low, high = stream.destination_range()
    for event, row in zip(events.tolist(), found, strict=True):
        u, t = sources[event], times[event]
        assert len(set(row)) == len(row)
        assert all((u, v, t) not in triples and low <= v < high for v in row)
        old = [v for v in row if (u, v) in met]
        may = [v for v in range(low, high) if (u, v) in met and (u, v, t) not in triples]
        rest = [v for v in range(low, high) if (u, v) not in met and (u, v, t) not in triples]
        assert len(old) == min(count // 2, len(may))
        assert len(row) - len(old) == min(count - len(old), len(rest))
    assert lists(fixed.of(events[7:9])) == found[7:9], "whoever asks"
    same: dict[tuple[int, int, int], list[int]] = {}
    for event, row in zip(events.tolist(), found, strict=True):
        assert same.setdefault((sources[event], destinations[event], times[event]), row) == row


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10), st.sampled_from([0, 15, 60]))
def test_edgebank_is_a_dictionary(seed: int, window: int) -> None:
    """Score 1 where a pair was seen, with a window: at or after the newest time less it."""
    stream = synthetic_stream(70, 3000, seed=seed, mean_gap=1.0)
    bank, seen = EdgeBank(70, window), {}
    rng = np.random.default_rng(seed)
    for at in range(0, 3000, 500):
        part = slice(at, at + 500)
        bank.insert(stream.sources[part], stream.destinations[part], stream.times[part])
        for u, v, t in zip(
            stream.sources[part].tolist(),
            stream.destinations[part].tolist(),
            stream.times[part].tolist(),
            strict=True,
        ):
            seen[u, v] = t
        us, vs = rng.integers(0, 70, (2, 200))
        since = max(seen.values()) - window if window else -1
        asked = zip(us.tolist(), vs.tolist(), strict=True)
        wanted = [float(seen.get(pair, -2) >= since) for pair in asked]
        assert bank.scores(us, vs).tolist() == wanted
    pairs, times = bank.content()
    assert {
        (p // 70, p % 70): t for p, t in zip(pairs.tolist(), times.tolist(), strict=True)
    } == seen
    assert bank.count == len(seen) and bank.num_bytes == 16 * len(bank.keys)
