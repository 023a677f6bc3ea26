"""One rank of a calibration: trains the probe workloads beside its peers, then sweeps collectives.

Started as `python -m gnnbench_runtime.calibration.rank FOLDER RANK WORLD_SIZE`; reads
FOLDER/request.json, writes FOLDER/samples-rank<r>.json. All ranks of a host work on the same probe
at the same time, because operations slow one another down there as they will in real runs.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
from collections import defaultdict
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.generators import planted_partition
from gnnbench.ledger import Row
from gnnbench.plan import Plan
from gnnbench.results import write_json
from gnnbench.steps import COMMUNICATION, Phase, Step
from gnnbench_runtime import device as devices
from gnnbench_runtime import kernels
from gnnbench_runtime.calibration.collectives import sweep_all
from gnnbench_runtime.calibration.workloads import (
    WARMUP_EPOCHS,
    Workload,
    of_turn,
    workloads,
)
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.memory import MemoryMeter
from gnnbench_runtime.probe import speed_probe
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.recorder import Recorder
from gnnbench_runtime.rehearsal import rehearse

PROBE_ROUNDS = 3
PROBE_EPOCHS = 3  # from one speed probe to the next; the first is not kept
FACTS = ("rows", "nonzeros", "width", "inner", "source_rows", "bytes", "flops")


class _Kept:
    """A ledger writer that keeps rows in memory."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def append(self, rows: Any) -> None:
        self.rows += [Row(*row) for row in rows]

    def close(self) -> None:
        """Nothing is open."""


def main(arguments: list[str]) -> int:
    """Measure as this rank. A request for no probes (count 0) is one for sweeps alone."""
    folder, rank, world_size = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    torch.set_num_threads(request["threads"])
    device = torch.device(request["device"])
    if world_size > 1:
        devices.open_store_group(folder / "store", rank, world_size, device)
    kept = _Kept()
    recorder = Recorder(device, writer=kept)  # type: ignore[arg-type]
    comm = Comm(recorder, rank=rank, world_size=world_size, device=device)
    memory = MemoryMeter(device)
    backend = kernels.backend(device, request["threads"])
    comm.sync()
    speed_probe(device)
    content: dict[str, Any] = {
        "steps": [],
        "probes": [],
        "collectives": [],
    }
    todo = of_turn(
        workloads(
            request["count"], threads=request["threads"], epochs=request["epochs"], ranks=world_size
        ),
        request.get("turn", 0),
        request.get("turns", 1),
    )
    kinds = {(w.run.approach == "sampled", w.run.model.kind == "gat"): w for w in reversed(todo)}
    for workload in kinds.values():  # one of each: load and compile what runs will use
        context = _context(workload, comm, recorder, backend, folder)
        graph = planted_partition(**workload.options)
        rehearse(_trainer_type(workload), APPROACHES.get(workload.run.approach), context, graph)
        del graph
    memory.take_baseline()
    content["baseline_bytes"] = memory.report(rank)["baseline_bytes"]
    for number, workload in enumerate(todo):
        context = _context(workload, comm, recorder, backend, folder)
        measure(workload, context, kept, comm, content)
        _say(folder, rank, number + 1, len(todo))
    if world_size > 1:
        content["collectives"] = sweep_all(comm, device, request["sweeps"])
    write_json(folder / f"samples-rank{rank}.json", content)
    return 0


def _context(
    workload: Workload, comm: Comm, recorder: Recorder, backend: Any, folder: Path
) -> RankContext:
    """A probe on one rank talks to nobody: the peers beside it are there to contend."""
    alone = workload.run.ranks == 1
    return RankContext(
        run=workload.run,
        rank=0 if alone else comm.rank,
        world_size=workload.run.ranks,
        device=comm.device,
        comm=Comm(recorder, device=comm.device) if alone else comm,
        recorder=recorder,
        kernels=backend,
        cache=folder,
    )


def _trainer_type(workload: Workload) -> Any:
    module, _, name = APPROACHES.get(workload.run.approach).runtime.partition(":")
    return getattr(import_module(module), name)


def measure(
    workload: Workload,
    context: RankContext,
    kept: _Kept,
    peers: Comm,
    content: dict[str, Any],
) -> None:
    """Train one probe; keep one sample per step of its plan, the median over timed epochs.

    The speed probe runs before every few epochs, so that what a drifting machine did to them can be
    taken out of them. The epoch right after it is not kept: the probe took the caches and the
    allocator's pages, which in training belong to the epoch before.
    """
    run = workload.run
    approach = APPROACHES.get(run.approach)
    graph = planted_partition(**workload.options)
    structure = approach.structure(graph, run)
    trainer = _trainer_type(workload)(context, graph, structure)
    plan = approach.plan(
        graph, run, structure, Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    )
    kept.rows.clear()
    epoch_s, probes = [], []
    for epoch in range(run.training.epochs):
        peers.sync()
        if epoch == 0 or _is_settling(epoch):
            content["probes"].append(speed_probe(context.device, PROBE_ROUNDS))
            peers.sync()
        probes.append(content["probes"][-1])
        context.recorder.epoch_begin(epoch)
        begin = perf_counter()
        trainer.train_epoch(epoch)
        if context.device.type == "cuda":
            torch.cuda.synchronize(context.device)
        epoch_s.append(perf_counter() - begin)
        context.recorder.epoch_end()
    keep_samples(plan, context.rank, kept.rows, epoch_s, probes, content, workload.only)
    trainer.close()
    del trainer, graph, structure
    gc.collect()


def _is_settling(epoch: int) -> bool:
    """Whether the epoch follows a speed probe, after the first ones, which are not kept either."""
    return epoch >= WARMUP_EPOCHS and (epoch - WARMUP_EPOCHS) % PROBE_EPOCHS == 0


def keep_samples(
    plan: Plan,
    rank: int,
    rows: list[Row],
    epoch_s: list[float],
    probes: list[float],
    content: dict[str, Any],
    only: frozenset[str] = frozenset(),
) -> None:
    """Keep one sample per step name: mean facts, and median time and gap over timed iterations.

    Times are in units of the speed probe of their epoch: dimensionless until the fit, which knows
    what the probe usually takes. Batches of one probe are alike, so many noisy times of nearly one
    shape become one steady time of their mean shape.
    """
    gaps = _gaps(rows, epoch_s)
    times: dict[str, list[float]] = defaultdict(list)
    after: dict[str, list[float]] = defaultdict(list)
    facts: dict[str, list[Step]] = defaultdict(list)
    per_epoch = plan.iterations_per_epoch
    planned = [{step.name: step for step in iteration[rank]} for iteration in plan.iterations]
    for row, gap_s in zip(rows, gaps, strict=True):
        if row.epoch < WARMUP_EPOCHS or _is_settling(row.epoch) or row.phase == Phase.EVALUATE:
            continue
        index = 0 if len(planned) == 1 else row.epoch * per_epoch + row.iteration
        step = planned[index].get(row.name) if index < len(planned) else None
        if step is not None and step.kind not in COMMUNICATION:
            times[row.name].append(row.duration_s / probes[row.epoch])
            facts[row.name].append(step)
            after[row.name].append(max(gap_s, 1e-8) / probes[row.epoch])
    content["workloads"] = content.get("workloads", 0) + 1
    for name, steps in facts.items():
        if only and steps[0].op not in only:
            continue
        mean = {fact: statistics.fmean(getattr(s, fact) for s in steps) for fact in FACTS}
        content["steps"].append(
            {
                "op": steps[0].op,
                "kind": steps[0].kind.value,
                "probes": statistics.median(times[name]),
                "gap_probes": 0.0 if only else statistics.median(after[name]),
                "workload": content["workloads"],
                **{fact: round(value) for fact, value in mean.items()},
            }
        )


def _gaps(rows: list[Row], epoch_s: list[float]) -> list[float]:
    """Seconds from the end of each step to the next one's start.

    Before the first and after the last step of an epoch, too, time passes: all steps share it.
    """
    gaps = [0.0] * len(rows)
    places: dict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.epoch].append(place)
    for epoch, own in places.items():
        own.sort(key=lambda place: rows[place].start_s)
        for place, following in pairwise(own):
            end = rows[place].start_s + rows[place].duration_s
            gaps[place] = max(rows[following].start_s - end, 0.0)
        busy = sum(rows[place].duration_s + gaps[place] for place in own)
        for place in own:
            gaps[place] += max(epoch_s[epoch] - busy, 0.0) / len(own)
    return gaps


def _say(folder: Path, rank: int, done: int, total: int) -> None:
    if rank == 0:
        (folder / "progress").write_text(f"{done}/{total}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
