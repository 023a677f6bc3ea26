"""Temporal neighbours: the most recent or uniform ones, strictly earlier than the query.

A query is (vertex, time). Hop l+1 asks for all vertices of hop l again, roots included, and for the
sampled ones at the times of their edges. A pick depends on (seed, counters, hop, vertex, time,
slot) and on nothing else, so samples are the same for any number of ranks, batches or threads.

Source: temporal reference section 5, invariants S2-S4 and D2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.data.temporal_csr import TemporalCsr
from gnnbench.data.temporal_picks import NEVER
from gnnbench.data.temporal_store import TemporalStore

Ids = NDArray[np.int64]
STRATEGIES = ("recent", "uniform")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hop:
    """Sampled edges of R queries, S of them, query by query.

    Shapes: `indptr` int64 [R + 1]; `neighbours`, `times`, `events`, `deltas` int64 [S]; a delta is
    the query's time less the edge's, always positive. The most recent come newest first.
    """

    indptr: Ids
    neighbours: Ids
    times: Ids
    events: Ids
    deltas: Ids

    @property
    def num_queries(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        return len(self.events)

    def slots(self, fanout: int) -> Ids:
        """Place of each edge in a table [R, fanout], row by row."""
        queries = np.repeat(np.arange(self.num_queries, dtype=np.int64), np.diff(self.indptr))
        return queries * fanout + np.arange(self.num_edges, dtype=np.int64) - self.indptr[queries]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Hops of a batch, the one next to the roots first.

    `nodes` and `times` int64 [R_L]: roots, then what each hop found; the queries of hop l are the
    first R_l of them.
    """

    hops: tuple[Hop, ...]
    nodes: Ids
    times: Ids

    @property
    def sizes(self) -> tuple[int, ...]:
        """R_0, R_1 ... R_L; hop l sampled R_l+1 - R_l edges."""
        return (*(hop.num_queries for hop in self.hops), len(self.nodes))


def row_keys(roots: NDArray[np.uint64], sample: Sample) -> NDArray[np.uint64]:
    """A key of each row of a sample, uint64 [R_L]: by its root and the slots on the way to it.

    They key dropout, so that a mask does not depend on who draws it.

    Args:
        roots: keys of the roots, [R_0].
    """
    found = roots
    for hop in sample.hops:
        counts = np.diff(hop.indptr)
        slots = np.arange(hop.num_edges, dtype=np.int64) - np.repeat(hop.indptr[:-1], counts)
        own = np.repeat(found, counts) ^ (slots + 1).astype(np.uint64)
        found = np.concatenate([found, keys.mix64_array(own + np.uint64(keys.GOLDEN))])
    return found


class TemporalSampler:
    """Draw temporal neighbours from a store.

    Args:
        store: edges by vertex and time.
        fanouts_from_seeds: neighbours per hop, the hop next to the roots first.
        strategy: "recent" takes the newest, the later inserted first among those of one time;
            "uniform" takes distinct edges, each with the same chance.
        seed: of every draw.
        window: how old an edge may be; 0 is unlimited.
    """

    def __init__(
        self,
        store: TemporalStore | TemporalCsr,
        fanouts_from_seeds: Sequence[int],
        strategy: str,
        seed: int,
        *,
        window: int = 0,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy {strategy!r}, allowed: {', '.join(STRATEGIES)}")
        if any(fanout < 1 for fanout in fanouts_from_seeds):
            raise ValueError(f"fan-outs must be at least 1: {list(fanouts_from_seeds)}")
        self.store, self.fanouts = store, tuple(fanouts_from_seeds)
        self.uniform, self.seed, self.window = strategy == "uniform", seed, window

    def sample(
        self,
        nodes: Ids,
        times: Ids,
        *counters: int,
        since: int = NEVER,
        before_event: int = -1,
    ) -> Sample:
        """Return the hops of these roots.

        Args:
            nodes, times: of the roots, int64 [R_0].
            counters: such as the number of the pass over the data.
            since, before_event: see `TemporalStore.draw`.
        """
        hops: list[Hop] = []
        for number, fanout in enumerate(self.fanouts):
            key = keys.fold(self.seed, *counters, number)
            hop = self.hop(nodes, times, fanout, key, since=since, before_event=before_event)
            hops.append(hop)
            nodes = np.concatenate([nodes, hop.neighbours])
            times = np.concatenate([times, hop.times])
        return Sample(hops=tuple(hops), nodes=nodes, times=times)

    def hop(
        self, nodes: Ids, times: Ids, fanout: int, key: int, *, since: int, before_event: int
    ) -> Hop:
        """Return the sampled edges of queries; arguments as for `sample`, and the hop's key."""
        indptr, neighbours, found, events, deltas = self.store.draw(
            nodes,
            times,
            fanout,
            key,
            uniform=self.uniform,
            window=self.window,
            since=since,
            before_event=before_event,
        )
        return Hop(indptr=indptr, neighbours=neighbours, times=found, events=events, deltas=deltas)
