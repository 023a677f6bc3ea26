"""EdgeBank on real ranks: predict a share of an increment, then insert all of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.temporal.edgebank import EdgeBankStructure
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.data.stream import EdgeStream
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.approaches.temporal.predictions import SPLITS, Predictions
from gnnbench_runtime.protocol import RankContext


class EdgeBankTrainer:
    """One rank: the whole table, a share of every prediction."""

    def __init__(
        self, context: RankContext, data: EdgeStream, structure: EdgeBankStructure
    ) -> None:
        self.context, self.data, self.structure = context, data, structure
        self.bank = structure.empty_bank()
        self.known = 0
        self.predictions = Predictions(context, data, structure)

    def warm_up(self) -> None:
        """Nothing: the rehearsal has compiled everything."""

    def train_period(self, period: int) -> float:
        """Predict a period's events, then insert them; return the share of wrong predictions."""
        recorder, structure = self.context.recorder, self.structure
        self.predictions.latest = {}
        rows: list[Tensor] = []
        wrong = 0.0
        for number, piece in enumerate(structure.pieces[period]):
            recorder.at(number)
            if piece.kind == "ingest":
                first, stop = piece.ingest
                with recorder.step("ingest", work.edgebank_insert(stop - first), phase=Phase.LOAD):
                    self._insert(piece)
                continue
            with recorder.evaluating():
                rows.append(self._scores(piece))
                if piece.closes:
                    first, stop = structure.schedule.predicted(period)
                    scores, indptr = self.predictions.gathered(first, stop, rows)
                    self.predictions.measure(first, scores, indptr)
                    wrong = _wrong(scores, indptr)
        return wrong

    def _insert(self, piece: Piece) -> None:
        if piece.ingest[1] > self.known:
            self.structure.remember(self.bank, *piece.ingest)
            self.known = piece.ingest[1]

    def _scores(self, piece: Piece) -> Tensor:
        """Scores of this rank's share, event by event, the true pair first."""
        context, structure = self.context, self.structure
        nothing = work.edgebank_score(0, context.run.training.element_bytes)
        with context.recorder.step("forward/edgebank", nothing, phase=Phase.EVALUATE) as span:
            roots = structure.roots(piece, context.rank)
            count, each = len(roots.events), np.diff(roots.candidates)
            # Destinations come first among the other ends, then the candidates, event by event.
            ends = np.insert(
                roots.nodes[2 * count :], roots.candidates[:-1], roots.nodes[count : 2 * count]
            )
            sources = np.repeat(roots.nodes[:count], 1 + each)
            found = torch.from_numpy(self.bank.scores(sources, ends)).to(context.dtype)
            span.did(work.edgebank_score(len(ends), found.element_size()))
        if context.device.type != "cpu":
            copied = work.to_device(found.nbytes)
            with context.recorder.step("fetch/copy", copied, phase=Phase.FETCH, lane=Lane.COPY):
                found = found.to(context.device)
        return found

    def is_finite(self) -> bool:
        """Always: nothing is computed."""
        return True

    def learnt(self) -> Tensor:
        """The table: pairs, then the times of their last events."""
        return torch.from_numpy(np.concatenate(self.bank.content()).astype(np.float64))

    def evaluate(self) -> dict[str, float]:
        """Metrics of the events of each split, as they were predicted before they were inserted.

        Without increments: predicted now, with the training events known, batch by batch.
        """
        if self.structure.protocol.increments:
            return self.predictions.so_far()
        structure = self.structure
        bank, self.bank = self.bank, structure.empty_bank()
        structure.remember(self.bank, 0, self.data.train_end)
        self.predictions.sums.zero_()
        for split in SPLITS:
            part = self.data.part(split)
            scores, counts = [], [np.zeros(1, np.int64)]
            for at, end, pieces in structure.streamed(part.start, part.stop, memory=False):
                rows = [self._scores(piece) for piece in pieces]
                found, indptr = self.predictions.gathered(at, end, rows)
                scores.append(found)
                counts.append(np.diff(indptr))
                structure.remember(self.bank, at, end)
            if scores:
                every = np.cumsum(np.concatenate(counts))
                self.predictions.measure(part.start, np.concatenate(scores), every)
        self.bank = bank
        return self.predictions.so_far()

    def period_metrics(self) -> dict[str, float]:
        """Metrics of the increment that the last period predicted."""
        return self.predictions.latest

    def state(self) -> dict[str, Tensor]:
        """Sums of metrics, and how many events the table has: it is filled again."""
        known = torch.tensor([self.known], dtype=torch.int64)
        return {"predicted": self.predictions.sums, "known": known}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Copy a state into this trainer's own tensors."""
        self.predictions.sums.copy_(state["predicted"])
        self.known, self.bank = int(state["known"][0]), self.structure.empty_bank()
        self.structure.remember(self.bank, 0, self.known)

    def close(self) -> None:
        """Nothing outlives a period."""


def _wrong(scores: np.ndarray, indptr: np.ndarray) -> float:
    """The mean share of wrong pairs among true and false ones; scores are 0 or 1."""
    true = scores[indptr[:-1]]
    false = len(scores) - len(true)
    seen = (scores.sum() - true.sum()) / false if false else 0.0
    return float((1.0 - true.mean() + seen) / 2)
