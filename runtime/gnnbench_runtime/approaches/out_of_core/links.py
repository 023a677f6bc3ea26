"""Link prediction on embeddings: draw corrupted ends, fetch rows, decode, update, write back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.out_of_core.link_plan import LAST_STEP, lanes_of
from gnnbench.approaches.out_of_core.links import LinkBatch, LinkStructure, relation_shapes
from gnnbench.data.triples import Triples
from gnnbench.steps import Lane, Phase, Work
from gnnbench_runtime.approaches.out_of_core.decoders import DECODERS, gradients, score
from gnnbench_runtime.approaches.out_of_core.link_stages import Drawn, Turn, train_visit
from gnnbench_runtime.approaches.out_of_core.ranking import Ranking
from gnnbench_runtime.approaches.out_of_core.tables import Table
from gnnbench_runtime.durable import Durable
from gnnbench_runtime.generations import Generations
from gnnbench_runtime.models.data import sizes_of
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.optimizers import make_optimizer
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import array_on_host, on_host

_ON_DEVICE = ("x", "heads", "tails", "relations", "negatives")


@dataclass(slots=True, kw_only=True, eq=False)
class Prepared:
    """A batch on the device.

    Args:
        drawn: what it is.
        rows, states: places of its distinct rows and of their states in the table.
        x: the distinct rows, [u, d].
        heads, tails, relations, negatives: int64, on the device.
    """

    drawn: LinkBatch
    rows: Tensor
    states: Tensor
    x: Tensor
    heads: Tensor
    tails: Tensor
    relations: Tensor
    negatives: Tensor


class LinkTrainer:
    """Trains embeddings on one rank; the table is in memory or on the disk.

    Without staleness a batch is drawn when the rows of the one before are updated. With it, stages
    draw, gather, copy and update beside the decoder, see `link_stages`.
    """

    def __init__(
        self,
        context: RankContext,
        data: Triples,
        structure: LinkStructure,
        table: Table,
        staleness: int = 0,
        generations: Generations | None = None,
    ) -> None:
        run = context.run
        self.context, self.structure, self.table = context, structure, table
        self.name, self.decoder = run.model.decoder, DECODERS[run.model.decoder]
        self.width, self.seed = run.model.hidden, run.training.seed
        shapes = relation_shapes(self.name, data.num_relations, self.width)
        self.parameters = Parameters(shapes, self.seed, context.device, context.dtype)
        if self.name == "distmult":
            self.parameters.value["relations"].fill_(1.0)
        self.optimizer = make_optimizer(
            self.parameters, run.training, context.recorder, context.kernels
        )
        self.ranking = Ranking(data, run.task, self.decoder, self.seed)
        self.on_cpu = context.device.type == "cpu"
        self.staleness = staleness
        """Updates that the rows of a batch may lack."""
        self.most_stale = 0
        """Updates that the rows of a batch did lack, at most."""
        self.lanes = lanes_of(staleness, on_cpu=self.on_cpu)
        self.durable = None
        if generations is not None:
            self.durable = Durable(generations, self._dense_state, self._restore_dense)

    def warm_up(self) -> None:
        """Nothing: the rehearsal has compiled everything."""

    # -- training --------------------------------------------------------------------------------

    def train_period(self, period: int) -> float:
        """Train on every fact once; return the mean loss of an edge and side."""
        total = torch.zeros(1, dtype=self.context.dtype, device=self.context.device)
        if self.staleness:
            for turn in self.turns(period):
                train_visit(self, turn, total)
        else:
            for batch in self._batches(period):
                total += self._train(batch)
                del batch
        return float(on_host(total)[0]) / max(2 * self.structure.num_facts, 1)

    def turns(self, period: int) -> Iterator[Turn]:
        """Yield the visits of a period, each with its facts in the order of training."""
        visits = self.structure.visits(period)
        counts = [self.structure.steps(visit) for visit in visits]
        first = [0, *accumulate(counts)]
        for present in self.table.epoch(visits, first):
            number = present.number
            self.context.recorder.at(first[number])
            done = work.shuffle(len(present.facts), 3)
            with self.step("load/shuffle", done, Phase.LOAD):
                facts = self.structure.shuffled(present.facts, period)
            self.table.begun(visits, number, first)
            yield Turn(
                present=present,
                facts=facts,
                period=period,
                first=first[number],
                count=counts[number],
            )

    def _batches(self, period: int) -> Iterator[Prepared]:
        for turn in self.turns(period):
            for at in range(turn.count):
                self.context.recorder.at(turn.first + at)
                yield self.to_device(self.gather(self.draw(turn, at)))

    def draw(self, turn: Turn, at: int) -> Drawn:
        """Draw a batch of a visit, and find its rows in the table."""
        nothing, present = work.draw_negatives(0, 0, 0), turn.present
        with self.step("sample/negatives", nothing, Phase.SAMPLE) as span:
            place = turn.period, turn.first + at, at
            batch = self.structure.batch(turn.facts, present.ids, *place)
            span.did(work.draw_negatives(*batch.sizes))
            where = np.searchsorted(present.ids, batch.ids)
            rows = torch.from_numpy(present.rows[where])
            states = torch.from_numpy(present.states[where])
        return Drawn(batch=batch, rows=rows, states=states)

    def gather(self, drawn: Drawn) -> Prepared:
        """Gather the rows of a batch, in the host's memory."""
        table, batch = self.table.table, drawn.batch
        x = torch.empty((len(drawn.rows), self.width), dtype=self.context.dtype)
        gathered = work.gather(len(drawn.rows), self.width, len(table), x.element_size())
        with self.step("fetch/gather", gathered, Phase.FETCH, lane=self.lanes.rows):
            torch.index_select(table, 0, drawn.rows, out=x)
        return Prepared(
            drawn=batch,
            rows=drawn.rows,
            states=drawn.states,
            x=x,
            heads=torch.from_numpy(batch.heads),
            tails=torch.from_numpy(batch.tails),
            relations=torch.from_numpy(batch.relations),
            negatives=torch.from_numpy(batch.negatives),
        )

    def to_device(self, batch: Prepared) -> Prepared:
        """Copy what the decoder needs to the device."""
        if self.on_cpu:
            return batch
        held = {name: getattr(batch, name) for name in _ON_DEVICE}
        size = sum(t.numel() * t.element_size() for t in held.values())
        with self.step("fetch/copy", work.to_device(size), Phase.FETCH, lane=Lane.COPY):
            moved = {name: t.to(self.context.device) for name, t in held.items()}
        return dataclasses.replace(batch, **moved)

    def _train(self, batch: Prepared) -> Tensor:
        """One step on a batch; return its summed loss."""
        loss, summed = self.compute(batch)
        self.apply(batch, self.to_host(summed), LAST_STEP)
        return loss

    def compute(self, batch: Prepared) -> tuple[Tensor, Tensor]:
        """Update the relations; return the summed loss and the gradient of the distinct rows."""
        (b, n, u), d, s = batch.drawn.sizes, self.width, batch.x.element_size()
        forward = work.decode(self.name, b, n, d, s)
        with self.step("forward/decoder", forward, Phase.FORWARD, lane=Lane.COMPUTE):
            h, t = batch.x[batch.heads], batch.x[batch.tails]
            scored = score(self.decoder, h, self._relations(batch), t, batch.x[batch.negatives])
        backward = work.decode_backward(self.name, b, n, d, u, s)
        with self.step("backward/decoder", backward, Phase.BACKWARD, lane=Lane.COMPUTE):
            of_heads, of_relations, of_tails, of_negatives = gradients(self.decoder, scored)
            summed = torch.zeros_like(batch.x)
            summed.index_add_(0, batch.heads, of_heads)
            summed.index_add_(0, batch.tails, of_tails)
            summed.index_add_(0, batch.negatives, of_negatives)
            if self.parameters.grad:
                gradient = self.parameters.grad["relations"]
                gradient.zero_().index_add_(0, batch.relations, of_relations)
        loss = scored.loss
        self.optimizer.step()
        return loss, summed

    def _relations(self, batch: Prepared) -> Tensor:
        if self.parameters.value:
            return self.parameters.value["relations"][batch.relations]
        return torch.zeros_like(batch.x[batch.heads])

    def to_host(self, gradient: Tensor) -> Tensor:
        """Copy the gradient of a batch's rows to the host."""
        if self.on_cpu:
            return gradient
        size = gradient.numel() * gradient.element_size()
        with self.step("update/copy", work.to_host(size), Phase.UPDATE, lane=self.lanes.back):
            return torch.from_numpy(array_on_host(gradient))

    def apply(self, batch: Prepared, gradient: Tensor, name: str) -> None:
        """Sparse Adagrad of a batch's distinct rows, in the host's memory."""
        table, lr = self.table.table, self.context.run.training.lr
        done = work.adagrad_rows(*sizes_of(gradient), len(table), gradient.element_size())
        with self.step(name, done, Phase.UPDATE, lane=self.lanes.rows):
            adagrad_rows(table, batch.rows, batch.states, gradient, lr)

    def step(self, name: str, done: Work, phase: Phase, *, lane: Lane | None = None) -> Any:
        """The span of a step; on the lane that draws batches unless another is named."""
        return self.context.recorder.step(name, done, phase=phase, lane=lane or self.lanes.draw)

    # -- what others ask for ---------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """MRR and Hits@k of the validation and test facts."""
        relations = torch.zeros(0, dtype=self.context.dtype)
        if self.parameters.value:
            relations = torch.from_numpy(array_on_host(self.parameters.value["relations"]))
        return self.ranking.evaluate(self.table.parts, relations)

    def period_metrics(self) -> dict[str, float]:
        """None: metrics are measured by `evaluate`."""
        return {}

    def is_finite(self) -> bool:
        """Whether the relations' parameters are finite; the table may lie on the disk."""
        return bool(torch.isfinite(self.parameters.flat).all())

    def learnt(self) -> Tensor:
        """Embeddings by id, then relations."""
        return torch.cat([self.table.state()[0].reshape(-1), self.parameters.flat])

    def outputs(self, period: int) -> tuple[Tensor, Tensor]:
        """Heads of the batches' facts, and the scores of those facts."""
        ids, values = [], []
        for batch in self._batches(period):
            h, t = batch.x[batch.heads], batch.x[batch.tails]
            query, _ = self.decoder.queries(h, self._relations(batch), t)
            ids.append(torch.from_numpy(batch.drawn.ids[batch.drawn.heads]))
            values.append((query * t).sum(1, keepdim=True))
        return torch.cat(ids), torch.cat(values)

    def state(self) -> dict[str, Tensor]:
        """The table, the relations and the optimizer's state."""
        return {"table": self.table.state(), **self._dense_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self.table.restore(state["table"])
        self._restore_dense(state)

    def _dense_state(self) -> dict[str, Tensor]:
        return {"parameters": self.parameters.flat, **self.optimizer.state()}

    def _restore_dense(self, state: dict[str, Tensor]) -> None:
        self.parameters.flat.copy_(state["parameters"])
        for name, tensor in self.optimizer.state().items():
            tensor.copy_(state[name])
        self.optimizer.restore(state)

    def close(self) -> None:
        """Let go of the table."""
        self.table.close()


def adagrad_rows(table: Tensor, rows: Tensor, states: Tensor, gradient: Tensor, lr: float) -> None:
    """Adagrad of some distinct rows, as torch.optim.Adagrad computes it with eps = 1e-10.

    Args:
        table: embeddings and states, [n, d].
        rows, states: places of both in the table, int64 [u].
        gradient: [u, d].
        lr: learning rate.
    """
    squares = table[states].addcmul_(gradient, gradient)
    table[states] = squares
    table[rows] = table[rows].addcdiv_(gradient, squares.sqrt_().add_(1e-10), value=-lr)
