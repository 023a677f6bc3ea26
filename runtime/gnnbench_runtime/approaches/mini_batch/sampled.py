"""Neighbour-sampled data-parallel training, with an optional thread that prepares batches ahead."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import registry
from gnnbench.approaches.mini_batch.sampled import SampledKnobs, SampledStructure, needs_transpose
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.whole_graph.rows import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.data.sampling import Batch, NeighbourSampler, epoch_seeds, split_seeds
from gnnbench.plan import Kind, Lane, Phase
from gnnbench_runtime.approaches.whole_graph.partition import PartitionTrainer, adam_step
from gnnbench_runtime.models.data import rows_as_tensor
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.scales import vertex_scales
from gnnbench_runtime.models.stack import Aggregation, Attention, Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext


@dataclass(slots=True, kw_only=True)
class Prepared:
    """A batch ready to train on: blocks as aggregations, input rows, labels of the seeds."""

    aggregations: list[Aggregation] | list[Attention]
    row_ids: list[Tensor]
    x: Tensor
    labels: Tensor
    global_seeds: int


class SampledTrainer:
    """One rank of sampled training: one optimizer step per global batch."""

    def __init__(self, context: RankContext, graph: Graph, structure: SampledStructure) -> None:
        run = context.run
        self.context, self.graph, self.structure = context, graph, structure
        self.knobs: SampledKnobs = registry.approach(run.approach).knobs(run)
        self.shape = stack_shape(graph, run, self.knobs.order)
        self.dtype = torch.float64 if run.training.precision == "float64" else torch.float32
        self.model = registry.model(run.model.kind)
        self.parameters = Parameters(
            self.model, self.shape.dims, run.training.seed, context.device, self.dtype,
            self.shape.heads,
        )  # fmt: skip
        self.workspace = Workspace(context.device, self.dtype)
        self.stack = Stack(
            self.shape, self.parameters, self.workspace, context.kernels, context.recorder
        )
        self.sampler = NeighbourSampler(
            graph.indptr,
            graph.indices,
            self.knobs.fanouts_from_seeds,
            run.training.seed,
            threads=run.training.threads_per_rank,
        )
        self.train_nodes = graph.train_nodes()
        self.as_destination = self.as_source = None
        if not self.model.attention:
            self.as_destination, self.as_source = vertex_scales(graph, self.model)
        self.features = FeatureStore(context, graph, structure.owner, self.dtype)
        self.labels = np.array(graph.labels)
        self.train_rows = torch.arange(self.knobs.batch_size, device=context.device)
        self.optimizer_steps = 0
        if self.knobs.prefetch:
            context.comm.open_background()

    # -- preparing a batch -----------------------------------------------------------------------

    def prepare(self, order: NDArray[np.int64], epoch: int, step: int, slot: int) -> Prepared:
        """Draw this rank's share of a global batch, build its blocks, fetch its input rows."""
        context, size = self.context, self.knobs.batch_size
        seeds = order[step * size : (step + 1) * size]
        mine = split_seeds(seeds, context.world_size, context.rank)
        with self._step("sample/draw", Kind.SAMPLE, "sample", Phase.SAMPLE) as span:
            batch = self.sampler.sample(mine, epoch, step)
            edges = sum(len(block.indices) for block in batch.blocks)
            vertices = sum(block.num_src for block in batch.blocks) + len(mine)
            span.size(edges * 8 + vertices * 16)
        aggregations: Any
        with self._step("sample/prepare", Kind.SAMPLE, "prepare_blocks", Phase.SAMPLE) as span:
            if self.model.attention:
                aggregations, turned = self._attentions(batch)
            else:
                aggregations, turned = self._aggregations(batch)
            span.size(turned * 8 + vertices * 16)
        if context.device.type == "cuda":
            aggregations, row_ids = self._to_device(batch, aggregations)
        else:
            row_ids = [torch.from_numpy(batch.input_nodes[: b.num_src]) for b in batch.blocks]
        buffer = self.workspace.get(f"x{slot}", len(batch.input_nodes), self.shape.dims[0])
        self.features.fetch(batch.input_nodes, buffer, self._step, self._lanes()[1])
        return Prepared(
            aggregations=aggregations,
            row_ids=row_ids,
            x=buffer,
            labels=torch.from_numpy(self.labels[mine]).to(context.device),
            global_seeds=len(seeds),
        )

    def _lanes(self) -> tuple[Lane, Lane]:
        return (Lane.HOST, Lane.BACKGROUND) if self.knobs.prefetch else (Lane.COMPUTE, Lane.COMM)

    def _step(self, name: str, kind: Kind, op: str, phase: Phase, size: int = 0) -> Any:
        lane = self._lanes()[0]
        return self.context.recorder.step(name, kind, op, lane=lane, phase=phase, bytes=size)

    def _attentions(self, batch: Batch) -> tuple[list[Attention], int]:
        """Blocks to attend over, and how many edges were transposed.

        Softmax normalises what was drawn: unlike a mean, it is not an unbiased estimate of all.
        """
        found = [
            Attention.of(
                block.indptr,
                block.indices,
                batch.input_nodes[: block.num_src],
                self.graph.num_nodes,
                with_ids=self.shape.dropout > 0,
            )
            for block in batch.blocks
        ]
        return found, sum(len(block.indices) for block in batch.blocks)

    def _aggregations(self, batch: Batch) -> tuple[list[Aggregation], int]:
        """Blocks as scaled aggregations, and how many edges were transposed."""
        found, turned = [], 0
        for layer, block in enumerate(batch.blocks, start=1):
            sources = batch.input_nodes[: block.num_src]
            targets = sources[: block.num_dst]
            picks = np.diff(block.indptr)
            share = np.divide(1.0, picks, out=np.zeros(len(picks)), where=picks > 0)
            col_scale = self_scale = None
            if self.as_source is not None:
                assert self.as_destination is not None
                # The true row sum is estimated by degree / picks times the sampled one.
                share *= block.degrees * self.as_destination[targets]
                col_scale = self.as_source[sources]
                self_scale = self.as_destination[targets] * col_scale[: block.num_dst]
            indptr_t = indices_t = None
            if needs_transpose(self.shape, layer):
                indptr_t, indices_t = (torch.from_numpy(a) for a in block.transpose())
                turned += len(block.indices)
            found.append(
                Aggregation(
                    indptr=torch.from_numpy(block.indptr),
                    indices=torch.from_numpy(block.indices),
                    indptr_t=indptr_t,
                    indices_t=indices_t,
                    rows=block.num_dst,
                    source_rows=block.num_src,
                    row_scale=self._scale(share),
                    col_scale=None if col_scale is None else self._scale(col_scale),
                    self_scale=None if self_scale is None else self._scale(self_scale),
                )
            )
        return found, turned

    def _scale(self, values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values).to(self.dtype)

    def _to_device(self, batch: Batch, aggregations: Any) -> tuple[list[Any], list[Tensor]]:
        """Copy blocks and ids to the device."""
        device = self.context.device
        size = sum(a.num_bytes for a in aggregations)
        with self._step("fetch/copy", Kind.COPY, "copy_h2d", Phase.FETCH, size):
            aggregations = [a.to(device) for a in aggregations]
            ids = torch.from_numpy(batch.input_nodes).to(device)
        return aggregations, [ids[: a.source_rows] for a in aggregations]

    # -- training --------------------------------------------------------------------------------

    def train_epoch(self, epoch: int) -> float:
        """Train on every training vertex once; return the mean loss per vertex."""
        order = epoch_seeds(self.train_nodes, self.context.run.training.seed, epoch)
        total = torch.zeros(1, device=self.context.device, dtype=self.dtype)
        batches = Prefetcher(self, order, epoch) if self.knobs.prefetch else None
        try:
            for step in range(self.structure.num_steps):
                self.context.recorder.at(step)
                ready = batches.take() if batches else self.prepare(order, epoch, step, 0)
                self.train_step(ready, epoch, step)
                total += self.parameters.loss * ready.global_seeds
                if batches:
                    batches.release()
        finally:
            if batches:
                batches.stop()
        return float(total.item()) / max(len(self.train_nodes), 1)

    def train_step(self, ready: Prepared, epoch: int, step: int) -> None:
        """Forward, backward, all-reduce and Adam on one prepared batch."""
        self.gradients(ready, epoch, step)
        self.context.comm.all_reduce(self.parameters.flat_grad, "sync/gradients", Phase.SYNC)
        adam_step(self.context, self.parameters, self.optimizer_steps + 1)
        self.optimizer_steps += 1

    def gradients(self, ready: Prepared, epoch: int, step: int) -> None:
        """Fill this rank's share of loss and gradient: a sum over its seeds / global seeds."""
        seed = self.context.run.training.seed
        logits = self.stack.forward(
            ready.x, ready.aggregations, row_ids=ready.row_ids, counters=(seed, epoch, step)
        )
        rows = self.train_rows[: len(ready.labels)]
        self.stack.loss(logits, ready.labels, rows, 1.0 / max(ready.global_seeds, 1))
        self.stack.backward()

    # -- evaluation ------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Full-graph accuracy: vertices in even chunks, halo rows exchanged, no sampling."""
        world, n = self.context.world_size, self.graph.num_nodes
        owner = (np.arange(n, dtype=np.int64) * world // max(n, 1)).astype(np.int32)
        structure = PartitionStructure(sizes=[], assignment=owner)
        full = PartitionTrainer(
            self.context, self.graph, structure, parameters=self.parameters, order="min_width"
        )
        return full.evaluate()

    def close(self) -> None:
        """Nothing outlives an epoch."""


class FeatureStore:
    """Input rows by vertex id: held whole, or with their owner and fetched by all-to-all."""

    def __init__(
        self,
        context: RankContext,
        graph: Graph,
        owner: NDArray[np.int32] | None,
        dtype: torch.dtype,
    ) -> None:
        assert graph.features is not None
        self._context, self._owner = context, owner
        rows = None if owner is None else np.flatnonzero(owner == context.rank)
        self._rows = rows_as_tensor(graph.features, rows, dtype, context.device)
        if owner is not None:
            # Position of every vertex among the rows of its owner.
            self._position = np.empty(len(owner), np.int64)
            for rank in range(context.world_size):
                mine = np.flatnonzero(owner == rank)
                self._position[mine] = np.arange(len(mine))

    def fetch(self, ids: NDArray[np.int64], out: Tensor, step: Any, lane: Lane) -> None:
        """Put the rows of `ids` (distinct) into `out`, in order."""
        if self._owner is None:
            size = len(ids) * (8 + 2 * out.shape[1] * out.element_size())
            with step("fetch/gather", Kind.GATHER, "gather", Phase.FETCH, size):
                index = torch.from_numpy(ids).to(out.device)
                self._context.kernels.gather_rows(self._rows, index, out)
            return
        self._fetch_remote(ids, out, step, lane)

    def _fetch_remote(self, ids: NDArray[np.int64], out: Tensor, step: Any, lane: Lane) -> None:
        assert self._owner is not None
        comm, world, device = self._context.comm, self._context.world_size, out.device
        width, s = out.shape[1], out.element_size()
        with step("fetch/route", Kind.SAMPLE, "route", Phase.FETCH, 24 * len(ids)):
            owners = self._owner[ids]
            by_owner = np.argsort(owners, kind="stable")
            asked = np.bincount(owners, minlength=world)
            wanted = torch.from_numpy(self._position[ids[by_owner]]).to(device)
            place = np.empty(len(ids), np.int64)
            place[by_owner] = np.arange(len(ids))
        send, recv = (
            torch.from_numpy(asked).to(device),
            torch.empty(world, dtype=torch.int64, device=device),
        )
        comm.all_to_all(recv, send, None, None, "fetch/counts", Phase.FETCH, lane=lane)
        served, asked_rows = recv.tolist(), asked.tolist()
        requests = torch.empty(sum(served), dtype=torch.int64, device=device)
        comm.all_to_all(requests, wanted, served, asked_rows, "fetch/ids", Phase.FETCH, lane=lane)
        size = len(requests) * (8 + 2 * width * s)
        with step("fetch/gather", Kind.GATHER, "gather", Phase.FETCH, size):
            given = torch.empty((len(requests), width), device=device, dtype=out.dtype)
            self._context.kernels.gather_rows(self._rows, requests, given)
        got = torch.empty((len(ids), width), device=device, dtype=out.dtype)
        comm.all_to_all(got, given, asked_rows, served, "fetch/rows", Phase.FETCH, lane=lane)
        size = len(ids) * (8 + 2 * width * s)
        with step("fetch/place", Kind.GATHER, "gather", Phase.FETCH, size):
            self._context.kernels.gather_rows(got, torch.from_numpy(place).to(device), out)


class Prefetcher:
    """A thread that prepares batches ahead, at most `prefetch` of them beside the one in use."""

    def __init__(self, trainer: SampledTrainer, order: NDArray[np.int64], epoch: int) -> None:
        depth = trainer.knobs.prefetch
        self._slots = threading.Semaphore(depth + 1)
        self._ready: queue.Queue[Prepared | BaseException] = queue.Queue()
        self._stopped = False
        self._thread = threading.Thread(
            target=self._work, args=(trainer, order, epoch, depth + 1), name="prefetch", daemon=True
        )
        self._thread.start()

    def _work(
        self, trainer: SampledTrainer, order: NDArray[np.int64], epoch: int, slots: int
    ) -> None:
        try:
            for step in range(trainer.structure.num_steps):
                self._slots.acquire()
                if self._stopped:
                    return
                trainer.context.recorder.at(step)
                self._ready.put(trainer.prepare(order, epoch, step, step % slots))
        except BaseException as error:  # handed to the trainer, whose failure it is
            self._ready.put(error)

    def take(self) -> Prepared:
        """The next batch; raises what the thread raised."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def release(self) -> None:
        """Give the batch in use back, so that another may be prepared."""
        self._slots.release()

    def stop(self) -> None:
        """End the thread; after a whole epoch it has ended by itself."""
        self._stopped = True
        self._slots.release()
        self._thread.join()
