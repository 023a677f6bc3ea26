"""BNS-GCN on real ranks: draw, tell the receivers, rebuild, then train as `partition` does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench.approaches.whole_graph.bns import ID_BYTES, SampleSizes, drawn_sizes
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.data.boundary import Boundary, SampledAttention, SampledGraph, drawn_rows
from gnnbench.data.graph import Graph
from gnnbench.data.halo import RankHalo
from gnnbench.plan import Kind, Lane, Phase
from gnnbench_runtime.approaches.whole_graph.partition import HaloExchange, PartitionTrainer
from gnnbench_runtime.models.stack import Aggregation, Attention, Exchange
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext


class DrawnExchange(HaloExchange):
    """Exchange of the boundary rows that were drawn for an epoch.

    For convolutions both directions are unbiased by 1 / r_ij because the graph's column scales hold
    it: forward they weigh the rows received, and transposed the gradients returned. Attention has
    no such scales: its softmax is over the neighbours that arrived.
    """

    def use(self, rows: np.ndarray, given: list[int], taken: list[int]) -> None:
        """Exchange these local rows; `given` and `taken` count rows per peer."""
        self._ids = torch.from_numpy(rows).to(self._context.device)
        self._send, self._recv = given, taken


class BnsTrainer(PartitionTrainer):
    """Full-graph training on a fresh sample of the boundary per epoch; evaluation is exact.

    What training holds is sized by the sample; evaluation has memory of its own, and gives it back.
    """

    _whole: HaloExchange | None = None
    _drawn: DrawnExchange | None = None
    _alone: Aggregation | Attention | None = None
    _graph: SampledGraph | SampledAttention
    _scale: Tensor | None = None
    _halo_scale: Tensor | None = None

    def __init__(
        self, context: RankContext, graph: Graph, structure: PartitionStructure, **given: Any
    ) -> None:
        self.rate = float(context.run.knobs["rate"])
        counts = {rows for size in structure.sizes for rows in size.recv_rows}
        self._travels = any(drawn_rows(self.rate, rows) for rows in counts)
        self._buffers: dict[str, Tensor] = {}
        super().__init__(context, graph, structure, **given)
        if context.world_size > 1:
            self._sample = SampleSizes(
                shape=self.shape,
                whole=structure.sizes[context.rank],
                drawn=drawn_sizes(structure.sizes[context.rank], self.rate),
                rate=self.rate,
            )

    def _pattern(
        self, graph: Graph, local: RankHalo, dtype: torch.dtype
    ) -> Aggregation | Attention:
        whole = super()._pattern(graph, local, dtype)
        if self.context.world_size == 1:
            return whole
        self._boundary, self._send_rows = Boundary.of(local), local.send_rows
        if isinstance(whole, Attention):
            ids = None if whole.edge_ids is None else whole.edge_ids.cpu().numpy()
            indptr, indices = whole.indptr.cpu().numpy(), whole.indices.cpu().numpy()
            self._graph = SampledAttention(indptr, indices, ids, self._boundary, self.rate)
            return whole
        self._graph = SampledGraph(local, self.rate)
        self._scale_columns(whole, dtype)
        return whole

    def _scale_columns(self, whole: Aggregation, dtype: torch.dtype) -> None:
        """Keep the scales of own columns, and those by which halo columns are drawn from."""
        n = whole.rows
        scale = self._tensor(self._boundary.scales(self.rate), dtype)
        if whole.col_scale is not None:
            scale *= whole.col_scale[n:]
        elif self.rate == 1:  # no scales are needed: `partition`, bit by bit
            return
        drawn = sum(self._boundary.taken(self.rate))
        self._scale = torch.ones(n + drawn, device=scale.device, dtype=dtype)
        if whole.col_scale is not None:
            self._scale[:n] = whole.col_scale[:n]
        self._halo_scale = scale

    def _source_rows(self, local: RankHalo) -> int:
        if self.context.world_size == 1:
            return super()._source_rows(local)
        return local.num_owned + sum(self._boundary.taken(self.rate))

    def _exchange(self, local: RankHalo) -> Exchange:
        widest = self.shape.widest_exchange
        self._apart = Workspace(self.context.device, self.workspace.dtype)
        self._whole = HaloExchange(self.context, local, self._apart, widest)
        self._drawn = DrawnExchange(self.context, local, self.workspace, widest)
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
        with self._sampling("sample/draw", "sample", 2 * ID_BYTES * len(edge.send)):
            picks = edge.draw_sent(rate, context.run.training.seed, epoch)
            ids = self._tensor(edge.send[picks])
            self._drawn.use(self._send_rows[picks], given, taken)
        received = torch.empty(sum(taken), dtype=torch.int64, device=context.device)
        context.comm.all_to_all(received, ids, taken, given, "sample/ids", Phase.SAMPLE)
        with self._sampling("sample/rebuild", "prepare_blocks", self._sample.rebuild_bytes):
            found = self._rebuilt(edge.find_received(received.cpu().numpy(), taken))
        self.stack.exchange = self._drawn
        return found

    def _rebuilt(self, drawn: np.ndarray) -> Aggregation | Attention:
        graph, whole, n = self._graph, self.aggregation, self.aggregation.rows
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
            torch.index_select(self._halo_scale, 0, self._tensor(drawn), out=scale[n:])
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

    def _sampling(self, name: str, op: str, size: int):
        return self.context.recorder.step(
            name, Kind.SAMPLE, op, lane=Lane.COMPUTE, phase=Phase.SAMPLE, bytes=size
        )

    def gradients(self, counters: tuple[int, ...]) -> Tensor:
        """As `partition`, on the graph drawn for the epoch, in all layers and both passes."""
        if self.context.world_size == 1:
            return super().gradients(counters)
        aggregation, layers = self.draw(counters[-1]), self.shape.num_layers
        logits = self.stack.forward(
            self.x[: aggregation.source_rows],
            [aggregation] * layers,
            row_ids=[self.row_ids] * layers,
            counters=counters,
        )
        self.stack.loss(logits, self.labels, self.train_rows, self.loss_scale)
        self.stack.backward()
        return logits

    def evaluate(self) -> dict[str, float]:
        """Accuracy of the whole graph, its whole boundary exchanged."""
        if self.context.world_size == 1:
            return super().evaluate()
        stack, trained_on = self.stack, self.x
        exchange, whole = stack.exchange, self.aggregation
        try:
            stack.exchange, stack.workspace = self._whole, self._apart
            self.x = self._apart.get("x", whole.source_rows, trained_on.shape[1])
            self.x[: whole.rows] = trained_on[: whole.rows]
            return super().evaluate()
        finally:
            self.x = trained_on
            stack.exchange, stack.workspace = exchange, self.workspace
            stack.forget()
            self._apart.clear()
