"""Fit what ranks measured: one model per operation and collective, and the cluster they make."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
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
    IterationModel,
    Link,
    Links,
    OpModel,
    PeakFlops,
    Storage,
)
from gnnbench.costs.fit import fit_collective, fit_judged
from gnnbench.costs.iterations import Held, iteration_model
from gnnbench.errors import SpecError
from gnnbench.reuse import Reuse
from gnnbench.steps import Kind, Work
from gnnbench_runtime import device as devices
from gnnbench_runtime.calibration.baselines import ELSEWHERE_BYTES, context_constants
from gnnbench_runtime.calibration.shapes import GRAPH as SWEPT

CALLS = 10  # of a collective in an epoch: over how many calls what delays some averages out
DRAWS = 400
GAP_OP = "gap"  # what passes between two steps, apart from the steps
PROBE_OP = "speed_probe"
_BY_GRAPH = frozenset({Kind.SPMM, Kind.SDDMM, Kind.GATHER, Kind.SCATTER, Kind.SAMPLE})
"""Kinds whose times depend on the graph, and not on shapes alone."""
_GENERATIONS = (
    ((10, 0), "blackwell"),
    ((9, 0), "hopper"),
    ((8, 9), "ada"),
    ((8, 0), "ampere"),
    ((7, 5), "turing"),
    ((7, 0), "volta"),
    ((0, 0), "maxwell"),
)
"""GPU generations by least compute capability."""


def cluster_of(
    name: str,
    request: dict[str, Any],
    measured: dict[int, list[dict[str, Any]]],
    baselines: Mapping[str, float],
    cores: int,
    storage: Storage | None = None,
) -> Cluster:
    """The cluster of one host that these measurements describe.

    Args:
        name: of the cluster.
        request: what was asked of the ranks: threads and device.
        measured: what each rank measured, by the number of ranks that did at the same time.
        baselines: what a rank holds before any data, by approach.
        cores: of the host.
        storage: its disk, if that was swept.
    """
    kind = request["device"]
    probed = {world: ranks for world, ranks in measured.items() if ranks[0]["probes"]}
    # Samples are in units of the speed probe beside them, so this alone says how fast the machine
    # is taken to be: as it usually was, in its usual company. `compare` tells how fast it is later.
    usual = {
        world: statistics.median(probe for content in ranks for probe in content["probes"])
        for world, ranks in probed.items()
    }
    judged = [judge_operations(ranks, world, usual[world]) for world, ranks in probed.items()]
    collectives = [
        model
        for world, ranks in measured.items()
        if world > 1
        for model in fit_sweeps(ranks, world, _turns(world, request, cores, kind))
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    flops, stream = _headline(measured[1][0], usual[1])
    most = max(probed)
    # Code of kernels differs from that of loops on a CPU.
    context, code = context_constants(baselines, ELSEWHERE_BYTES if kind == "cpu" else {})
    return Cluster(
        name=name,
        description=f"calibrated on {devices.processor_name()}",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        transport="gloo" if kind == "cpu" else "nccl",
        software=devices.versions(torch.device(kind)),
        host=Host(
            devices_per_host=most,
            cores=cores,
            memory_bytes=_known(memory, source="operating system"),
            memory_bytes_per_s=_known(stream),
            hosts_max=1024,
        ),
        device=Device(
            **(_cpu(memory / most) if kind == "cpu" else _gpu(torch.cuda.get_device_properties(0))),
            peak_flops_per_s=PeakFlops(float32=_known(flops)),
            memory_bytes_per_s=_known(stream),
            launch_s=_known(_gap(measured[1], usual[1])),
            context_bytes=context,
            code_bytes=code,
            threads=request["threads"],
        ),
        links=_links(collectives),
        storage=storage,
        speed_probe_s=usual[1],
        ops=tuple(model for models, _ in judged for model in models),
        iterations=tuple(whole for _, whole in judged if whole is not None),
        collectives=tuple(collectives),
    )


def _known(value: float, status: str = "measured", source: str = "calibrate") -> Constant:
    return Constant(value=float(value), status=status, source=source)


def _cpu(memory_bytes: float) -> dict[str, Any]:
    """What a rank's share of the host's processor is, in fields of `Device`."""
    return {
        "name": devices.processor_name(),
        "kind": "cpu",
        "cache_bytes": _known(_cache_bytes(), "assumed", "operating system, last level"),
        "memory_bytes": _known(memory_bytes, source="operating system, shared by its ranks"),
    }


def _gpu(properties: Any) -> dict[str, Any]:
    """What a GPU is, in fields of `Device`; Pascal counts as Maxwell."""
    capability = (properties.major, properties.minor)
    return {
        "name": properties.name,
        "kind": "gpu",
        "arch": next(arch for least, arch in _GENERATIONS if capability >= least),
        "cache_bytes": _known(properties.L2_cache_size, source="CUDA"),
        "memory_bytes": _known(properties.total_memory, source="CUDA"),
    }


def _turns(world: int, request: dict[str, Any], cores: int, kind: str) -> float:
    return world * request["threads"] / cores if kind == "cpu" else 1.0


def _links(collectives: list[CollectiveModel]) -> Links:
    pairs = [c for c in collectives if c.op == "send" and c.co_located == 2]
    if pairs:
        rate, latency = _known(pairs[0].bytes_per_s), _known(pairs[0].latency_s)
        intra = Link(bytes_per_s=rate, latency_s=latency)
    else:
        guess = "assumed", "one rank was calibrated: loopback not measured"
        intra = Link(bytes_per_s=_known(2e9, *guess), latency_s=_known(3e-5, *guess))
    assumed = "assumed", "10 Gb/s Ethernet between hosts of this kind; edit to your network"
    inter = Link(bytes_per_s=_known(1.1e9, *assumed), latency_s=_known(5e-5, *assumed), shared=True)
    return Links(intra=intra, inter=inter)


def fit_operations(ranks: list[dict[str, Any]], world: int, usual_s: float) -> list[OpModel]:
    """One model per operation, see `judge_operations`."""
    return judge_operations(ranks, world, usual_s)[0]


def judge_operations(
    ranks: list[dict[str, Any]], world: int, usual_s: float
) -> tuple[list[OpModel], IterationModel | None]:
    """One model per operation from the samples of all ranks of a co-location, and of their sums.

    Samples are in units of the speed probe of their period; `usual_s`, the probe's usual time,
    converts them to seconds.
    """
    found: dict[str, _Samples] = defaultdict(_Samples)
    kinds: dict[Hashable, str] = {}
    for rank, content in enumerate(ranks):
        for entry in content["steps"]:
            workload, graph = entry["workload"], entry["graph"]
            # Calls of a sweep of shapes are no iteration.
            whole = None if graph == SWEPT else (rank, workload)
            kinds[whole] = graph
            seconds = entry["probes"] * usual_s
            found[entry["op"]].add(_work(entry), seconds, workload, graph, whole)
            if entry["gap_probes"]:
                after, seconds = _once(GAP_OP, entry["bytes"]), entry["gap_probes"] * usual_s
                found[GAP_OP].add(after, seconds, workload, graph, whole)
        # Speed probes of one workload follow each other within seconds, and share what disturbs
        # them; what they share is what a run finds different from the calibration.
        workloads = content.get("probe_workloads", range(len(content["probes"])))
        for probe_s, workload in zip(content["probes"], workloads, strict=True):
            found[PROBE_OP].add(_once(PROBE_OP), probe_s, workload, "", None)
    models, held = [], []
    for op, samples in sorted(found.items()):
        by_graph = samples.works[0][0].kind in _BY_GRAPH
        try:
            model, errors = fit_judged(
                samples.works,
                op=op,
                form=GAP_OP if op == GAP_OP else "",
                co_located=world,
                origins=samples.workloads,
                graphs=samples.graphs if by_graph else None,
            )
        except SpecError:
            continue  # too few samples: the operation is reported as not calibrated
        models.append(model)
        seconds = np.array([s for _, s in samples.works])
        held.append(Held(model=model, seconds=seconds, errors=errors, sums=samples.sums))
    return models, iteration_model(held, world, kinds)


@dataclass(slots=True)
class _Samples:
    """Samples of an operation; `sums` are the iterations that their steps belong to."""

    works: list[tuple[Work, float]] = field(default_factory=list)
    workloads: list[int] = field(default_factory=list)
    graphs: list[str] = field(default_factory=list)
    sums: list[Hashable | None] = field(default_factory=list)

    def add(
        self, done: Work, seconds: float, workload: int, graph: str, whole: Hashable | None
    ) -> None:
        """Add one."""
        self.works.append((done, seconds))
        self.workloads.append(workload)
        self.graphs.append(graph)
        self.sums.append(whole)


def _once(op: str, size: int = 0) -> Work:
    return Work(kind=Kind.HOST, op=op, bytes=size)


def _work(entry: dict[str, Any]) -> Work:
    measured = ("op", "kind", "probes", "gap_probes", "workload", "graph", "reuse")
    facts = {key: value for key, value in entry.items() if key not in measured}
    reuse = Reuse.of(entry["reuse"]) if "reuse" in entry else None
    return Work(kind=Kind(entry["kind"]), op=entry["op"], reuse=reuse, **facts)


def fit_sweeps(
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
    """Mean time that a call adds to a round of computing and communicating.

    Neither the median nor the mean of all calls is right: if the scheduler delays one call in ten
    by a tick, every epoch with ten calls contains a delay; if it delays one in a hundred, few
    epochs do. The median epoch counts. Where ranks take turns on the cores, computing takes that
    many times longer than alone; the rest of a round is the call.
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
