"""Feature stores: input rows by vertex id, from this rank's memory or from their owners."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.data.graph import Graph
from gnnbench.steps import Lane, Phase, Work
from gnnbench_runtime.models.data import rows_as_tensor, sizes_of
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import on_host
from gnnbench_runtime.recorder import Span


class FeatureStore:
    """Input rows by vertex id: all on this rank, or on their owners and fetched by all-to-all.

    Args:
        context: the rank.
        graph: has the features.
        owner: int32 [N], or None if every rank holds all rows.
        lanes: of local work, and of communication.
    """

    def __init__(
        self,
        context: RankContext,
        graph: Graph,
        owner: NDArray[np.int32] | None,
        lanes: tuple[Lane, Lane],
    ) -> None:
        assert graph.features is not None
        self._context, self._owner = context, owner
        self._local, self._remote = lanes
        rows = None if owner is None else np.flatnonzero(owner == context.rank)
        self._rows = rows_as_tensor(graph.features, rows, context.dtype, context.device)
        if owner is not None:
            # Position of every vertex among the rows of its owner.
            self._position = np.empty(len(owner), np.int64)
            for rank in range(context.world_size):
                mine = np.flatnonzero(owner == rank)
                self._position[mine] = np.arange(len(mine))

    def fetch(self, ids: NDArray[np.int64], out: Tensor) -> None:
        """Put the rows of `ids` into `out`, in order."""
        if self._owner is None:
            with self._step("fetch/gather", self._gathered(out, len(self._rows))):
                index = torch.from_numpy(ids).to(out.device)
                self._context.kernels.gather_rows(self._rows, index, out)
        else:
            self._fetch_remote(ids, out, self._owner)

    def _fetch_remote(self, ids: NDArray[np.int64], out: Tensor, owner: NDArray[np.int32]) -> None:
        comm, world, device = self._context.comm, self._context.world_size, out.device
        gather, phase, lane = self._context.kernels.gather_rows, Phase.FETCH, self._remote
        with self._step("fetch/route", work.route(len(ids))):
            owners = owner[ids]
            by_owner = np.argsort(owners, kind="stable")
            asked = np.bincount(owners, minlength=world)
            wanted = torch.from_numpy(self._position[ids[by_owner]]).to(device)
            place = np.empty(len(ids), np.int64)
            place[by_owner] = np.arange(len(ids))
        send = torch.from_numpy(asked).to(device)
        recv = torch.empty(world, dtype=torch.int64, device=device)
        comm.all_to_all(recv, send, None, None, "fetch/counts", phase, lane=lane)
        served, asked_rows = on_host(recv), asked.tolist()
        requests = torch.empty(sum(served), dtype=torch.int64, device=device)
        comm.all_to_all(requests, wanted, served, asked_rows, "fetch/ids", phase, lane=lane)
        given = torch.empty((len(requests), out.shape[1]), device=device, dtype=out.dtype)
        with self._step("fetch/gather", self._gathered(given, len(self._rows))):
            gather(self._rows, requests, given)
        got = torch.empty((len(ids), out.shape[1]), device=device, dtype=out.dtype)
        comm.all_to_all(got, given, asked_rows, served, "fetch/rows", phase, lane=lane)
        with self._step("fetch/place", self._gathered(out, len(ids))):
            gather(got, torch.from_numpy(place).to(device), out)

    def _gathered(self, out: Tensor, source_rows: int) -> Work:
        return work.gather(*sizes_of(out), source_rows, out.element_size())

    def _step(self, name: str, done: Work) -> Span:
        return self._context.recorder.step(name, done, phase=Phase.FETCH, lane=self._local)
