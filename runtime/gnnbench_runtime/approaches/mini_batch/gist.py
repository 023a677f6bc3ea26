"""GIST on real ranks: dispatch sub-models, train them apart, bring them back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench.approaches.mini_batch.gist import APPROACH, GistStructure, base_run, place_of
from gnnbench.approaches.mini_batch.submodels import AT_ONCE
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data.graph import Graph
from gnnbench.data.halo import halo_structure
from gnnbench.steps import Phase, Work
from gnnbench_runtime.approaches.mini_batch.features import rows_on_device
from gnnbench_runtime.approaches.mini_batch.global_model import GlobalModel
from gnnbench_runtime.approaches.mini_batch.sampled import SampledBatches
from gnnbench_runtime.approaches.mini_batch.streamed import StreamedEvaluator
from gnnbench_runtime.approaches.whole_graph.partition import WholeGraph
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.optimizers import Optimizer, make_optimizer
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import on_host
from gnnbench_runtime.recorder import Recorder, Span
from gnnbench_runtime.training import Batch, StackNet


class Prefixed:
    """A recorder that puts a prefix before the names of steps, as the plan's chain does."""

    def __init__(self, recorder: Recorder, prefix: str) -> None:
        self._recorder, self._prefix = recorder, prefix

    def step(self, name: str, done: Work, **place: Any) -> Span:
        """See `Recorder.step`."""
        return self._recorder.step(self._prefix + name, done, **place)


class GistTrainer:
    """One rank of GIST: some sub-models, and a range of the global model."""

    def __init__(self, context: RankContext, data: Graph, structure: GistStructure) -> None:
        self.context, self.structure = context, structure
        self.knobs = APPROACH.knobs(context.run)
        self.cut = cut = structure.sub_models
        graph, sub = reopened_graph(data), cut.sub_shape
        self.graph = graph
        self.model = GlobalModel(context, cut)
        self.flat = torch.zeros(
            cut.per_rank * sub.num_parameters, device=context.device, dtype=context.dtype
        )
        workspace = Workspace(context.device, context.dtype)
        self.nets: list[StackNet] = []
        self.optimizers: list[Optimizer] = []
        shapes = sub.model.parameters(sub.dims, sub.heads, norm=sub.norm)
        for number, flat in enumerate(self.flat.chunk(cut.per_rank)):
            held = Parameters(shapes, 0, context.device, context.dtype, flat=flat)
            recorder: Any = context.recorder
            if cut.per_rank > 1:
                recorder = Prefixed(recorder, f"sub{number}/")
            stack = Stack(sub, held, workspace, context.kernels, recorder)
            self.nets.append(StackNet(stack))
            self.optimizers.append(
                make_optimizer(held, context.run.training, recorder, context.kernels)
            )
        # Ranks that train a sub-model together sum its gradients.
        self.team = context.comm.split(cut.teams) if cut.members > 1 else None
        self.batches = self._make_batches(graph, sub)
        self.iteration = 0

    def _make_batches(self, graph: Graph, sub: StackShape) -> WholeGraph | SampledBatches:
        """A rank trains on all of every batch, or on its part if others share its sub-model."""
        context, members = self.context, self.cut.members
        alone = dataclasses.replace(
            context,
            rank=context.rank % members,
            world_size=members,
            comm=self.team or Comm(context.recorder, device=context.device),
        )
        if self.structure.batches is not None:
            alone = dataclasses.replace(alone, run=base_run(context.run))
            return SampledBatches(alone, graph, self.structure.batches, sub)
        loader = Loader(alone, graph, sub)
        local = halo_structure(graph, np.zeros(graph.num_nodes, np.int32), 1).ranks[0]
        features = loader.features(local.owned, graph.num_nodes)
        pattern = loader.pattern(local)
        local.forget_edges()
        return WholeGraph(loader, local.owned, pattern, features)

    def warm_up(self) -> None:
        """Nothing: the rehearsal has compiled everything."""

    def train_period(self, period: int) -> float:
        """Train an epoch; return the mean loss of all sub-models."""
        context, steps = self.context, self.structure.steps
        total = torch.zeros(1, device=context.device, dtype=context.dtype)
        batches = self._of_period(period)
        for number in range(steps):
            context.recorder.at(number)
            place = self._place()
            if place.dispatches:
                self.model.dispatch(place.round, self.flat)
                if self.knobs.reset_optimizer:
                    self._reset()
            batch = next(batches)
            for net, optimizer in zip(self.nets, self.optimizers, strict=True):
                net.gradients(batch)
                if self.team is not None:
                    self.team.all_reduce(net.parameters.flat_grad, "sync/gradients", Phase.SYNC)
                optimizer.step()
                if self.cut.leads(context.rank):
                    total += net.parameters.loss * (batch.share / self.cut.parts)
            del batch
            if place.aggregates:
                self.model.aggregate(place.round, self.flat, self.model.shard)
            self.iteration += 1
        context.comm.all_reduce(total, "sync/loss", Phase.SYNC)
        return float(on_host(total)[0])

    def _place(self, iteration: int | None = None) -> Any:
        training = self.context.run.training
        steps = self.structure.steps
        at = self.iteration if iteration is None else iteration
        return place_of(at, self.knobs.local_steps, steps, steps * training.epochs)

    def _of_period(self, period: int) -> Iterator[Batch]:
        return iter(self.batches.of_period(period))

    def _reset(self) -> None:
        """Forget the optimizers' state."""
        for optimizer in self.optimizers:
            for tensor in optimizer.state().values():
                tensor.zero_()
            optimizer.num_steps = 0

    def _reassemble(self) -> None:
        """Bring the global model up to date in the middle of a round.

        That does not disturb the round: its end overwrites the same parameters.
        """
        if self.iteration and not self._place(self.iteration - 1).aggregates:
            round_ = self._place(self.iteration - 1).round
            self.model.aggregate(round_, self.flat, self.model.shard)

    def is_finite(self) -> bool:
        """Whether the shard of the global model is finite."""
        # A few at a time: the test makes copies.
        pieces = self.model.shard.split(AT_ONCE)
        return all(bool(torch.isfinite(piece).all()) for piece in pieces)

    def learnt(self) -> Tensor:
        """All parameters of the global model."""
        self._reassemble()
        return self.model.gathered()

    def outputs(self, period: int) -> tuple[Tensor, Tensor]:
        """Vertex ids and logits of the first sub-model on the batches of a period."""
        ids, logits = [], []
        for batch in self._of_period(period):
            logits.append(self.nets[0].outputs(batch).clone())
            ids.append(batch.row_ids[-1][: len(logits[-1])])
        return torch.cat(ids), torch.cat(logits)

    def evaluate(self) -> dict[str, float]:
        """Metrics of the reassembled global model on the whole graph."""
        self._reassemble()
        return StreamedEvaluator(self.context, self.graph, self.model, self._rows()).evaluate()

    def _rows(self) -> Tensor | None:
        """The features of all vertices, which every rank has on its device."""
        if isinstance(self.batches, WholeGraph):
            return self.batches.x
        return rows_on_device(self.batches.features)

    def period_metrics(self) -> dict[str, float]:
        """None: metrics are measured by `evaluate`."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """The global range, the sub-models of the round under way, their optimizers' states."""
        states = {
            f"optimizer{number}/{name}": tensor
            for number, optimizer in enumerate(self.optimizers)
            for name, tensor in optimizer.state().items()
        }
        at = torch.tensor(self.iteration)
        return {"global_shard": self.model.shard, "sub_models": self.flat, "at": at, **states}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Copy a state into this trainer's own tensors."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.iteration = int(state["at"])
        for number, optimizer in enumerate(self.optimizers):
            mark = f"optimizer{number}/"
            optimizer.restore(
                {k.removeprefix(mark): v for k, v in state.items() if k.startswith(mark)}
            )

    def close(self) -> None:
        """Stop the source of batches."""
        self.batches.close()
