r"""Time continuous learning on edge streams; print JSON.

    python benchmarks/bench_temporal.py [--only ingest,sample,increment,epoch,plan] [--data DIR]

ingest      edges per second of the block store on a generated stream, amortised over the stream
sample      temporal neighbours per second, block store against temporal CSR, at equal output
increment   an increment of `continuous` against one of `rebuild`, with the breakdown
epoch       a TGN epoch against a plain PyTorch TGN (`plain_tgn.py`); on sx-mathoverflow, if --data
            has it, else on a generated stream
plan        counting a plan's sizes against an epoch of training

The two sides of a comparison alternate, and ratios are taken within a turn: on a busy machine the
ratios mean something, the seconds do not. `epoch` also compares seconds on cores, which do not
depend on how often others were given them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("", "runtime", "simulator", "reports", "benchmarks")]

import numpy as np  # noqa: E402
import plain_tgn  # noqa: E402
import torch  # noqa: E402

from gnnbench.approaches.base import Layout  # noqa: E402
from gnnbench.approaches.names import APPROACHES  # noqa: E402
from gnnbench.data import keys  # noqa: E402
from gnnbench.data.source import Library  # noqa: E402
from gnnbench.data.stream import EdgeStream  # noqa: E402
from gnnbench.data.temporal_csr import TemporalCsr  # noqa: E402
from gnnbench.data.temporal_sampling import TemporalSampler  # noqa: E402
from gnnbench.data.temporal_store import TemporalStore  # noqa: E402
from gnnbench.spec import BatchSpec, DatasetRef, ModelSpec, RunSpec, TaskSpec, TrainingSpec  # noqa: E402
from gnnbench_runtime.conformance.perform import make_trainer  # noqa: E402

PARTS = ("ingest", "sample", "increment", "epoch", "plan")


def generated(num_nodes: int, count: int, first: int) -> tuple[Any, Any, Any]:
    """Events first..first+count-1 of an endless stream: both ends skewed, two events a second."""
    ids = np.arange(first, first + count, dtype=np.int64)
    ends = [
        (keys.unit(keys.extend_array(salt, ids)) ** 3 * num_nodes).astype(np.int32)
        for salt in (1, 2)
    ]
    return *ends, ids // 2


def ingest(args: argparse.Namespace) -> dict[str, Any]:
    """Insert a stream in chunks; only insertion is timed."""
    nodes, chunk = max(args.edges // 50, 1000), 1_000_000
    warm = TemporalStore(8)
    warm.insert(*generated(8, 100, 0), 0)
    store, seconds, on_cores, rates = TemporalStore(nodes), 0.0, 0.0, []
    for first in range(0, args.edges, chunk):
        count = min(chunk, args.edges - first)
        events = generated(nodes, count, first)
        spent, on_core = clocks(lambda events=events, first=first: store.insert(*events, first))
        seconds, on_cores = seconds + spent, on_cores + on_core
        rates.append(2 * count / spent)
    return {
        "events": args.edges,
        "stored_edges": store.num_edges,
        "seconds": round(seconds, 2),
        "stored_edges_per_s": round(store.num_edges / seconds),
        "stored_edges_per_cpu_s": round(store.num_edges / on_cores),
        "events_per_s": round(args.edges / seconds),
        "median_chunk_stored_edges_per_s": round(statistics.median(rates)),
        "store_bytes": store.num_bytes,
        "utilisation": round(20 * store.num_edges / store.num_bytes, 3),
    }


def sample(args: argparse.Namespace) -> dict[str, Any]:
    """Draw for the last tenth of a stream, from both tables in turns."""
    count, nodes = args.edges // 10, max(args.edges // 200, 1000)
    events = generated(nodes, count, 0)
    store = TemporalStore(nodes)
    store.insert(*events, 0)
    csr = TemporalCsr(nodes, *events)
    asked = slice(count - min(count // 10, 100_000), count)
    roots, times = events[0][asked].astype(np.int64), events[2][asked]
    found: dict[str, Any] = {}
    for strategy, fanouts in (("recent", (10,)), ("uniform", (10, 10))):
        samplers = [TemporalSampler(table, fanouts, strategy, 1) for table in (store, csr)]
        drawn = [sampler.sample(roots[:500], times[:500]) for sampler in samplers]
        assert np.array_equal(drawn[0].nodes, drawn[1].nodes), "the two tables draw unlike samples"
        rates: list[list[float]] = [[], []]
        part = len(roots) if len(fanouts) == 1 else len(roots) // 10
        for _ in range(args.repeats):
            for side, sampler in enumerate(samplers):
                begin = perf_counter()
                edges = sum(
                    hop.num_edges for hop in sampler.sample(roots[:part], times[:part]).hops
                )
                rates[side].append(edges / (perf_counter() - begin))
        ratios = [a / b for a, b in zip(*rates, strict=True)]
        found[f"{strategy} {list(fanouts)}"] = {
            "store_edges_per_s": round(statistics.median(rates[0])),
            "csr_edges_per_s": round(statistics.median(rates[1])),
            **spread("store_over_csr", ratios),
        }
    return found


def increment(args: argparse.Namespace) -> dict[str, Any]:
    """Some of the increments of both approaches on one stream, each from the state before it."""
    options = {
        "num_nodes": 2000,
        "num_edges": args.stream_edges,
        "num_edge_features": 16,
        "mean_gap": 10.0,
    }
    base = RunSpec(
        suite="bench",
        dataset=DatasetRef(name="events", generator="synthetic_stream", options=options),
        task=TaskSpec(negatives=1),
        model=ModelSpec(name="tgn", kind="tgn", hidden=32, layers=1, heads=2),
        batch=BatchSpec(size=200, fanouts_from_seeds=(10,)),
        training=TrainingSpec(optimizer="adam", lr=1e-4, epochs=1, increments=args.increments),
        approach="continuous",
        ranks=1,
    )
    data: Any = Library([]).open(base.dataset)
    chosen = [1, args.increments // 2, args.increments]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            name: make_trainer(
                0, 1, dataclasses.replace(base, approach=name, knobs=knobs), data, Path(folder)
            )
            for name, knobs in (("continuous", {}), ("rebuild", {}))
        }
        for trainer, _, _ in trainers.values():
            trainer.train_period(0)
        for period in chosen:
            spent, parts = {}, {}
            for name, (trainer, recorder, kept) in trainers.items():
                trainer.source.catch_up(period)
                kept.rows.clear()
                recorder.period_begin(period)
                begin = perf_counter()
                trainer.train_period(period)
                spent[name] = perf_counter() - begin
                recorder.period_end()
                parts[name] = breakdown(kept.rows)
            rows.append(
                {
                    "increment": period,
                    **{f"{name}_s": round(value, 3) for name, value in spent.items()},
                    "speedup": round(spent["rebuild"] / spent["continuous"], 1),
                    "breakdown_s": parts,
                }
            )
    speedups = [row["speedup"] for row in rows]
    return {
        "increments": args.increments,
        "events_per_increment": round(0.7 * args.stream_edges / args.increments),
        "median_speedup": statistics.median(speedups),
        "rows": rows,
    }


def breakdown(rows: list[Any]) -> dict[str, float]:
    """Seconds by phase of a ledger; `load` is ingestion."""
    found: dict[str, float] = defaultdict(float)
    for row in rows:
        found[str(row.phase)] += row.duration_s
    return {name: round(value, 4) for name, value in sorted(found.items())}


def stream_of(args: argparse.Namespace) -> EdgeStream:
    """The first events of sx-mathoverflow, or a generated stream."""
    path = Path(args.data) / "sx-mathoverflow" / "sx-mathoverflow.txt.gz" if args.data else None
    if path is not None and path.exists():
        ref = DatasetRef(name="sx-mathoverflow", path=str(path), kind="stream")
    else:
        options = {"num_nodes": 2000, "num_edges": args.epoch_edges}
        ref = DatasetRef(name="events", generator="synthetic_stream", options=options)
    data: Any = Library([path.parent.parent] if path else []).open(ref)
    count = min(args.epoch_edges, data.num_edges)
    return dataclasses.replace(
        data,
        sources=np.array(data.sources[:count]),
        destinations=np.array(data.destinations[:count]),
        times=np.array(data.times[:count]),
        train_end=count - 2,
        val_end=count - 1,
        digest="",
    )


def tgn_run(epochs: int) -> RunSpec:
    """The settings of the plain TGN, without its dropout."""
    return RunSpec(
        suite="bench",
        dataset=DatasetRef(name="events", generator="synthetic_stream"),
        task=TaskSpec(negatives=1),
        model=ModelSpec(name="tgn", kind="tgn", hidden=100, layers=1, heads=2),
        batch=BatchSpec(size=plain_tgn.BATCH, fanouts_from_seeds=(10,)),
        training=TrainingSpec(optimizer="adam", lr=1e-4, epochs=epochs),
        approach="continuous",
        ranks=1,
    )


def epoch(args: argparse.Namespace) -> dict[str, Any]:
    """Epochs of both, in turns; ours ingests the stream in its first one."""
    data = stream_of(args)
    columns = [
        torch.from_numpy(np.asarray(column[: data.train_end], np.int64))
        for column in (data.sources, data.destinations, data.times)
    ]
    edges = torch.empty((data.train_end, 0))
    spent: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        run = tgn_run(args.repeats)
        trainer, _, _ = make_trainer(0, 1, run, data, Path(folder))
        for turn in range(args.repeats):
            spent["ours"].append(clocks(lambda turn=turn: trainer.train_period(turn)))
            spent["plain"].append(clocks(lambda: plain_tgn.epoch(*columns, edges, data.num_nodes)))
    found: dict[str, Any] = {"stream": data.name, "events": data.train_end}
    for place, clock in enumerate(("", "cpu_")):
        ours, plain = ([pair[place] for pair in spent[side]] for side in ("ours", "plain"))
        found[f"ours_{clock}s"] = round(statistics.median(ours), 2)
        found[f"plain_{clock}s"] = round(statistics.median(plain), 2)
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        found |= spread(f"ours_over_plain{'_cpu' if clock else ''}", ratios)
    return found


def plan(args: argparse.Namespace) -> dict[str, Any]:
    """Make and walk the plan of an epoch, in turns with the epoch."""
    data, run = stream_of(args), tgn_run(args.repeats)
    approach = APPROACHES.get(run.approach)
    planned, trained = [], []
    with tempfile.TemporaryDirectory() as folder:
        trainer, _, _ = make_trainer(0, 1, run, data, Path(folder))
        for turn in range(args.repeats):
            one = dataclasses.replace(run, training=dataclasses.replace(run.training, epochs=1))
            planned.append(timed(lambda one=one: walk(approach, data, one)))
            trained.append(timed(lambda turn=turn: trainer.train_period(turn)))
    return {
        "events": data.train_end,
        "plan_s": round(statistics.median(planned), 2),
        "epoch_s": round(statistics.median(trained), 2),
        **spread("plan_over_epoch", [a / b for a, b in zip(planned, trained, strict=True)]),
    }


def walk(approach: Any, data: EdgeStream, run: RunSpec) -> None:
    """Plan a run from nothing, validate it and count its bytes."""
    made = approach.plan(
        data, run, approach.structure(data, run), Layout(world_size=1, ranks_per_host=1)
    )
    made.validate()
    made.moved_bytes(0)


def timed(what: Callable[[], object]) -> float:
    begin = perf_counter()
    what()
    return perf_counter() - begin


def clocks(what: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall, and of all threads on cores: the latter leave out waiting for cores."""
    wall, cores = perf_counter(), process_time()
    what()
    return perf_counter() - wall, process_time() - cores


def spread(name: str, ratios: list[float]) -> dict[str, Any]:
    """The median of ratios within turns, and their range."""
    return {
        name: round(statistics.median(ratios), 3),
        f"{name}_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--data", default="")
    parser.add_argument("--edges", type=int, default=50_000_000, help="events of the ingestion")
    parser.add_argument("--stream-edges", type=int, default=60_000)
    parser.add_argument("--increments", type=int, default=100)
    parser.add_argument("--epoch-edges", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    parts = {"ingest": ingest, "sample": sample, "increment": increment}
    parts |= {"epoch": epoch, "plan": plan}
    found = {name: parts[name](args) for name in args.only.split(",")}
    sys.stdout.write(json.dumps({"threads": args.threads, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
