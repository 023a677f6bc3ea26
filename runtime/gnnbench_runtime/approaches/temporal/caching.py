"""Feature rows behind a cache: hits from the device, misses from the host.

The rows that a batch gets are those of the table whatever the cache has (invariant C5).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.data.feature_cache import Answer, FeatureCache
from gnnbench.steps import Lane, Phase, Work
from gnnbench_runtime.models.data import sizes_of
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.recorder import Span

Ids = NDArray[np.int64]


class CachedRows:
    """A table on the host and some of its rows on the device.

    Args:
        context: the rank.
        kind: "nodes" or "edges", for names of steps.
        table: [N, width], on the host.
        cache: which rows are on the device.
    """

    def __init__(self, context: RankContext, kind: str, table: Tensor, cache: FeatureCache) -> None:
        self.context, self.kind, self.table, self.cache = context, kind, table, cache
        self.buffer = torch.zeros(
            (cache.capacity, table.shape[1]), device=context.device, dtype=table.dtype
        )
        self.lane = Lane.COMPUTE
        """Of all steps but copies between host and device."""
        self.counts = np.zeros(3, np.int64)
        """Hits, misses and rows moved so far in the period, recorded requests only."""

    def ask(self, ids: Ids) -> tuple[Answer, dict[str, Tensor]]:
        """Look ids up; return the answer, and as tensors what `fetch` needs of it."""
        nothing = work.cache_lookup(0, 0)
        with self._step("lookup", nothing) as span:
            found = self.cache.request(ids)
            span.did(work.cache_lookup(len(ids), len(found.moved)))
        self.counts += found.counts[:3]
        held = {
            f"{self.kind}_{name}": torch.from_numpy(getattr(found, name))
            for name in ("hits", "slots", "missing", "rows", "entering", "entered")
        }
        return found, held

    def refill(self, ids: Ids, slots: Tensor) -> None:
        """Move rows into slots of the cache; `slots` int64 on the device."""
        moved = self._moved("refill", ids)
        with self._step("refill", self._gathered(moved, len(moved))):
            self.buffer[slots] = moved

    def fetch(self, answer: Answer, held: dict[str, Tensor]) -> Tensor:
        """Return the rows of a request, and let the missing ones enter."""
        index = {name: held[f"{self.kind}_{name}"] for name in _NAMES}
        gather, width = self.context.kernels.gather_rows, self.table.shape[1]
        hits, misses = len(answer.hits), len(answer.missing)
        out = self.buffer.new_empty((hits + misses, width))
        with self._step("hits", self._work(hits, len(self.buffer))):
            part = out.new_empty((hits, width))
            gather(self.buffer, index["slots"], part)
            out[index["hits"]] = part
            del part
        moved = self._moved("miss", answer.moved)
        with self._step("misses", self._work(misses, len(moved))):
            part = out.new_empty((misses, width))
            gather(moved, index["rows"], part)
            out[index["missing"]] = part
            del part
        with self._step("enter", self._work(len(answer.entered), len(moved))):
            self.buffer[index["entered"]] = moved[index["entering"]]
        return out

    def peek(self, ids: Ids) -> Tensor:
        """The rows of ids, past the cache: an evaluation between periods leaves no trace."""
        return self.table[torch.from_numpy(ids)].to(self.context.device)

    def reload(self) -> None:
        """Fill the buffer anew, after the cache took over a state."""
        full = np.flatnonzero(self.cache.id_of >= 0)
        rows = self.table[torch.from_numpy(self.cache.id_of[full])]
        self.buffer[torch.from_numpy(full).to(self.buffer.device)] = rows.to(self.buffer.device)

    def _moved(self, name: str, ids: Ids) -> Tensor:
        """Gather rows on the host and copy them to the device."""
        staged = self.table.new_empty((len(ids), self.table.shape[1]))
        with self._step(f"{name}_rows", self._gathered(staged, len(self.table))):
            torch.index_select(self.table, 0, torch.from_numpy(ids), out=staged)
        copied = work.to_device(staged.nbytes)
        copies = self.lane if self.context.device.type == "cpu" else Lane.COPY
        with self._step(f"{name}_copy", copied, copies):
            return staged.to(self.context.device, copy=True)

    def _work(self, rows: int, source_rows: int) -> Work:
        return work.gather(rows, self.table.shape[1], source_rows, self.table.element_size())

    def _gathered(self, out: Tensor, source_rows: int) -> Work:
        return work.gather(*sizes_of(out), source_rows, out.element_size())

    def _step(self, name: str, done: Work, lane: Lane | None = None) -> Span:
        full = f"fetch/{self.kind}_{name}"
        return self.context.recorder.step(full, done, phase=Phase.FETCH, lane=lane or self.lane)


_NAMES = ("hits", "slots", "missing", "rows", "entering", "entered")
