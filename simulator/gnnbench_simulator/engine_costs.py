"""Costs of a chunk of rows on a sparse or a dense engine: seconds, off-chip bytes, operations.

Legend: s bytes per element, E stored entries (loops of the model included), U distinct rows that
the entries access, h share of the repeated accesses that find their row on chip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gnnbench.accelerators import Accelerator, DenseEngine, dense_engine, sparse_engine
from gnnbench.costs.facts import Floats
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile

RowOrder = Literal["natural", "rising", "falling"]


@dataclass(frozen=True, slots=True)
class Chunks:
    """Contiguous blocks of rows in processing order; `widest` is the longest row of each."""

    rows: Floats
    nonzeros: Floats
    widest: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def permuted(self, order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Chunks:
        return Chunks(self.rows[order], self.nonzeros[order], self.widest[order])


class RowTable:
    """Row lengths of the adjacency and of its transpose, of a graph or from a profile's histogram.

    With `loops` every row has one entry more (the self loop of GCN). A profile knows no natural
    order: its natural chunks all hold the mean.
    """

    def __init__(self, graph: Graph | GraphProfile, *, loops: bool) -> None:
        more = 1.0 if loops else 0.0
        self.num_nodes = graph.num_nodes
        self.num_entries = graph.num_edges + more * graph.num_nodes
        self.degrees: dict[bool, Floats] = {}
        self.exact = isinstance(graph, Graph)
        if isinstance(graph, Graph):
            self.degrees = {
                False: graph.in_degrees().astype(np.float64) + more,
                True: graph.out_degrees().astype(np.float64) + more,
            }
            # The lengths of the transpose count how many destinations read each row.
            values, counts = np.unique(self.degrees[True], return_counts=True)
            self.values, self.counts = values, counts.astype(np.float64)
        else:
            held, number = graph.histogram()
            order = np.argsort(held)
            self.values = np.asarray(held, np.float64)[order] + more
            self.counts = np.asarray(number, np.float64)[order]

    def cut(self, count: int, order: RowOrder, *, transpose: bool) -> Chunks:
        """Cut the rows into `count` blocks of equal height."""
        edges = np.linspace(0, self.num_nodes, count + 1)
        if self.exact:
            # Whole rows: a real graph has integer boundaries, a profile is cut at fractions.
            return self._cut_rows(np.round(edges).astype(np.int64), order, transpose)
        rows = np.diff(edges)
        if order == "natural":
            # Without a known order each block is taken to be average, with the longest row of the
            # graph as the bound.
            even = np.full(count, self.num_entries / count)
            return Chunks(rows, even, np.full(count, self.values[-1]))
        seen = np.concatenate([[0.0], np.cumsum(self.counts)])
        held = np.concatenate([[0.0], np.cumsum(self.counts * self.values)])
        # The histogram may hold rounded counts; the sum of entries must stay that of the graph.
        scale = self.num_entries / held[-1] if held[-1] else 0.0
        upto = np.interp(edges / self.num_nodes * seen[-1], seen, held) * scale
        # The small margin keeps a boundary that falls on a class of degrees in the lower class.
        last = np.searchsorted(seen, edges[1:] / self.num_nodes * seen[-1] * (1 - 1e-12)) - 1
        chunks = Chunks(rows, np.diff(upto), self.values[np.clip(last, 0, len(self.values) - 1)])
        # The histogram rises; the falling order is its mirror image.
        return chunks.permuted(np.arange(count)[::-1]) if order == "falling" else chunks

    def _cut_rows(
        self, edges: np.ndarray[tuple[int], np.dtype[np.int64]], order: RowOrder, transpose: bool
    ) -> Chunks:
        degrees = self.degrees[transpose]
        if order != "natural":
            degrees = np.sort(degrees)
        if order == "falling":
            degrees = degrees[::-1]
        upto = np.concatenate([[0.0], np.cumsum(degrees)])
        return Chunks(
            np.diff(edges).astype(np.float64),
            np.diff(upto[edges]),
            # `reduceat` takes each block up to the next boundary; the last boundary is the end.
            np.maximum.reduceat(degrees, edges[:-1]).astype(np.float64),
        )

    def touched(self) -> float:
        """U: rows that some entry touches."""
        return float(self.counts[self.values > 0].sum())

    def hit_rate(self, capacity_rows: float) -> float:
        """Share of touches that find their row on chip, by Che's approximation.

        Source: simulation section 5.4. Deviation: within 0.03 of LRU for touches in random order;
        an order with communities hits far more often.
        """
        if capacity_rows >= self.touched():
            return 1.0
        chance = self.values / max(self.num_entries, 1.0)
        low, high = 0.0, self.num_entries
        # The characteristic time has no closed form: double until it is bracketed, then halve.
        while (self.counts * -np.expm1(-chance * high)).sum() < capacity_rows:
            high *= 2
        # 80 halvings exhaust the 53 bits of a double for any starting bracket.
        for _ in range(80):
            middle = (low + high) / 2
            held = (self.counts * -np.expm1(-chance * middle)).sum()
            low, high = (middle, high) if held < capacity_rows else (low, middle)
        return float((self.counts * chance * -np.expm1(-chance * high)).sum())


@dataclass(frozen=True, slots=True)
class Gemm:
    """A dense product per chunk of rows r: r x inner x width, or inner x r x width if `reduces`."""

    inner: int
    width: int
    reduces: bool = False


@dataclass(frozen=True, slots=True)
class ChunkWork:
    """What chunks take on an engine. memory_s is at the full rate of the off-chip memory."""

    compute_s: Floats
    memory_s: Floats
    fixed_s: Floats
    offchip_bytes: float
    macs: float

    def seconds(self) -> Floats:
        """Time of each chunk with the memory for itself."""
        return np.maximum(self.compute_s, self.memory_s) + self.fixed_s

    def permuted(self, order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> ChunkWork:
        """The same chunks in another order."""
        return replace(
            self,
            compute_s=self.compute_s[order],
            memory_s=self.memory_s[order],
            fixed_s=self.fixed_s[order],
        )

    def need(self) -> Floats:
        """Share of the memory's rate that each chunk takes when it runs alone."""
        seconds = self.seconds()
        return np.divide(self.memory_s, seconds, out=np.zeros(len(seconds)), where=seconds > 0)


def sparse_work(
    device: Accelerator,
    table: RowTable,
    chunks: Chunks,
    width: int,
    *,
    element_bytes: int,
    outer: bool,
    stream_widths: float,
    hit_rate: float | None,
) -> ChunkWork:
    """Sparse product of `width` columns over the chunks.

    Args:
        outer: chunks are columns of the matrix: touches are updates of the result, read and written
            back, unless all of it fits on chip.
        stream_widths: elements per row that stream through off-chip memory beside the touches.
        hit_rate: of repeated touches; None asks the buffer size and the degrees.
    """
    engine, memory, s = sparse_engine(device), device.memory, element_bytes
    row_bytes = _transactions(width * s, memory.transaction_bytes.value)
    capacity = engine.onchip_bytes.value / max(width * s, 1)
    h = table.hit_rate(capacity) if hit_rate is None else hit_rate
    touched = min(table.touched(), table.num_entries)
    # The first touch of a row always misses; only repeated touches can hit.
    misses = touched + (table.num_entries - touched) * (1 - h)
    touches = chunks.nonzeros * (misses / max(table.num_entries, 1.0))
    # Partial sums that leave the chip are read and written back.
    passes = 2.0 if outer and h < 1 else 1.0
    scattered = touches * row_bytes * passes
    # Per row an 8-byte pointer, per entry a 4-byte column index.
    streamed = 8 * chunks.rows + 4 * chunks.nonzeros + chunks.rows * stream_widths * s
    rate = engine.lanes.value * engine.efficiency.value * engine.clock_hz.value
    compute = chunks.nonzeros * width / rate
    if engine.lanes_per_row.value:
        lanes = min(engine.lanes_per_row.value, engine.lanes.value)
        # A long row runs on its own lanes only, so that the longest row of a block can bound it.
        compute = np.maximum(compute, chunks.widest * width / (lanes * engine.clock_hz.value))
    return ChunkWork(
        compute_s=compute,
        memory_s=_memory_s(device, scattered, streamed),
        fixed_s=chunks.rows * engine.row_overhead_s.value + engine.chunk_overhead_s.value,
        offchip_bytes=float((scattered + streamed).sum()),
        macs=float(chunks.nonzeros.sum() * width),
    )


def dense_work(
    device: Accelerator,
    rows: Floats,
    gemms: tuple[Gemm, ...],
    *,
    element_bytes: int,
    stream_widths: float,
) -> ChunkWork:
    """Dense products over chunks of rows. Weights are read once, whatever the number of chunks."""
    engine, s = dense_engine(device), element_bytes
    cycles = np.zeros(len(rows))
    for gemm in gemms:
        m, k = rows, np.full(len(rows), float(gemm.inner))
        # The gradient of a weight sums over rows: rows are then the inner dimension.
        if gemm.reduces:
            m, k = k, m
        cycles = cycles + np.where(rows > 0, systolic_cycles(engine, m, k, gemm.width), 0.0)
    weights = sum(gemm.inner * gemm.width for gemm in gemms) * s / max(len(rows), 1)
    streamed = rows * stream_widths * s + weights
    return ChunkWork(
        compute_s=cycles / engine.clock_hz.value,
        memory_s=_memory_s(device, np.zeros(len(rows)), streamed),
        fixed_s=np.full(len(rows), engine.chunk_overhead_s.value),
        offchip_bytes=float(streamed.sum()),
        macs=float(sum(rows.sum() * g.inner * g.width for g in gemms)),
    )


def systolic_cycles(engine: DenseEngine, m: Floats, k: Floats, n: int) -> Floats:
    """Cycles of an m x k x n product.

    Weight stationary: 2R + C + M - 2 per fold, ceil(K/R) ceil(N/C) folds; output stationary:
    R + C + K - 2 per fold, ceil(M/R) ceil(N/C) folds; folds are dealt out to the arrays.

    Source: SCALE-Sim v3, simulation section 9.
    """
    r, c = engine.array_rows.value, engine.array_cols.value
    if engine.dataflow == "flat":
        # A flat engine has no fill and drain of an array; only its lanes count.
        lanes = engine.arrays.value * r * c * engine.efficiency.value
        return m * k * n / lanes
    # Partly filled folds cost a whole one.
    across = math.ceil(n / c)
    if engine.dataflow == "weight_stationary":
        folds, cycles = np.ceil(k / r) * across, 2 * r + c + m - 2
    else:
        folds, cycles = np.ceil(m / r) * across, r + c + k - 2
    rounds = np.ceil(folds / engine.arrays.value)
    return rounds * cycles / engine.efficiency.value


def _memory_s(device: Accelerator, scattered: Floats, streamed: Floats) -> Floats:
    memory = device.memory
    spent = scattered / memory.random_efficiency.value + streamed / memory.stream_efficiency.value
    return spent / memory.bytes_per_s.value


def _transactions(size: int, unit: float) -> float:
    return math.ceil(size / unit) * unit if unit > 0 else float(size)
