"""Feature stores: input rows by vertex id, from this rank, from the host's memory, from owners.

`feature_store` puts a cache before the last two where the run has one. The plan's part is
`gnnbench.approaches.mini_batch.fetching`; steps have the same names.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.mini_batch.caches import RowCache, ranking
from gnnbench.data.caching import Turn
from gnnbench.data.graph import Graph
from gnnbench.steps import Ints, Lane, Phase, Work
from gnnbench_runtime.models.data import rows_as_tensor, size_of, sizes_of
from gnnbench_runtime.models.workspace import Workspace, empty
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import on_host
from gnnbench_runtime.recorder import Span


class Rows(Protocol):
    """A table of rows."""

    def fetch(self, ids: NDArray[np.int64], out: Tensor) -> None:
        """Put the rows of `ids` into `out`, in order."""


class _Recorded:
    """Records steps of fetching.

    Args:
        context: the rank.
        lane: of local work.
    """

    def __init__(self, context: RankContext, lane: Lane) -> None:
        self.context, self.lane = context, lane
        self.host_lane = lane if context.device.type == "cpu" else Lane.HOST

    def step(self, name: str, done: Work, lane: Lane | None = None) -> Span:
        return self.context.recorder.step(name, done, phase=Phase.FETCH, lane=lane or self.lane)

    def gathered(self, out: Tensor, source_rows: int) -> Work:
        return work.gather(*sizes_of(out), source_rows, out.element_size())

    def on_device(self, ids: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(ids).to(self.context.device)


class OwnRows(_Recorded):
    """All rows on this rank's device."""

    def __init__(self, context: RankContext, graph: Graph, lane: Lane) -> None:
        super().__init__(context, lane)
        assert graph.features is not None
        self._rows = rows_as_tensor(graph.features, None, context.dtype, context.device)

    @property
    def rows(self) -> Tensor:
        """The table, [N, d_0]; not to be written to."""
        return self._rows

    def fetch(self, ids: NDArray[np.int64], out: Tensor) -> None:
        """Put the rows of `ids` into `out`, in order."""
        with self.step("fetch/gather", self.gathered(out, len(self._rows))):
            self.context.kernels.gather_rows(self._rows, self.on_device(ids), out)


class HostRows(_Recorded):
    """All rows in the host's memory: gathered there, then copied to the device.

    On CUDA the gathered rows lie in pinned memory. The table itself is the mapped file where its
    type is the run's, so that the ranks of a host share it.
    """

    def __init__(self, context: RankContext, graph: Graph, lane: Lane) -> None:
        super().__init__(context, lane)
        assert graph.features is not None
        self._rows = rows_as_tensor(graph.features, None, context.dtype, torch.device("cpu"))
        self._staging = self._rows.new_empty(0)

    def fetch(self, ids: NDArray[np.int64], out: Tensor) -> None:
        """Put the rows of `ids` into `out`, in order."""
        staged = self._staged(*sizes_of(out))
        done = work.gather_host(*sizes_of(out), len(self._rows), out.element_size())
        with self.step("fetch/stage", done, self.host_lane):
            index = torch.from_numpy(ids)
            if self.context.device.type == "cpu":
                self.context.kernels.gather_rows(self._rows, index, staged)
            else:
                torch.index_select(self._rows, 0, index, out=staged)
        with self.step("fetch/rows", work.to_device(size_of(out)), Lane.COPY):
            # A copy that waits: the staged rows are overwritten by those of the next batch.
            out.copy_(staged)

    def _staged(self, rows: int, width: int) -> Tensor:
        size = rows * width
        if self._staging.numel() < size:
            self._staging = self._rows.new_empty(0)  # both need not live at once
            if self.context.device.type == "cuda":
                self._staging = torch.empty(size, dtype=self._rows.dtype, pin_memory=True)
            else:
                self._staging = empty(size, self._rows.device, self._rows.dtype)
        return self._staging[:size].view(rows, width)


class OwnersRows(_Recorded):
    """Rows on their owners, fetched by all-to-all.

    Args:
        context: the rank.
        graph: has the features.
        owner: int32 [N].
        lane: of local work.
        remote: lane of communication.
    """

    def __init__(
        self,
        context: RankContext,
        graph: Graph,
        owner: NDArray[np.int32],
        lane: Lane,
        remote: Lane,
    ) -> None:
        super().__init__(context, lane)
        assert graph.features is not None
        self._owner, self._remote = owner, remote
        self._workspace = Workspace(context.device, context.dtype)
        own = np.flatnonzero(owner == context.rank)
        self._rows = rows_as_tensor(graph.features, own, context.dtype, context.device)
        # Position of every vertex among the rows of its owner.
        self._position = np.empty(len(owner), np.int64)
        for rank in range(context.world_size):
            mine = np.flatnonzero(owner == rank)
            self._position[mine] = np.arange(len(mine))

    def fetch(self, ids: NDArray[np.int64], out: Tensor) -> None:
        """Put the rows of `ids` into `out`, in order. All ranks call it together."""
        comm, world, device = self.context.comm, self.context.world_size, out.device
        gather, phase, lane = self.context.kernels.gather_rows, Phase.FETCH, self._remote
        with self.step("fetch/route", work.route(len(ids))):
            owners = self._owner[ids]
            by_owner = np.argsort(owners, kind="stable")
            asked = np.bincount(owners, minlength=world)
            wanted = self.on_device(self._position[ids[by_owner]])
            place = np.empty(len(ids), np.int64)
            place[by_owner] = np.arange(len(ids))
        send = self.on_device(asked)
        recv = torch.empty(world, dtype=torch.int64, device=device)
        comm.all_to_all(recv, send, None, None, "fetch/counts", phase, lane=lane)
        served, asked_rows = on_host(recv), asked.tolist()
        requests = torch.empty(sum(served), dtype=torch.int64, device=device)
        comm.all_to_all(requests, wanted, served, asked_rows, "fetch/ids", phase, lane=lane)
        given = self._workspace.get("served_rows", len(requests), out.shape[1])
        with self.step("fetch/gather", self.gathered(given, len(self._rows))):
            gather(self._rows, requests, given)
        got = self._workspace.get("fetched_rows", len(ids), out.shape[1])
        comm.all_to_all(got, given, asked_rows, served, "fetch/rows", phase, lane=lane)
        with self.step("fetch/place", self.gathered(out, len(ids))):
            gather(got, self.on_device(place), out)


class CachedRows(_Recorded):
    """A cache on the device before rows that lie elsewhere.

    Its rows are exact copies, so that results do not depend on it. Hits and misses of rows that it
    may hold are counted.

    Args:
        origin: the rows behind it.
        cache: decides what it holds.
        num_rows, width: of the features.
        context: the rank.
        lane: of local work.
    """

    def __init__(
        self,
        origin: Rows,
        cache: RowCache,
        num_rows: int,
        width: int,
        context: RankContext,
        lane: Lane,
    ) -> None:
        super().__init__(context, lane)
        self.hits = self.misses = 0
        self._origin, self._cache, self._capacity = origin, cache, cache.capacity
        self._workspace = Workspace(context.device, context.dtype)
        shape = (self._capacity, width)
        self._table = torch.zeros(shape, device=context.device, dtype=context.dtype)
        self._slot_of = np.empty(num_rows, np.int64)
        self._epoch = -1
        self._free = np.empty(0, np.int64)

    def fetch(self, ids: NDArray[np.int64], out: Tensor) -> None:
        """Put the rows of `ids` into `out`, in order, and change the cache."""
        if self._cache.starts != self._epoch:
            self._epoch = self._cache.starts
            self._slot_of[:] = -1
            self._free = np.arange(self._capacity)[::-1]
        with self.step("fetch/lookup", work.look_up(len(ids)), self.host_lane):
            slots = self._slot_of[ids]
            fetched_at = np.flatnonzero(slots < 0)
            fetched = ids[fetched_at]
        policy = self._cache.policy
        with self.step("fetch/rank", ranking(policy, 0, 0), self.host_lane) as span:
            held, turn = self._cache.held_rows, self._cache.turn(ids)
            used = turn.hits + len(turn.misses)
            span.did(ranking(policy, held + len(turn.misses), used))
        self.hits += len(ids) - len(fetched)
        self.misses += len(turn.misses)
        got = self._workspace.get("missed_rows", len(fetched), out.shape[1])
        self._origin.fetch(fetched, got)
        self._fill(out, slots, fetched_at, got, *self._places(turn, fetched))

    def _places(self, turn: Turn, fetched: Ints) -> tuple[Ints, Ints]:
        """Where entering rows lie among those fetched, and the slots that they get."""
        at = np.arange(len(fetched))
        if len(fetched) > len(turn.misses):  # the rank's own rows are fetched, and never cached
            at = at[self._cache.may_hold(fetched)]
        leaving = self._slot_of[turn.evicted]
        self._slot_of[turn.evicted] = -1
        free, count = np.concatenate([self._free, leaving]), int(turn.entering.sum())
        slots, self._free = free[len(free) - count :], free[: len(free) - count]
        self._slot_of[turn.inserted] = slots
        return at[turn.entering], slots

    def _fill(
        self, out: Tensor, slots: Ints, at: Ints, got: Tensor, entering: Ints, into: Ints
    ) -> None:
        """Put hits and fetched rows into their places, then change the cache."""
        # A miss reads slot 0, and is overwritten by the row that was fetched.
        lists = [np.maximum(slots, 0), at, entering, into]
        if self.context.device.type == "cpu":
            hit_d, at_d, entering_d, into_d = (torch.from_numpy(ids) for ids in lists)
        else:
            copied = work.to_device(sum(ids.nbytes for ids in lists))
            with self.step("fetch/index", copied, Lane.COPY):
                hit_d, at_d, entering_d, into_d = (self.on_device(ids) for ids in lists)
        gather = self.context.kernels.gather_rows
        with self.step("fetch/hits", self.gathered(out, self._capacity)):
            gather(self._table, hit_d, out)
        with self.step("fetch/merge", self.gathered(got, len(got))):
            out.index_copy_(0, at_d, got)
        rows = self._workspace.get("entering_rows", len(entering), out.shape[1])
        with self.step("fetch/cache", self.gathered(rows, len(got))):
            gather(got, entering_d, rows)
            self._table.index_copy_(0, into_d, rows)


def feature_store(
    context: RankContext,
    graph: Graph,
    owner: NDArray[np.int32] | None,
    on_host: bool,
    cache: RowCache | None,
    lanes: tuple[Lane, Lane],
) -> Rows:
    """The store of a rank's features.

    Args:
        context: the rank.
        graph: has the features.
        owner: int32 [N]; None where features are not partitioned.
        on_host: whether all of them stay in the host's memory.
        cache: of rows that lie elsewhere, or none.
        lanes: of local work, and of communication.
    """
    lane, remote = lanes
    if owner is None and not on_host:
        return OwnRows(context, graph, lane)
    found: Rows
    if owner is None:
        found = HostRows(context, graph, lane)
    else:
        found = OwnersRows(context, graph, owner, lane, remote)
    if cache is None:
        return found
    return CachedRows(found, cache, graph.num_nodes, graph.num_features, context, lane)


def rows_on_device(store: Rows) -> Tensor | None:
    """All rows, where a store has them on this rank's device."""
    return store.rows if isinstance(store, OwnRows) else None
