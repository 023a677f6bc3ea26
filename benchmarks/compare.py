r"""Time our kernels, alone or in turns with a peer's script, on one graph; print JSON.

    python benchmarks/compare.py [--graph g.npz] [--threads 2] [--repeats 3]
    python benchmarks/compare.py --peer-python peers/bin/python --peer-script peer_dgl.py

Without --graph, a planted graph of 200,000 nodes and 3 M edges is drawn into build/. The peer lives
in an environment of its own and is never a dependency; its interpreter and script may also be named
by GNNBENCH_PEER_PYTHON and GNNBENCH_PEER_SCRIPT. Its script takes the graph and `--threads`, and
prints one JSON object, whose keys `METRICS` lists. `peers/graphbolt.py` and `peers/pyg.py` are two.
Turns alternate, so that a busy machine hurts both; ratios are taken within a turn. Seconds:
ours/peer, below 1 is good; edges per second: ours/peer, above 1 is good.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import ChainMap
from pathlib import Path

OURS = ("bench_kernels.py", "bench_trainers.py")
METRICS = {
    "full_graph_gcn_epoch_s": "full_graph_gcn_epoch_s",
    "sample_edges_per_s": "sample_edges_per_s",
    "sampled_sage_epoch_s": "sampled_sage_epoch_s",
    "sampled_sage_prefetch_epoch_s": "sampled_sage_epoch_s",
    "trainer_sage_epoch_s": "sampled_sage_epoch_s",
    "trainer_sage_prefetch_epoch_s": "sampled_sage_epoch_s",
    "labor_edges_per_s": "layer_edges_per_s",
    "ladies_edges_per_s": "layer_edges_per_s",
}
"""Our key and the peer's: prefetching and the shipped trainer are compared with its loader."""


def run_json(command: list[str], wait_policy: str) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if wait_policy != "default":
        environment["OMP_WAIT_POLICY"] = wait_policy
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{command[1]} failed ({done.returncode}): {done.stderr[-400:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compare(ours: list[dict[str, float]], peer: list[dict[str, float]]) -> dict[str, object]:
    """Return medians of both and the median of the ratios within turns, with their range."""
    table: dict[str, object] = {}
    for mine, theirs in METRICS.items():
        pairs = [
            (a[mine], b[theirs])
            for a, b in zip(ours, peer, strict=True)
            if a.get(mine) and b.get(theirs)
        ]
        if not pairs:
            table[mine] = None
            continue
        ratios = [a / b for a, b in pairs]
        table[mine] = {
            "ours": statistics.median(a for a, _ in pairs),
            "peer": statistics.median(b for _, b in pairs),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    return table


def draw_graph(path: Path) -> Path:
    """Write the default benchmark graph, unless it is there."""
    if path.exists():
        return path
    root = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(root), str(root / "runtime")]
    import numpy as np

    from gnnbench.data.generators import planted_partition

    graph = planted_partition(
        200_000, 15.0, 40, 128, homophily=0.6, feature_noise=3.0, train_fraction=0.2, seed=0
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    target = np.repeat(np.arange(graph.num_nodes), graph.in_degrees())
    np.savez(
        path,
        src=graph.indices.astype(np.int64),
        dst=target,
        x=graph.features,
        y=graph.labels,
        train=graph.train_mask,
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--graph", type=Path, default=Path("build/benchmark-graph.npz"))
    parser.add_argument("--peer-python", default=os.environ.get("GNNBENCH_PEER_PYTHON"))
    parser.add_argument("--peer-script", default=os.environ.get("GNNBENCH_PEER_SCRIPT"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--wait-policy",
        choices=("passive", "active", "default"),
        default="passive",
        help="OMP_WAIT_POLICY of both; passive keeps a shared machine's noise small",
    )
    args = parser.parse_args()
    draw_graph(args.graph)
    common = ["--threads", str(args.threads)]
    scripts = [Path(__file__).with_name(name) for name in OURS]
    commands = [[sys.executable, str(s), "--graph", str(args.graph), *common] for s in scripts]

    def own() -> dict[str, float]:
        return dict(ChainMap(*(run_json(command, args.wait_policy) for command in commands)))

    if not (args.peer_python and args.peer_script):
        runs = [own() for _ in range(args.repeats)]
        alone = {k: statistics.median(r[k] for r in runs) for k in METRICS if runs[0].get(k)}
        result = {"peer": None, "threads": args.threads, "repeats": args.repeats, "ours": alone}
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return
    peer_command = [args.peer_python, str(args.peer_script), str(args.graph), *common]
    ours, peer = [], []
    for _ in range(args.repeats):
        ours.append(own())
        peer.append(run_json(peer_command, args.wait_policy))
    table = compare(ours, peer)
    result = {
        "peer": peer[0].get("peer"),
        "threads": args.threads,
        "repeats": args.repeats,
        "wait_policy": args.wait_policy,
        "metrics": table,
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
