"""Sampling from a partitioned store: queries go to the owners of their vertices, replies come back.

Per hop, in one order on every rank: counts, queries of 16 bytes, replies of `fanout` places of 20
bytes, empty places included. A draw depends on the query only, so that the sample is the one that a
store of all edges would give (invariant D2).

Source: temporal reference section 9.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import Roots, StreamStructure
from gnnbench.data.temporal_sampling import Hop, Sample, TemporalSampler
from gnnbench.steps import Phase, Work
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import array_on_host, on_host
from gnnbench_runtime.recorder import Span

Ids = NDArray[np.int64]
_EMPTY = -1
_COLUMNS = work.STORED_EDGE_BYTES // 4
"""int32 words of a place: neighbour, then time and event of two words each."""


def ask_owners(
    context: RankContext,
    structure: StreamStructure,
    sampler: TemporalSampler,
    piece: Piece,
    roots: Roots,
) -> Sample:
    """Draw the neighbours of a rank's queries from the stores of their owners."""
    nodes, times, hops = roots.nodes, roots.times, []
    for number, fanout in enumerate(structure.sampling.fanouts_from_seeds):
        ask = _Exchange(context, structure, sampler, piece, number, fanout)
        hop = ask.hop(nodes, times)
        hops.append(hop)
        nodes = np.concatenate([nodes, hop.neighbours])
        times = np.concatenate([times, hop.times])
    return Sample(hops=tuple(hops), nodes=nodes, times=times)


class _Exchange:
    """One hop."""

    def __init__(
        self,
        context: RankContext,
        structure: StreamStructure,
        sampler: TemporalSampler,
        piece: Piece,
        number: int,
        fanout: int,
    ) -> None:
        self.context, self.structure, self.sampler = context, structure, sampler
        self.piece, self.number, self.fanout = piece, number, fanout

    def hop(self, nodes: Ids, times: Ids) -> Hop:
        """Return the neighbours of the queries, in their order."""
        world = self.context.world_size
        with self._step("route", work.route(len(nodes))):
            owners = self.structure.owner[nodes]
            order = np.argsort(owners, kind="stable")
            asked = np.bincount(owners, minlength=world)
            queries = self._on_device(np.stack([nodes[order], times[order]], 1))
        send = self._on_device(asked)
        recv = torch.empty_like(send)
        self._exchange("counts", recv, send, None, None)
        served, given = on_host(recv), asked.tolist()
        arrived = queries.new_empty((sum(served), 2))
        self._exchange("queries", arrived, queries, served, given)
        with self._step("serve", work.serve_temporal(len(arrived), self.fanout)):
            replies = self._on_device(self._served(array_on_host(arrived)))
        returned = replies.new_empty((len(nodes), self.fanout * _COLUMNS))
        self._exchange("replies", returned, replies, given, served)
        nothing = work.place_temporal(len(nodes), 0)
        with self._step("place", nothing) as span:
            found = self._placed(array_on_host(returned), order, times)
            span.did(work.place_temporal(len(nodes), found.num_edges))
        return found

    def _served(self, queries: Ids) -> NDArray[np.int32]:
        """Neighbours of others' queries [q, 2], as int32 [q, 5 f]: neighbours, times, events."""
        f, piece = self.fanout, self.piece
        key = self.structure.hop_key(piece, self.number)
        nodes, times = np.ascontiguousarray(queries.T)
        hop = self.sampler.hop(nodes, times, f, key, since=piece.since, before_event=piece.known)
        slots = hop.slots(f)
        neighbours = np.full(len(nodes) * f, _EMPTY, np.int32)
        neighbours[slots] = hop.neighbours
        rest = np.zeros((2, len(nodes) * f), np.int64)
        rest[0, slots], rest[1, slots] = hop.times, hop.events
        words = rest.view(np.int32).reshape(2, len(nodes), 2 * f)
        return np.concatenate([neighbours.reshape(-1, f), words[0], words[1]], 1)

    def _placed(self, replies: NDArray[np.int32], order: Ids, times: Ids) -> Hop:
        """Undo the order by owner, and leave out empty places."""
        f = self.fanout
        table = np.empty_like(replies)
        table[order] = replies
        neighbours = table[:, :f]
        full = neighbours != _EMPTY
        columns = [
            np.ascontiguousarray(table[:, at : at + 2 * f]).view(np.int64)[full]
            for at in (f, 3 * f)
        ]
        indptr = np.zeros(len(table) + 1, np.int64)
        np.cumsum(full.sum(1), out=indptr[1:])
        asked = np.repeat(times, np.diff(indptr))
        return Hop(
            indptr=indptr,
            neighbours=neighbours[full].astype(np.int64),
            times=columns[0],
            events=columns[1],
            deltas=asked - columns[0],
        )

    def _on_device(self, array: NDArray[np.int64] | NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.context.device)

    def _exchange(
        self,
        name: str,
        output: Tensor,
        input: Tensor,
        received: list[int] | None,
        sent: list[int] | None,
    ) -> None:
        full = f"sample/{self.number}/{name}"
        self.context.comm.all_to_all(output, input, received, sent, full, Phase.SAMPLE)

    def _step(self, name: str, done: Work) -> Span:
        full = f"sample/{self.number}/{name}"
        return self.context.recorder.step(full, done, phase=Phase.SAMPLE)
