"""Neighbour sampling on real ranks; with `samplers`, some ranks draw and others train.

A sampler draws ahead of the trainers and sends each batch in a thread; credits of the trainers
bound how far ahead it is (see `gnnbench.approaches.mini_batch.roles`). Blocks are drawn and built
in host memory; between accelerators they travel through device memory, as collectives do.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.mini_batch.base import BatchStructure
from gnnbench.approaches.mini_batch.caches import RowCache
from gnnbench.approaches.mini_batch.drawing import drawing_of
from gnnbench.approaches.mini_batch.roles import CREDITS, Roles
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data import messages
from gnnbench.data.dealing import Dealt, Source
from gnnbench.data.graph import Graph
from gnnbench.steps import Lane, Phase, Work
from gnnbench_runtime.approaches.mini_batch.features import CachedRows, rows_on_device
from gnnbench_runtime.approaches.mini_batch.sampled import (
    FullGraphEvaluator,
    SampledBatches,
    SampledTrainer,
    cache_metrics,
)
from gnnbench_runtime.models.data import size_of
from gnnbench_runtime.pending import Pending
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import array_on_host, on_host
from gnnbench_runtime.training import Batch, make_parameters


def trainer_of(context: RankContext, data: Graph, structure: BatchStructure) -> Any:
    """The trainer of a rank: it draws and trains, or does one of both."""
    approach: Any = APPROACHES.get(context.run.approach)
    roles = approach.roles(context.run, structure)
    if roles is None:
        return SampledTrainer(context, data, structure)
    # All ranks make all groups, in one order, before their ways part.
    context.comm.open_background()
    context.comm.open_background(CREDITS)
    prefetch = approach.knobs(context.run).prefetch > 0
    side = context.comm.split(roles.groups, background=prefetch)
    alone = dataclasses.replace(
        context, run=approach.trained(context.run), world_size=roles.trainers, comm=side
    )
    if roles.trains(context.rank):
        return TrainingRank(context, alone, data, structure, roles)
    return SamplingRank(context, alone.run, data, structure, roles)


class Inbox:
    """A trainer's end: receives batches from the samplers, and returns credits.

    Args:
        context: the rank among all.
        roles: of all ranks.
        layers: blocks of a batch.
        weighted: whether drawn edges have weights.
    """

    def __init__(self, context: RankContext, roles: Roles, layers: int, weighted: bool) -> None:
        self._context, self._roles, self._weighted = context, roles, weighted
        self._numbers = work.header_numbers(layers)
        self._credits: deque[Pending] = deque()

    def receive(self, step: int, num_train: int) -> Dealt:
        """Receive this rank's part of a global batch."""
        context, device = self._context, self._context.device
        sampler = self._roles.sampler_of(self._roles.number(step, context.rank))
        header = torch.zeros(self._numbers, dtype=torch.int64, device=device)
        self._recv(header, sampler, "sample/sizes")
        num_seeds, vertices, edges = messages.sizes_in(on_host(header))
        size = work.message_bytes(vertices, edges, weighted=self._weighted)
        body = torch.empty(int(size), dtype=torch.uint8, device=device)
        self._recv(body, sampler, "sample/blocks")
        self._return_credit(sampler)
        batch = messages.unpacked(self._on_host(body), vertices, edges, weighted=self._weighted)
        return Dealt(
            batch=batch, scale=1.0 / max(num_seeds, 1), share=num_seeds / max(num_train, 1)
        )

    def settle(self) -> None:
        """Wait until all credits have been taken."""
        while self._credits:
            self._credits.popleft().wait()

    def _return_credit(self, sampler: int) -> None:
        while self._credits and self._credits[0].done():
            self._credits.popleft()
        credit = torch.ones(1, dtype=torch.int64, device=self._context.device)
        # A transport may hold a sender until its receiver is ready; a trainer does not wait for it.
        comm = self._context.comm
        sent = comm.send_async(credit, sampler, "sample/credit", Phase.SAMPLE, lane=CREDITS)
        self._credits.append(sent)

    def _recv(self, tensor: Tensor, sampler: int, name: str) -> None:
        self._context.comm.recv(tensor, sampler, name, Phase.SAMPLE, lane=Lane.BACKGROUND)

    def _on_host(self, body: Tensor) -> messages.Bytes:
        if self._context.device.type == "cpu":
            return body.numpy()
        copied = work.to_host(size_of(body))
        with self._context.recorder.step(
            "sample/to_host", copied, phase=Phase.SAMPLE, lane=Lane.COPY
        ):
            found: messages.Bytes = array_on_host(body)
        return found


class ReceivedBatches(SampledBatches):
    """Batches that samplers have drawn.

    Args:
        context: the rank among the trainers.
        graph, structure, shape: as of `SampledBatches`.
        inbox: where batches come from.
    """

    def __init__(
        self,
        context: RankContext,
        graph: Graph,
        structure: BatchStructure,
        shape: StackShape,
        *,
        inbox: Inbox,
    ) -> None:
        super().__init__(context, graph, structure, shape)
        self.inbox, self.num_train = inbox, graph.num_train

    def open_source(self, graph: Graph, structure: BatchStructure, cache: RowCache | None) -> None:
        """No source: a trainer holds no tables to draw with."""
        self.steps = structure.num_steps

    def prepare(self, epoch: int, step: int, slot: int) -> Batch:
        """Receive this rank's part of a global batch, build its blocks, fetch its input rows."""
        return self.build(self.inbox.receive(step, self.num_train), epoch, step, slot)


class TrainingRank(SampledTrainer):
    """A rank that trains on batches of the samplers.

    Args:
        context: the rank among all.
        alone: the rank among the trainers, and their run.
        data: the graph.
        structure: of the run of the trainers.
        roles: of all ranks.
    """

    def __init__(
        self,
        context: RankContext,
        alone: RankContext,
        data: Graph,
        structure: BatchStructure,
        roles: Roles,
    ) -> None:
        approach: Any = APPROACHES.get(alone.run.approach)
        weighted = approach.form_of(alone.run).edge_weights
        self.everyone = context
        self.inbox = Inbox(context, roles, alone.run.model.layers, weighted)
        self.batches_type: Any = partial(ReceivedBatches, inbox=self.inbox)
        super().__init__(alone, data, structure)
        self.evaluator = FullGraphEvaluator(
            context, data, self.parameters, rows_on_device(self.batches.features)
        )

    def train_period(self, period: int) -> float:
        """Train on every batch of an epoch; tell the samplers its mean loss."""
        loss = super().train_period(period)
        self.inbox.settle()
        return said_by_the_first(self.everyone, loss)

    def outputs(self, period: int) -> tuple[Tensor, Tensor]:
        found = super().outputs(period)
        self.inbox.settle()
        return found

    def learnt(self) -> Tensor:
        """All parameters as one vector, which samplers get to know."""
        return shared_parameters(self.everyone, self.parameters.flat)

    def evaluate(self) -> dict[str, float]:
        """Metrics of the whole graph, measured by all ranks together."""
        self.learnt()
        return super().evaluate()

    def period_metrics(self) -> dict[str, float]:
        features = self.batches.features
        if not isinstance(features, CachedRows):
            return {}
        return cache_metrics(self.everyone, features)


class SamplingRank:
    """A rank that only draws batches and sends them; it holds no parameters while others train.

    Args:
        context: the rank among all.
        run: of the trainers.
        data: the graph.
        structure: of the run of the trainers.
        roles: of all ranks.
    """

    def __init__(
        self,
        context: RankContext,
        run: Any,
        data: Graph,
        structure: BatchStructure,
        roles: Roles,
    ) -> None:
        approach: Any = APPROACHES.get(run.approach)
        self.context, self.graph, self.roles = context, data, roles
        self.form = approach.form_of(run)
        self.source: Source = approach.source(
            data, run, structure.prepared, threads=run.training.threads_per_rank
        )
        self.shape = stack_shape(data, run, approach.knobs(run).order)
        self.caches = approach.capacity(data, run) > 0
        self.tables = work.graph_tables(data.num_nodes, data.num_edges)
        self.sent: deque[tuple[Pending, Pending]] = deque()

    def warm_up(self) -> None:
        """Nothing: the rehearsal has compiled everything."""

    def train_period(self, period: int) -> float:
        """Draw and send every batch of an epoch; return the mean loss, as trainers say it."""
        self.serve(period)
        return said_by_the_first(self.context, 0.0)

    def serve(self, period: int) -> None:
        """Draw and send every batch of an epoch, no further ahead than the queue is long."""
        roles, rank = self.roles, self.context.rank
        for step in range(roles.steps):
            self.context.recorder.at(step)
            for number in roles.drawn_by(rank, step):
                earlier = roles.awaited(number)
                if earlier is not None:
                    self._take_credit(f"sample/credit/{roles.trainer_of(number)}", earlier)
                self._send(period, step, number)
        for number in roles.unclaimed(rank):
            self._take_credit(f"sample/unclaimed/{number}", number)

    def _send(self, period: int, step: int, number: int) -> None:
        trainer = self.roles.trainer_of(number)
        with self._step(f"sample/draw/{trainer}") as span:
            dealt = self.source.draw(period, step, self.roles.trainers, trainer)
            span.did(drawing_of([dealt.batch], self.form.op, self.tables))
        batch = dealt.batch
        with self._step(f"sample/pack/{trainer}") as span:
            num_seeds = round(1.0 / dealt.scale)
            header = torch.from_numpy(messages.header_of(batch, num_seeds))
            body = torch.from_numpy(messages.packed(batch, weighted=self.form.edge_weights))
            span.did(work.pack_blocks(*batch.sizes))
        if self.context.device.type != "cpu":
            copied = work.to_device(size_of(header) + size_of(body))
            with self._step(f"sample/to_device/{trainer}", copied, Lane.COPY):
                header, body = header.to(self.context.device), body.to(self.context.device)
        comm, phase = self.context.comm, Phase.SAMPLE
        self.sent.append(
            (
                comm.send_async(header, trainer, f"sample/sizes/{trainer}", phase),
                comm.send_async(body, trainer, f"sample/blocks/{trainer}", phase),
            )
        )

    def _take_credit(self, name: str, number: int) -> None:
        """Wait until a batch of this rank has been received."""
        credit = torch.zeros(1, dtype=torch.int64, device=self.context.device)
        trainer = self.roles.trainer_of(number)
        self.context.comm.recv(credit, trainer, name, Phase.SAMPLE, lane=CREDITS)
        on_host(credit)  # on an accelerator, the host would draw ahead of the queue
        for pending in self.sent.popleft():
            pending.wait()

    def _step(self, name: str, done: Work | None = None, lane: Lane = Lane.HOST) -> Any:
        """The span of a step; without its work, that of one that says afterwards what it did."""
        nothing = work.sample(seeds=0, edges=0, vertices=0, read=0)
        return self.context.recorder.step(name, done or nothing, phase=Phase.SAMPLE, lane=lane)

    def period_metrics(self) -> dict[str, float]:
        return cache_metrics(self.context, None) if self.caches else {}

    def is_finite(self) -> bool:
        """True: it holds no parameters."""
        return True

    def learnt(self) -> Tensor:
        """The parameters of the trainers."""
        return shared_parameters(self.context, make_parameters(self.context, self.shape).flat)

    def outputs(self, period: int) -> tuple[Tensor, Tensor]:
        """No outputs; trainers have those of all batches."""
        self.serve(period)
        device, classes = self.context.device, self.shape.dims[-1]
        ids = torch.empty(0, dtype=torch.int64, device=device)
        return ids, torch.empty((0, classes), dtype=self.context.dtype, device=device)

    def evaluate(self) -> dict[str, float]:
        """Metrics of the whole graph, measured by all ranks together."""
        parameters = make_parameters(self.context, self.shape)
        shared_parameters(self.context, parameters.flat)
        return FullGraphEvaluator(self.context, self.graph, parameters).evaluate()

    def state(self) -> dict[str, Tensor]:
        """Nothing: draws are keyed by epoch and step."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to take up."""

    def close(self) -> None:
        """Nothing outlives an epoch."""


def said_by_the_first(context: RankContext, loss: float) -> float:
    """The loss that rank 0, a trainer, has found."""
    value = torch.full((1,), loss, dtype=context.dtype, device=context.device)
    context.comm.broadcast(value, 0, "sync/loss", Phase.SYNC)
    return float(on_host(value)[0])


def shared_parameters(context: RankContext, flat: Tensor) -> Tensor:
    """Give all ranks the parameters of rank 0, a trainer."""
    context.comm.broadcast(flat, 0, "evaluate/parameters", Phase.EVALUATE)
    return flat
