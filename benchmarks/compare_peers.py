r"""Run our kernels and a peer's script in turns on one graph, and print medians and ratios.

    python benchmarks/compare_peers.py --graph g.npz --peer-python peers/bin/python \
        --peer-script peer_dgl.py [--repeats 3] [--threads 2]

The peer lives in an environment of its own and is never a dependency; its interpreter may also be
named by GNNBENCH_PEER_PYTHON. Its script takes the graph and `--threads`, and prints one JSON
object whose last-line keys it shares with `bench_kernels.py`. Turns alternate, so that a busy
machine hurts both; ratios are taken within a turn. Seconds: ours/peer, below 1 is good; edges per
second: ours/peer, above 1 is good.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

METRICS = {
    "full_graph_gcn_epoch_s": "full_graph_gcn_epoch_s",
    "sample_edges_per_s": "sample_edges_per_s",
    "sampled_sage_epoch_s": "sampled_sage_epoch_s",
    "sampled_sage_prefetch_epoch_s": "sampled_sage_epoch_s",
}
"""Our key and the peer's: prefetching is held against the peer's own loader."""


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--peer-python", default=os.environ.get("GNNBENCH_PEER_PYTHON"))
    parser.add_argument("--peer-script", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--wait-policy",
        choices=("passive", "active", "default"),
        default="passive",
        help="OMP_WAIT_POLICY of both; passive keeps a shared machine's noise small",
    )
    args = parser.parse_args()
    if not args.peer_python:
        parser.error("name the peer's interpreter: --peer-python or GNNBENCH_PEER_PYTHON")
    script = Path(__file__).with_name("bench_kernels.py")
    common = ["--threads", str(args.threads)]
    our_command = [sys.executable, str(script), "--graph", str(args.graph), *common]
    peer_command = [args.peer_python, str(args.peer_script), str(args.graph), *common]
    ours, peer = [], []
    for _ in range(args.repeats):
        ours.append(run_json(our_command, args.wait_policy))
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
