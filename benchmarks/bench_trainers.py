r"""Time the shipped trainer and the shipped layer samplers on one graph; print JSON.

    python benchmarks/bench_trainers.py --graph g.npz [--threads 2] [--epochs 5]

The trainer is that of the approach `sampled` as `gnnbench run` starts it, recorder included:
GraphSAGE of two layers with the mean aggregator, hidden width 128, no dropout, Adam, fan-outs 15
and 10, 1,024 seeds a batch. An epoch is timed without prefetching and with a thread that prepares
two batches ahead. `labor` draws with the same fan-outs; `ladies` draws as many vertices per layer
as a batch of `labor` has in it, so that both look at layers of one size. Prints medians over epochs
after the first, in seconds, and drawn edges per second. The graph file is that of
`bench_kernels.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from gnnbench.approaches.names import APPROACHES  # noqa: E402
from gnnbench.data.graph import Graph, from_edges  # noqa: E402
from gnnbench.spec import (  # noqa: E402
    BatchSpec,
    DatasetRef,
    ModelSpec,
    RunSpec,
    TrainingSpec,
)
from gnnbench_runtime.approaches.mini_batch.sampled import SampledTrainer  # noqa: E402
from gnnbench_runtime.comm import Comm  # noqa: E402
from gnnbench_runtime.kernels import backend  # noqa: E402
from gnnbench_runtime.protocol import RankContext  # noqa: E402
from gnnbench_runtime.recorder import Recorder  # noqa: E402

HIDDEN, FANOUTS_FROM_SEEDS, BATCH, LR = 128, (15, 10), 1024, 1e-2


def read(path: Path) -> Graph:
    """The benchmark graph."""
    with np.load(path, allow_pickle=False) as z:
        return from_edges(
            path.stem,
            z["src"],
            z["dst"],
            len(z["y"]),
            undirected=True,
            features=z["x"],
            labels=z["y"],
            num_classes=int(z["y"].max()) + 1,
            train_mask=z["train"],
        )


def spec(approach: str, threads: int, epochs: int, **knobs: Any) -> RunSpec:
    return RunSpec(
        suite="benchmark",
        dataset=DatasetRef(name="g", generator="none"),
        model=ModelSpec(name="sage", kind="sage", hidden=HIDDEN, layers=2),
        batch=BatchSpec(size=BATCH, fanouts_from_seeds=FANOUTS_FROM_SEEDS),
        training=TrainingSpec(epochs=epochs, lr=LR, threads_per_rank=threads),
        approach=approach,
        ranks=1,
        knobs=knobs,
    )


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def epoch_s(graph: Graph, run: RunSpec) -> float:
    """Median seconds of an epoch of the trainer after the first one."""
    device = torch.device("cpu")
    recorder = Recorder(device)
    context = RankContext(
        run=run,
        rank=0,
        world_size=1,
        device=device,
        comm=Comm(recorder, device=device),
        recorder=recorder,
        kernels=backend(device, run.training.threads_per_rank),
        cache=Path("build"),
    )
    approach = APPROACHES.get(run.approach)
    trainer = SampledTrainer(context, graph, approach.structure(graph, run))
    seconds = []
    for epoch in range(run.training.epochs):
        recorder.period_begin(epoch)
        seconds.append(timed(lambda e=epoch: trainer.train_period(e)))
        recorder.period_end()
    trainer.close()
    return statistics.median(seconds[1:])


def drawn_per_s(graph: Graph, run: RunSpec) -> tuple[float, float]:
    """Edges that an approach draws per second, and mean input vertices that it adds to a batch."""
    approach: Any = APPROACHES.get(run.approach)
    threads = run.training.threads_per_rank
    source = approach.source(graph, run, None, threads=threads)
    rates, found = [], []
    for epoch in range(run.training.epochs):
        edges, begin = 0, time.perf_counter()
        for step in range(source.steps):
            batch = source.draw(epoch, step, 1, 0).batch
            edges += sum(batch.sizes[1])
            found.append(len(batch.input_nodes) - batch.blocks[0].num_dst)
        rates.append(edges / (time.perf_counter() - begin))
    return statistics.median(rates[1:]), statistics.fmean(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    graph, common = read(args.graph), (args.threads, args.epochs)
    labor, width = drawn_per_s(graph, spec("labor", *common))
    ladies, _ = drawn_per_s(graph, spec("ladies", *common, layer_vertices=round(width)))
    result = {
        "trainer_sage_epoch_s": epoch_s(graph, spec("sampled", *common)),
        "trainer_sage_prefetch_epoch_s": epoch_s(graph, spec("sampled", *common, prefetch=2)),
        "labor_edges_per_s": labor,
        "ladies_edges_per_s": ladies,
        "ladies_layer_vertices": round(width),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
