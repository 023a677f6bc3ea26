"""Writes batches whose layers all ranks draw together: candidates are looked for and gathered.

The runtime performs the steps in `gnnbench_runtime.approaches.mini_batch.ladies`.
"""

from __future__ import annotations

from gnnbench import work
from gnnbench.approaches.mini_batch.batch import BatchSizes, NearSizes
from gnnbench.approaches.mini_batch.writer import BatchWriter
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import LayerSizes
from gnnbench.steps import After, Buffer, Lane, Phase, Work

PAIR_BYTES = 2 * work.ID_BYTES
"""A candidate as it travels: its id, and its norm as an integer."""


class LayerWriter(BatchWriter):
    """Writes iterations of LADIES: the layers of a batch, then as of every sampler."""

    def prepare(self, chain: Chain, sizes: BatchSizes, *, first: bool) -> list[LayerSizes]:
        lag = 1 if first else self.prefetch + 1
        after = (After(f"update/{self.shape.optimizer}", lag),) if self.prefetch else ()
        for hop, near in enumerate(sizes.near):
            self._look(chain, f"sample/{hop}", near, after if hop == 0 else ())
        return super().prepare(chain, sizes, first=first)

    def _look(self, chain: Chain, where: str, near: NearSizes, after: tuple[After, ...]) -> None:
        """Look for the candidates of a hop, gather them, draw."""
        ranks, longest = len(self.group), int(near.candidates.max())
        room = Buffer("candidates", PAIR_BYTES * (2 * near.candidates + (ranks + 1) * longest))
        scanned = work.scan_neighbours(near.rows, near.edges, near.candidates)
        phase = Phase.SAMPLE
        self._step(chain, f"{where}/scan", scanned, phase, allocates=(room,), after=after)
        device = self.device != "cpu"
        self._gather(chain, f"{where}/counts", work.all_gather(1, work.ID_BYTES, ranks))
        if device:
            copied = work.to_device(PAIR_BYTES * longest)
            chain.step(f"{where}/to_device", copied, phase=phase, lane=Lane.COPY)
        listed = work.all_gather(2 * longest, work.ID_BYTES, ranks)
        self._gather(chain, f"{where}/candidates", listed)
        if device:
            copied = work.to_host(PAIR_BYTES * ranks * longest)
            chain.step(f"{where}/to_host", copied, phase=phase, lane=Lane.COPY)
        picked = work.pick_layer(int(near.candidates.sum()))
        self._step(chain, f"{where}/pick", picked, phase, frees=self.freed("candidates"))

    def _gather(self, chain: Chain, name: str, done: Work) -> None:
        chain.step(name, done, phase=Phase.SAMPLE, lane=self.remote, group=self.group)
