"""Steps that bring the input rows of a batch to the device, from it, from the host or from owners.

Where a cache lies before the host's or the owners' rows, its misses are fetched as a batch of their
own, hits are gathered from the cache, misses put among them, and some enter the cache:

    lookup, rank, (fetch of the misses), hits, merge, cache
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.mini_batch.batch import BatchSizes
from gnnbench.approaches.mini_batch.caches import (
    CacheSizes,
    index_bytes,
    ranking,
    ranking_bytes,
)
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import StackShape, total
from gnnbench.steps import Buffer, Ints, Lane, Phase, Size, Space, Work

ID_BYTES = work.ID_BYTES
HOST = "host"
"""The placement of features in the host's memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Store:
    """Where the features lie.

    Args:
        num_rows: of the whole table.
        on_host: whether it lies in the host's memory.
        owned_rows: int64 [P], rows of each owner; None where features are not partitioned.
        policy: of the cache.
        capacity: rows of every rank's cache.
        sharers: ranks that share the host's table.
    """

    num_rows: int
    on_host: bool = False
    owned_rows: Ints | None = None
    policy: str = "none"
    capacity: int = 0
    sharers: int = 1

    def buffers(self, width: int, s: int) -> tuple[Buffer, ...]:
        """What a rank holds throughout; `width` elements of `s` bytes are a row."""
        rows: Size = self.num_rows if self.owned_rows is None else self.owned_rows
        size = rows * width * s
        if self.on_host:
            found = [Buffer("features", -(-size // self.sharers), Space.HOST)]
        else:
            found = [Buffer("features", size)]
        if self.owned_rows is not None:
            found.append(Buffer("owners", (4 + ID_BYTES) * self.num_rows, Space.HOST))
        if self.capacity:
            index = index_bytes(self.policy, self.num_rows)
            found += [
                Buffer("feature_cache", self.capacity * width * s),
                Buffer("cache_index", index, Space.HOST),
            ]
        return tuple(found)


class FetchWriter:
    """Writes the steps of a fetch into a chain.

    Args:
        shape: the model.
        store: where the features lie.
        ranks: how many.
        local, remote: lanes of local work and of communication.
        device: on others than "cpu", ids are copied to it, and the host gathers on its own lane.
    """

    def __init__(
        self,
        shape: StackShape,
        store: Store,
        ranks: int,
        local: Lane,
        remote: Lane,
        device: str,
    ) -> None:
        self.store, self.group = store, tuple(range(ranks))
        self.local, self.remote, self.on_cpu = local, remote, device == "cpu"
        self.host = local if self.on_cpu else Lane.HOST
        self.s, self.width = shape.element_bytes, shape.dims[0]

    def write(self, chain: Chain, sizes: BatchSizes, inputs: Buffer) -> None:
        """Fetch the input rows of a batch into a buffer."""
        rows = sizes.vertices[0]
        if sizes.cached is not None:
            self._behind_a_cache(chain, sizes, sizes.cached, inputs)
        elif sizes.requests is not None:
            self._from_owners(chain, sizes.requests, inputs)
        elif self.store.on_host:
            self._from_host(chain, rows, inputs)
        else:
            self._step(chain, "fetch/gather", self._gather(rows, self.store.num_rows), inputs)

    def _behind_a_cache(
        self, chain: Chain, sizes: BatchSizes, cached: CacheSizes, inputs: Buffer
    ) -> None:
        rows, capacity = sizes.vertices[0], self.store.capacity
        self._step(chain, "fetch/lookup", work.look_up(rows), lane=self.host)
        scratch = Buffer("cache_scratch", ranking_bytes(cached.ranked), Space.HOST)
        chain.step(
            "fetch/rank",
            ranking(self.store.policy, cached.ranked, cached.hits + cached.misses),
            phase=Phase.FETCH,
            lane=self.host,
            allocates=(scratch,),
            frees=("cache_scratch",),
        )
        fetched: Size = cached.misses
        if sizes.requests is not None:
            fetched = sizes.requests.sum(axis=1)
        missed = Buffer("missed_rows", fetched * self.width * self.s)
        if sizes.requests is not None:
            self._from_owners(chain, sizes.requests, missed)
        else:
            self._from_host(chain, fetched, missed)
        if not self.on_cpu:
            ids = work.to_device(ID_BYTES * (rows + fetched + 2 * cached.inserted))
            chain.step("fetch/index", ids, phase=Phase.FETCH, lane=Lane.COPY)
        self._step(chain, "fetch/hits", self._gather(rows, capacity), inputs)
        self._step(chain, "fetch/merge", self._gather(fetched, fetched))
        entering = Buffer("entering_rows", cached.inserted * self.width * self.s)
        self._step(chain, "fetch/cache", self._gather(cached.inserted, fetched), entering)

    def _from_host(self, chain: Chain, rows: Size, into: Buffer) -> None:
        """Gather rows in the host's memory, then copy them to the device."""
        size = rows * self.width * self.s
        staged = Buffer("staged_rows", size, Space.HOST)
        gathered = work.gather_host(rows, self.width, self.store.num_rows, self.s)
        self._step(chain, "fetch/stage", gathered, staged, lane=self.host)
        copied = work.to_device(size)
        chain.step("fetch/rows", copied, phase=Phase.FETCH, lane=Lane.COPY, allocates=(into,))

    def _from_owners(self, chain: Chain, requests: Ints, into: Buffer) -> None:
        """Fetch rows from their owners: counts, ids, rows, then back into order."""
        s, width = self.s, self.width
        wanted, given = requests.sum(axis=1), requests.sum(axis=0)
        others = requests.copy()
        np.fill_diagonal(others, 0)
        assert self.store.owned_rows is not None
        # Owner, order, position, place and two temporary orders of each row; ids asked of this one.
        ids = Buffer("scratch", (4 + 5 * ID_BYTES) * wanted + ID_BYTES * given, Space.HOST)
        self._step(chain, "fetch/route", work.route(wanted), ids)
        ones = np.ones_like(others)
        np.fill_diagonal(ones, 0)
        self._exchange(chain, "fetch/counts", ones, ID_BYTES)
        self._exchange(chain, "fetch/ids", others, ID_BYTES)
        served = Buffer("served_rows", given * width * s)
        self._step(chain, "fetch/gather", self._gather(given, self.store.owned_rows), served)
        self._exchange(chain, "fetch/rows", others.T, width * s)
        fetched = Buffer("fetched_rows", wanted * width * s)
        self._step(chain, "fetch/place", self._gather(wanted, wanted), fetched, into)

    def _gather(self, rows: Size, source_rows: Size) -> Work:
        return work.gather(rows, self.width, source_rows, self.s)

    def _exchange(self, chain: Chain, name: str, send: Ints, unit_bytes: int) -> None:
        done = work.all_to_all(send, total(send.T), unit_bytes)
        chain.step(name, done, phase=Phase.FETCH, lane=self.remote, group=self.group)

    def _step(self, chain: Chain, name: str, done: Work, *buffers: Buffer, **place: Any) -> None:
        lane = place.pop("lane", self.local)
        chain.step(name, done, phase=Phase.FETCH, lane=lane, allocates=buffers, **place)
