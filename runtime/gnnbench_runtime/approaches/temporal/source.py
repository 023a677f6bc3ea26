"""The source of batches: a store that events are inserted into and neighbours are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import StreamStructure
from gnnbench.data.stream import EdgeStream
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.approaches.temporal.memory import NodeMemory
from gnnbench_runtime.models.data import sizes_of
from gnnbench_runtime.protocol import RankContext


@dataclass(slots=True, kw_only=True)
class StreamBatch:
    """Input of one iteration on this rank, ready to train on.

    Args:
        events: ids, int64 [b].
        sizes: queries R_0 ... R_L.
        rows: features of the nodes of the last hop, [R_L, n].
        edges: features of the sampled edges, hop next to the roots first, each [S, e].
        deltas, places: of the same edges, see `TemporalAttention`.
    """

    events: NDArray[np.int64]
    sizes: tuple[int, ...]
    rows: Tensor
    edges: list[Tensor]
    deltas: list[Tensor]
    places: list[Tensor]
    memory: tuple[Tensor, ...] = ()
    """Of a model with memory: the inputs of its updater but for `rows` (see `MemoryUpdater`)."""


class StreamSource:
    """This rank's share of every batch of a stream.

    Args:
        context: the rank.
        data: the stream; its features are held on the device.
        structure: what is asked for when.
        shape: the model.
    """

    def __init__(
        self,
        context: RankContext,
        data: EdgeStream,
        structure: StreamStructure,
        shape: TemporalShape,
    ) -> None:
        self.context, self.structure, self.shape = context, structure, shape
        self.sampler = structure.sampler(structure.empty_store())
        self.known = 0
        self.memory = NodeMemory(context, structure, shape) if shape.memory else None
        self.nodes, self.edges = self._held(data.node_features), self._held(data.edge_features)

    def _held(self, features: NDArray[np.float32] | None) -> Tensor | None:
        if features is None or not features.shape[1]:
            return None
        rows = torch.from_numpy(np.array(features))
        return rows.to(self.context.device, self.context.dtype)

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
            done = work.ingest(stop - first)
            with self.context.recorder.step("ingest", done, phase=Phase.LOAD):
                self._insert(piece)

    def _insert(self, piece: Piece) -> None:
        if piece.ingest[1] > self.known:
            self.sampler.store = self.structure.ingest(self.sampler.store, piece)
            self.known = piece.ingest[1]

    def batch(self, piece: Piece) -> StreamBatch:
        """Draw the neighbours of this rank's share, and fetch rows of nodes and edges."""
        context, shape, device = self.context, self.shape, self.context.device
        roots = self.structure.roots(piece, context.rank)
        nothing = work.sample(seeds=0, edges=0, vertices=0, read=0)
        with context.recorder.step("sample/draw", nothing, phase=Phase.SAMPLE) as span:
            sample = self.structure.draw(self.sampler, piece, roots)
            span.did(work.sample_temporal(sample.sizes))
        fanouts = reversed(shape.fanouts)
        hops, dtype = sample.hops, context.dtype
        held = {f"delta{n}": torch.from_numpy(hop.deltas).to(dtype) for n, hop in enumerate(hops)}
        for n, (hop, fanout) in enumerate(zip(hops, fanouts, strict=True)):
            held[f"place{n}"] = torch.from_numpy(hop.slots(fanout))
        if self.edges is not None:
            held["edges"] = torch.from_numpy(np.concatenate([hop.events for hop in hops]))
        if self.nodes is not None:
            held["nodes"] = torch.from_numpy(sample.nodes)
        if self.memory is not None:
            held |= self.memory.asked(sample.nodes)
        if device.type != "cpu":
            size = sum(tensor.nbytes for tensor in held.values())
            copied = work.to_device(size)
            with context.recorder.step("fetch/copy", copied, phase=Phase.FETCH, lane=Lane.COPY):
                held = {name: tensor.to(device) for name, tensor in held.items()}
        deltas = [held[f"delta{n}"] for n in range(len(hops))]
        rows, edges = self._empty(len(sample.nodes)), self._empty(sum(map(len, deltas)))
        if self.nodes is not None:
            rows = self._fetched("nodes", self.nodes, held["nodes"])
        if self.edges is not None:
            edges = self._fetched("edges", self.edges, held["edges"])
        memory: tuple[Tensor, ...] = ()
        if self.memory is not None:
            state = self._fetched("memory", self.memory.table, held["distinct"])
            with_edges = self._empty(len(state))
            if self.edges is not None:
                with_edges = self._fetched("messages", self.edges, held["messages"])
            memory = state, with_edges, held["ages"], held["has"], held["inverse"]
        return StreamBatch(
            events=roots.events,
            sizes=sample.sizes,
            rows=rows,
            edges=list(edges.split([len(delta) for delta in deltas])),
            deltas=deltas,
            places=[held[f"place{n}"] for n in range(len(hops))],
            memory=memory,
        )

    def _empty(self, count: int) -> Tensor:
        return torch.empty((count, 0), device=self.context.device, dtype=self.context.dtype)

    def _fetched(self, name: str, source: Tensor, ids: Tensor) -> Tensor:
        out = torch.empty((len(ids), source.shape[1]), device=source.device, dtype=source.dtype)
        done = work.gather(*sizes_of(out), len(source), out.element_size())
        recorder: Any = self.context.recorder
        with recorder.step(f"fetch/{name}", done, phase=Phase.FETCH):
            self.context.kernels.gather_rows(source, ids, out)
        return out
