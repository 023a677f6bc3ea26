"""The source of batches: a store that events are inserted into and neighbours are drawn from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.temporal.caching import Caching, RankCaches, asked_ids, presampled
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import Roots, StreamStructure
from gnnbench.data.stream import EdgeStream
from gnnbench.data.temporal_sampling import Sample, row_keys
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.approaches.temporal.asking import ask_owners
from gnnbench_runtime.approaches.temporal.caching import CachedRows
from gnnbench_runtime.approaches.temporal.memory import NodeMemory
from gnnbench_runtime.models.data import sizes_of
from gnnbench_runtime.protocol import RankContext

_HOST = torch.device("cpu")


@dataclass(slots=True, kw_only=True)
class StreamBatch:
    """Input of one iteration on this rank, ready to train on.

    Args:
        events: ids, int64 [b].
        candidates: per event, where all have as many; else see `LinkDecoder.forward`.
        sizes: queries R_0 ... R_L.
        rows: features of the nodes of the last hop, [R_L, n].
        edges: features of the sampled edges, hop next to the roots first, each [S, e].
        deltas, places: of the same edges, see `TemporalAttention`.
    """

    events: NDArray[np.int64]
    candidates: int | tuple[Tensor, Tensor]
    sizes: tuple[int, ...]
    rows: Tensor
    edges: list[Tensor]
    deltas: list[Tensor]
    places: list[Tensor]
    row_keys: Tensor | None = None
    """Keys of dropout of the rows, int64 [R_L]; None in an evaluation and without dropout."""
    memory: tuple[Tensor, ...] = ()
    """Of a model with memory: the inputs of its updater but for `rows` (see `MemoryUpdater`)."""

    def tensors(self) -> list[Tensor]:
        """Every tensor of the batch."""
        candidates = self.candidates if isinstance(self.candidates, tuple) else ()
        keys = () if self.row_keys is None else (self.row_keys,)
        places = *self.edges, *self.deltas, *self.places
        return [self.rows, *places, *candidates, *keys, *self.memory]


class StreamSource:
    """This rank's share of every batch of a stream.

    Args:
        context: the rank.
        data: the stream; its features are on the device, or behind caches.
        structure: what is asked for when.
        shape: the model.
        how: sizes and rules of the caches.
    """

    def __init__(
        self,
        context: RankContext,
        data: EdgeStream,
        structure: StreamStructure,
        shape: TemporalShape,
        how: Caching,
    ) -> None:
        self.context, self.structure, self.shape = context, structure, shape
        self.store = structure.empty_store(context.rank)
        self.sampler = structure.sampler(self.store)
        self.known = 0
        self.memory = NodeMemory(context, structure, shape) if shape.memory else None
        first = presampled(structure, how) if how.policy == "static" else {}
        self.caches = RankCaches(structure, how, first)
        features = {"nodes": data.node_features, "edges": data.edge_features}
        self.held: dict[str, Tensor] = {}
        self.cached: dict[str, CachedRows] = {}
        for kind, rows in features.items():
            if rows is None or not rows.shape[1]:
                continue
            table = torch.from_numpy(np.array(rows))
            if kind in self.caches.of:
                cache = self.caches.of[kind]
                table = table.to(_HOST, context.dtype)
                self.cached[kind] = CachedRows(context, kind, table, cache)
            else:
                self.held[kind] = table.to(context.device, context.dtype)
        self._passing_by = False
        self.lane = Lane.COMPUTE

    def read_on(self, lane: Lane) -> None:
        """Record sampling, caches and gathers on a lane; `compute` to begin with."""
        self.lane = lane
        for cached in self.cached.values():
            cached.lane = lane

    @contextmanager
    def passing_by(self) -> Iterator[None]:
        """Read rows past the caches, so that what is asked here leaves no trace in them."""
        self._passing_by = True
        try:
            yield
        finally:
            self._passing_by = False

    def catch_up(self, period: int) -> None:
        """Insert, unrecorded, what earlier periods would have: after a resumption."""
        for earlier in self.structure.pieces[:period]:
            for piece in earlier:
                if piece.ingest[1] > self.known:
                    self._insert(piece)

    def ingest(self, piece: Piece) -> None:
        """Insert the events that a piece begins with."""
        first, stop = piece.ingest
        if stop > first:
            done = self.structure.ingestion(first, stop)
            with self.context.recorder.step("ingest", done, phase=Phase.LOAD):
                self._insert(piece)

    def _insert(self, piece: Piece) -> None:
        if piece.ingest[1] > self.known:
            self.store = self.structure.ingest(self.store, piece, self.context.rank)
            self.sampler.store = self.store
            self.known = piece.ingest[1]

    def batch(self, piece: Piece, place: tuple[int, int] | None = None) -> StreamBatch:
        """Draw the neighbours of this rank's share, and fetch rows of nodes and edges.

        Args:
            place: period and number of the iteration; None while passing by.
        """
        context, device = self.context, self.context.device
        assert self._passing_by or place is not None
        refilled = {} if place is None else self.caches.begin(*place)
        # Looking rows up below lets others enter: what is moved in now is read off before.
        fresh = {kind: self.caches.of[kind].id_of[slots] for kind, slots in refilled.items()}
        roots = self.structure.roots(piece, context.rank)
        sample = self._sample(piece, roots)
        held = self._index(sample)
        messages = None
        if self.memory is not None:
            known, messages = self.memory.asked(sample.nodes)
            held |= known
        asked = asked_ids(sample, messages)
        answers = {}
        edges = sum(hop.num_edges for hop in sample.hops)
        for kind, of in self.cached.items():
            if self._passing_by:
                continue
            answers[kind], index = of.ask(asked[kind])
            held |= index
            if kind in refilled:
                held[f"{kind}_refilled"] = torch.from_numpy(refilled[kind])
        if "nodes" in self.held:
            held["nodes"] = torch.from_numpy(asked["nodes"])
        if "edges" in self.held:
            held["edges"] = torch.from_numpy(asked["edges"][:edges])
            if messages is not None:
                held["messages"] = torch.from_numpy(asked["edges"][edges:])
        candidates: int | tuple[Tensor, Tensor]
        evaluates = piece.kind == "evaluate"
        candidates = self.structure.sampling.negatives[evaluates]
        ragged = evaluates and self.structure.sampling.fixed
        if ragged:
            held |= _pairs(roots)
        if self.shape.dropout and not evaluates:
            made = row_keys(self.structure.root_keys(piece, roots), sample)
            held["row_keys"] = torch.from_numpy(made.view(np.int64))
        if device.type != "cpu":
            size = sum(tensor.nbytes for tensor in held.values())
            copied = work.to_device(size)
            with context.recorder.step("fetch/copy", copied, phase=Phase.FETCH, lane=Lane.COPY):
                held = {name: tensor.to(device) for name, tensor in held.items()}
        if ragged:
            candidates = held["pair_events"], held["pair_places"]
        deltas = [held[f"delta{n}"] for n in range(len(sample.hops))]
        rows = self._gathered("nodes", held, len(sample.nodes))
        of_edges = self._gathered("edges", held, edges)
        memory: tuple[Tensor, ...] = ()
        if self.memory is not None:
            state = self._fetched("memory", self.memory.table, held["distinct"])
            with_edges = self._empty(len(state))
            if "edges" in self.held:
                with_edges = self._fetched("messages", self.held["edges"], held["messages"])
            memory = state, with_edges, held["ages"], held["has"], held["inverse"]
        for kind, cached in self.cached.items():
            if self._passing_by:
                found = cached.peek(asked[kind])
            else:
                if kind in refilled:
                    cached.refill(fresh[kind], held[f"{kind}_refilled"])
                found = cached.fetch(answers[kind], held)
            if kind == "nodes":
                rows = found
            else:
                of_edges = found[:edges]
                if memory:
                    memory = memory[0], found[edges:], *memory[2:]
        return StreamBatch(
            events=roots.events,
            candidates=candidates,
            sizes=sample.sizes,
            rows=rows,
            edges=list(of_edges.split([len(delta) for delta in deltas])),
            deltas=deltas,
            places=[held[f"place{n}"] for n in range(len(sample.hops))],
            row_keys=held.get("row_keys"),
            memory=memory,
        )

    def _sample(self, piece: Piece, roots: Roots) -> Sample:
        """Draw neighbours: here, or where they are stored."""
        context = self.context
        if self.structure.partitioned:
            return ask_owners(context, self.structure, self.sampler, piece, roots)
        nothing = work.sample(seeds=0, edges=0, vertices=0, read=0)
        with context.recorder.step(
            "sample/draw", nothing, phase=Phase.SAMPLE, lane=self.lane
        ) as span:
            sample = self.structure.draw(self.sampler, piece, roots)
            span.did(work.sample_temporal(sample.sizes))
        return sample

    def _index(self, sample: Sample) -> dict[str, Tensor]:
        """Deltas of the sampled edges, and their places in tables padded to the fan-out."""
        hops, dtype = sample.hops, self.context.dtype
        held = {f"delta{n}": torch.from_numpy(hop.deltas).to(dtype) for n, hop in enumerate(hops)}
        for n, (hop, fanout) in enumerate(zip(hops, reversed(self.shape.fanouts), strict=True)):
            held[f"place{n}"] = torch.from_numpy(hop.slots(fanout))
        return held

    def state(self) -> dict[str, Tensor]:
        """Which rows are cached, as tensors that share the memory of the caches."""
        return {
            f"cache_{kind}_{name}": torch.from_numpy(array)
            for kind, cache in self.caches.of.items()
            for name, array in cache.state().items()
        }

    def restore(self) -> None:
        """Move rows into the caches, after `state` was written."""
        for cached in self.cached.values():
            cached.cache.restore(cached.cache.state())
            cached.reload()

    def _empty(self, count: int) -> Tensor:
        return torch.empty((count, 0), device=self.context.device, dtype=self.context.dtype)

    def _gathered(self, kind: str, held: dict[str, Tensor], count: int) -> Tensor:
        """Rows of features that are all on the device; none where there are none."""
        if kind not in self.held:
            return self._empty(count)
        return self._fetched(kind, self.held[kind], held[kind])

    def _fetched(self, name: str, source: Tensor, ids: Tensor) -> Tensor:
        out = torch.empty((len(ids), source.shape[1]), device=source.device, dtype=source.dtype)
        done = work.gather(*sizes_of(out), len(source), out.element_size())
        recorder: Any = self.context.recorder
        with recorder.step(f"fetch/{name}", done, phase=Phase.FETCH, lane=self.lane):
            self.context.kernels.gather_rows(source, ids, out)
        return out


def _pairs(roots: Roots) -> dict[str, Tensor]:
    """Event of each scored pair, and the place of its other end (see `LinkDecoder.forward`)."""
    counts = np.diff(roots.candidates)
    events = len(counts)
    pairs = np.repeat(np.arange(events, dtype=np.int64), 1 + counts)
    # An event's own pair is the first of its pairs; the others follow in the order of candidates.
    places = events + np.arange(len(pairs), dtype=np.int64) - pairs - 1
    places[roots.candidates[:-1] + np.arange(events)] = np.arange(events)
    return {"pair_events": torch.from_numpy(pairs), "pair_places": torch.from_numpy(places)}
