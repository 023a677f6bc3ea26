"""GIST on real ranks: dispatch sub-models, train them apart, bring them back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.mini_batch.gist import APPROACH, GistStructure, base_run, place_of
from gnnbench.approaches.mini_batch.submodels import SubModels
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data.graph import Graph
from gnnbench.data.halo import halo_structure
from gnnbench.steps import Phase, Work
from gnnbench_runtime.approaches.mini_batch.sampled import FullGraphEvaluator, SampledBatches
from gnnbench_runtime.approaches.whole_graph.partition import WholeGraph
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.parameters import Parameters, initial
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


class GlobalModel:
    """This rank's range of the global parameters, and how blocks travel to sub-models and back.

    Args:
        context: the rank.
        cut: how the model is cut.
    """

    def __init__(self, context: RankContext, cut: SubModels) -> None:
        self.context, self.cut = context, cut
        start, stop = cut.bounds[context.rank : context.rank + 2].tolist()
        drawn = initial(cut.shapes, context.run.training.seed, start, stop)
        self.start, self.stop = start, stop
        self.shard = torch.zeros(cut.shard_length, device=context.device, dtype=context.dtype)
        self.shard[: stop - start] = torch.from_numpy(drawn).to(context.device, context.dtype)

    def dispatch(self, round_: int, into: Tensor) -> None:
        """Fill the flat parameters of this rank's sub-models with their blocks."""
        route = _Route(self.cut, round_, self.context.rank)
        leaving = self._picked("dispatch", self.shard, route.served)
        arrived = self._moved("dispatch", leaving, route.needed_counts, route.served_counts)
        with self._step("dispatch/place", work.gather(*_sizes(arrived), len(arrived), _s(into))):
            into[self._ids(route.order)] = arrived

    def aggregate(self, round_: int, trained: Tensor, into: Tensor) -> None:
        """Bring blocks back to the ranges of their owners.

        What all sub-models share is averaged, in the order of the sub-models.
        """
        cut, route = self.cut, _Route(self.cut, round_, self.context.rank)
        leaving = self._picked("aggregate", trained, route.order)
        arrived = self._moved("aggregate", leaving, route.served_counts, route.needed_counts)
        with self._step("aggregate/place", work.gather(*_sizes(arrived), len(arrived), _s(into))):
            shared = [max(at - self.start, 0) for at in (cut.shared.start, cut.shared.stop)]
            common = into[shared[0] : min(shared[1], self.stop - self.start)]
            common.zero_()
            is_shared = route.served >= shared[0]
            own, both = np.flatnonzero(~is_shared), np.flatnonzero(is_shared)
            into[self._ids(route.served[own])] = arrived[self._ids(own)]
            if len(both):
                into.index_add_(0, self._ids(route.served[both]), arrived[self._ids(both)])
                common.div_(cut.parts)

    def gathered(self, shard: Tensor) -> Parameters:
        """All parameters on every rank, from everybody's range."""
        context, cut = self.context, self.cut
        every = torch.empty(
            cut.ranks * cut.shard_length, device=context.device, dtype=context.dtype
        )
        context.comm.all_gather(every, shard, "evaluate/parameters", Phase.EVALUATE)
        flat = every[: cut.shape.num_parameters]
        return Parameters(cut.shapes, 0, context.device, context.dtype, flat=flat)

    def _picked(self, name: str, source: Tensor, ids: NDArray[np.int64]) -> Tensor:
        done = work.gather(len(ids), 1, len(source), source.element_size())
        with self._step(f"{name}/pack", done):
            return source[self._ids(ids)]

    def _moved(
        self, name: str, leaving: Tensor, arriving: Sequence[int], given: Sequence[int]
    ) -> Tensor:
        arrived = torch.empty(sum(arriving), device=leaving.device, dtype=leaving.dtype)
        self.context.comm.all_to_all(
            arrived, leaving, list(arriving), list(given), f"{name}/blocks", Phase.SYNC
        )
        return arrived

    def _ids(self, ids: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(ids).to(self.context.device)

    def _step(self, name: str, done: Work) -> Span:
        return self.context.recorder.step(name, done, phase=Phase.SYNC)


class _Route:
    """Which parameters a rank needs in a round and which it serves, in the order of travel.

    order          places in the rank's flat sub-models of what arrives: by owner
    served         places in the rank's own range of what it sends: by receiver
    """

    def __init__(self, cut: SubModels, round_: int, rank: int) -> None:
        groups = cut.groups(round_)
        served = []
        for other in range(cut.ranks):
            ids = cut.ids_of_rank(groups, other)
            owner = cut.owners(ids)
            if other == rank:
                self.order = np.argsort(owner, kind="stable")
                self.needed_counts = np.bincount(owner, minlength=cut.ranks).tolist()
            served.append(ids[owner == rank] - cut.bounds[rank])
        self.served = np.concatenate(served)
        self.served_counts = [len(ids) for ids in served]


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
        self.batches = self._make_batches(graph, sub)
        self.iteration = 0

    def _make_batches(self, graph: Graph, sub: StackShape) -> WholeGraph | SampledBatches:
        """Every rank trains on all of every batch, as a rank that is alone."""
        context = self.context
        alone = dataclasses.replace(
            context, rank=0, world_size=1, comm=Comm(context.recorder, device=context.device)
        )
        if self.structure.batches is not None:
            alone = dataclasses.replace(alone, run=base_run(context.run))
            return SampledBatches(alone, graph, self.structure.batches, sub)
        loader = Loader(alone, graph, sub)
        local = halo_structure(graph, np.zeros(graph.num_nodes, np.int32), 1).ranks[0]
        features = loader.features(local.owned, graph.num_nodes)
        return WholeGraph(loader, local.owned, loader.pattern(local), features)

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
                optimizer.step()
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

    def _current(self) -> Parameters:
        """The reassembled global model; in the middle of a round, which it does not disturb."""
        shard = self.model.shard
        if self.iteration and not self._place(self.iteration - 1).aggregates:
            shard = shard.clone()
            self.model.aggregate(self._place(self.iteration - 1).round, self.flat, shard)
        return self.model.gathered(shard)

    def is_finite(self) -> bool:
        """Whether the shard of the global model is finite."""
        return bool(torch.isfinite(self.model.shard).all())

    def learnt(self) -> Tensor:
        """All parameters of the global model."""
        return self._current().flat

    def outputs(self, period: int) -> tuple[Tensor, Tensor]:
        """Vertex ids and logits of the first sub-model on the batches of a period."""
        ids, logits = [], []
        for batch in self._of_period(period):
            logits.append(self.nets[0].outputs(batch).clone())
            ids.append(batch.row_ids[-1][: len(logits[-1])])
        return torch.cat(ids), torch.cat(logits)

    def evaluate(self) -> dict[str, float]:
        """Metrics of the reassembled global model on the whole graph."""
        return FullGraphEvaluator(self.context, self.graph, self._current()).evaluate()

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


def _sizes(values: Tensor) -> tuple[int, int]:
    return len(values), 1


def _s(values: Tensor) -> int:
    return values.element_size()
