"""What decides the batches of a stream: schedule, store, sampler, owners, candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnnbench import work
from gnnbench.approaches.temporal.schedule import Piece, Protocol, Schedule
from gnnbench.approaches.whole_graph.partition import cached_array
from gnnbench.data import keys
from gnnbench.data.drawn_stream import drawn_stream
from gnnbench.data.fixed_negatives import FixedNegatives
from gnnbench.data.negatives import draw_negatives
from gnnbench.data.stream import EdgeStream
from gnnbench.data.stream_profile import StreamProfile
from gnnbench.data.temporal_counting import Asked, count_samples
from gnnbench.data.temporal_csr import TemporalCsr
from gnnbench.data.temporal_partition import stream_owners
from gnnbench.data.temporal_sampling import Sample, TemporalSampler
from gnnbench.data.temporal_store import TemporalStore
from gnnbench.steps import Ints, Size, Work

Ids = NDArray[np.int64]
Store = TemporalStore | TemporalCsr
_TRAIN, _SAMPLE, _ROWS = 5, 7, 17
_COUNTED = 2
"""Version of the counts that are kept between runs: raised when draws or columns change."""
PIECE_BYTES, ARRAY_BYTES = 420, 112
"""Of a piece with its tuples, and of the head of an array, as Python has them."""
_PARTS = 6
"""Parts of a split whose sizes are counted for the memory of an evaluation."""
_ROOTS_AT_ONCE = 1 << 21
"""Roots that are counted in one go: their candidates take 16 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How neighbours are drawn.

    Args:
        fanouts_from_seeds: neighbours per hop, the hop next to the roots first.
        strategy: "recent" or "uniform".
        window: how old an edge may be; 0 is unlimited.
        first, block: see `TemporalStore`.
        negatives: per event, in training and in evaluation.
        fixed: whether those of the evaluation are fixed (see `FixedNegatives`).
        partitioner: decides the owner of each vertex's edges; "" stores them on every rank.
    """

    fanouts_from_seeds: tuple[int, ...]
    strategy: str
    window: int
    first: int
    block: int
    negatives: tuple[int, int]
    fixed: bool = False
    partitioner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roots:
    """What a rank asks for in an iteration: sources, destinations, candidates of its b events.

    Args:
        events: ids, int64 [b].
        candidates: where those of each event begin and end, int64 [b + 1].
        nodes, times: int64 [2 b + candidates]: all sources, all destinations, all candidates.
    """

    events: Ids
    candidates: Ids
    nodes: Ids
    times: Ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sizes:
    """Sizes of an iteration, for plans.

    Args:
        queries: R_0 ... R_L of each rank, int64 [L + 1, ranks].
        distinct: nodes among the last ones, int64 [ranks].
        owners: queries of each hop and rank by the owner of their vertex, int64 [L, ranks, ranks];
            zero where every rank stores all edges.
    """

    queries: Ints
    distinct: Ints
    owners: Ints


@dataclass(slots=False, kw_only=True, eq=False)
class StreamStructure:
    """Schedule and sampling of a run on a stream; both worlds ask it the same questions.

    `cache` is a folder that keeps counts between runs of one dataset, or None. A
    profile is replaced by a stream that is drawn from it.
    """

    stream: EdgeStream
    protocol: Protocol
    sampling: Sampling
    cache: Path | None = None

    def __post_init__(self) -> None:
        self._counts: dict[int, Ids] = {}
        self._most: dict[tuple[int, int], int] = {}
        self.counted, self.basis = True, "counted on the real stream"
        if isinstance(self.stream, StreamProfile):
            self.stream = drawn_stream(self.stream)
            self.counted, self.basis = False, "counted on events drawn from the profile"

    @cached_property
    def schedule(self) -> Schedule:
        return Schedule(self.protocol, np.asarray(self.stream.times))

    @cached_property
    def pieces(self) -> list[list[Piece]]:
        """The iterations of each period."""
        return [self.schedule.pieces(period) for period in range(self.protocol.num_periods)]

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """The owner of each vertex's edges, int32 [V]; empty where every rank stores all of them.

        Vertices are placed chunk by chunk: the offline phase, then each increment.
        """
        protocol = self.protocol
        if not self.sampling.partitioner or protocol.ranks == 1:
            return np.empty(0, np.int32)
        cuts = self.schedule.cuts().tolist() if protocol.increments else [protocol.events]
        return stream_owners(self.stream, protocol.ranks, self.sampling.partitioner, [0, *cuts])

    @property
    def partitioned(self) -> bool:
        return len(self.owner) > 0

    def empty_store(self, rank: int) -> Store:
        """A rank's store as it is before the first event."""
        return self._blocks(rank)

    def _blocks(self, rank: int) -> TemporalStore:
        return TemporalStore(
            self.stream.num_nodes,
            first=self.sampling.first,
            block=self.sampling.block,
            owned=self.owner == rank if self.partitioned else None,
        )

    def sampler(self, store: Store) -> TemporalSampler:
        """The run's sampler on a store."""
        how = self.sampling
        return TemporalSampler(
            store, how.fanouts_from_seeds, how.strategy, self.protocol.seed, window=how.window
        )

    def ingestion(self, first: int, stop: int) -> Work:
        """Work of making a store know events first..stop-1."""
        return work.ingest(stop - first)

    def ingest(self, store: Store, piece: Piece, rank: int) -> Store:
        """Insert a piece's events, then let old edges expire; return the store, or a new one."""
        if self.protocol.rebuilds:
            store = self._blocks(rank)
        assert isinstance(store, TemporalStore)
        self._insert(store, *piece.ingest)
        if self.protocol.expire_after:
            store.expire(piece.since)
        return store

    def _insert(self, store: TemporalStore, first: int, stop: int) -> None:
        part, stream = slice(first, stop), self.stream
        store.insert(stream.sources[part], stream.destinations[part], stream.times[part], first)

    def candidates(self, piece: Piece, events: Ids) -> tuple[Ids, Ids]:
        """Negatives of some events of a piece: where each event's begin and end, and all of them.

        They depend on the piece's kind and counters only, not on who asks.
        """
        evaluates = piece.kind == "evaluate"
        if evaluates and self.sampling.fixed:
            return self._fixed.of(events)
        count = self.sampling.negatives[evaluates]
        seed = self.protocol.seed
        drawn = draw_negatives(self.stream, events, count, seed, _TRAIN, *piece.counters)
        return np.arange(len(events) + 1, dtype=np.int64) * count, drawn.ravel()

    def num_pairs(self, piece: Piece) -> Ids:
        """Pairs that each rank scores in an iteration, int64 [ranks]."""
        asked = [self.candidates(piece, share)[0] for share in piece.shares]
        return np.array([len(each) - 1 + each[-1] for each in asked], np.int64)

    def pairs(self, first: int, stop: int) -> list[Ids]:
        """Where the scored pairs of each predicted event begin and end, rank by rank.

        An event has its true pair and then its candidates; int64 [b + 1] each, from 0 on.
        """
        found = []
        for a, b in self.schedule.predicted_shares(first, stop):
            events = np.arange(a, b, dtype=np.int64)
            count: int | Ids = self.sampling.negatives[1]
            if self.sampling.fixed:
                count = np.diff(self._fixed.of(events)[0])
            each = np.zeros(b - a + 1, np.int64)
            each[1:] = 1 + count
            found.append(np.cumsum(each))
        return found

    def most_pairs(self, first: int, stop: int) -> int:
        """Pairs of the rank that scores the most of some predicted events."""
        if (first, stop) not in self._most:
            self._most[first, stop] = max(int(each[-1]) for each in self.pairs(first, stop))
        return self._most[first, stop]

    def all_pairs(self, first: int, stop: int) -> int:
        """Pairs that all ranks score of some predicted events."""
        return sum(int(each[-1]) for each in self.pairs(first, stop))

    def streamed(
        self, first: int, stop: int, *, memory: bool
    ) -> Iterator[tuple[int, int, list[Piece]]]:
        """Parts at..end-1 of events that an evaluation predicts, with their pieces.

        Graph and memory learn of a part after it was predicted. Where neither changes, all events
        are one part.

        Args:
            first, stop: of the events.
            memory: whether the model has a memory.
        """
        for at in self._parts(first, stop, memory=memory):
            yield at, *self._part(at, stop, memory=memory)

    def _parts(self, first: int, stop: int, *, memory: bool) -> range:
        """Where the parts of some events begin."""
        protocol = self.protocol
        step = protocol.streamed_batch
        if not step:
            step = protocol.batch if memory else max(stop - first, 1)
        return range(first, stop, step)

    def _part(self, at: int, stop: int, *, memory: bool) -> tuple[int, list[Piece]]:
        """Where a part ends, and its pieces."""
        end = min(at + self._parts(at, stop, memory=memory).step, stop)
        known = at if self.protocol.streamed_batch else self.protocol.events
        return end, self.schedule.evaluate(0, at, end, known)

    @property
    def event_bytes(self) -> int:
        """Bytes of the stream's sources, destinations and times."""
        stream = self.stream
        return sum(
            np.asarray(a).nbytes for a in (stream.sources, stream.destinations, stream.times)
        )

    @cached_property
    def schedule_bytes(self) -> int:
        """Bytes of the pieces of all periods, and of the ids of their events."""
        pieces = [piece for period in self.pieces for piece in period]
        events = sum(piece.count for piece in pieces)
        arrays = sum(len(piece.shares) for piece in pieces)
        return PIECE_BYTES * len(pieces) + ARRAY_BYTES * arrays + 8 * events

    @cached_property
    def gathered_pairs(self) -> int:
        """Pairs of the rank that scores the most, in the period that has the most of them."""
        periods = range(self.protocol.num_periods if self.protocol.increments else 0)
        return max((self.most_pairs(*self.schedule.predicted(p)) for p in periods), default=0)

    @cached_property
    def _fixed(self) -> FixedNegatives:
        return FixedNegatives(self.stream, self.sampling.negatives[1])

    def roots(self, piece: Piece, rank: int) -> Roots:
        """The queries of a rank in an iteration."""
        stream, events = self.stream, piece.shares[rank]
        candidates, others = self.candidates(piece, events)
        when = np.asarray(stream.times)[events]
        ends = np.asarray(stream.sources)[events], np.asarray(stream.destinations)[events]
        return Roots(
            events=events,
            candidates=candidates,
            nodes=np.concatenate([*(end.astype(np.int64) for end in ends), others]),
            times=np.concatenate([when, when, np.repeat(when, np.diff(candidates))]),
        )

    def root_keys(self, piece: Piece, roots: Roots) -> NDArray[np.uint64]:
        """Keys of the roots by event and role, uint64 [R_0]; see `row_keys`."""
        own = keys.extend_array(keys.fold(self.protocol.seed, _ROWS, *piece.counters), roots.events)
        counts = np.diff(roots.candidates)
        slots = np.arange(counts.sum(), dtype=np.int64) - np.repeat(roots.candidates[:-1], counts)
        role = np.concatenate([np.zeros(len(own)), np.ones(len(own)), 2 + slots]).astype(np.uint64)
        mixed = np.concatenate([own, own, np.repeat(own, counts)]) ^ role
        return keys.mix64_array(mixed + np.uint64(keys.GOLDEN))

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

    def hop_key(self, piece: Piece, hop: int) -> int:
        """The key of a hop's draws, as `draw` has it."""
        return keys.fold(self.protocol.seed, _SAMPLE, *piece.counters, hop)

    def ends(self, piece: Piece) -> tuple[Ids, Ids, Ids, Ids]:
        """Sources, destinations, times and ids of the events of all ranks, in order."""
        events, stream = np.concatenate(piece.shares), self.stream
        sources = np.asarray(stream.sources)[events].astype(np.int64)
        destinations = np.asarray(stream.destinations)[events].astype(np.int64)
        return sources, destinations, np.asarray(stream.times)[events], events

    # -- sizes, for plans ------------------------------------------------------------------------

    def sizes(self, period: int, number: int) -> Sizes:
        """Sizes of an iteration; a period is counted when it is first asked about."""
        if period not in self._counts:
            # An immutable dataset and the settings of draws decide all counts.
            key = (
                _COUNTED,
                self.stream.digest,
                asdict(self.protocol),
                asdict(self.sampling),
                period,
            )
            folder = self.cache if self.stream.digest else None
            self._counts[period] = cached_array(
                folder, "temporal", key, lambda: self._counted(period)
            )
        return self._sizes(self._counts[period][number])

    def looked_at(self, *, memory: bool) -> list[Piece]:
        """The first, and largest, pieces of some parts of an evaluation of a static graph.

        Parts are taken from the begin to the end of a split: later ones see more neighbours.
        """
        found: list[Piece] = []
        for split in ("val", "test"):
            part = self.stream.part(split)
            starts = self._parts(part.start, part.stop, memory=memory)
            for number in np.unique(np.linspace(0, len(starts) - 1, _PARTS).astype(int)):
                if len(starts):
                    found.append(self._part(starts[int(number)], part.stop, memory=memory)[1][0])
        return found

    def evaluation_sizes(self, *, memory: bool) -> Sizes:
        """The largest sizes of the pieces that are looked at."""
        ranks, hops = self.protocol.ranks, len(self.sampling.fanouts_from_seeds)
        most = np.zeros((ranks, hops + 2 + hops * ranks), np.int64)
        for piece in self.looked_at(memory=memory):
            most = np.maximum(most, self._count([piece]).reshape(ranks, -1))
        return self._sizes(most)

    def _sizes(self, found: Ids) -> Sizes:
        """Sizes from the counts of all ranks, see `count_samples`."""
        hops, ranks = len(self.sampling.fanouts_from_seeds), self.protocol.ranks
        return Sizes(
            queries=found[:, : hops + 1].T,
            distinct=found[:, hops + 1],
            owners=found[:, hops + 2 :].reshape(ranks, hops, ranks).transpose(1, 0, 2),
        )

    def _counted(self, period: int) -> Ids:
        """Counts of all iterations and ranks of a period, see `count_samples`."""
        ranks, pieces = self.protocol.ranks, self.pieces[period]
        hops = len(self.sampling.fanouts_from_seeds)
        out = np.zeros((len(pieces), ranks, hops + 2 + hops * ranks), np.int64)
        numbered = [item for item in enumerate(pieces) if item[1].kind != "ingest"]
        for _, group in groupby(numbered, lambda item: _alike(item[1])):
            same = list(group)
            asks = 2 + self.sampling.negatives[same[0][1].kind == "evaluate"]
            most = max(piece.count for _, piece in same) * asks
            step = max(_ROOTS_AT_ONCE // max(most, 1), 1)
            for at in range(0, len(same), step):
                part = same[at : at + step]
                places = [number for number, _ in part]
                out[places] = self._count([piece for _, piece in part]).reshape(
                    len(part), ranks, -1
                )
        return out

    def _count(self, pieces: list[Piece]) -> Ids:
        """Counts of pieces that draw alike, piece by piece and rank by rank."""
        piece, how, stream = pieces[0], self.sampling, self.stream
        shares = [share for piece in pieces for share in piece.shares]
        events = np.concatenate(shares)
        batches = np.zeros(len(shares) + 1, np.int64)
        np.cumsum([len(share) for share in shares], out=batches[1:])
        indptr, candidates = self.candidates(piece, events)
        hops = range(len(how.fanouts_from_seeds))
        asked = Asked(
            events=events,
            batches=batches,
            indptr=indptr,
            candidates=candidates,
            keys=np.array([self.hop_key(piece, hop) for hop in hops], np.uint64),
            since=piece.since,
            known=piece.known,
        )
        return count_samples(
            self.whole,
            (stream.sources, stream.destinations, stream.times),
            asked,
            how.fanouts_from_seeds,
            uniform=how.strategy == "uniform",
            window=how.window,
            owner=self.owner,
            ranks=self.protocol.ranks,
        )

    @cached_property
    def whole(self) -> TemporalCsr:
        """The whole stream, of which each piece sees its part."""
        stream = self.stream
        return TemporalCsr(stream.num_nodes, stream.sources, stream.destinations, stream.times)

    def written(self, piece: Piece) -> int:
        """Nodes whose memory a batch writes: its distinct ends."""
        return len(np.unique(np.concatenate(self.ends(piece)[:2])))

    @cached_property
    def store_bytes(self) -> list[Size]:
        """Bytes of each rank's store after each period, by performing its insertions.

        A store that is built anew from all events so far is as large as one that they were inserted
        into bit by bit, unless edges expire.
        """
        ranks = range(self.protocol.ranks if self.partitioned else 1)
        anew = self.protocol.rebuilds and self.protocol.expire_after > 0
        stores = [self._blocks(rank) for rank in ranks]
        found: list[Size] = []
        known = 0
        for pieces in self.pieces:
            for piece in (piece for piece in pieces if piece.ingest[1] > piece.ingest[0]):
                for rank in ranks:
                    if anew:
                        stores[rank], known = self._blocks(rank), 0
                    self._insert(stores[rank], known, piece.ingest[1])
                    if self.protocol.expire_after:
                        stores[rank].expire(piece.since)
                known = piece.ingest[1]
            sizes = [store.num_bytes for store in stores]
            found.append(np.array(sizes, np.int64) if self.partitioned else sizes[0])
        return found


def _alike(piece: Piece) -> tuple[object, ...]:
    """Pieces of one key draw alike, and see the same edges."""
    return piece.kind, piece.counters, piece.known, piece.since
