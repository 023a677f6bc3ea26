"""Time the kernels on one graph: full-graph GCN epoch, sampling, sampled GraphSAGE epoch.

    python benchmarks/bench_kernels.py --graph g.npz [--threads 2] [--epochs 6] [--prefetch 2]

The graph file holds src, dst int64 [E] (both directions), x float32 [N, D], y int64 [N] and
train bool [N]. The models are those of the DGL peer script: two layers, hidden width 128, no
dropout, Adam; GCN with symmetric normalisation and no self loops, GraphSAGE with the mean
aggregator, transform-first where that is narrower. Prints one JSON object: medians over the epochs
after the first, in seconds and edges per second. Forward and backward are written out; nothing of
an epoch is precomputed.

Legend: N, n rows, D input, H hidden, C classes, u source rows of a block.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]
# torch's idle OpenMP threads would spin on the cores that the kernels' own team works on.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from gnnbench.data.graph import from_edges  # noqa: E402
from gnnbench.data.sampling import (  # noqa: E402
    Batch,
    Block,
    NeighbourSampler,
    batch_seeds,
    epoch_seeds,
    steps,
)
from gnnbench_runtime.kernels import CpuKernels, backend  # noqa: E402

HIDDEN, FANOUTS_FROM_SEEDS, BATCH, LR = 128, (15, 10), 1024, 1e-2


class Buffers:
    """Named float32 buffers that grow to their largest use and are then reused."""

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def __call__(self, name: str, rows: int, width: int) -> Tensor:
        size = rows * width
        if name not in self._flat or self._flat[name].numel() < size:
            self._flat[name] = torch.empty(size + size // 8)
        return self._flat[name][:size].view(rows, width)


class Weights:
    """All parameters in one flat vector, with gradient and Adam moments."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        generator = torch.Generator().manual_seed(0)
        size = sum(math.prod(s) for s in shapes.values())
        self.flat, self.grads, self.m, self.v = (torch.zeros(size) for _ in range(4))
        self.value: dict[str, Tensor] = {}
        self.grad: dict[str, Tensor] = {}
        at, self.steps = 0, 0
        for name, shape in shapes.items():
            end = at + math.prod(shape)
            self.value[name] = self.flat[at:end].view(shape)
            self.grad[name] = self.grads[at:end].view(shape)
            if len(shape) == 2:
                limit = math.sqrt(6 / sum(shape))
                self.value[name].uniform_(-limit, limit, generator=generator)
            at = end

    def update(self, kernels: CpuKernels) -> None:
        self.steps += 1
        kernels.adam(self.flat, self.grads, self.m, self.v, self.steps, LR)


class FullGraphGCN:
    """Two layers over the whole graph; layer 1 aggregates first, layer 2 transforms first."""

    def __init__(self, data: Data, kernels: CpuKernels) -> None:
        self.data, self.kernels, self.buffers = data, kernels, Buffers()
        dim, classes = data.x.shape[1], data.classes
        self.weights = Weights(
            {"w1": (dim, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, classes), "b2": (classes,)}
        )
        graph = data.graph
        self.indptr, self.indices = torch.from_numpy(graph.indptr), torch.from_numpy(graph.indices)
        self.row_scale = torch.from_numpy(graph.in_degrees()).clamp(min=1).float().rsqrt()
        self.col_scale = torch.from_numpy(graph.out_degrees()).clamp(min=1).float().rsqrt()
        # Both directions are stored, so the transpose has the same structure.
        self.indptr_t, self.indices_t = self.indptr, self.indices

    def epoch(self) -> float:
        data, k, at = self.data, self.kernels, self.buffers
        value, grad = self.weights.value, self.weights.grad
        count, dim, classes = len(data.x), data.x.shape[1], data.classes
        z_ND, h_NH = at("z", count, dim), at("h", count, HIDDEN)
        t_NC, logits_NC = at("t", count, classes), at("logits", count, classes)
        forward = {"row_scale": self.row_scale, "col_scale": self.col_scale}
        k.spmm(self.indptr, self.indices, data.x, z_ND, **forward)
        torch.addmm(value["b1"], z_ND, value["w1"], out=h_NH)
        k.relu_dropout(h_NH, h_NH, 0.0, 0)
        torch.mm(h_NH, value["w2"], out=t_NC)
        k.spmm(self.indptr, self.indices, t_NC, logits_NC, **forward)
        logits_NC += value["b2"]
        g_NC = at("g", count, classes)
        loss = k.softmax_cross_entropy(logits_NC, data.y, data.train, 1 / len(data.train), g_NC)
        torch.sum(g_NC, 0, out=grad["b2"])
        back = {"row_scale": self.col_scale, "col_scale": self.row_scale}
        k.spmm(self.indptr_t, self.indices_t, g_NC, t_NC, **back)
        torch.mm(h_NH.t(), t_NC, out=grad["w2"])
        g_NH = at("gh", count, HIDDEN)
        torch.mm(t_NC, value["w2"].t(), out=g_NH)
        k.relu_dropout_backward(g_NH, h_NH, 0.0, g_NH)
        torch.mm(z_ND.t(), g_NH, out=grad["w1"])
        torch.sum(g_NH, 0, out=grad["b1"])
        self.weights.update(k)
        return float(loss)


class SampledSAGE:
    """Two GraphSAGE layers on sampled blocks; features are gathered per batch."""

    def __init__(self, data: Data, kernels: CpuKernels) -> None:
        self.data, self.kernels, self.buffers = data, kernels, Buffers()
        dim, classes = data.x.shape[1], data.classes
        self.weights = Weights(
            {
                "w1": (dim, HIDDEN),
                "s1": (dim, HIDDEN),
                "b1": (HIDDEN,),
                "w2": (HIDDEN, classes),
                "s2": (HIDDEN, classes),
                "b2": (classes,),
            }
        )

    def step(self, batch: Batch, x_uD: Tensor) -> float:
        k, at = self.kernels, self.buffers
        value, grad = self.weights.value, self.weights.grad
        inner, outer = batch.blocks
        n, b, dim, classes = inner.num_dst, outer.num_dst, x_uD.shape[1], self.data.classes
        z_nD, h_nH = at("z", n, dim), at("h", n, HIDDEN)
        k.spmm(*_tensors(inner), x_uD, z_nD, row_scale=_mean_scale(inner))
        torch.addmm(value["b1"], z_nD, value["w1"], out=h_nH)
        h_nH.addmm_(x_uD[:n], value["s1"])
        k.relu_dropout(h_nH, h_nH, 0.0, 0)
        t_nC, logits_bC, g_bC = at("t", n, classes), at("l", b, classes), at("g", b, classes)
        torch.mm(h_nH, value["w2"], out=t_nC)
        torch.addmm(value["b2"], h_nH[:b], value["s2"], out=logits_bC)
        scale = _mean_scale(outer)
        k.spmm(*_tensors(outer), t_nC, logits_bC, row_scale=scale, accumulate=True)
        seeds = torch.from_numpy(batch.seeds)
        loss = k.softmax_cross_entropy(
            logits_bC, self.data.y[seeds], torch.arange(b), 1 / max(b, 1), g_bC
        )
        torch.sum(g_bC, 0, out=grad["b2"])
        indptr_t, indices_t = (torch.from_numpy(a) for a in outer.transpose())
        k.spmm(indptr_t, indices_t, g_bC, t_nC, col_scale=scale)
        torch.mm(h_nH.t(), t_nC, out=grad["w2"])
        torch.mm(h_nH[:b].t(), g_bC, out=grad["s2"])
        g_nH = at("gh", n, HIDDEN)
        torch.mm(t_nC, value["w2"].t(), out=g_nH)
        g_nH[:b].addmm_(g_bC, value["s2"].t())
        k.relu_dropout_backward(g_nH, h_nH, 0.0, g_nH)
        torch.mm(z_nD.t(), g_nH, out=grad["w1"])
        torch.mm(x_uD[:n].t(), g_nH, out=grad["s1"])
        torch.sum(g_nH, 0, out=grad["b1"])
        self.weights.update(k)
        return float(loss)

    def epoch(self, number: int, sampler: NeighbourSampler, prefetch: int) -> float:
        loader = self._loader(number, sampler, prefetch)
        return sum(self.step(batch, rows) for batch, rows in loader)

    def _loader(
        self, number: int, sampler: NeighbourSampler, prefetch: int
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Yield batches with their input rows, `prefetch` of them prepared ahead by a thread."""
        x, buffers = self.data.x, self.buffers
        kernels = self.kernels if prefetch == 0 else backend("cpu", 1)

        def load() -> Iterator[tuple[Batch, Tensor]]:
            for step, batch in enumerate(batches(self.data, sampler, number)):
                slot = f"x{step % (prefetch + 2)}"
                rows = buffers(slot, len(batch.input_nodes), x.shape[1])
                kernels.gather_rows(x, torch.from_numpy(batch.input_nodes), rows)
                yield batch, rows

        return load() if prefetch == 0 else ahead(load(), prefetch)


class Data:
    """The benchmark graph with features, labels and training rows as tensors."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as z:
            self.graph = from_edges(path.stem, z["src"], z["dst"], len(z["y"]), undirected=False)
            self.x, self.y = torch.from_numpy(z["x"]), torch.from_numpy(z["y"])
            self.train = torch.from_numpy(np.flatnonzero(z["train"]))
        self.classes = int(self.y.max()) + 1


def batches(data: Data, sampler: NeighbourSampler, epoch: int) -> Iterator[Batch]:
    order = epoch_seeds(data.train.numpy(), sampler.seed, epoch)
    for step in range(steps(len(order), BATCH)):
        yield sampler.sample(batch_seeds(order, BATCH, step), epoch, step)


def ahead(items: Iterator[tuple[Batch, Tensor]], depth: int) -> Iterator[tuple[Batch, Tensor]]:
    """Run an iterator in a thread, at most `depth` items ahead."""
    queue: Queue[tuple[Batch, Tensor] | None] = Queue(depth)

    def fill() -> None:
        for item in items:
            queue.put(item)
        queue.put(None)

    threading.Thread(target=fill, daemon=True).start()
    while (item := queue.get()) is not None:
        yield item


def _tensors(block: Block) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(block.indptr), torch.from_numpy(block.indices)


def _mean_scale(block: Block) -> Tensor:
    return torch.from_numpy((1.0 / np.maximum(np.diff(block.indptr), 1)).astype(np.float32))


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--prefetch", type=int, default=2, help="batches prepared ahead")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    kernels = backend("cpu", args.threads)
    data = Data(args.graph)

    gcn = FullGraphGCN(data, kernels)
    full = [timed(gcn.epoch) for _ in range(args.epochs)][1:]

    graph, threads = data.graph, args.threads
    rates = {}
    for count in sorted({1, threads}):
        sampler = NeighbourSampler(graph.indptr, graph.indices, FANOUTS_FROM_SEEDS, 0, count)
        samples = []
        for epoch in range(args.epochs):
            start = time.perf_counter()
            edges = sum(
                block.num_edges for b in batches(data, sampler, epoch) for block in b.blocks
            )
            samples.append(edges / (time.perf_counter() - start))
        rates[count] = statistics.median(samples[1:])

    sage = SampledSAGE(data, kernels)
    sampled = {}
    for depth in (0, args.prefetch):
        sampler = NeighbourSampler(graph.indptr, graph.indices, FANOUTS_FROM_SEEDS, 0, 1)
        samples = [
            timed(lambda e=epoch, s=sampler, d=depth: sage.epoch(e, s, d))
            for epoch in range(max(3, args.epochs // 2))
        ]
        sampled[depth] = statistics.median(samples[1:])
    result = {
        "bench": "gnnbench kernels",
        "threads": threads,
        "full_graph_gcn_epoch_s": statistics.median(full),
        "sample_edges_per_s": max(rates.values()),
        "sample_edges_per_s_by_threads": {str(k): v for k, v in rates.items()},
        "sampled_sage_epoch_s": sampled[0],
        "sampled_sage_prefetch_epoch_s": sampled[args.prefetch],
        "prefetch": args.prefetch,
        "hidden": HIDDEN,
        "fanouts_from_seeds": FANOUTS_FROM_SEEDS,
        "batch": BATCH,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
