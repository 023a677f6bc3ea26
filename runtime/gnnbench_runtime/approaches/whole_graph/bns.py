"""BNS-GCN on real ranks: draw rows, send their ids, rebuild the graph, train as `partition`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench.approaches.whole_graph.bns import SampleSizes, drawn_sizes
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.data.boundary import Boundary, SampledAttention, SampledGraph
from gnnbench.data.graph import Graph
from gnnbench.steps import Phase
from gnnbench_runtime.approaches.whole_graph.exchange import HaloExchange
from gnnbench_runtime.approaches.whole_graph.partition import PartitionTrainer, WholeGraph
from gnnbench_runtime.models.patterns import Aggregation, Attention
from gnnbench_runtime.models.performer import Exchange
from gnnbench_runtime.models.workspace import Workspace, empty
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import array_on_host
from gnnbench_runtime.training import Batch


class DrawnExchange(HaloExchange):
    """Exchange of the halo rows that were drawn for an epoch.

    For convolutions both directions are unbiased, because the column scales of the graph contain 1
    / r_ij: they multiply received rows in the forward pass and, transposed, returned gradients in
    the backward pass. Attention has no such scales: its softmax runs over the neighbours that were
    drawn.
    """

    def use(self, rows: np.ndarray, given: list[int], taken: list[int]) -> None:
        """Exchange these local rows; `given` and `taken` count rows per peer."""
        self._ids = torch.from_numpy(rows).to(self._context.device)
        self._send, self._recv = given, taken


class DrawnGraph(WholeGraph):
    """The rank's graph over the halo rows that were drawn for the epoch, as its only batch."""

    def __init__(self, trainer: BnsTrainer, aggregation: Any, x: Tensor) -> None:
        super().__init__(trainer.loader, trainer.local.owned, aggregation, x)
        self.trainer = trainer

    def of_period(self, period: int) -> Iterator[Batch]:
        """Draw, and yield the graph of the epoch."""
        if self.trainer.context.world_size == 1:
            yield self.batch((self.seed, period))
        else:
            yield self.batch((self.seed, period), self.trainer.draw(period))


class BnsTrainer(PartitionTrainer):
    """Full-graph training on a new sample of the halo in every epoch; evaluation is exact.

    Training buffers are sized for the sample. Evaluation allocates its own memory and releases it.
    """

    _whole: HaloExchange | None = None
    _drawn: DrawnExchange | None = None
    _alone: Aggregation | Attention | None = None
    _graph: SampledGraph | SampledAttention
    _scale: Tensor | None = None
    _halo_scale: Tensor | None = None

    def __init__(
        self, context: RankContext, data: Graph, structure: PartitionStructure, **given: Any
    ) -> None:
        sizes = structure.sizes
        self._buffers: dict[str, Tensor] = {}
        super().__init__(context, data, structure, **given)
        self._travels = bool(drawn_sizes(sizes, self.rate).received.any())

    def make_batches(self, pattern: Any, x: Tensor) -> WholeGraph:
        return DrawnGraph(self, pattern, x)

    @property
    def rate(self) -> float:
        return float(self.knobs.rate)

    def make_pattern(self) -> Aggregation | Attention:
        if self.context.world_size == 1:
            alone: Aggregation | Attention = super().make_pattern()
            return alone
        local = self.local
        self._boundary, self._send_rows = Boundary.of(local), local.send_rows
        self._entries = len(local.csr.indices)
        if self.shape.model.attention:
            held = self.loader.attention(local)
            ids = None if held.edge_ids is None else held.edge_ids.numpy()
            indptr, indices = held.indptr.numpy(), held.indices.numpy()
            self._graph = SampledAttention(indptr, indices, ids, self._boundary, self.rate)
            return held.to(self.context.device)
        whole = self.loader.aggregation(local)
        self._graph = SampledGraph(local, self.rate)
        self._scale_columns(whole)
        return whole

    def _scale_columns(self, whole: Aggregation) -> None:
        """Keep the scales of own columns, and those by which halo columns are drawn from."""
        n = whole.rows
        dtype, tensor = self.context.dtype, self.loader.tensor
        scale = tensor(self._boundary.scales(self.rate), dtype)
        if whole.col_scale is not None:
            scale *= whole.col_scale[n:]
        elif self.rate == 1:  # no scales are needed: `partition`, bit by bit
            return
        drawn = sum(self._boundary.taken(self.rate))
        self._scale = torch.ones(n + drawn, device=scale.device, dtype=dtype)
        if whole.col_scale is not None:
            self._scale[:n] = whole.col_scale[:n]
        self._halo_scale = scale

    def source_rows(self) -> int:
        if self.context.world_size == 1:
            return super().source_rows()
        return self.local.num_owned + sum(self._boundary.taken(self.rate))

    def make_exchange(self) -> Exchange:
        self._apart = Workspace(self.context.device, self.context.dtype)
        self._whole = self.fresh_exchange(self._apart)
        widest = self.shape.widest_exchange
        self._drawn = DrawnExchange(self.context, self.local, self.workspace, widest)
        return self._whole

    def draw(self, epoch: int) -> Aggregation | Attention:
        """Return this rank's graph of an epoch; the exchange then serves the rows drawn for it."""
        if self._alone is not None:
            return self._alone
        if not self._travels:
            self.stack.exchange = None
            self._alone = self._rebuilt(np.zeros(0, np.int64))
            return self._alone
        assert self._drawn is not None
        context, edge, rate = self.context, self._boundary, self.rate
        given, taken = edge.given(rate), edge.taken(rate)
        step = context.recorder.step
        with step("sample/draw", self._sizes().draw_work(), phase=Phase.SAMPLE):
            picks = edge.draw_sent(rate, context.run.training.seed, epoch)
            ids = self.loader.tensor(edge.send[picks])
            self._drawn.use(self._send_rows[picks], given, taken)
        received = torch.empty(sum(taken), dtype=torch.int64, device=context.device)
        context.comm.all_to_all(received, ids, taken, given, "sample/ids", Phase.SAMPLE)
        with step("sample/rebuild", self._sizes().rebuild_work(), phase=Phase.SAMPLE):
            found = self._rebuilt(edge.find_received(array_on_host(received), taken))
        self.stack.exchange = self._drawn
        return found

    def _sizes(self) -> SampleSizes:
        """Sizes of the drawn sample and of the rebuilt graph, from their arrays."""
        edge, local = self._boundary, self.local
        return SampleSizes(
            shape=self.shape,
            rows=local.num_owned,
            nonzeros=self._entries,
            whole_sent=len(edge.send),
            whole_received=len(local.halo),
            sent=sum(edge.given(self.rate)),
            received=sum(edge.taken(self.rate)),
            rate=self.rate,
        )

    def _rebuilt(self, drawn: np.ndarray) -> Aggregation | Attention:
        graph, whole = self._graph, self.batches.aggregation
        n = whole.rows
        entries, columns = graph.rebuild(drawn), n + len(drawn)
        pattern: dict[str, Any] = {
            "rows": n,
            "source_rows": columns,
            "indptr": self._held("indptr", graph.indptr, n + 1),
            "indices": self._held("indices", graph.indices, entries),
            "indptr_t": self._held("indptr_t", graph.indptr_t, columns + 1),
            "indices_t": self._held("indices_t", graph.indices_t, entries),
        }
        if isinstance(graph, SampledAttention):
            ids = graph.edge_ids
            return Attention(
                **pattern,
                edges_t=self._held("edges_t", graph.edges_t, entries),
                edge_ids=None if ids is None else self._held("edge_ids", ids, entries),
            )
        scale = self._scale
        if scale is not None:
            assert self._halo_scale is not None
            torch.index_select(self._halo_scale, 0, self.loader.tensor(drawn), out=scale[n:])
        return Aggregation(
            **pattern, row_scale=whole.row_scale, col_scale=scale, self_scale=whole.self_scale
        )

    def _held(self, name: str, array: np.ndarray, count: int) -> Tensor:
        """Return the first `count` of a buffer of the sampled graph, on the device.

        On a CPU it is that memory; elsewhere it is copied to a buffer of the same size.
        """
        source = torch.from_numpy(array[:count])
        if self.context.device.type == "cpu":
            return source
        if name not in self._buffers:
            self._buffers[name] = torch.empty(
                len(array), dtype=source.dtype, device=self.context.device
            )
        return self._buffers[name][:count].copy_(source)

    def whole_logits(self) -> Tensor:
        """Logits of the whole graph with its whole halo, in memory of its own."""
        if self.context.world_size == 1:
            return super().whole_logits()
        stack, batches = self.stack, self.batches
        exchange, whole, trained_on = stack.exchange, batches.aggregation, batches.x
        try:
            self.apart = True
            stack.exchange, stack.workspace = self._whole, self._apart
            if not self.reads_own_rows:
                rows, width = whole.source_rows, trained_on.shape[1]
                room = empty(rows * width, trained_on.device, trained_on.dtype)
                batches.x = room.view(rows, width)
                batches.x[: whole.rows] = trained_on[: whole.rows]
            return super().whole_logits()
        finally:
            self.apart, batches.x = False, trained_on
            stack.exchange, stack.workspace = exchange, self.workspace
            stack.forget()

    def evaluate(self) -> dict[str, float]:
        """Metrics of the whole graph; the memory for it is released afterwards."""
        try:
            return super().evaluate()
        finally:
            if self.context.world_size > 1:
                self._apart.clear()
