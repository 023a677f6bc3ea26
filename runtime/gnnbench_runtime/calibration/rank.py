"""One rank of a calibration: trains probe workloads with its peers, then sweeps collectives.

Started as `python -m gnnbench_runtime.calibration.rank FOLDER RANK WORLD_SIZE`; reads
FOLDER/request.json, writes FOLDER/samples-rank<r>.json. All ranks of a host work on the same probe
at the same time, because operations slow one another down there as in real runs.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.atomic import write_json
from gnnbench.costs.facts import PER_CALL
from gnnbench.data.source import Library
from gnnbench.iterations import RankSteps
from gnnbench.ledger import Row
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import COMMUNICATION, STORAGE, Phase, Work
from gnnbench_runtime import device as devices
from gnnbench_runtime import kernels
from gnnbench_runtime.calibration.collectives import sweep_all
from gnnbench_runtime.calibration.draws import sweep_draws
from gnnbench_runtime.calibration.shapes import sweep_shapes
from gnnbench_runtime.calibration.workloads import WARMUP_EPOCHS, Workload
from gnnbench_runtime.comm import Comm
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
    """Measure as this rank. A request without probes is one for sweeps of collectives alone."""
    folder, rank, world_size = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    torch.set_num_threads(request["threads"])
    device = torch.device(request["device"])
    if world_size > 1:
        devices.open_store_group(folder / "store", rank, world_size, device)
    kept = _Kept()
    # Rows are read once at the end of a probe; a file would add writes to what is timed.
    recorder = Recorder(device, writer=kept)  # type: ignore[arg-type]
    comm = Comm(recorder, rank=rank, world_size=world_size, device=device)
    backend = kernels.backend(device, request["threads"])
    comm.sync()
    # The first probe compiles and allocates; only later ones are comparable.
    speed_probe(device)
    content: dict[str, Any] = {
        "steps": [],
        "probes": [],
        "probe_workloads": [],
        "collectives": [],
        "workloads": 0,
    }
    todo = [
        Workload(run=RunSpec.from_dict(probe["run"]), only=frozenset(probe["only"]))
        for probe in request["probes"]
    ]
    for workload in _one_of_each(todo):  # load and compile what runs will use
        context = _context(workload, comm, recorder, backend, folder)
        data: Any = Library([]).open(workload.run.dataset)
        rehearse(_trainer_type(workload), APPROACHES.get(workload.run.approach), context, data)
        del data
    for number, workload in enumerate(todo):
        context = _context(workload, comm, recorder, backend, folder)
        measure(workload, context, kept, comm, content)
        _say(folder, rank, number + 1, len(todo))
    if todo and request.get("shapes"):
        count = request["shapes"]
        content["steps"] += sweep_shapes(
            device,
            backend,
            comm,
            count=count,
            first=count * request["turn"],
            workload=content["workloads"],
            needed=frozenset(request["ops"]),
        )
        content["workloads"] += count
    if request.get("draws"):
        runs = [RunSpec.from_dict(run) for run in request["draws"]]
        contexts = [_context(Workload(run=run), comm, recorder, backend, folder) for run in runs]
        drawn = sweep_draws(contexts, comm, workload=content["workloads"])
        content["steps"] += [step for step in drawn if step["op"] in request["ops"]]
        content["workloads"] += len(runs)
    if world_size > 1:
        content["collectives"] = sweep_all(comm, device, request["sweeps"])
    write_json(folder / f"samples-rank{rank}.json", content)
    return 0


def _one_of_each(todo: Sequence[Workload]) -> list[Workload]:
    """The first probe of each approach and kind of model."""
    # Reversed, so that the first probe of each kind remains in the dictionary.
    return list({(w.run.approach, w.run.model.kind): w for w in reversed(todo)}.values())


def _context(
    workload: Workload, comm: Comm, recorder: Recorder, backend: Any, folder: Path
) -> RankContext:
    """Context of a probe on one rank: no communication; its peers only compete for the host."""
    # A rank that probes alone has no collectives; its peers run the same probe to load the host as
    # in training.
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

    The speed probe runs before every few epochs, so that drift of the machine can be divided out.
    The epoch right after it is not kept: the probe displaced caches and allocator pages that in
    training belong to the previous epoch.
    """
    run, recorder = workload.run, context.recorder
    # Data and structure are made anew per probe, so that a probe's memory ends with it.
    approach = APPROACHES.get(run.approach)
    data: Any = Library([]).open(run.dataset)
    structure = approach.structure(data, run)
    trainer = _trainer_type(workload)(context, data, structure)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks, device=context.device.type)
    plan = approach.plan(data, run, structure, layout)
    kept.rows.clear()
    period_s, probes = [], []
    recorder.arrive(plan.periods, ())
    warm_up = _warm_up(plan.num_periods)
    for period in range(plan.num_periods):
        peers.sync()
        # The machine's clock drifts with temperature and neighbours: a probe every few epochs
        # divides it out.
        if period == 0 or _is_settling(period, warm_up):
            content["probes"].append(speed_probe(context.device, PROBE_ROUNDS))
            content["probe_workloads"].append(content["workloads"] + 1)
            peers.sync()
        probes.append(content["probes"][-1])
        recorder.period_begin(period)
        begin = perf_counter()
        trainer.train_period(period)
        if context.device.type == "cuda":
            torch.cuda.synchronize(context.device)
        # Both are asked from the host's clock, as a run's record is.
        period_s.append(perf_counter() - begin)
        recorder.period_end()
    keep_samples(
        plan,
        context.rank,
        kept.rows,
        period_s,
        probes,
        content,
        workload.only,
        graph=run.dataset.generator,
    )
    trainer.close()
    del trainer, data, structure
    # The next probe must not begin with this one's garbage.
    gc.collect()


def _is_settling(period: int, warm_up: int = WARMUP_EPOCHS) -> bool:
    """Whether the period follows a speed probe, after the first ones, which are not kept either."""
    return period >= warm_up and (period - warm_up) % PROBE_EPOCHS == 0


def _warm_up(periods: int) -> int:
    """Periods that are not kept: fewer where there are few, as of a short stream."""
    return min(WARMUP_EPOCHS, periods // 2)


def keep_samples(
    plan: Plan,
    rank: int,
    rows: list[Row],
    period_s: list[float],
    probes: list[float],
    content: dict[str, Any],
    only: frozenset[str] = frozenset(),
    *,
    graph: str = "",
) -> None:
    """Keep one sample per step name: mean facts, and median time and gap over timed iterations.

    If a step represents several equal calls, the sample is one call.

    Times are divided by the speed probe of their period; the fit multiplies them by the probe's
    usual time. Batches of one probe have similar shapes, so that many noisy times of nearly one
    shape become one steady time of their mean shape. `graph` is the kind of graph.
    """
    # Time between steps is Python and allocation: it belongs to no kernel and is fitted as a class
    # of its own.
    gaps = _gaps(rows, period_s)
    times: dict[str, list[float]] = defaultdict(list)
    after: dict[str, list[float]] = defaultdict(list)
    facts: dict[str, list[Work]] = defaultdict(list)
    works, warm_up = _Works(plan, rank), _warm_up(plan.num_periods)
    for row, gap_s in zip(rows, gaps, strict=True):
        early = row.period < warm_up or _is_settling(row.period, warm_up)
        if early or row.phase == Phase.EVALUATE:
            continue
        # A step that the plan does not have is not calibrated; conformance reports it.
        done = works.of(row)
        if done is not None and done.kind not in COMMUNICATION | STORAGE:
            times[row.name].append(row.duration_s / probes[row.period])
            facts[row.name].append(done)
            # At least 10 ns: the fit takes logarithms.
            after[row.name].append(max(gap_s, 1e-8) / probes[row.period])
    content["workloads"] += 1
    for name, found in facts.items():
        if only and found[0].op not in only:
            continue
        # A fused step represents several equal calls, and constants hold for one call.
        calls = max(statistics.fmean(int(done.calls) for done in found), 1.0)
        mean = {fact: statistics.fmean(getattr(w, fact) for w in found) for fact in FACTS}
        content["steps"].append(
            {
                "op": found[0].op,
                "kind": found[0].kind.value,
                "probes": statistics.median(times[name]) / calls,
                "gap_probes": 0.0 if only else statistics.median(after[name]),
                "workload": content["workloads"],
                "graph": graph,
                **_reuse(found),
                **{
                    fact: round(value / calls if fact in PER_CALL else value)
                    for fact, value in mean.items()
                },
            }
        )


def _reuse(works: Sequence[Work]) -> dict[str, list[float]]:
    """The mean reuse of the works' source rows, where their order is known."""
    found = [work.reuse.shares for work in works if work.reuse is not None and work.reuse.known]
    # A sample mixes works of one step; if the order of one is unknown, the mean would be of others.
    return {"reuse": np.mean(found, axis=0).tolist()} if len(found) == len(works) else {}


class _Works:
    """The planned work of a rank's steps, by place in the schedule and name."""

    def __init__(self, plan: Plan, rank: int) -> None:
        self._plan, self._rank = plan, rank
        self._known: dict[int, dict[str, Work]] = {}

    def of(self, row: Row) -> Work | None:
        """The work of a recorded step; None if the plan has no such step."""
        index = self._plan.schedule[self._plan.starts[row.period] + row.iteration]
        if index not in self._known:
            steps: RankSteps = self._plan.iterations[index][self._rank]
            self._known[index] = {step.name: step.work for step in steps}
        return self._known[index].get(row.name)


def _gaps(rows: list[Row], period_s: list[float]) -> list[float]:
    """Seconds from the end of each step to the next one's start.

    Before the first and after the last step of a period, too, time passes: all steps share it.
    """
    gaps = [0.0] * len(rows)
    places: dict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.period].append(place)
    for period, own in places.items():
        own.sort(key=lambda place: rows[place].start_s)
        for place, following in pairwise(own):
            end = rows[place].start_s + rows[place].duration_s
            gaps[place] = max(rows[following].start_s - end, 0.0)
        busy = sum(rows[place].duration_s + gaps[place] for place in own)
        for place in own:
            # What is left of the period before its first and after its last step is spread evenly.
            gaps[place] += max(period_s[period] - busy, 0.0) / len(own)
    return gaps


def _say(folder: Path, rank: int, done: int, total: int) -> None:
    if rank == 0:
        (folder / "progress").write_text(f"{done}/{total}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
