"""TGL on real ranks: the memory that a batch reads is that before the previous batch's write.

A thread reads batch x + 1 while batch x is trained on. The memory of batch x is written when that
read has ended, and before the next one begins (see the schedule in the approach).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnnbench.approaches.temporal.memory import Stored
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import StreamStructure
from gnnbench.approaches.temporal.tgl import FLUSH, MEMORY
from gnnbench.data.stream import EdgeStream
from gnnbench.steps import Lane
from gnnbench_runtime.approaches.temporal.ahead import Ahead, Read
from gnnbench_runtime.approaches.temporal.continuous import ContinuousTrainer
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import on_host


class TglTrainer(ContinuousTrainer):
    """One rank: a copy of graph and memory, a share of every batch."""

    def __init__(self, context: RankContext, data: EdgeStream, structure: StreamStructure) -> None:
        super().__init__(context, data, structure)
        self.stale = self.knobs.staleness > 0
        self._ahead: Ahead | None = None
        if self.stale:
            self.source.read_on(Lane.HOST)
            self._ahead = Ahead(self._read_next, context.device)
        self._unwritten: tuple[Piece, Stored | None, Tensor | None] | None = None
        self._period = 0

    def train_period(self, period: int) -> float:
        """Go through the training events once; return the mean loss."""
        pieces = self.structure.pieces[period]
        if self._ahead is None or pieces[0].kind != "train":
            return super().train_period(period)
        context = self.context
        self.source.catch_up(period)
        self._begin_period()
        self._period = period
        self.source.ingest(pieces[0])
        self._begin(pieces[0], period)
        total = torch.zeros(1, device=context.device, dtype=context.dtype)
        self._ahead.begin(0)
        for number, piece in enumerate(pieces):
            context.recorder.at(number)
            batch, stored = self._ahead.take()
            self._write(MEMORY)
            if number + 1 < len(pieces):
                self._ahead.begin(number + 1)
            self._step(batch, piece)
            total += self.net.parameters.loss * piece.share
            self._unwritten = piece, stored, self.net.ends
        self._write(FLUSH)
        return float(on_host(total)[0])

    def _read_next(self, number: int) -> Read:
        """Read a batch of the period; in the thread that reads ahead."""
        self.context.recorder.at(number)
        return self._read(self._period, number)

    def _read(self, period: int, number: int, *, recorded: bool = True) -> Read:
        piece = self.structure.pieces[period][number]
        batch = self.source.batch(piece, (period, number) if recorded else None)
        memory = self.source.memory
        return batch, None if memory is None else memory.stored(piece)

    def _write(self, place: str) -> None:
        """Write the memory of the batch that was computed last, if it is not written yet."""
        if self._unwritten is None:
            return
        (piece, stored, ends), self._unwritten = self._unwritten, None
        if self.source.memory is not None:
            assert ends is not None
            self.source.memory.write(piece, ends, stored, place)

    def outputs(self, period: int) -> tuple[Tensor, Tensor]:
        """Event ids and scores of this rank's training batches of a period."""
        pieces = self.structure.pieces[period]
        if not self.stale or pieces[0].kind != "train":
            return super().outputs(period)
        kept = {name: tensor.clone() for name, tensor in self._passing().items()}
        self.source.catch_up(period)
        self.source.ingest(pieces[0])
        self._begin(pieces[0], period)
        ids, scores = [], []
        with self.source.passing_by():
            for number, piece in enumerate(pieces):
                batch, stored = self._read(period, number, recorded=False)
                self._write(MEMORY)
                found = self.net.scores(batch)
                scores.append(found.view(len(batch.events), -1))
                ids.append(torch.from_numpy(batch.events))
                self._unwritten = piece, stored, self.net.ends
            self._write(FLUSH)
        for name, tensor in self._passing().items():
            tensor.copy_(kept[name])
        return torch.cat(ids), torch.cat(scores)

    def close(self) -> None:
        """End the thread that reads ahead."""
        if self._ahead is not None:
            self._ahead.close()
