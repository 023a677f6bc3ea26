"""BNS-GCN on real ranks: draw, tell the receivers, rebuild, then train as `partition` does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench.approaches.bns import ID_BYTES
from gnnbench.approaches.partition import PartitionStructure
from gnnbench.graph.boundary import Boundary, SampledGraph, drawn_rows
from gnnbench.graph.graph import Graph
from gnnbench.graph.halo import RankHalo
from gnnbench.plan import Kind, Lane, Phase
from gnnbench_runtime.approaches.partition import HaloExchange, PartitionTrainer
from gnnbench_runtime.models.stack import Aggregation, Exchange
from gnnbench_runtime.protocol import RankContext


class DrawnExchange(HaloExchange):
    """Exchange of the boundary rows that were drawn for an epoch.

    Both directions are unbiased by 1 / r_ij because the graph's column scales hold it: forward
    they weigh the rows received, and transposed the gradients returned.
    """

    def use(self, rows: np.ndarray, given: list[int], taken: list[int]) -> None:
        """Exchange these local rows; `given` and `taken` count rows per peer."""
        self._ids = torch.from_numpy(rows).to(self._context.device)
        self._send, self._recv = given, taken


class BnsTrainer(PartitionTrainer):
    """Full-graph training on a fresh sample of the boundary per epoch; evaluation is exact."""

    _whole: HaloExchange | None = None
    _drawn: DrawnExchange | None = None
    _alone: Aggregation | None = None

    def __init__(
        self, context: RankContext, graph: Graph, structure: PartitionStructure, **given: Any
    ) -> None:
        self.rate = float(context.run.knobs["rate"])
        counts = {rows for size in structure.sizes for rows in size.recv_rows}
        self._travels = any(drawn_rows(self.rate, rows) for rows in counts)
        super().__init__(context, graph, structure, **given)

    def _aggregation(self, graph: Graph, local: RankHalo, dtype: torch.dtype) -> Aggregation:
        whole = super()._aggregation(graph, local, dtype)
        if self.context.world_size == 1:
            return whole
        self._graph, self._boundary = SampledGraph(local), Boundary.of(local)
        self._send_rows = local.send_rows
        scale, columns = self._tensor(self._boundary.scales(self.rate), dtype), None
        if whole.col_scale is not None:
            columns = whole.col_scale.clone()
        elif self.rate < 1:  # at rate 1 no scales are needed: `partition`, bit by bit
            columns = torch.ones(whole.source_rows, device=scale.device, dtype=dtype)
        if columns is not None:
            columns[whole.rows :] *= scale
        self._columns = columns
        return whole

    def _exchange(self, local: RankHalo) -> Exchange:
        self._whole = self._fresh_exchange(local)
        widest = self.shape.widest_exchange
        self._drawn = DrawnExchange(self.context, local, self.workspace, widest)
        return self._whole

    def draw(self, epoch: int) -> Aggregation:
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
        columns = self.aggregation.rows + len(received)
        moved = 8 * self.aggregation.nonzeros + 16 * columns
        with self._sampling("sample/rebuild", "prepare_blocks", moved):
            found = self._rebuilt(edge.find_received(received.cpu().numpy(), taken))
        self.stack.exchange = self._drawn
        return found

    def _rebuilt(self, drawn: np.ndarray) -> Aggregation:
        graph, whole, n = self._graph, self.aggregation, self.aggregation.rows
        entries, columns = graph.rebuild(drawn), n + len(drawn)
        scale = self._columns
        if scale is not None:
            scale = torch.cat([scale[:n], scale[n:][self._tensor(drawn)]])
        return Aggregation(
            indptr=self._tensor(graph.indptr),
            indices=self._tensor(graph.indices[:entries]),
            indptr_t=self._tensor(graph.indptr_t[: columns + 1]),
            indices_t=self._tensor(graph.indices_t[:entries]),
            rows=n,
            source_rows=columns,
            row_scale=whole.row_scale,
            col_scale=scale,
            self_scale=whole.self_scale,
        )

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
        self.stack.exchange = self._whole
        try:
            return super().evaluate()
        finally:
            self.stack.exchange = self._drawn if self._travels else None
