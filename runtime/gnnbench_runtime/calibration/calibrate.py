"""Calibrate the present machine: probe with 1..k co-located ranks, fit, build a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gnnbench import owner
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import Cluster
from gnnbench.errors import RunFailed
from gnnbench_runtime.calibration import disk_sweep
from gnnbench_runtime.calibration.baselines import measure_baselines
from gnnbench_runtime.calibration.fits import cluster_of
from gnnbench_runtime.calibration.mix import LEAST_SAMPLES, Mix
from gnnbench_runtime.calibration.workloads import Workload, of_turn
from gnnbench_runtime.launch import cuda_devices, rank_environment

Progress = Callable[[str, float], None]

SWEPT_RANKS = 4
# In two turns, so that a slow minute of the machine touches one rank and several alike.
FULL = {"count": 80, "samples": 12, "epochs": 12, "sweeps": 20, "turns": 2, "shapes": 8, "draws": 8}
QUICK = {
    "count": 14,
    "samples": 2 * LEAST_SAMPLES,
    "epochs": 6,
    "sweeps": 6,
    "turns": 1,
    "shapes": 5,
    "draws": 4,
}
TIMEOUT_S = 900.0
_DISK_SHARE, _BASELINES_SHARE = 0.1, 0.05  # of the progress


def calibrate(
    *,
    name: str = "here",
    quick: bool = False,
    co_located: int = 0,
    threads: int = 1,
    device: str = "auto",
    approaches: Sequence[str] = (),
    disk: Path | None = None,
    progress: Progress | None = None,
) -> Cluster:
    """Measure this machine and return it as a cluster of one host, or as many as are assumed.

    Args:
        name: of the cluster.
        quick: a fifth of the probes, in one turn.
        co_located: largest number of ranks on the host; 0 is what cores / threads or GPUs allow, at
            most 4. On CPUs, unless quick, collectives are always measured with up to 4 ranks.
        threads: CPU threads of a rank.
        device: "cpu", "cuda", or "auto" for GPUs where there are any.
        approaches: those whose operations are measured; all registered ones if empty.
        disk: folder on the disk to measure; None measures none.
        progress: called with a word and the share done.

    Raises:
        RunFailed: a probing rank died or hung; the message contains its output.
        Unsupported: the folder is in memory, or too little space is free.
        UnknownName: no such approach.
    """
    kind = "cuda" if device == "cuda" or (device == "auto" and cuda_devices()) else "cpu"
    names = [APPROACHES.get(asked).name for asked in approaches] or APPROACHES.names()
    cores = len(os.sched_getaffinity(0))
    places = max(1, cores // threads) if kind == "cpu" else cuda_devices()
    most = co_located or min(SWEPT_RANKS, places)
    swept = max(most, 0 if quick or kind == "cuda" or co_located else SWEPT_RANKS)
    request: dict[str, Any] = {**(QUICK if quick else FULL), "threads": threads, "device": kind}
    sweep = disk_sweep.QUICK if quick else disk_sweep.FULL
    storage = None
    if disk is not None:
        part = _part(progress, "", 0.0, _DISK_SHARE)
        storage = disk_sweep.sweep_disk(disk, sweep, progress=part)
    part = _part(progress, "", _DISK_SHARE, _BASELINES_SHARE)
    baselines = measure_baselines(names, device=kind, threads=threads, progress=part)
    # Ranks beyond the cores take turns on them, which the simulator says of operations; what
    # turns do to collectives, only a measurement says.
    probed = [world for world in range(1, swept + 1) if kind == "cuda" or world <= places]
    mixes = {world: _mix(names, world, request) for world in probed}
    chosen = {w: mix.probes(request["count"], request["samples"]) for w, mix in mixes.items()}
    request["ops"] = sorted(set[str]().union(*(mix.needed for mix in mixes.values())))
    measured: dict[int, list[list[dict[str, Any]]]] = defaultdict(list)
    parts = [(turn, world) for turn in range(request["turns"]) for world in range(1, swept + 1)]
    for number, (turn, world) in enumerate(parts):
        before = _DISK_SHARE + _BASELINES_SHARE
        share = (1.0 - before) / len(parts)
        start = before + share * number
        report = _part(progress, f"{world} co-located", start, share)
        probes = of_turn(chosen.get(world, []), turn, request["turns"])
        asked = {**request, "turn": turn}
        graphs = request.get("draws", 0) if probes else 0
        drawn = mixes[world].draws(graphs, graphs * turn) if graphs else []
        asked["draws"] = [run.to_dict() for run in drawn]
        measured[world].append(measure_ranks(asked, probes, world, report))
    joined = {world: _joined(turns) for world, turns in measured.items()}
    return cluster_of(name, request, joined, baselines, cores, storage)


def _mix(approaches: Sequence[str], world: int, request: dict[str, Any]) -> Mix:
    return Mix(
        approaches,
        ranks=world,
        threads=request["threads"],
        epochs=request["epochs"],
        device=request["device"],
    )


def _joined(turns: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What each rank measured in all turns; workloads keep numbers of their own."""
    return [_one_after_another(contents) for contents in zip(*turns, strict=True)]


def _one_after_another(contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    lists = ("steps", "probes", "probe_workloads", "collectives")
    whole: dict[str, Any] = {**contents[0], **{name: [] for name in lists}}
    before = 0
    for content in contents:
        steps = content["steps"]
        whole["steps"] += [{**step, "workload": step["workload"] + before} for step in steps]
        whole["probes"] += content["probes"]
        whole["probe_workloads"] += [place + before for place in content["probe_workloads"]]
        whole["collectives"] += content["collectives"]
        before += content.get("workloads", 0)
    return whole


def _part(progress: Progress | None, word: str, start: float, share: float) -> Progress:
    def report(detail: str, done: float) -> None:
        if progress is not None:
            progress(f"{word}: {detail}" if word else detail, start + share * done)

    return report


def measure_ranks(
    request: dict[str, Any], probes: Sequence[Workload], world: int, progress: Progress
) -> list[dict[str, Any]]:
    """Run the ranks of one co-location; return what each measured."""
    todo = [{"run": probe.run.to_dict(), "only": sorted(probe.only)} for probe in probes]
    asked = json.dumps({**request, "probes": todo})
    with owner.scratch("gnnbench-calibrate-") as folder:
        (folder / "request.json").write_text(asked, encoding="utf-8")
        processes = []
        try:
            for rank in range(world):
                with (folder / f"output-rank{rank}.txt").open("wb") as output:
                    module = "gnnbench_runtime.calibration.rank"
                    command = [sys.executable, "-m", module, str(folder), str(rank), str(world)]
                    processes.append(
                        subprocess.Popen(
                            command,
                            env=rank_environment(rank, world, request["threads"]),
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=subprocess.STDOUT,
                        )
                    )
            _wait(processes, folder, progress)
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
        names = [folder / f"samples-rank{rank}.json" for rank in range(world)]
        return [json.loads(path.read_text(encoding="utf-8")) for path in names]


def _wait(processes: list[subprocess.Popen[bytes]], folder: Path, progress: Progress) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while any(process.poll() is None for process in processes):
        failed = [rank for rank, process in enumerate(processes) if process.poll() not in (None, 0)]
        if failed:
            break
        if time.monotonic() > deadline:
            raise RunFailed(f"calibration did not finish within {TIMEOUT_S:.0f} s", rank=0)
        done = folder / "progress"
        if done.exists():
            part, _, whole = (done.read_text(encoding="utf-8") or "0/1").partition("/")
            progress(f"probe {part} of {whole}", int(part) / max(int(whole or 1), 1))
        time.sleep(0.1)
    for rank, process in enumerate(processes):
        if process.poll() not in (None, 0):
            said = (folder / f"output-rank{rank}.txt").read_text(errors="replace").strip()
            last = said.splitlines()[-1] if said else f"exit code {process.returncode}"
            raise RunFailed(f"calibration failed: {last}", rank=rank)
