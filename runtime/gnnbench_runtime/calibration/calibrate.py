"""Calibrate the present machine: probe with 1..k co-located ranks, fit, build a cluster."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gnnbench.cluster import (
    TRANSFER,
    Cluster,
    CollectiveModel,
    Constant,
    Device,
    Host,
    Link,
    Links,
    OpModel,
    PeakFlops,
)
from gnnbench.costs.fit import fit_collective, fit_op
from gnnbench.errors import RunFailed, SpecError
from gnnbench.steps import Kind, Lane, Phase, Step
from gnnbench_runtime import device as devices
from gnnbench_runtime.launch import cuda_devices, rank_environment

Progress = Callable[[str, float], None]

SWEPT_RANKS = 4
# In two turns, so that a slow minute of the machine touches one rank and several alike.
FULL = {"count": 80, "epochs": 12, "sweeps": 20, "turns": 2}
QUICK = {"count": 36, "epochs": 6, "sweeps": 10, "turns": 1}
CALLS = 10  # of a collective in an epoch: over how many calls what delays some averages out
DRAWS = 400
TIMEOUT_S = 900.0
GAP_OP = "gap"  # what passes between two steps, apart from the steps
PROBE_OP = "speed_probe"


def calibrate(
    *,
    name: str = "here",
    quick: bool = False,
    co_located: int = 0,
    threads: int = 1,
    device: str = "auto",
    progress: Progress | None = None,
) -> Cluster:
    """Measure this machine and return it as a cluster of one host (or as many as are assumed).

    Args:
        co_located: most ranks on the host; 0 is what cores / threads or GPUs allow, at most 4;
            on CPUs, unless quick, collectives are swept up to 4 ranks all the same.
        threads: CPU threads of a rank.
        progress: called with a word and the share done.

    Raises:
        RunFailed: a probing rank died or hung; its own words are in the message.
    """
    kind = "cuda" if device == "cuda" or (device == "auto" and cuda_devices()) else "cpu"
    cores = len(os.sched_getaffinity(0))
    places = max(1, cores // threads) if kind == "cpu" else cuda_devices()
    most = co_located or min(SWEPT_RANKS, places)
    swept = max(most, 0 if quick or kind == "cuda" or co_located else SWEPT_RANKS)
    request: dict[str, Any] = {**(QUICK if quick else FULL), "threads": threads, "device": kind}
    measured: dict[int, list[list[dict[str, Any]]]] = defaultdict(list)
    parts = [(turn, world) for turn in range(request["turns"]) for world in range(1, swept + 1)]
    for number, (turn, world) in enumerate(parts):
        report = _part(progress, f"{world} co-located", number / len(parts), 1 / len(parts))
        # Ranks beyond the cores take turns on them, which the simulator says of operations; what
        # turns do to collectives, only a measurement says.
        alone = kind == "cpu" and world > places
        asked = {**request, "turn": turn, **({"count": 0} if alone else {})}
        measured[world].append(_measure(asked, world, report))
    return _cluster(
        name, request, {w: _joined(turns) for w, turns in measured.items()}, cores, kind
    )


def _joined(turns: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What each rank measured in all turns; workloads keep numbers of their own."""
    return [_one_after_another(contents) for contents in zip(*turns, strict=True)]


def _one_after_another(contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {**contents[0], "steps": [], "probes": [], "collectives": []}
    before = 0
    for content in contents:
        steps = content["steps"]
        whole["steps"] += [{**step, "workload": step["workload"] + before} for step in steps]
        whole["probes"] += content["probes"]
        whole["collectives"] += content["collectives"]
        before += content.get("workloads", 0)
    return whole


def _part(progress: Progress | None, word: str, start: float, share: float) -> Progress:
    def report(detail: str, done: float) -> None:
        if progress is not None:
            progress(f"{word}: {detail}", start + share * done)

    return report


def _measure(request: dict[str, Any], world: int, progress: Progress) -> list[dict[str, Any]]:
    """Run the ranks of one co-location; return what each measured."""
    with tempfile.TemporaryDirectory(prefix="gnnbench-calibrate-") as scratch:
        folder = Path(scratch)
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        processes = []
        try:
            for rank in range(world):
                with (folder / f"output-rank{rank}.txt").open("wb") as output:
                    module = "gnnbench_runtime.calibration.rank"
                    command = [sys.executable, "-m", module, scratch, str(rank), str(world)]
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
            raise RunFailed(f"calibration made no end in {TIMEOUT_S:.0f} s", rank=0)
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


# -- fitting -------------------------------------------------------------------------------------


def _cluster(
    name: str,
    request: dict[str, Any],
    measured: dict[int, list[dict[str, Any]]],
    cores: int,
    kind: str,
) -> Cluster:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    probed = {world: ranks for world, ranks in measured.items() if ranks[0]["probes"]}
    # Samples are in units of the speed probe beside them, so this alone says how fast the machine
    # is taken to be: as it usually was, in its usual company. `compare` tells how fast it is later.
    usual = {
        world: statistics.median(probe for content in ranks for probe in content["probes"])
        for world, ranks in probed.items()
    }
    ops = [
        model for world, ranks in probed.items() for model in _fit_ops(ranks, world, usual[world])
    ]
    collectives = [
        model
        for world, ranks in measured.items()
        if world > 1
        for model in _fit_sweeps(ranks, world, _turns(world, request, cores, kind))
    ]
    torch_device = torch.device(kind)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    flops, stream = _headline(measured[1][0], usual[1])

    def known(value: float, status: str = "measured", source: str = "calibrate") -> Constant:
        return Constant(value=float(value), status=status, source=source)

    most = max(probed)
    return Cluster(
        name=name,
        description=f"calibrated on {devices.processor_name()}",
        date=now,
        transport="gloo" if kind == "cpu" else "nccl",
        software=devices.versions(torch_device),
        host=Host(
            devices_per_host=most,
            cores=cores,
            memory_bytes=known(memory, source="operating system"),
            memory_bytes_per_s=known(stream),
            hosts_max=1024,
        ),
        device=Device(
            name=devices.processor_name(),
            kind="cpu" if kind == "cpu" else "gpu",
            peak_flops_per_s=PeakFlops(float32=known(flops)),
            memory_bytes_per_s=known(stream),
            cache_bytes=known(_cache_bytes(), "assumed", "operating system, last level"),
            memory_bytes=known(memory / most, source="operating system, shared by its ranks"),
            launch_s=known(_gap(measured[1], usual[1])),
            context_bytes=known(_context(probed)),
            threads=request["threads"],
        ),
        links=_links(collectives, most, known),
        speed_probe_s=usual[1],
        ops=tuple(ops),
        collectives=tuple(collectives),
    )


def _turns(world: int, request: dict[str, Any], cores: int, kind: str) -> float:
    return world * request["threads"] / cores if kind == "cpu" else 1.0


def _links(collectives: list[CollectiveModel], most: int, known: Callable[..., Constant]) -> Links:
    pairs = [c for c in collectives if c.op == "send" and c.co_located == 2]
    if pairs:
        rate, latency = known(pairs[0].bytes_per_s), known(pairs[0].latency_s)
        intra = Link(bytes_per_s=rate, latency_s=latency)
    else:
        guess = "assumed", "one rank was calibrated: loopback not measured"
        intra = Link(bytes_per_s=known(2e9, *guess), latency_s=known(3e-5, *guess))
    assumed = "assumed", "10 Gb/s Ethernet between hosts of this kind; edit to your network"
    inter = Link(bytes_per_s=known(1.1e9, *assumed), latency_s=known(5e-5, *assumed), shared=True)
    return Links(intra=intra, inter=inter)


def _fit_ops(ranks: list[dict[str, Any]], world: int, usual_s: float) -> list[OpModel]:
    """One model per operation from the samples of all ranks of a co-location.

    Samples come in units of the speed probe around them; `usual_s` turns them into seconds of a
    machine at its usual speed.
    """
    samples: dict[str, list[tuple[Step, float]]] = defaultdict(list)
    origins: dict[str, list[int]] = defaultdict(list)
    for content in ranks:
        for entry in content["steps"]:
            samples[entry["op"]].append((_step(entry), entry["probes"] * usual_s))
            origins[entry["op"]].append(entry["workload"])
            if entry["gap_probes"]:
                after = _once(GAP_OP, entry["bytes"])
                samples[GAP_OP].append((after, entry["gap_probes"] * usual_s))
                origins[GAP_OP].append(entry["workload"])
        samples[PROBE_OP] += [(_once(PROBE_OP), probe_s) for probe_s in content["probes"]]
    models = []
    for op, points in sorted(samples.items()):
        try:
            form = GAP_OP if op == GAP_OP else ""
            models.append(
                fit_op(points, op=op, form=form, co_located=world, origins=origins.get(op))
            )
        except SpecError:
            continue  # too few samples of this operation: the simulator falls back by kind
    return models


def _once(op: str, size: int = 0) -> Step:
    return Step(name=op, kind=Kind.HOST, op=op, lane=Lane.COMPUTE, phase=Phase.FORWARD, bytes=size)


def _step(entry: dict[str, Any]) -> Step:
    measured = ("op", "kind", "probes", "gap_probes", "workload")
    facts = {k: v for k, v in entry.items() if k not in measured}
    return Step(
        name=entry["op"], kind=Kind(entry["kind"]), op=entry["op"], lane=Lane.COMPUTE,
        phase=Phase.FORWARD, **facts,
    )  # fmt: skip


def _fit_sweeps(
    ranks: list[dict[str, Any]], world: int, turns: float = 1.0
) -> list[CollectiveModel]:
    """Two models per collective and size of group: what it takes, and what of that is transfer.

    Args:
        turns: how many ranks share a core while all compute, at least 1.
    """
    points: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for entries in zip(*(content["collectives"] for content in ranks), strict=True):
        op, size = entries[0]["op"], entries[0]["ranks"]
        for group in range(world // size):
            members = [entry for entry in entries if entry["group"] == group]
            volume = members[0]["bytes"]
            points[op, size].append((volume, _added_s(members, turns)))
            # The rank held up least had no one to wait for.
            least = np.min([entry["seconds"] for entry in members], axis=0)
            points[op + TRANSFER, size].append((volume, float(np.median(least))))
    return [
        fit_collective(p, op=op, ranks=size, co_located=world)
        for (op, size), p in sorted(points.items())
    ]


def _added_s(members: list[dict[str, Any]], turns: float) -> float:
    """What a call adds to a round of computing and communicating, on average over rounds.

    Neither a median nor a mean over all: one call in ten that the scheduler delays by a tick is
    part of every epoch with ten calls, and one in a hundred of few; the median epoch counts. Where
    ranks take turns on the cores, computing lasts so many times what it would alone; the rest of a
    round is the call's.
    """
    rounds = [np.add(entry["work_s"], entry["seconds"]) for entry in members]
    # Of a call one way the last rank's end counts: the sender did not wait for it.
    whole = np.max(rounds, axis=0) if members[0]["one_way"] else np.mean(rounds, axis=0)
    work = np.quantile([entry["work_s"] for entry in members], 0.5 if turns <= 1 else 0.1)
    calls = np.mean([entry["seconds"] for entry in members], axis=0)
    added = _of_median_epoch(whole) - max(turns, 1.0) * float(work)
    return max(added, 0.1 * float(np.min(calls)))


def _of_median_epoch(rounds: np.ndarray) -> float:
    """Mean over the calls of an epoch, of the median of epochs drawn from these rounds."""
    drawn = np.random.default_rng(0).choice(rounds, (DRAWS, min(CALLS, len(rounds))))
    return float(np.median(drawn.mean(axis=1)))


def _gap(ranks: list[dict[str, Any]], usual_s: float) -> float:
    gaps = [entry["gap_probes"] for content in ranks for entry in content["steps"]]
    return usual_s * statistics.median(gap for gap in gaps if gap)


def _context(measured: dict[int, list[dict[str, Any]]]) -> float:
    """What a rank's process holds before any data, code and libraries of all kernels loaded."""
    return float(
        statistics.median(content["baseline_bytes"] for r in measured.values() for content in r)
    )


def _headline(content: dict[str, Any], usual_s: float) -> tuple[float, float]:
    """Best sustained flops and median streamed bytes per second of the steps."""
    steps = content["steps"]
    products = [e["flops"] / (e["probes"] * usual_s) for e in steps if e["kind"] == "gemm"]
    streams = [
        e["bytes"] / (e["probes"] * usual_s)
        for e in steps
        if e["kind"] in ("elementwise", "gather") and e["bytes"] > 1 << 22
    ]
    return max(products, default=1e10), statistics.median(streams or [1e10])


def _cache_bytes() -> float:
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 2**10, "M": 2**20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * unit)
    return float(max(sizes, default=32 * 2**20))
