"""GNNFlow on real ranks: predict an increment, ingest it, learn from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import StreamStructure
from gnnbench.data.stream import EdgeStream
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.approaches.temporal.net import TemporalNet
from gnnbench_runtime.approaches.temporal.predictions import SPLITS, Predictions
from gnnbench_runtime.approaches.temporal.source import StreamBatch, StreamSource
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import on_host
from gnnbench_runtime.training import optimizer_of


class ContinuousTrainer:
    """One rank of continuous learning: a store, a share of every batch."""

    def __init__(self, context: RankContext, data: EdgeStream, structure: StreamStructure) -> None:
        self.context, self.structure, self.data = context, structure, data
        approach: Any = APPROACHES.get(context.run.approach)
        self.knobs = approach.knobs(context.run)
        shape = TemporalShape.of(data, context.run)
        how = approach.caching(context.run)
        self.source = StreamSource(context, data, structure, shape, how)
        self.net = TemporalNet(context, shape)
        self.optimizer = optimizer_of(context, self.net.parameters)
        self.predictions = Predictions(context, data, structure)

    def warm_up(self) -> None:
        """Nothing: the rehearsal has compiled everything."""

    def train_period(self, period: int) -> float:
        """Predict, ingest and learn from a period's events; return the mean loss."""
        context, recorder = self.context, self.context.recorder
        self.source.catch_up(period)
        self._begin_period()
        if self.structure.protocol.increments and self.knobs.fresh_optimizer:
            self._reset_optimizer()
        total = torch.zeros(1, device=context.device, dtype=context.dtype)
        rows: list[Tensor] = []
        for number, piece in enumerate(self.structure.pieces[period]):
            recorder.at(number)
            self.source.ingest(piece)
            if piece.kind == "ingest":
                continue
            self._begin(piece, period)
            if piece.kind == "evaluate":
                with recorder.evaluating():
                    rows.append(self.net.scores(self.source.batch(piece, (period, number))))
                    if piece.closes:
                        first, stop = self.structure.schedule.predicted(period)
                        gathered = self.predictions.gathered(first, stop, rows)
                        self.predictions.measure(first, *gathered)
                        rows = []
            else:
                self._learn(piece, (period, number))
                total += self.net.parameters.loss * piece.share
        return float(on_host(total)[0])

    def _begin_period(self) -> None:
        """Forget the metrics of the period before."""
        self.predictions.latest = {}
        for cached in self.source.cached.values():
            cached.counts.fill(0)

    def _begin(self, piece: Piece, period: int) -> None:
        """Turn to the memory that a piece uses; who relearns starts over with each increment."""
        if self.source.memory is not None:
            self.source.memory.turn(piece, period)
        relearns = self.structure.protocol.relearns and piece.counters[-1] == 0
        if piece.begins_pass and relearns:
            self.net.start_over()
            self._reset_optimizer()

    def _learn(self, piece: Piece, place: tuple[int, int]) -> None:
        self._step(self.source.batch(piece, place), piece)
        self._remember(piece)

    def _step(self, batch: StreamBatch, piece: Piece) -> None:
        """Train on this rank's share of a batch; gradients are summed over ranks."""
        negatives = self.structure.sampling.negatives[0]
        self.net.gradients(batch, negatives, piece.count)
        self.context.comm.all_reduce(
            self.net.parameters.flat_grad, "sync/gradients", Phase.SYNC, lane=Lane.COMM
        )
        self.optimizer.step()

    def _remember(self, piece: Piece) -> None:
        """Write the memory of the ends of a batch that was just computed."""
        if self.source.memory is not None:
            assert self.net.ends is not None
            self.source.memory.write(piece, self.net.ends)

    def _reset_optimizer(self) -> None:
        for tensor in self.optimizer.state().values():
            tensor.zero_()
        self.optimizer.num_steps = 0

    def is_finite(self) -> bool:
        """Whether all parameters are finite."""
        return bool(torch.isfinite(self.net.parameters.flat).all())

    def learnt(self) -> Tensor:
        """All parameters."""
        return self.net.parameters.flat

    def outputs(self, period: int) -> tuple[Tensor, Tensor]:
        """Event ids and scores of this rank's training batches of a period."""
        # Scoring writes memory and counts metrics; training goes on from what was before.
        kept = {name: tensor.clone() for name, tensor in self._passing().items()}
        self.source.catch_up(period)
        ids, scores = [], []
        with self.source.passing_by():
            for piece in self._training(period):
                self.source.ingest(piece)
                if self.source.memory is not None:
                    self.source.memory.turn(piece, period)
                batch = self.source.batch(piece)
                found = self.net.scores(batch)
                scores.append(found.view(len(batch.events), -1))
                ids.append(torch.from_numpy(batch.events))
                self._remember(piece)
        for name, tensor in self._passing().items():
            tensor.copy_(kept[name])
        return torch.cat(ids), torch.cat(scores)

    def _training(self, period: int) -> Iterator[Piece]:
        return (piece for piece in self.structure.pieces[period] if piece.kind == "train")

    def evaluate(self) -> dict[str, float]:
        """Metrics of the events of each split, as they were predicted before they were learnt from.

        Without increments: predicted now, from the static graph.
        """
        if self.structure.protocol.increments:
            return self.predictions.so_far()
        kept = {name: tensor.clone() for name, tensor in self._passing().items()}
        self.predictions.sums.zero_()
        with self.source.passing_by():
            for split in SPLITS:
                part = self.data.part(split)
                self._stream(part.start, part.stop)
        found = self.predictions.so_far()
        for name, tensor in self._passing().items():
            tensor.copy_(kept[name])
        return found

    def _stream(self, first: int, stop: int) -> None:
        """Predict events first..stop-1; graph and memory learn of each part after it."""
        memory, structure = self.source.memory, self.structure
        scores, counts = [], [np.zeros(1, np.int64)]
        for at, end, pieces in structure.streamed(first, stop, memory=memory is not None):
            rows, ends = [], []
            for piece in pieces:
                if memory is not None:
                    memory.turn(piece, 0)
                rows.append(self.net.scores(self.source.batch(piece)))
                ends.append(self.net.ends)
            found, indptr = self.predictions.gathered(at, end, rows)
            scores.append(found)
            counts.append(np.diff(indptr))
            if memory is not None:
                shares = tuple(
                    np.arange(*share, dtype=np.int64)
                    for share in structure.schedule.predicted_shares(at, end)
                )
                batch = Piece(kind="evaluate", shares=shares)
                memory.write(batch, torch.cat([part for part in ends if part is not None]))
        if scores:
            every = np.cumsum(np.concatenate(counts))
            self.predictions.measure(first, np.concatenate(scores), every)

    def period_metrics(self) -> dict[str, float]:
        """Metrics of the increment that the last period predicted before it learnt from it.

        Hit rates are those of all ranks' caches together.
        """
        found = dict(self.predictions.latest)
        for kind, cached in self.source.cached.items():
            counts = torch.tensor(
                cached.counts[:2], dtype=torch.float64, device=self.context.device
            )
            self.context.comm.all_reduce(counts, f"evaluate/{kind}_cache", Phase.EVALUATE)
            hits, misses = on_host(counts)
            found[f"{kind}_hit_rate"] = hits / max(hits + misses, 1)
        return found

    def _passing(self) -> dict[str, Tensor]:
        """What predicting changes: sums of metrics, and memory."""
        memory = self.source.memory
        found = {"predicted": self.predictions.sums}
        return {**found, **(memory.state() if memory is not None else {})}

    def state(self) -> dict[str, Tensor]:
        """Parameters, optimizer, sums of metrics, memory, caches. The store is filled again."""
        held = {"parameters": self.net.parameters.flat, **self.source.state()}
        return {**held, **self._passing(), **self.optimizer.state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Copy a state into this trainer's own tensors."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.optimizer.restore(state)
        self.source.restore()

    def close(self) -> None:
        """Nothing outlives a period."""
