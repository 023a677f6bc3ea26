"""What a sparse and a dense rank of `mixed-accelerators` share: batch, passes and steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.whole_graph.mixed_structure import MixedStructure
from gnnbench.data.keys import fold
from gnnbench.steps import Lane, Phase, Work
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.models.data import sizes_of
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.pending import Pending
from gnnbench_runtime.training import Batch

Counters = tuple[int, ...] | None
"""What keys dropout; None where nothing is dropped."""


class MixedRank(ABC):
    """One rank of the pipeline.

    Attributes:
        row_ids: vertices of the rows whose logits this rank has, int64; none on a sparse rank.
        labels, masks: of those rows.
        x: rows or columns of the features that this rank holds.
    """

    lane: ClassVar[Lane]
    row_ids: Tensor
    labels: Tensor
    masks: dict[str, Tensor]
    x: Tensor

    def __init__(self, loader: Loader, structure: MixedStructure, parameters: Parameters) -> None:
        self.loader, self.structure, self.parameters = loader, structure, parameters
        self.context, self.shape = loader.context, loader.shape
        self.kernels, self.comm = self.context.kernels, self.context.comm
        self.seed = self.context.run.training.seed
        self.scale = 1.0 / max(loader.graph.num_train, 1)
        self.columns = {width: structure.columns(width) for width in self.shape.dims}
        self.dealt: list[list[int]] = structure.dealt.tolist()
        self.chunks = range(structure.num_chunks)
        self.no_ranks, self.nothing = [0] * structure.world_size, self.empty(0)
        self.no_ids = self.nothing.long()

    def empty(self, *shape: int) -> Tensor:
        """Uninitialised memory on the device."""
        return torch.empty(shape, dtype=self.context.dtype, device=self.context.device)

    @property
    def waits_in_thread(self) -> bool:
        """Whether waiting for a transfer blocks this rank's thread, as on a CPU.

        Such a rank posts all transfers for which it has buffers before it needs the first. On a GPU
        a rank queues its work and runs ahead of the device. All ranks then queue handovers and
        returns in one order, each return k behind handover k + BUFFERS: transfers of two groups
        that wait on a device in different orders can block each other.
        """
        return self.context.device.type == "cpu"

    # -- source of batches -----------------------------------------------------------------------

    def of_period(self, period: int) -> Iterator[Batch]:
        """Yield the whole graph."""
        yield Batch(
            x=self.x,
            aggregations=(),
            row_ids=[self.row_ids],
            labels=self.labels,
            rows=self.no_ids,  # training rows are kept chunk by chunk
            scale=self.scale,
            counters=(self.seed, period),
        )

    def close(self) -> None:  # noqa: B027 - part of the protocol of batches
        """Nothing to stop: the threads are the communicator's."""

    # -- net -------------------------------------------------------------------------------------

    def outputs(self, batch: Batch) -> Tensor:
        """The logits of the own rows, as in training."""
        return self.forward(batch.counters, Phase.FORWARD, turns=False)

    def whole_logits(self) -> Tensor:
        """The logits of the own rows, nothing dropped."""
        return self.forward(None, Phase.EVALUATE, turns=False)

    def gradients(self, batch: Batch) -> Tensor:
        """Fill this rank's share of loss and gradient; return the logits of its rows."""
        self.parameters.flat_grad.zero_()
        logits = self.forward(batch.counters, Phase.FORWARD, turns=True)
        self.backward()
        return logits

    @abstractmethod
    def forward(self, counters: Counters, phase: Phase, *, turns: bool) -> Tensor:
        """Return the logits of the own rows; with `turns`, also compute loss and first gradient."""

    @abstractmethod
    def backward(self) -> None:
        """The backward pass below the last layer's product."""

    # -- one step each ---------------------------------------------------------------------------

    def step(self, name: str, done: Work, phase: Phase, layer: int) -> Any:
        """The span of a step on this rank's lane."""
        return self.context.recorder.step(name, done, phase=phase, layer=layer, lane=self.lane)

    def drop_input(
        self,
        out: Tensor,
        counters: tuple[int, ...],
        phase: Phase,
        row_ids: Tensor,
        first_column: int = 0,
    ) -> Tensor:
        """Put the input into `out`, some elements dropped."""
        done = work.dropout(*sizes_of(self.x), self.x.element_size())
        with self.step(f"{phase}/0/dropout", done, phase, 0):
            rate, key = self.shape.input_dropout, fold(*counters, 0)
            self.kernels.dropout(self.x, out, rate, key, row_ids, first_column)
        return out

    def transfer(
        self,
        name: str,
        phase: Phase,
        layer: int,
        *,
        lane: Lane,
        sent: tuple[Tensor, list[int]] | None = None,
        received: tuple[Tensor, list[int]] | None = None,
    ) -> Pending:
        """Begin this rank's end of a handover or return.

        Args:
            name: of the step.
            phase, layer, lane: as in the plan.
            sent, received: one of both: flat memory, and its elements to or from each rank.
        """
        nothing = self.nothing, self.no_ranks
        (leaving, to), (arriving, by) = sent or nothing, received or nothing
        return self.comm.all_to_all_async(
            arriving, leaving, by, to, name, phase, layer=layer, lane=lane
        )
