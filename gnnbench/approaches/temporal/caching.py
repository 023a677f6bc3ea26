"""Feature caches of a run: what each rank's caches are asked for, when they are refilled, in order.

A rank caches rows of nodes and rows of edges apart. The caches of a run see the iterations in
order, those that predict included:

reuse      caches survive from period to period; without it they begin every period empty
restore    when a pass begins, the edge cache is filled with the first edges that the pass learns
           from, since a pass ends with the newest edges cached and begins with the oldest
static     caches are filled once, with the rows that two rounds of pre-sampling over the events
           known at the start ask for most often

The edge rows of stored messages are asked for as well. Where memory is read late, a batch asks for
the messages of that earlier memory.

Source: temporal reference section 8, invariants C1 and C6.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.temporal.memory import MemoryClock, Stored
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import StreamStructure
from gnnbench.approaches.whole_graph.partition import cached_array
from gnnbench.data.caching import capacity_of
from gnnbench.data.feature_cache import POLICIES, FeatureCache, most_asked
from gnnbench.data.temporal_sampling import Sample, TemporalSampler
from gnnbench.strict import bounds, choices

Ids = NDArray[np.int64]
_PRESAMPLE, _ROUNDS = 13, 2
KINDS = ("nodes", "edges")
COLUMNS = ("hits", "misses", "moved", "entered", "refilled")
_TRACED = 2
"""Version of the traces that are kept between runs: raised when their counts or columns change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKnobs:
    """Knobs of feature caches.

    node_cache, edge_cache: share of the feature rows that a rank caches; the rest stays on the
    host; 0 has all rows on the device. cache_policy: which rows; "static" are chosen by
    pre-sampling. cache_reuse: caches survive from increment to increment, and from epoch to epoch.
    cache_restore: the edge cache is filled with the first edges of a pass when it begins.
    """

    node_cache: float = field(default=0.0, metadata=bounds(0, 1))
    edge_cache: float = field(default=0.0, metadata=bounds(0, 1))
    cache_policy: str = field(default="lfu", metadata=choices(*POLICIES))
    cache_reuse: bool = True
    cache_restore: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """Sizes and rules of the caches.

    Args:
        nodes, edges: share of all rows that a rank caches; 0 has every row on the device.
        policy: see `FeatureCache`.
        reuse, restore: see the module.
        memory: whether the model's messages read edge rows, too.
        late: batches before it whose memory is not yet written when a batch is read.
    """

    nodes: float
    edges: float
    policy: str
    reuse: bool
    restore: bool
    memory: bool
    late: int = 0

    def kinds(self, structure: StreamStructure) -> tuple[str, ...]:
        """The caches there are: of rows that exist, and whose share is above zero."""
        stream = structure.stream
        widths = stream.num_features, stream.num_edge_features
        shares = self.nodes, self.edges
        return tuple(
            kind for kind, n, share in zip(KINDS, widths, shares, strict=True) if n and share
        )

    def capacity(self, kind: str, num_rows: int) -> int:
        """Slots of a cache."""
        return capacity_of(self.nodes if kind == "nodes" else self.edges, num_rows)


class RankCaches:
    """The caches of one rank, as both worlds keep them.

    Args:
        structure: of the stream.
        how: sizes and rules.
        presampled: ids that static caches are filled with, by kind.
    """

    def __init__(
        self, structure: StreamStructure, how: Caching, presampled: dict[str, Ids]
    ) -> None:
        self.structure, self.how, self._presampled = structure, how, presampled
        rows = {"nodes": structure.stream.num_nodes, "edges": structure.stream.num_edges}
        self.of = {
            kind: FeatureCache(rows[kind], how.capacity(kind, rows[kind]), how.policy)
            for kind in how.kinds(structure)
        }

    def begin(self, period: int, number: int) -> dict[str, Ids]:
        """Prepare for an iteration; return the slots whose rows are moved in, by kind.

        A kind that is refilled is there even if no row has to move.
        """
        static = self.how.policy == "static"
        refilled: dict[str, Ids] = {}
        if number == 0 and static and period == 0:
            return {kind: cache.put(self._presampled[kind]) for kind, cache in self.of.items()}
        if number == 0 and not (static or self.how.reuse):
            for cache in self.of.values():
                cache.clear()
        if self.refills(period, number) and not static:
            refilled["edges"] = self.of["edges"].put(self.first_edges(period, number))
        return refilled

    def refills(self, period: int, number: int) -> tuple[str, ...]:
        """The kinds that `begin` refills."""
        if self.how.policy == "static":
            return tuple(self.of) if (period, number) == (0, 0) else ()
        piece = self.structure.pieces[period][number]
        return ("edges",) if "edges" in self.of and self.how.restore and piece.begins_pass else ()

    def first_edges(self, period: int, number: int) -> Ids:
        """The first distinct events of the pass that begins with an iteration."""
        pieces = self.structure.pieces[period]
        rest = takewhile(lambda piece: not piece.begins_pass, pieces[number + 1 :])
        found, wanted = list(pieces[number].shares), self.of["edges"].capacity
        count = pieces[number].count
        for piece in rest:
            if count >= wanted:
                break
            found += piece.shares
            count += piece.count
        return np.concatenate(found)[:wanted]


def asked_ids(sample: Sample, messages: Ids | None) -> dict[str, Ids]:
    """The rows that a batch reads, repeats included, by kind.

    Args:
        messages: events of the stored messages of its nodes, or None without memory; a node without
            one reads row 0.
    """
    edges = [hop.events for hop in sample.hops]
    if messages is not None:
        edges.append(np.maximum(messages, 0))
    return {"nodes": sample.nodes, "edges": np.concatenate(edges)}


class CacheTrace:
    """Counts of what the caches of all ranks do, iteration by iteration, for plans.

    Args:
        structure: of the stream.
        how: sizes and rules.
    """

    def __init__(self, structure: StreamStructure, how: Caching) -> None:
        self.structure, self.how = structure, how
        self.kinds = how.kinds(structure)
        self._counts: dict[int, Ids] = {}

    def counts(self, period: int, number: int, kind: str) -> dict[str, Ids]:
        """`COLUMNS` of an iteration, each int64 [ranks]."""
        found = self._period(period)[number, :, self.kinds.index(kind)]
        return dict(zip(COLUMNS, found.T, strict=True))

    def most(self, period: int, kind: str) -> dict[str, Ids]:
        """The largest `COLUMNS` of a period, each int64 [ranks]."""
        found = self._period(period)[:, :, self.kinds.index(kind)].max(axis=0)
        return dict(zip(COLUMNS, found.T, strict=True))

    def hit_rates(self) -> dict[str, float]:
        """Rows of the last period that caches held, of those asked for, all ranks together."""
        found = {}
        for place, kind in enumerate(self.kinds):
            last = self._period(len(self.structure.pieces) - 1)[:, :, place]
            hits, misses = last[:, :, :2].sum(axis=(0, 1)).tolist()
            found[f"{kind}_hit_rate"] = hits / max(hits + misses, 1)
        return found

    def _period(self, period: int) -> Ids:
        while period not in self._counts:
            self._add_period(len(self._counts))
        return self._counts[period]

    def refills(self, period: int, number: int) -> tuple[str, ...]:
        """The kinds that are refilled before an iteration."""
        return self.caches[0].refills(period, number)

    @cached_property
    def presampled(self) -> dict[str, Ids]:
        """What static caches are filled with, by kind."""
        return presampled(self.structure, self.how)

    @cached_property
    def caches(self) -> list[RankCaches]:
        ranks = self.structure.protocol.ranks
        known = self.presampled if self.how.policy == "static" else {}
        return [RankCaches(self.structure, self.how, known) for _ in range(ranks)]

    @cached_property
    def _sampler(self) -> TemporalSampler:
        return self.structure.sampler(self.structure.whole)

    @cached_property
    def _clock(self) -> MemoryClock:
        replays = self.structure.protocol.replay > 0
        return MemoryClock(self.structure.stream.num_nodes, replays=replays)

    def _add_period(self, period: int) -> None:
        structure = self.structure
        protocol, sampling = structure.protocol, structure.sampling
        key = (
            _TRACED,
            structure.stream.digest,
            asdict(protocol),
            asdict(sampling),
            asdict(self.how),
        )
        # A period follows from the caches that the earlier ones leave, so that the whole run is
        # kept as one array or not at all.
        lengths = [len(pieces) for pieces in structure.pieces]
        if structure.cache is not None and structure.stream.digest:
            whole = cached_array(
                structure.cache,
                "temporal-caches",
                key,
                lambda: np.concatenate([self._traced(at) for at in range(len(lengths))]),
            )
            for at, part in enumerate(np.split(whole, np.cumsum(lengths)[:-1])):
                self._counts[at] = part
        else:
            self._counts[period] = self._traced(period)

    def _traced(self, period: int) -> Ids:
        """Counts [pieces, ranks, kinds, columns] of a period; periods are traced in order."""
        structure, caches = self.structure, self.caches
        pieces = structure.pieces[period]
        out = np.zeros((len(pieces), len(caches), len(self.kinds), len(COLUMNS)), np.int64)
        unwritten: deque[tuple[Piece, Stored]] = deque()
        for number, piece in enumerate(pieces):
            if piece.kind == "ingest":
                continue
            clock = self._clock_at(period, piece)
            for rank, cache in enumerate(caches):
                refilled = cache.begin(period, number)
                sample = structure.draw(self._sampler, piece, structure.roots(piece, rank))
                messages = None
                if clock is not None:
                    messages = clock.read(clock.distinct(sample.nodes)[0]).events
                asked = asked_ids(sample, messages)
                for place, kind in enumerate(self.kinds):
                    counts = cache.of[kind].request(asked[kind]).counts
                    out[number, rank, place] = *counts, len(refilled.get(kind, ()))
            if clock is not None and piece.kind == "train":
                unwritten.append((piece, clock.stored(*structure.ends(piece)[:2])))
                self._write(clock, unwritten, self.how.late)
        if unwritten:
            self._write(self._clock, unwritten, 0)
        return out

    def _write(self, clock: MemoryClock, unwritten: deque[tuple[Piece, Stored]], late: int) -> None:
        """Store the messages of all batches but the last `late`, as their memory is written."""
        while len(unwritten) > late:
            piece, read = unwritten.popleft()
            clock.write(*self.structure.ends(piece), read)

    def _clock_at(self, period: int, piece: Piece) -> MemoryClock | None:
        """The clock of the memory that a piece reads; None without memory."""
        if not self.how.memory:
            return None
        self._clock.turn(piece, anew=self.structure.protocol.begins_anew(period))
        return self._clock


def presampled(structure: StreamStructure, how: Caching) -> dict[str, Ids]:
    """The ids that two rounds over the events known at the start ask for most often, by kind."""
    stream, protocol = structure.stream, structure.protocol
    rows = {"nodes": stream.num_nodes, "edges": stream.num_edges}
    counts = {kind: np.zeros(rows[kind], np.int64) for kind in how.kinds(structure)}
    sampler = structure.sampler(structure.whole)
    for round_ in range(_ROUNDS):
        for at in range(0, protocol.offline_end, protocol.batch):
            stop = min(at + protocol.batch, protocol.offline_end)
            events = np.arange(at, stop, dtype=np.int64)
            piece = Piece(kind="train", shares=(events,), counters=(_PRESAMPLE, round_), known=stop)
            sample = structure.draw(sampler, piece, structure.roots(piece, 0))
            for kind, ids in asked_ids(sample, None).items():
                if kind in counts:
                    counts[kind] += np.bincount(ids, minlength=rows[kind])
    return {
        kind: most_asked(counted, how.capacity(kind, rows[kind]))
        for kind, counted in counts.items()
    }
