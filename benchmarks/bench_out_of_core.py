r"""Train a graph larger than memory from the disk, `out-of-core` and `mmap` in turns; print JSON.

    python benchmarks/bench_out_of_core.py [--full] [--folder DIR] [--epochs N]

The default graph has 1 M nodes, 20 M edges and 1 GB of features; `--full` has ten times as many.
It is generated into a folder on the disk, piece by piece, and deleted at the end. Each approach
trains in a process of its own under the memory cap: a control group where one can be made, else
RLIMIT_DATA for its private memory ("cap" says which); and the resident set, pages of mapped files
included, is measured. `out-of-core` reads with O_DIRECT; `mmap` drops the pages that its bounded
cache has no room for. So no page cache stands in for the disk.

Epochs alternate, and before each pair the disk is measured anew (`gnnbench calibrate` uses the same
function). Of an epoch of `out-of-core`:

explained  max(bytes read / bandwidth of the disk, seconds of computing) / seconds of the epoch
disk_busy  seconds in which a read was under way / seconds of the epoch
ratio      seconds of `mmap` / seconds of `out-of-core`, of one turn
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("", "runtime", "simulator", "reports", "benchmarks")]

import torch  # noqa: E402

from gnnbench.data.formats import native  # noqa: E402
from gnnbench.data.mapped import forget_mapped_pages  # noqa: E402
from gnnbench.memory_cap import cap_growth  # noqa: E402
from gnnbench.resident import ResidentSet, resident_bytes, status_bytes  # noqa: E402
from gnnbench.spec import BatchSpec, DatasetRef, ModelSpec, RunSpec, TrainingSpec  # noqa: E402

APPROACHES_HERE = ("out-of-core", "mmap")
SMALL = {"nodes": 1_000_000, "degree": 21.5, "features": 256, "memory": 620_000_000}
FULL = {"nodes": 10_000_000, "degree": 21.5, "features": 256, "memory": 2_000_000_000}
PROCESS_BYTES = 400_000_000
"""Of a process with torch and compiled loops; the rest of the cap is for data."""
PARTITIONS, BUFFER = 40, 2
MIB = 2**20


def knobs_of(name: str, graph: Any, memory: int) -> dict[str, Any]:
    """Knobs of an approach: the table in a buffer, or what the topology leaves for a page cache."""
    if name == "out-of-core":
        # Dispersed: every partition is read in every epoch, as if all had training vertices.
        return {
            "partitions": PARTITIONS,
            "buffer": BUFFER,
            "policy": "dispersed",
            "read_ahead": 1,
        }
    topology = 8 * graph.num_nodes + 4 * graph.num_edges
    room = memory - PROCESS_BYTES - topology - 30 * graph.num_nodes
    table = graph.num_nodes * graph.num_features * 4
    return {"cache": round(max(room / table, 0.01), 4)}


def run_of(name: str, folder: Path, graph: Any, args: argparse.Namespace) -> RunSpec:
    return RunSpec(
        suite="bench",
        dataset=DatasetRef(name=graph.name, path=str(folder), kind="graph"),
        model=ModelSpec(name="sage", kind="sage", hidden=64, layers=2),
        batch=BatchSpec(size=1024, fanouts_from_seeds=(5, 5)),
        training=TrainingSpec(optimizer="adam", lr=1e-2, epochs=args.epochs, threads_per_rank=1),
        approach=name,
        ranks=1,
        knobs=knobs_of(name, graph, args.memory),
    )


# -- the process that trains ---------------------------------------------------------------------


def train(name: str, args: argparse.Namespace) -> None:
    """Set up under the cap, then train an epoch for every line of standard input."""
    from gnnbench_runtime.conformance.perform import make_trainer

    torch.set_num_threads(1)
    graph = native.load(args.folder)
    run = run_of(name, args.folder, graph, args)
    with tempfile.TemporaryDirectory(dir=args.folder.parent) as scratch:
        # The rehearsal compiles and loads what any graph needs; the cap is for the data.
        small = graph.miniature(32 * PARTITIONS)
        trainer, recorder, kept = make_trainer(0, 1, run, small, Path(scratch))
        trainer.train_period(0)
        trainer.close()
        baseline = resident_bytes()
        cap = cap_growth(max(args.memory - baseline, 0))
        gauge, peaks = ResidentSet(), dict[str, int]()
        begin = perf_counter()
        with gauge.peak(peaks, "setup"):
            trainer, recorder, kept = make_trainer(0, 1, run, graph, Path(scratch))
        forget_mapped_pages(graph.arrays().values())
        setup_s = perf_counter() - begin
        tell({"baseline": baseline, "setup_s": setup_s, "setup": peaks["setup"], "cap": cap})
        for period, _ in enumerate(sys.stdin):
            kept.rows.clear()
            recorder.period_begin(period)
            begin = perf_counter()
            with gauge.peak(peaks, "training"):
                loss = trainer.train_period(period)
            seconds = perf_counter() - begin
            recorder.period_end()
            tell({"seconds": seconds, "loss": loss, **shares(kept.rows), **memory_of(peaks)})
        trainer.close()


def memory_of(peaks: dict[str, int]) -> dict[str, int]:
    return {"resident_peak": peaks["training"], "anonymous": status_bytes("RssAnon")}


def shares(rows: list[Any]) -> dict[str, Any]:
    """Bytes, requests' seconds and other seconds of an epoch, from its ledger."""
    disk = [row for row in rows if str(row.lane).startswith("disk")]
    others = [row for row in rows if not str(row.lane).startswith("disk")]
    phases: dict[str, float] = {}
    for row in others:
        phases[str(row.phase)] = phases.get(str(row.phase), 0.0) + row.duration_s
    return {
        "read_bytes": sum(row.bytes for row in disk),
        "disk_s": sum(row.duration_s for row in disk),
        "compute_s": sum(row.duration_s for row in others),
        "compute_s_by_phase": {name: round(value, 3) for name, value in sorted(phases.items())},
    }


def tell(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


# -- the process that compares -------------------------------------------------------------------


class Child:
    """A trainer in a process of its own."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name = name
        given = [f"--folder={args.folder}", f"--memory={args.memory}", f"--epochs={args.epochs}"]
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--train", name, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.setup = self._heard()

    def epoch(self) -> dict[str, Any]:
        """Train an epoch; return what it was."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._heard()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self._process.wait()}")
        return dict(json.loads(line))

    def end(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def bandwidth(file: Path) -> float:
    """Bytes per second of large reads past the page cache: the better of two ways to ask."""
    from gnnbench_runtime.calibration.disk_sweep import measure
    from gnnbench_runtime.disk import BlockFile

    with BlockFile(file) as opened:
        ways = ((4 * MIB, 4), (64 * MIB, 1))
        return max(
            measure(opened, "read", block, depth, seconds=1.0)
            for block, depth in ways
            if block * depth <= opened.size_bytes
        )


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Generate, train in turns, compare."""
    sizes = FULL if args.full else SMALL
    begin = perf_counter()
    say(f"generating {sizes['nodes']:,} nodes into {args.folder}")
    from big_graph import generate

    generate(
        args.folder,
        num_nodes=sizes["nodes"],
        mean_degree=sizes["degree"],
        num_features=sizes["features"],
        num_classes=50,
        train=args.train_share,
    )
    graph = native.load(args.folder)
    say(f"generated in {perf_counter() - begin:.0f} s: {graph.num_edges:,} edges")
    children, epochs = {}, {name: [] for name in APPROACHES_HERE}
    rates: list[float] = []
    for name in APPROACHES_HERE:
        children[name] = Child(name, args)
        say(f"{name} is set up: {children[name].setup}")
    for turn in range(args.epochs):
        rates.append(bandwidth(args.folder / "features.npy"))
        say(f"disk: {rates[-1] / 1e9:.2f} GB/s")
        for name, child in children.items():
            epochs[name].append(child.epoch())
            say(f"{name}, epoch {turn}: {epochs[name][-1]}")
    for child in children.values():
        child.end()
    return summary(graph, args, epochs, rates, {n: c.setup for n, c in children.items()})


def summary(
    graph: Any,
    args: argparse.Namespace,
    epochs: dict[str, list[dict[str, Any]]],
    rates: list[float],
    setups: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """What the epochs show; medians over turns."""
    ours, mapped = (epochs[name] for name in APPROACHES_HERE)
    explained = [
        max(epoch["read_bytes"] / rate, epoch["compute_s"]) / epoch["seconds"]
        for epoch, rate in zip(ours, rates, strict=True)
    ]
    busy = [epoch["disk_s"] / epoch["seconds"] for epoch in ours]
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, mapped, strict=True)]
    return {
        "nodes": graph.num_nodes,
        "edges": graph.num_edges,
        "feature_bytes": graph.num_nodes * graph.num_features * 4,
        "train": graph.num_train,
        "memory_cap_bytes": args.memory,
        "cap": {name: setups[name]["cap"] for name in APPROACHES_HERE},
        "knobs": {name: knobs_of(name, graph, args.memory) for name in APPROACHES_HERE},
        "disk_bytes_per_s": round(statistics.median(rates)),
        "explained": ranged(explained),
        "disk_busy": ranged(busy),
        "mmap_over_out_of_core": ranged(ratios),
        "resident_peak_bytes": {
            name: {
                "baseline": setups[name]["baseline"],
                "setup": setups[name]["setup"],
                "training": max(epoch["resident_peak"] for epoch in epochs[name]),
            }
            for name in APPROACHES_HERE
        },
        "epochs": epochs,
    }


def ranged(values: list[float]) -> dict[str, Any]:
    """The median and the range."""
    return {
        "median": round(statistics.median(values), 3),
        "range": [round(min(values), 3), round(max(values), 3)],
    }


def say(words: str) -> None:
    sys.stderr.write(words + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="10 M nodes, 10 GB of features, 2 GB")
    parser.add_argument("--folder", type=Path, default=Path("build/out-of-core/graph"))
    parser.add_argument("--memory", type=int, default=0, help="cap of a trainer in bytes")
    parser.add_argument("--epochs", type=int, default=3, help="of each approach")
    parser.add_argument("--train-share", type=float, default=0.01, help="of the vertices")
    parser.add_argument("--keep", action="store_true", help="leave the graph on the disk")
    parser.add_argument("--train", choices=APPROACHES_HERE, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.folder = args.folder.absolute()
    args.memory = args.memory or (FULL if args.full else SMALL)["memory"]
    if args.train:
        train(args.train, args)
        return
    args.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = compare(args)
    finally:
        if not args.keep:
            shutil.rmtree(args.folder, ignore_errors=True)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
