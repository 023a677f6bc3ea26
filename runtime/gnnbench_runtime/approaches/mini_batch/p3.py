"""P3 on real ranks: gather the structure of first blocks, pull partial sums, push gradients.

The plan's part is `gnnbench.approaches.mini_batch.push_pull`.

Legend: R rows of all ranks' first blocks, U their sources, d own columns of D, H width of layer 1.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.mini_batch.base import BatchStructure
from gnnbench.approaches.mini_batch.drawing import preparing
from gnnbench.approaches.mini_batch.p3 import APPROACH
from gnnbench.approaches.mini_batch.push_pull import HEADER, Merged, Slices
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data import sampling
from gnnbench.data.dealing import Dealt
from gnnbench.data.graph import Graph
from gnnbench.data.keys import fold
from gnnbench.steps import Phase
from gnnbench_runtime.approaches.mini_batch.sampled import FullGraphEvaluator, SampledBatches
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.models.data import sizes_of
from gnnbench_runtime.models.layers import attention
from gnnbench_runtime.models.parameters import Parameters, Shapes, initial
from gnnbench_runtime.models.patterns import Aggregation, Attention
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import on_host
from gnnbench_runtime.training import Batch, StackNet, StepTrainer, optimizer_of


@dataclass(slots=True, kw_only=True)
class PushPull:
    """The pattern of layer 1: own rows, and the blocks of all ranks.

    Args:
        rows, source_rows: of the rank's own block.
        merged: sizes of all blocks and of their exchange.
        ids: int64 [U], vertices of the merged sources.
        whole: the merged block; None with attention.
        own: the rank's own block; only attention has it.
    """

    rows: int
    source_rows: int
    merged: Merged
    ids: Tensor
    whole: Aggregation | None = None
    own: Attention | None = None


class PushPullStack(Stack):
    """A stack whose first layer multiplies own columns of all ranks' input rows.

    Args:
        given: as of `Stack`.
        context: the rank.
        first_column: number of the first of the rank's columns.
    """

    def __init__(self, *given: Any, context: RankContext, first_column: int) -> None:
        super().__init__(*given)
        self.context, self.first_column = context, first_column
        self.alone = context.world_size == 1

    def aggregation(self, layer: int) -> Any:
        found = self.aggregations[layer - 1]
        return found.own if layer == 1 and found.own is not None else found

    @property
    def pattern(self) -> PushPull:
        found: PushPull = self.aggregations[0]
        return found

    def drop_input(self, x: Tensor, counters: tuple[int, ...], phase: Phase) -> Tensor:
        out = self.workspace.get("h0", *x.shape)
        with self.step(
            f"{phase}/0/dropout", work.dropout(*sizes_of(x), x.element_size()), phase, 0
        ):
            key, rate = fold(*counters, 0), self.shape.input_dropout
            self.kernels.dropout(x, out, rate, key, self.pattern.ids, self.first_column)
        return out

    def layer_forward(self, layer: int, h_uF: Tensor, phase: Phase) -> Tensor:
        if layer > 1:
            return super().layer_forward(layer, h_uF, phase)
        value, pattern, where = self.parameters.value, self.pattern, f"{phase}/1"
        if pattern.own is not None:
            partial = self._partial("t1")
            self.mm(f"{where}/gemm", "gemm_nn", phase, 1, (h_uF, value["weight_1"], partial))
            t_uH = self._pulled(partial, "t1", "gt1", phase)[: pattern.source_rows]
            return attention.attend(self, 1, t_uH, phase)
        partial, rows = self._partial("h1"), pattern.merged.exchanged_rows
        z_Rd = self.workspace.get("z1", rows, h_uF.shape[1])
        self.spmm(f"{where}/spmm", phase, 1, pattern.whole, h_uF, z_Rd, transpose=False)
        self.mm(f"{where}/gemm", "gemm_nn", phase, 1, (z_Rd, value["weight_1"], partial))
        if self.shape.model.self_weight:
            product = h_uF[:rows], value["self_weight_1"], partial
            self.mm(f"{where}/self", "gemm_nn_add", phase, 1, product, accumulate=True)
        gradient = "gn1" if self.shape.has_norm(1) else "g1"
        out = self._pulled(partial, "h1", gradient, phase)[: pattern.rows]
        with self.step(f"{where}/bias", work.bias(*sizes_of(out), out.element_size()), phase, 1):
            out.add_(value["bias_1"])
        return out

    def layer_backward(self, layer: int, h_uF: Tensor, g_nH: Tensor) -> Tensor | None:
        if layer > 1:
            return super().layer_backward(layer, h_uF, g_nH)
        grads, pattern, phase = self.parameters.grad, self.pattern, Phase.BACKWARD
        if pattern.own is not None:
            attention.attend_backward(self, 1, g_nH)
            g_RH = self._pushed("gt1", pattern.source_rows)
            product = h_uF.t(), g_RH, grads["weight_1"]
            self.mm("backward/1/weight", "gemm_tn", phase, 1, product)
            return None
        summed = work.column_sum(*sizes_of(g_nH), g_nH.element_size())
        with self.step("backward/1/bias", summed, phase, 1):
            torch.sum(g_nH, 0, out=grads["bias_1"])
        g_RH = self._pushed("gn1" if self.shape.has_norm(1) else "g1", pattern.rows)
        z_Rd = self.workspace.get("z1", len(g_RH), h_uF.shape[1])
        self.mm("backward/1/weight", "gemm_tn", phase, 1, (z_Rd.t(), g_RH, grads["weight_1"]))
        if self.shape.model.self_weight:
            product = h_uF[: len(g_RH)].t(), g_RH, grads["self_weight_1"]
            self.mm("backward/1/self_weight", "gemm_tn", phase, 1, product)
        return None

    def _partial(self, alone: str) -> Tensor:
        """The buffer of partial products, which are the whole ones on a rank that is `alone`."""
        name = alone if self.alone else "partial"
        return self.workspace.get(name, self.pattern.merged.exchanged_rows, self.shape.dims[1])

    def _pulled(self, partial: Tensor, into: str, gradient: str, phase: Phase) -> Tensor:
        """The sum of all ranks' products of own rows, with room for a block.

        The gradient's buffer gets as much room now: it must not grow once it is filled.
        """
        if self.alone:
            return partial
        size = self.pattern.merged.block_rows, self.shape.dims[1]
        self.workspace.get(gradient, *size)
        summed = self.workspace.get(into, *size)
        self.context.comm.reduce_scatter(summed, partial, f"{phase}/1/pull", phase, layer=1)
        return summed

    def _pushed(self, name: str, rows: int) -> Tensor:
        """The gradients of all ranks' rows; those behind a block's own rows are zeros."""
        block = self.workspace.get(name, self.pattern.merged.block_rows, self.shape.dims[1])
        if self.alone:
            return block
        block[rows:].zero_()
        every, phase = self._partial("partial"), Phase.BACKWARD
        self.context.comm.all_gather(every, block, "backward/1/push", phase, layer=1)
        return every


class ColumnBatches(SampledBatches):
    """Batches as `sampled` draws them, with own columns of the input rows of all ranks."""

    def __init__(
        self, context: RankContext, graph: Graph, structure: BatchStructure, slices: Slices
    ) -> None:
        self.slices = slices
        last = int(slices.columns[: context.rank + 1].sum())
        self.columns = slice(last - int(slices.columns[context.rank]), last)
        super().__init__(context, graph, structure, slices.shape)
        self.merger = BlockMerger(context, graph, self.blocks.as_destination, self.blocks.as_source)

    def store(self, graph: Graph, structure: BatchStructure, cache: Any) -> Tensor:
        """Own columns of the features of all vertices, (N, d)."""
        loader = Loader(self.context, graph, self.shape)
        return loader.block(slice(0, graph.num_nodes), self.columns)

    def build(self, dealt: Dealt, epoch: int, step: int, slot: int) -> Batch:
        context, drawn = self.context, dealt.batch
        attended = self.shape.model.attention
        above = drawn if attended else _without_first(drawn)
        with self._step("sample/prepare") as span:
            patterns, turned = self.blocks.patterns(above, 0 if attended else 2)
            span.did(preparing(self.shape, drawn.sizes[0], turned))
        ids = torch.from_numpy(above.input_nodes)
        parts = self._announced(drawn, attended)
        if context.device.type != "cpu":
            patterns, ids, *parts = self._to_device(patterns, ids, *parts)
        counts, near, pattern = parts
        pattern_1 = self._gathered(drawn, patterns, counts, ids if near is None else near, pattern)
        x = self.workspace.get(f"x{slot}", len(pattern_1.ids), self.features.shape[1])
        gathered = work.gather(*sizes_of(x), len(self.features), x.element_size())
        lane, phase = self.lane, Phase.FETCH
        with context.recorder.step("fetch/gather", gathered, phase=phase, lane=lane):
            context.kernels.gather_rows(self.features, pattern_1.ids, x)
        every = [pattern_1, *(patterns[1:] if attended else patterns)]
        labels = torch.from_numpy(self.labels[dealt.outputs]).to(context.device)
        if labels.dtype.is_floating_point:
            labels = labels.to(context.dtype)
        return Batch(
            x=x,
            aggregations=every,
            row_ids=[pattern_1.ids, *(ids[: one.source_rows] for one in every[1:])],
            labels=labels,
            rows=torch.arange(len(dealt.outputs), device=context.device),
            scale=dealt.scale,
            counters=(self.seed, epoch, step),
            share=dealt.share,
        )

    def _announced(self, drawn: sampling.Batch, attended: bool) -> list[Any]:
        """What a rank announces of its first block: counts, ids, and edges by row with columns."""
        first = drawn.blocks[0]
        counts = torch.tensor([first.num_src, first.num_dst, first.num_edges])
        if attended:
            return [counts, None, None]
        near = torch.from_numpy(drawn.input_nodes)
        picks = np.diff(first.indptr).astype(np.int32)
        return [counts, near, torch.from_numpy(np.concatenate([picks, first.indices]))]

    def _gathered(
        self,
        drawn: sampling.Batch,
        patterns: list[Any],
        counts: Tensor,
        ids: Tensor,
        pattern: Tensor | None,
    ) -> PushPull:
        """The first blocks of all ranks."""
        context, world, first = self.context, self.context.world_size, drawn.blocks[0]
        every = self._all_gather("counts", counts, HEADER)
        sizes = np.array(on_host(every), np.int64)
        # What is known here is not read back (and a device without values says zeros).
        sizes[context.rank] = first.num_src, first.num_dst, first.num_edges
        merged = Merged(
            inputs=sizes[:, 0],
            rows=sizes[:, 1],
            edges=sizes[:, 2],
            attention=self.shape.model.attention,
        )
        near = self._all_gather("ids", ids, merged.longest_inputs)
        whole = None
        if pattern is not None:
            pattern = self._padded_pattern(pattern, merged)
            pattern = self._all_gather("pattern", pattern, merged.pattern_entries)
        with self._step("sample/merge") as span:
            if pattern is None:
                merged_ids = near.view(-1)
            else:
                merged_ids, whole = self.merger.merge(merged, near, pattern)
            size = merged.exchanged_rows, merged.source_rows, merged.nonzeros
            span.did(work.merge_blocks(*size))
        assert len(merged_ids) == merged.source_rows and len(near) == world
        return PushPull(
            rows=first.num_dst,
            source_rows=first.num_src,
            merged=merged,
            ids=merged_ids,
            whole=whole,
            own=patterns[0] if pattern is None else None,
        )

    def _padded_pattern(self, pattern: Tensor, merged: Merged) -> Tensor:
        """Edges of each row, room for the longest, then columns."""
        rows = int(merged.rows[self.context.rank])
        out = pattern.new_zeros(merged.pattern_entries)
        out[:rows] = pattern[:rows]
        columns = pattern[rows:]
        out[merged.longest_rows : merged.longest_rows + len(columns)] = columns
        return out

    def _all_gather(self, name: str, own: Tensor, length: int) -> Tensor:
        """The vectors of all ranks, (P, length); own ones are padded with zeros."""
        if len(own) < length:
            own = torch.cat([own, own.new_zeros(length - len(own))])
        every = own.new_empty((self.context.world_size, length))
        lane = self.remote
        self.context.comm.all_gather(every, own, f"fetch/{name}", Phase.FETCH, lane=lane)
        return every


class BlockMerger:
    """Puts first blocks behind one another, and scales them by the vertices' degrees.

    Args:
        context: the rank.
        graph: has the degrees.
        as_destination, as_source: scales of every vertex, float64 [N]; absent with attention.
    """

    def __init__(self, context: RankContext, graph: Graph, as_destination: Any, as_source: Any):
        def table(values: Any) -> Tensor | None:
            if values is None:
                return None
            return torch.from_numpy(values).to(context.device, context.dtype)

        self.to = self.own = self.from_ = None
        if as_destination is not None:
            self.to = table(as_destination * graph.in_degrees())
            self.from_ = table(as_source)
            self.own = None if as_source is None else table(as_destination * as_source)

    def merge(self, merged: Merged, near: Tensor, pattern: Tensor) -> tuple[Tensor, Aggregation]:
        """The ids of the merged sources [U], and the merged block.

        Args:
            merged: sizes.
            near: int64 [P, n̂_0], ids of each rank's sources.
            pattern: int32 [P, n̂_1 + ê_1], edges of each row, then columns.
        """
        longest, device = merged.longest_rows, near.device
        rows, sources = merged.exchanged_rows, merged.source_rows
        ids = near.new_zeros(sources)
        picks = torch.zeros(rows, dtype=torch.int64, device=device)
        indices = torch.empty(merged.nonzeros, dtype=torch.int32, device=device)
        behind, at = rows, 0
        for rank, (n_0, n_1, e_1) in enumerate(
            zip(merged.inputs.tolist(), merged.rows.tolist(), merged.edges.tolist(), strict=True)
        ):
            start = rank * longest
            ids[start : start + n_1] = near[rank, :n_1]
            ids[behind : behind + n_0 - n_1] = near[rank, n_1:n_0]
            picks[start : start + n_1] = pattern[rank, :n_1]
            columns = pattern[rank, longest : longest + e_1]
            moved = torch.where(columns < n_1, columns + start, columns + (behind - n_1))
            indices[at : at + e_1] = moved
            behind, at = behind + n_0 - n_1, at + e_1
        indptr = torch.zeros(rows + 1, dtype=torch.int64, device=device)
        torch.cumsum(picks, 0, out=indptr[1:])
        return ids, self._scaled(merged, ids, picks, indptr, indices)

    def _scaled(
        self, merged: Merged, ids: Tensor, picks: Tensor, indptr: Tensor, indices: Tensor
    ) -> Aggregation:
        """The block with the weights of its rows, degree / picks, and the model's scales.

        Rows that pad a block have no edges and no own term.
        """
        assert self.to is not None
        rows = merged.exchanged_rows
        row_scale = self.to[ids[:rows]].div_(picks.clamp(min=1)).mul_(picks > 0)
        self_scale = col_scale = None
        if self.own is not None and self.from_ is not None:
            counts = torch.as_tensor(merged.rows, device=ids.device)
            place = torch.arange(merged.longest_rows, device=ids.device)
            real = (place[None, :] < counts[:, None]).view(-1)
            self_scale = self.own[ids[:rows]].mul_(real)
            col_scale = self.from_[ids]
        return Aggregation(
            rows=rows,
            source_rows=merged.source_rows,
            indptr=indptr,
            indices=indices,
            indptr_t=None,
            indices_t=None,
            row_scale=row_scale,
            col_scale=col_scale,
            self_scale=self_scale,
        )


def _without_first(batch: sampling.Batch) -> sampling.Batch:
    """The blocks above the first one."""
    rows = batch.blocks[0].num_dst
    return dataclasses.replace(batch, blocks=batch.blocks[1:], input_nodes=batch.input_nodes[:rows])


class P3Trainer(StepTrainer):
    """One rank of P3: columns of the features, and the rows of W_1 that belong to them."""

    def __init__(self, context: RankContext, data: Graph, structure: BatchStructure) -> None:
        self.context, self.graph = context, data
        self.slices = slices = APPROACH.slices(data, context.run)
        self.batches = ColumnBatches(context, data, structure, slices)
        self.columns = self.batches.columns
        parameters = self._own_parameters(slices.shape)
        workspace = Workspace(context.device, context.dtype)
        stack = PushPullStack(
            slices.shape,
            parameters,
            workspace,
            context.kernels,
            context.recorder,
            context=context,
            first_column=self.columns.start,
        )
        self.net = StackNet(stack)
        self.optimizer = optimizer_of(context, parameters)

    @property
    def _split(self) -> int:
        """Own elements of the matrices that are split."""
        return int(self.slices.columns[self.context.rank]) * self.slices.row_elements

    def _shapes(self) -> Shapes:
        """Name and shape of each parameter of the whole model."""
        shape = self.slices.shape
        return shape.model.parameters(shape.dims, shape.heads, norm=shape.norm)

    def _own_parameters(self, shape: StackShape) -> Parameters:
        """Own rows of the split matrices, and all else, as the whole model draws them."""
        context, whole, parts, shapes = self.context, self._shapes(), [], []
        seed, start, width = context.run.training.seed, 0, shape.dims[1]
        for number, (name, size) in enumerate(whole):
            first, stop = start, start + math.prod(size)
            start = stop
            if number < self.slices.matrices:
                first, stop = (first + at * width for at in (self.columns.start, self.columns.stop))
                size = (self.columns.stop - self.columns.start, width)
            shapes.append((name, size))
            parts.append(initial(whole, seed, first, stop))
        flat = torch.from_numpy(np.concatenate(parts)).to(context.device, context.dtype)
        return Parameters(shapes, 0, context.device, context.dtype, flat=flat)

    def all_reduce(self) -> None:
        """Sum the gradients of what every rank has, and the loss; those of own rows are whole."""
        shared = self.parameters.flat_grad[self._split :]
        self.context.comm.all_reduce(shared, "sync/gradients", Phase.SYNC)

    def learnt(self) -> Tensor:
        """All parameters of the whole model, own rows of all ranks gathered."""
        slices, context = self.slices, self.context
        longest = int(slices.columns.max()) * slices.row_elements
        own = self.parameters.flat.new_zeros(longest)
        own[: self._split] = self.parameters.flat[: self._split]
        every = own.new_empty((context.world_size, longest))
        context.comm.all_gather(every, own, "evaluate/parameters", Phase.EVALUATE)
        width, parts = slices.shape.dims[1], []
        for matrix in range(slices.matrices):
            for rank, columns in enumerate(slices.columns.tolist()):
                size = columns * width
                parts.append(every[rank, matrix * size : (matrix + 1) * size])
        return torch.cat([*parts, self.parameters.flat[self._split :]])

    def evaluate(self) -> dict[str, float]:
        """Metrics of the whole graph."""
        context = self.context
        held = Parameters(self._shapes(), 0, context.device, context.dtype, flat=self.learnt())
        return FullGraphEvaluator(context, self.graph, held).evaluate()
