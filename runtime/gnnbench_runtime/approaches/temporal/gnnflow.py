"""GNNFlow on real ranks: predict an increment, ingest it, learn from it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.temporal.metrics import link_metrics
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import StreamStructure
from gnnbench.data.stream import EdgeStream
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.approaches.temporal.net import TemporalNet
from gnnbench_runtime.approaches.temporal.source import StreamSource
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import array_on_host, on_host
from gnnbench_runtime.training import optimizer_of

_SPLITS, _METRICS = ("val", "test"), ("mrr", "ap", "auc")


class GnnflowTrainer:
    """One rank of continuous learning: the whole store, a share of every batch."""

    def __init__(self, context: RankContext, data: EdgeStream, structure: StreamStructure) -> None:
        self.context, self.structure, self.data = context, structure, data
        self.knobs = APPROACHES.get(context.run.approach).knobs(context.run)
        shape = TemporalShape.of(data, context.run)
        self.source = StreamSource(context, data, structure, shape)
        self.net = TemporalNet(context, shape)
        self.optimizer = optimizer_of(context, self.net.parameters)
        # Events and sums of metrics over them, of the events predicted so far, by split.
        self.predicted = torch.zeros((len(_SPLITS), 1 + len(_METRICS)), dtype=torch.float64)
        self.latest: dict[str, float] = {}

    def warm_up(self) -> None:
        """Nothing: the rehearsal has compiled everything."""

    def train_period(self, period: int) -> float:
        """Predict, ingest and learn from a period's events; return the mean loss."""
        context, recorder = self.context, self.context.recorder
        self.source.catch_up(period)
        self.latest = {}
        if self.structure.protocol.increments and self.knobs.fresh_optimizer:
            self._reset_optimizer()
        total = torch.zeros(1, device=context.device, dtype=context.dtype)
        rows: list[Tensor] = []
        for number, piece in enumerate(self.structure.pieces[period]):
            recorder.at(number)
            self.source.ingest(piece)
            if piece.begins_pass:
                self._begin_pass(piece, period)
            if piece.kind == "evaluate":
                with recorder.evaluating():
                    rows.append(self._scores(piece))
                    if piece.closes:
                        first, stop = self.structure.schedule.predicted(period)
                        self._measure(first, self._gathered(first, stop, rows))
                        rows = []
            elif piece.kind == "train":
                self._learn(piece)
                total += self.net.parameters.loss * piece.share
        return float(on_host(total)[0])

    def _begin_pass(self, piece: Piece, period: int) -> None:
        """A pass begins with an empty memory, an increment goes on; who relearns starts over."""
        protocol, memory = self.structure.protocol, self.source.memory
        offline = protocol.has_offline and period == 0
        if memory is not None and (offline or protocol.relearns or not protocol.increments):
            memory.reset()
        if protocol.relearns and piece.counters[-1] == 0:
            self.net.start_over()
            self._reset_optimizer()

    def _learn(self, piece: Piece) -> None:
        negatives = self.structure.sampling.negatives[0]
        self.net.gradients(self.source.batch(piece), negatives, piece.count)
        self.context.comm.all_reduce(
            self.net.parameters.flat_grad, "sync/gradients", Phase.SYNC, lane=Lane.COMM
        )
        self.optimizer.step()
        self._remember(piece)

    def _remember(self, piece: Piece) -> None:
        """Write the memory of the ends of a batch that was just computed."""
        if self.source.memory is not None:
            assert self.net.ends is not None
            self.source.memory.write(piece, self.net.ends)

    def _scores(self, piece: Piece) -> Tensor:
        negatives = self.structure.sampling.negatives[1]
        return self.net.scores(self.source.batch(piece), negatives)

    def _gathered(self, first: int, stop: int, rows: list[Tensor]) -> NDArray[np.float64]:
        """The scores of events first..stop-1 on every rank, in order."""
        context, share = self.context, self.structure.schedule.share_of(first, stop)
        width = 1 + self.structure.sampling.negatives[1]
        own = torch.zeros((share, width), device=context.device, dtype=context.dtype)
        torch.cat(rows, out=own[: sum(map(len, rows))])
        every = own
        if context.world_size > 1:
            every = own.new_empty((share * context.world_size, width))
            context.comm.all_gather(every, own, "evaluate/scores", Phase.EVALUATE)
        return array_on_host(every)[: stop - first].astype(np.float64)

    def _measure(self, first: int, scores: NDArray[np.float64]) -> None:
        """Metrics of the events from `first` on, for the period and by split."""
        self.latest = link_metrics(scores)
        for place, split in enumerate(_SPLITS):
            part = self.data.part(split)
            found = scores[max(part.start - first, 0) : max(part.stop - first, 0)]
            measured = link_metrics(found)
            if measured:
                sums = [len(found) * value for value in (1.0, *map(measured.get, _METRICS))]  # type: ignore[operator]
                self.predicted[place] += torch.tensor(sums, dtype=torch.float64)

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
        kept = {name: tensor.clone() for name, tensor in self._passing().items()}
        self.source.catch_up(period)
        ids, scores = [], []
        for piece in self._training(period):
            self.source.ingest(piece)
            batch = self.source.batch(piece)
            scores.append(self.net.scores(batch, self.structure.sampling.negatives[0]))
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
            return self._so_far()
        kept = {name: tensor.clone() for name, tensor in self._passing().items()}
        self.predicted.zero_()
        for split in _SPLITS:
            part = self.data.part(split)
            self._measure(part.start, self._streamed(part.start, part.stop))
        found = self._so_far()
        for name, tensor in self._passing().items():
            tensor.copy_(kept[name])
        return found

    def _streamed(self, first: int, stop: int) -> NDArray[np.float64]:
        """Scores of events first..stop-1; a memory is written after each batch of them."""
        memory, schedule = self.source.memory, self.structure.schedule
        step = self.structure.protocol.batch if memory is not None else max(stop - first, 1)
        found = []
        for at in range(first, stop, step):
            end = min(at + step, stop)
            pieces = schedule.evaluate(0, at, end, self.structure.protocol.events)
            rows, ends = [], []
            for piece in pieces:
                rows.append(self._scores(piece))
                ends.append(self.net.ends)
            found.append(self._gathered(at, end, rows))
            if memory is not None:
                whole = schedule.dealt(np.arange(at, end, dtype=np.int64))
                batch = Piece(kind="evaluate", shares=whole)
                memory.write(batch, torch.cat([part for part in ends if part is not None]))
        return np.concatenate(found)

    def _so_far(self) -> dict[str, float]:
        return {
            f"{split}_{name}": float(total / sums[0])
            for split, sums in zip(_SPLITS, self.predicted.tolist(), strict=True)
            for name, total in zip(_METRICS, sums[1:], strict=True)
            if sums[0]
        }

    def period_metrics(self) -> dict[str, float]:
        """Metrics of the increment that the last period predicted before it learnt from it."""
        return self.latest

    def _passing(self) -> dict[str, Tensor]:
        """What predicting changes: sums of metrics, and memory."""
        memory = self.source.memory
        return {"predicted": self.predicted, **(memory.state() if memory is not None else {})}

    def state(self) -> dict[str, Tensor]:
        """Parameters, optimizer, sums of metrics, memory. The store is filled again."""
        parameters = {"parameters": self.net.parameters.flat}
        return {**parameters, **self._passing(), **self.optimizer.state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Copy a state into this trainer's own tensors."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.optimizer.restore(state)

    def close(self) -> None:
        """Nothing outlives a period."""
