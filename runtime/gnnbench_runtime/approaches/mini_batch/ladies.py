"""LADIES on real ranks: each looks for candidates among its share of the edges, and all gather.

The plan's part is `gnnbench.approaches.mini_batch.layer_writer`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench import work
from gnnbench.data.ladies import LayerSource, Pick
from gnnbench.data.sampling import Ids, Near, Weights
from gnnbench.steps import Lane, Phase, Work
from gnnbench_runtime.approaches.mini_batch.sampled import SampledBatches, SampledTrainer
from gnnbench_runtime.models.data import size_of
from gnnbench_runtime.reading import array_on_host, on_host
from gnnbench_runtime.training import Batch


class LayerBatches(SampledBatches):
    """Batches whose layers all ranks draw together."""

    source: LayerSource

    def prepare(self, epoch: int, step: int, slot: int) -> Batch:
        world = self.context.world_size
        if self.source.gathers and world > 1:
            self.source.look(epoch, step, world, self._look)
        return super().prepare(epoch, step, slot)

    def _look(self, reached: Ids, hop: int, pick: Pick) -> tuple[Ids, Weights, list[Near]]:
        """Candidates of this rank's share of the rows, gathered from all ranks, and the draw."""
        context, sampler, where = self.context, self.source.layers, f"sample/{hop}"
        with self._step(f"{where}/scan") as span:
            ids, norms, near = sampler.share(reached, context.world_size, context.rank)
            span.did(work.scan_neighbours(near.rows, near.edges, near.candidates))
        counts = on_host(self._gathered(f"{where}/counts", torch.tensor([len(ids)])))
        sizes = [count for (count,) in counts]
        # What is known here is not read back (and a device without values says zeros).
        sizes[context.rank] = len(ids)
        own = torch.zeros((max(sizes), 2), dtype=torch.int64)
        own[: len(ids)] = torch.from_numpy(np.stack([ids, norms], 1))
        lists = self._exchanged(where, own)
        with self._step(f"{where}/pick") as span:
            found = [part[:size] for part, size in zip(lists, sizes, strict=True)]
            drawn = pick(*sampler.merged([(part[:, 0], part[:, 1]) for part in found]))
            span.did(work.pick_layer(sum(sizes)))
        return *drawn, [near]

    def _exchanged(self, where: str, own: Tensor) -> Any:
        """Lists of all ranks in host memory, int64 [P, longest, 2]."""
        device = self.context.device
        if device.type == "cpu":
            return self._gathered(f"{where}/candidates", own).numpy()
        with self._copying(f"{where}/to_device", work.to_device(size_of(own))):
            sent = own.to(device)
        every = self._gathered(f"{where}/candidates", sent)
        with self._copying(f"{where}/to_host", work.to_host(size_of(every))):
            return array_on_host(every)

    def _gathered(self, name: str, own: Tensor) -> Tensor:
        """The same tensor of every rank, one after the other."""
        sent = own.to(self.context.device)
        every = sent.new_empty((self.context.world_size, *sent.shape))
        self.context.comm.all_gather(every, sent, name, Phase.SAMPLE, lane=self.remote)
        return every

    def _copying(self, name: str, done: Work) -> Any:
        return self.context.recorder.step(name, done, phase=Phase.SAMPLE, lane=Lane.COPY)


class LadiesTrainer(SampledTrainer):
    """One rank of training on batches of LADIES."""

    batches_type = LayerBatches
