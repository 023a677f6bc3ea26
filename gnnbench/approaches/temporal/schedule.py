"""The schedule of a stream: which events are ingested, predicted and learnt from, and when.

With increments, the first share of the stream is the offline phase, period 0, and the rest is cut
into equal increments, a period each: predict the increment's events with the graph and the weights
as they are, then ingest them, then learn from them. Without increments the stream is a static
graph: all of it is ingested first, and a period is a pass over the training events; sampling is
strictly in the past, so nothing leaks.

Batches are dealt to ranks in even, contiguous shares; the predicted events of an increment in whole
chunks of a fixed size.

Source: temporal reference section 11, invariants R1-R4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.data.temporal_picks import NEVER

Ids = NDArray[np.int64]
_REPLAY, _CHUNK = 11, 23
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a stream is gone through, in numbers.

    Args:
        events: E.
        train_end: training events where there are no increments.
        epochs: passes over the offline phase, or over the training events.
        increments: 0 is a static graph.
        offline: share of the stream in the offline phase.
        batch: positives per optimiser step, over all ranks.
        evaluation_batch: positives that a rank predicts at a time; the same for all ranks.
        streamed_batch: events between two updates of graph and memory where a static graph is
            evaluated; 0 has the whole graph known, and memory updated after each training batch.
        replay: old events that are learnt from again, as a share of all old ones.
        retrain_every: increments between two trainings.
        expire_after: age at which edges leave the store, in units of the stream's times; 0 never.
        speedup: of arrivals over the stream's own clock; 0 has everything there at once.
        rebuilds: whether an increment ingests the whole stream so far, into an empty store.
        relearns: whether it learns from all of it, from scratch, in as many passes as epochs.
        learns: whether anything is trained; else events are predicted and ingested only.
        chunks: parts of a batch; with more than one, each pass begins with a batch of a random
            number of them, so that borders of batches differ between passes.
        ranks, seed: of the run.
    """

    events: int
    train_end: int
    epochs: int
    increments: int
    offline: float
    batch: int
    evaluation_batch: int
    streamed_batch: int = 0
    replay: float = 0.0
    retrain_every: int = 1
    expire_after: int = 0
    speedup: float = 0.0
    rebuilds: bool = False
    relearns: bool = False
    learns: bool = True
    chunks: int = 1
    ranks: int = 1
    seed: int = 0

    @property
    def offline_end(self) -> int:
        """Where the offline phase ends."""
        return round(self.offline * self.events) if self.increments else self.train_end

    @property
    def has_offline(self) -> bool:
        """Whether period 0 is an offline phase."""
        return self.increments > 0 and self.offline_end > 0

    def begins_anew(self, period: int) -> bool:
        """Whether the passes of a period begin with an empty memory; increments go on."""
        return (self.has_offline and period == 0) or self.relearns or not self.increments

    @property
    def num_periods(self) -> int:
        if self.increments:
            return self.increments + self.has_offline
        return self.epochs if self.learns else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One iteration of all ranks.

    Args:
        kind: "train", "evaluate", or "ingest" where nothing else happens.
        shares: ids of the events of each rank, in order.
        counters: key draws.
        ingest: events a..b-1 that are ingested first.
        known: events before this id are in the store while it runs.
        since: edges before this time have expired by then.
        closes: whether the scores of a period are complete after it.
        share: of the period's loss.
        begins_pass: whether it is the first of a pass.
        replays: whether its events are old ones that are learnt from again; they come before the
            new ones, in batches of their own.
    """

    kind: str
    shares: tuple[Ids, ...] = ()
    counters: tuple[int, ...] = ()
    ingest: tuple[int, int] = (0, 0)
    known: int = 0
    since: int = NEVER
    closes: bool = False
    share: float = 0.0
    begins_pass: bool = False
    replays: bool = False

    @property
    def count(self) -> int:
        """Events of all ranks."""
        return sum(map(len, self.shares))


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The pieces of each period. `times` int64 [E] of the stream, never falling."""

    protocol: Protocol
    times: Ids
    _lengths: dict[int, int] = field(default_factory=dict)

    def cuts(self) -> Ids:
        """Borders of the increments: c_0 = end of the offline phase, ..., E."""
        p = self.protocol
        steps = np.arange(p.increments + 1, dtype=np.int64)
        return p.offline_end + steps * (p.events - p.offline_end) // max(p.increments, 1)

    def pieces(self, period: int) -> list[Piece]:
        """The iterations of a period, in order."""
        return list(self._pieces(period))

    def _pieces(self, period: int) -> Iterator[Piece]:
        p = self.protocol
        if not p.increments:
            ingest = (0, p.events if p.learns else p.train_end) if period == 0 else (0, 0)
            train = np.arange(p.train_end, dtype=np.int64)
            yield from self._train(period, _NOTHING, [train], ingest, p.events, NEVER)
            return
        cuts = self.cuts()
        if p.has_offline and period == 0:
            old = np.arange(p.offline_end, dtype=np.int64)
            cut = p.offline_end
            passes = [old] * p.epochs
            yield from self._train(0, _NOTHING, passes, (0, cut), cut, self._since(cut))
            return
        number = period - p.has_offline
        first, stop = cuts[number : number + 2].tolist()
        yield from self.evaluate(period, first, stop, first, self._since(first))
        since = self._since(stop)
        ingest = (0, stop) if p.rebuilds else (first, stop)
        if (number + 1) % p.retrain_every or not p.learns:
            yield Piece(kind="ingest", ingest=ingest, known=stop, since=since)
            return
        begin = 0 if p.relearns else int(cuts[number + 1 - p.retrain_every])
        new = np.arange(begin, stop, dtype=np.int64)
        passes = [new] * (p.epochs if p.relearns else 1)
        yield from self._train(period, self.replayed(period, begin), passes, ingest, stop, since)

    def replayed(self, period: int, old: int) -> Ids:
        """Ids of the old events that a period learns from again, in order, none twice (R2)."""
        p = self.protocol
        count = min(round(p.replay * old), old)
        rng = keys.generator(p.seed, _REPLAY, period)
        return np.sort(rng.choice(old, count, replace=False)).astype(np.int64)

    def evaluate(
        self, period: int, first: int, stop: int, known: int, since: int = NEVER
    ) -> list[Piece]:
        """Predict events first..stop-1, in chunks that do not depend on the number of ranks.

        The rows of a product keep their places, so that a score has the same bits on any number of
        ranks that have the same parameters.
        """
        size, found = self.protocol.evaluation_batch, []
        shares = self.predicted_shares(first, stop)
        longest = max(b - a for a, b in shares)
        for at in range(0, longest, size):
            parts = tuple(
                np.arange(min(a + at, b), min(a + at + size, b), dtype=np.int64) for a, b in shares
            )
            found.append(
                Piece(
                    kind="evaluate",
                    shares=parts,
                    counters=(1, period, 0),
                    known=known,
                    since=since,
                    closes=at + size >= longest,
                )
            )
        return found

    def predicted_shares(self, first: int, stop: int) -> list[tuple[int, int]]:
        """The events a..b-1 of first..stop-1 that each rank predicts: whole chunks."""
        p = self.protocol
        chunks = -(-(stop - first) // p.evaluation_batch)
        share = -(-chunks // p.ranks) * p.evaluation_batch
        starts = [min(first + rank * share, stop) for rank in range(p.ranks + 1)]
        return list(pairwise(starts))

    def predicted(self, period: int) -> tuple[int, int]:
        """The events first..stop-1 that a period predicts before it learns from them."""
        p = self.protocol
        number = period - p.has_offline
        if not p.increments or number < 0:
            return 0, 0
        first, stop = self.cuts()[number : number + 2].tolist()
        return first, stop

    def release_s(self, period: int) -> float:
        """When a period's events are all there, in seconds after the offline phase's last one."""
        p = self.protocol
        number = period - p.has_offline
        if not (p.speedup and p.increments) or number < 0:
            return 0.0
        cuts = self.cuts()
        begin = self.times[max(p.offline_end - 1, 0)]
        return float(self.times[max(int(cuts[number + 1]) - 1, 0)] - begin) / p.speedup

    def arrivals(self) -> list[int]:
        """Events that arrive with each period: those of increments, none with the offline phase."""
        spans = [self.predicted(period) for period in range(self.protocol.num_periods)]
        return [stop - first for first, stop in spans]

    def dealt(self, batch: Ids) -> tuple[Ids, ...]:
        """Even contiguous shares, the last ones smaller: gathered, they are in order."""
        share = -(-len(batch) // self.protocol.ranks)
        return tuple(
            batch[rank * share : (rank + 1) * share] for rank in range(self.protocol.ranks)
        )

    def _batches(self, events: Ids, period: int, number: int) -> list[Ids]:
        """Cut the events of a pass into batches, the first one shorter where there are chunks.

        Source: temporal reference section 10.2 (random chunk scheduling of TGL).
        """
        p, first = self.protocol, 0
        if p.chunks > 1:
            drawn = keys.generator(p.seed, _CHUNK, period, number).integers(p.chunks)
            first = int(drawn) * p.batch // p.chunks
        borders = [0, *range(first or p.batch, len(events), p.batch), len(events)]
        return [events[a:b] for a, b in pairwise(borders) if b > a]

    def _since(self, known: int) -> int:
        """The time before which edges have expired when events before `known` are there."""
        after = self.protocol.expire_after
        return int(self.times[known - 1]) - after if after and known else NEVER

    def _train(
        self,
        period: int,
        replayed: Ids,
        passes: list[Ids],
        ingest: tuple[int, int],
        known: int,
        since: int,
    ) -> Iterator[Piece]:
        p = self.protocol
        total = len(passes) * len(replayed) + sum(map(len, passes))
        if not (total and p.learns):
            yield Piece(kind="ingest", ingest=ingest, known=known, since=since)
            return
        for number, new in enumerate(passes):
            begins = True
            for events in (replayed, new):
                for batch in self._batches(events, period, number):
                    yield Piece(
                        kind="train",
                        shares=self.dealt(batch),
                        counters=(0, period, number),
                        ingest=ingest if begins and number == 0 else (0, 0),
                        known=known,
                        since=since,
                        share=len(batch) / total,
                        begins_pass=begins,
                        replays=events is replayed,
                    )
                    begins = False
