"""Node memory on real ranks: every rank holds all of it, and all write the same rows.

After a batch each rank gives the others the new memory of the ends of its events, so that every
rank writes the whole batch: the table is what one rank would have (invariant M4).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.temporal.memory import NONE, MemoryClock, Stored
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import StreamStructure
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import Phase
from gnnbench_runtime.protocol import RankContext


class NodeMemory:
    """Memory and last message of every node.

    A table is [N, 2 d]: memory, then that of the other end of the message's event. Both are as they
    were after that event, so together they are the message as well. Its edge features are looked up
    by event. Old events that are learnt from again have a table of their own (see `MemoryClock`).

    Args:
        context: the rank.
        structure: of the stream.
        shape: the model.
    """

    def __init__(
        self, context: RankContext, structure: StreamStructure, shape: TemporalShape
    ) -> None:
        self.context, self.structure, self.hidden = context, structure, shape.hidden
        count, replays = structure.stream.num_nodes, structure.protocol.replay > 0
        self.clock = MemoryClock(count, replays=replays)
        self._tables = [
            torch.zeros((count, shape.memory_width), device=context.device, dtype=context.dtype)
            for _ in range(1 + replays)
        ]

    @property
    def table(self) -> Tensor:
        """The table in use."""
        return self._tables[int(self.clock.replaying[0])]

    def turn(self, piece: Piece, period: int) -> None:
        """Turn to the table that a piece uses, emptied where a pass begins anew."""
        if self.clock.turn(piece, anew=self.structure.protocol.begins_anew(period)):
            self.table.zero_()

    def asked(self, nodes: NDArray[np.int64]) -> tuple[dict[str, Tensor], NDArray[np.int64]]:
        """What a batch needs to know of its nodes, on the host, and the events of the messages."""
        distinct, inverse = self.clock.distinct(nodes)
        messages, dtype = self.clock.read(distinct), self.context.dtype
        found = {
            "distinct": torch.from_numpy(distinct),
            "inverse": torch.from_numpy(inverse),
            "ages": torch.from_numpy(messages.ages).to(dtype),
            "has": torch.from_numpy(messages.events != NONE).to(dtype),
        }
        return found, messages.events

    def stored(self, piece: Piece) -> Stored:
        """The messages of a batch's ends as they are now, of all ranks' shares."""
        sources, destinations, _, _ = self.structure.ends(piece)
        return self.clock.stored(sources, destinations)

    def write(
        self, piece: Piece, ends: Tensor, read: Stored | None = None, place: str = "memory"
    ) -> None:
        """Keep the new memory of a batch's ends, and store their new messages.

        Args:
            piece: the batch.
            ends: new memory of source and destination of this rank's events, [b, 2 d].
            read: the messages that it was computed from; None: those that are stored now.
            place: before the names of the steps.
        """
        context, d = self.context, self.hidden
        every = ends
        if context.world_size > 1:
            share = max(map(len, piece.shares))
            own = ends.new_zeros((share, 2 * d))
            own[: len(ends)] = ends
            every = own.new_empty((share * context.world_size, 2 * d))
            context.comm.all_gather(every, own, f"{place}/gather", Phase.SYNC)
        writes = self.clock.write(*self.structure.ends(piece), read)
        done = work.memory_write(
            len(writes.nodes), self.table.shape[1], len(self.table), ends.element_size()
        )
        with context.recorder.step(f"{place}/write", done, phase=Phase.UPDATE):
            device = ends.device
            nodes = torch.from_numpy(writes.nodes).to(device)
            places = torch.from_numpy(writes.places).to(device)
            turned = torch.from_numpy(writes.reversed).to(device).unsqueeze(1)
            pairs = every.index_select(0, places)
            pairs = torch.where(turned, pairs.roll(d, 1), pairs)
            self.table.index_copy_(0, nodes, pairs)

    def state(self) -> dict[str, Tensor]:
        """Tensors that share the memory of this object."""
        tables = {f"memory_{number}": table for number, table in enumerate(self._tables)}
        arrays = {f"clock_{k}": torch.from_numpy(v) for k, v in self.clock.arrays().items()}
        return {**tables, **arrays}
