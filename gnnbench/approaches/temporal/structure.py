"""What decides the batches of a stream: schedule, store, sampler; and their sizes, counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.temporal.schedule import Piece, Protocol, Schedule
from gnnbench.data.negatives import draw_negatives
from gnnbench.data.stream import EdgeStream
from gnnbench.data.temporal_sampling import Sample, TemporalSampler
from gnnbench.data.temporal_store import TemporalStore
from gnnbench.steps import Ints

Ids = NDArray[np.int64]
_TRAIN, _SAMPLE = 5, 7
_KEPT = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How neighbours are drawn.

    Args:
        fanouts_from_seeds: neighbours per hop, the hop next to the roots first.
        strategy: "recent" or "uniform".
        window: how old an edge may be; 0 is unlimited.
        first, block: see `TemporalStore`.
        negatives: per event, in training and in evaluation.
    """

    fanouts_from_seeds: tuple[int, ...]
    strategy: str
    window: int
    first: int
    block: int
    negatives: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roots:
    """What a rank asks for in an iteration: sources, destinations, negatives of its events.

    `nodes` and `times` int64 [(2 + k) b]: all sources, all destinations, then k negatives per
    event.
    """

    events: Ids
    nodes: Ids
    times: Ids


@dataclass(slots=False, kw_only=True, eq=False)
class StreamStructure:
    """Schedule and sampling of a run on a stream; both worlds ask it the same questions."""

    stream: EdgeStream
    protocol: Protocol
    sampling: Sampling
    _sizes: dict[tuple[int, int], tuple[Ints, Ints]] = field(default_factory=dict)

    @cached_property
    def schedule(self) -> Schedule:
        return Schedule(self.protocol, np.asarray(self.stream.times))

    @cached_property
    def pieces(self) -> list[list[Piece]]:
        """The iterations of each period."""
        return [self.schedule.pieces(period) for period in range(self.protocol.num_periods)]

    def empty_store(self) -> TemporalStore:
        """A store as it is before the first event."""
        return TemporalStore(
            self.stream.num_nodes, first=self.sampling.first, block=self.sampling.block
        )

    def sampler(self, store: TemporalStore) -> TemporalSampler:
        """The run's sampler on a store."""
        how = self.sampling
        return TemporalSampler(
            store, how.fanouts_from_seeds, how.strategy, self.protocol.seed, window=how.window
        )

    def ingest(self, store: TemporalStore, piece: Piece) -> TemporalStore:
        """Insert a piece's events, then let old edges expire; return the store, or a new one."""
        if self.protocol.rebuilds:
            store = self.empty_store()
        first, stop = piece.ingest
        part, stream = slice(first, stop), self.stream
        store.insert(stream.sources[part], stream.destinations[part], stream.times[part], first)
        if self.protocol.expire_after:
            store.expire(piece.since)
        return store

    def roots(self, piece: Piece, rank: int) -> Roots:
        """The queries of a rank in an iteration."""
        stream, events = self.stream, piece.shares[rank]
        count = self.sampling.negatives[piece.kind == "evaluate"]
        drawn = draw_negatives(stream, events, count, self.protocol.seed, _TRAIN, *piece.counters)
        when = np.asarray(stream.times)[events]
        ends = np.asarray(stream.sources)[events], np.asarray(stream.destinations)[events]
        return Roots(
            events=events,
            nodes=np.concatenate([*(end.astype(np.int64) for end in ends), drawn.ravel()]),
            times=np.concatenate([when, when, np.repeat(when, count)]),
        )

    def draw(self, sampler: TemporalSampler, piece: Piece, roots: Roots) -> Sample:
        """The neighbours of a rank's queries, from a store that may know later events, too."""
        return sampler.sample(
            roots.nodes,
            roots.times,
            _SAMPLE,
            *piece.counters,
            since=piece.since,
            before_event=piece.known,
        )

    def ends(self, piece: Piece) -> tuple[Ids, Ids, Ids, Ids]:
        """Sources, destinations, times and ids of the events of all ranks, in order."""
        events, stream = np.concatenate(piece.shares), self.stream
        sources = np.asarray(stream.sources)[events].astype(np.int64)
        destinations = np.asarray(stream.destinations)[events].astype(np.int64)
        return sources, destinations, np.asarray(stream.times)[events], events

    # -- sizes, for plans ------------------------------------------------------------------------

    def sizes(self, period: int, number: int) -> tuple[Ints, Ints]:
        """Queries R_0 ... R_L of each rank in an iteration, and distinct nodes among the last.

        Shapes: int64 [L + 1, ranks] and [ranks].
        """
        key = period, number
        if key not in self._sizes:
            if len(self._sizes) > _KEPT:
                self._sizes.clear()
            piece = self.pieces[period][number]
            drawn = [
                self.draw(self._sampler, piece, self.roots(piece, rank))
                for rank in range(self.protocol.ranks)
            ]
            queries = np.array([sample.sizes for sample in drawn], np.int64).T
            distinct = np.array([len(np.unique(sample.nodes)) for sample in drawn], np.int64)
            self._sizes[key] = queries, distinct
        return self._sizes[key]

    def written(self, piece: Piece) -> int:
        """Nodes whose memory a batch writes: its distinct ends."""
        return len(np.unique(np.concatenate(self.ends(piece)[:2])))

    @cached_property
    def store_bytes(self) -> list[int]:
        """Bytes of the store after each period, by performing its insertions."""
        store, found = self.empty_store(), []
        for pieces in self.pieces:
            for piece in pieces:
                if piece.ingest[1] > piece.ingest[0]:
                    store = self.ingest(store, piece)
            found.append(store.num_bytes)
        return found

    @cached_property
    def _sampler(self) -> TemporalSampler:
        """A sampler on a store that knows the whole stream, of which each piece sees its part."""
        store, stream = self.empty_store(), self.stream
        store.insert(stream.sources, stream.destinations, stream.times, 0)
        return self.sampler(store)
