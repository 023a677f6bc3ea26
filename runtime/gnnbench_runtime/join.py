"""Joining: training with ranks that torchrun or srun has started, without our launcher.

Every rank runs the same command; rank 0 decides what to run and writes the records. The process
group lives as long as the command, so a failing rank ends the launch: it saves the failed record
and exits, torchrun or srun ends the others, and the same command resumes the suite. This needs a
results folder that all ranks see.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from gnnbench import owner
from gnnbench.approaches.names import APPROACHES
from gnnbench.data import source
from gnnbench.data.formats import native
from gnnbench.errors import GnnbenchError, MissingExtra, RunFailed, SpecError, Unsupported
from gnnbench.plan import Plan
from gnnbench.results import Results, RunRecord
from gnnbench.spec import DEFAULT_TASKS, RunSpec
from gnnbench_runtime.held import plan_run
from gnnbench_runtime.job import Job
from gnnbench_runtime.launch import choose_device, clear, finished, judged, new_record
from gnnbench_runtime.pulse import Pulse, PulseReader
from gnnbench_runtime.watchdog import Verdict, hung

MEETING_VARIABLE = "GNNBENCH_MEETING_S"
"""Seconds that joined ranks wait for one another at the start (default 300)."""
_NOTE = "joined ranks live on between runs, so memory baselines include earlier runs"


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """This process among those that a launcher has started."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def joined() -> World | None:
    """Return the world of ranks into which torchrun or srun has put this process, or None.

    A batch script itself is not a task of a Slurm step and returns None.
    """
    for names in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    ):
        values = [os.environ.get(name, "") for name in names]
        # One rank is no launch of its own: `gnnbench run` then starts its own ranks.
        if values[0].isdigit() and values[1].isdigit() and int(values[1]) > 1:
            rank, size = int(values[0]), int(values[1])
            if rank >= size:
                raise SpecError(
                    f"{names[0]}={rank}: found with {names[1]}={size}; allowed below it"
                )
            # Slurm writes "4(x2)" or "4,3"; what differs between nodes is the exception.
            local_size = values[3].split("(")[0].split(",")[0]
            local = int(values[2]) if values[2].isdigit() else rank
            return World(rank, size, local, int(local_size) if local_size.isdigit() else size)
    return None


def run_joined(
    runs: Sequence[RunSpec],
    results: Results,
    roots: Sequence[Path],
    world: World,
    *,
    device: str = "auto",
    retry_failed: bool = False,
) -> Iterator[tuple[RunRecord, bool]]:
    """Yield the records of the runs that fit this world, the same on every rank.

    Raises RunFailed when a rank fails, after saving the record.
    """
    # Late, because the launcher of a laptop imports this module and has no use for
    # torch.distributed.
    import torch.distributed as dist

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a collective would not let a handler run
    # A joined launch has one process group for all runs; the longest timeout fits each.
    harness = _open(world, device, max([run.training.timeout_s for run in runs], default=120.0))
    mine = ExitStack()
    try:
        harness.first(lambda: mine.enter_context(results.training()))
        datasets = source.Library(roots, results.folder / "cache")
        for asked in runs:
            run = harness.identified(datasets, asked)
            # Rank 0 alone reads the results folder: on a shared file system others may see it
            # later, and all must decide alike.
            before = harness.first(lambda run=run: _kept(results, run, retry_failed))
            if before is not None:
                yield RunRecord(**before), True
            elif run.ranks != world.size:
                reason = f"this launch has {world.size} ranks, the run asks for {run.ranks}"
                yield judged(new_record(run, {}), Verdict("skipped", reason)), False
            else:
                yield _together(run, results, roots, harness, device), False
    except _CannotRun as error:
        raise RunFailed(error.verdict.reason) from None
    finally:
        mine.close()
        dist.destroy_process_group()


class _Harness:
    """The ranks' agreement outside of runs."""

    def __init__(self, world: World, comm: Any) -> None:
        self.world, self.comm = world, comm

    def first(self, decide: Any) -> Any:
        """Return on every rank what rank 0 finds; its error is raised on every rank."""
        said = self._try(decide) if self.world.rank == 0 else None
        return self._told(self.comm.exchange(said)[:1])

    def identified(self, datasets: source.Library, run: RunSpec) -> RunSpec:
        """The run with its dataset identified; as it is where the dataset cannot be opened."""

        def identity() -> dict[str, str]:
            found = datasets.identified(run).dataset
            return {"kind": found.kind, "digest": found.digest}

        try:
            found = self.first(identity)
        except _CannotRun:
            return run  # the attempt to run it says why
        return dataclasses.replace(run, dataset=dataclasses.replace(run.dataset, **found))

    def each(self, work: Any) -> Any:
        """Work on every rank; an error of any is raised on every rank. Returns rank 0's result."""
        return self._told(self.comm.exchange(self._try(work)))

    @staticmethod
    def _try(work: Any) -> dict[str, Any]:
        try:
            return {"value": work()}
        except Exception as error:  # whatever it is, the other ranks wait for word of it
            status = "skipped" if isinstance(error, Unsupported | MissingExtra) else "failed"
            said = " ".join(str(error).split())
            named = said if isinstance(error, GnnbenchError) else f"{type(error).__name__}: {said}"
            return {"error": named, "status": status}

    @staticmethod
    def _told(said: list[Any]) -> Any:
        for one in said:
            if one and "error" in one:
                raise _CannotRun(Verdict(one["status"], one["error"]))
        return said[0]["value"]


class _CannotRun(Exception):
    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


def _open(world: World, device: str, timeout_s: float) -> _Harness:
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    from gnnbench_runtime.comm import Comm
    from gnnbench_runtime.recorder import Recorder

    place = _meeting_place()
    # srun does not set it, and libraries that choose a device by it would all take device 0.
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
    kind, backend, practice = choose_device(device, world.local_size)
    if kind == "cuda":
        from gnnbench_runtime.device import practice_environment

        if practice:
            os.environ.update(practice_environment(world.rank))
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
    try:
        meeting = rendezvous("env://", world.rank, world.size, timeout=_meeting_time())
        store, _, _ = next(meeting)
        dist.init_process_group(
            backend,
            store=store,
            rank=world.rank,
            world_size=world.size,
            # Generous, because ranks meet here also while rank 0 converts a dataset.
            timeout=timedelta(seconds=max(300.0, 10 * timeout_s)),
        )
    except dist.DistError as error:
        said = " ".join(str(error).split())[:200]
        if "EADDRINUSE" in str(error):
            raise SpecError(f"port of {place} is taken: set another MASTER_PORT") from None
        raise RunFailed(
            f"the ranks do not meet at {place}, where rank 0 must be reached: {said}",
            rank=world.rank,
        ) from None
    here = torch.device(kind)
    if kind == "cuda":
        here = torch.device("cuda", torch.cuda.current_device())
    comm = Comm(Recorder(here), rank=world.rank, world_size=world.size, device=here)
    return _Harness(world, comm)


def _meeting_place() -> str:
    """Host and port of rank 0 by the environment. Raises SpecError for what names none."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise SpecError(f"{name} is not set: export it before srun (see recipes/suite.sbatch)")
    port = os.environ["MASTER_PORT"]
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SpecError(f"MASTER_PORT: found {port!r}, allowed 1..65535")
    return f"{os.environ['MASTER_ADDR']}:{port}"


def _meeting_time() -> timedelta:
    """How long ranks wait for one another before the first run."""
    text = os.environ.get(MEETING_VARIABLE, "300")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= 86_400:
        raise SpecError(f"{MEETING_VARIABLE}: found {text!r}, allowed seconds up to 86400")
    return timedelta(seconds=seconds)


def _kept(results: Results, run: RunSpec, retry_failed: bool) -> dict[str, Any] | None:
    before = results.finished(run, retry_failed=retry_failed)
    return None if before is None else dataclasses.asdict(before)


def _together(
    run: RunSpec, results: Results, roots: Sequence[Path], harness: _Harness, device: str
) -> RunRecord:
    world = harness.world
    record = new_record(run, {})
    begin = time.monotonic()
    cache, shared = results.folder / "cache", results.cache("shared").absolute()
    kind, backend, practice = choose_device(device, world.local_size)
    plans: list[Plan] = []

    def prepare() -> dict[str, Any]:
        approach = APPROACHES.get(run.approach)
        # The native form was written by whoever came first; loading it again is a memory map.
        data = native.load(source.native_folder(run.dataset, roots, cache))
        task = run.task.kind or DEFAULT_TASKS[data.kind]
        reason = data.cannot_train(task) or approach.cannot_run(run, data)
        if reason is not None:
            raise Unsupported(reason)
        approach.prepare(data, run, shared)
        record.dataset = source.describe(data, run.dataset)
        plan = plan_run(run, data, shared, device=kind, ranks_per_host=world.local_size)
        plans.append(plan)
        return {"periods": list(plan.periods), "releases": list(plan.releases)}

    def locate() -> str:
        return str(source.native_folder(run.dataset, roots, cache).absolute())

    try:
        schedule = harness.first(prepare)
        # Every rank must see the prepared files before any opens them.
        folder = Path(harness.each(locate))  # the ranks find what the first has prepared
    except _CannotRun as error:
        record = judged(record, error.verdict)
        if world.rank == 0:
            results.save_run(record)
        return record
    run_folder = results.run_folder(run.run_id)
    if world.rank == 0:
        clear(run_folder)
        results.save_run(record)
    # No rank may create its ledger before rank 0 has cleared the folder.
    harness.comm.sync()
    run_folder.mkdir(parents=True, exist_ok=True)
    with owner.scratch("gnnbench-run-") as scratch:
        job = Job(
            run=run,
            run_folder=run_folder.absolute(),
            data=folder,
            cache=shared,
            scratch=scratch,
            world_size=world.size,
            ranks_per_host=world.local_size,
            **schedule,
            device=kind,
            backend=backend,
            practice=practice,
            note=_NOTE,
        )
        part = _perform(job, world.rank, record, results)
    parts = harness.comm.exchange(part)

    def conclude() -> dict[str, Any]:
        ended = finished(record, parts, plans[0], run_folder)
        ended.wall_s = time.monotonic() - begin
        results.save_run(ended)
        return dataclasses.asdict(ended)

    return RunRecord(**harness.first(conclude))


def _perform(job: Job, rank: int, record: RunRecord, results: Results) -> dict[str, Any]:
    """Train as this rank; a failure is saved and raised as RunFailed."""
    from gnnbench_runtime.worker import failure, perform

    pulse = Pulse(job.pulse(rank))
    try:
        with _SelfWatch(job, rank, record, results):
            return perform(job, rank, pulse, group_is_open=True)
    except Exception as error:
        said = failure(error, pulse)
        with job.error_log(rank).open("w", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
        verdict = Verdict("failed", said["reason"], rank, said["phase"])
        _save_failure(verdict, said["kind"], record, results)
        raise RunFailed(said["reason"], rank=rank, phase=said["phase"]) from error


def _save_failure(verdict: Verdict, kind: str, record: RunRecord, results: Results) -> None:
    """Save a failed record, unless this is a consequence of a failure that is recorded already."""
    earlier = results.load_run(record.run_id)
    # A consequence must not replace its cause in the record.
    if kind == "peer" and earlier is not None and earlier.status == "failed":
        return
    if kind == "disk":
        verdict = dataclasses.replace(verdict, status="running")
    results.save_run(judged(record, verdict))


class _SelfWatch:
    """A thread that ends this rank when its own steps stop, for there is no launcher to do it."""

    def __init__(self, job: Job, rank: int, record: RunRecord, results: Results) -> None:
        self._job, self._rank, self._record, self._results = job, rank, record, results
        self._reader = PulseReader(job.pulse(rank))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="self-watch")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def _watch(self) -> None:
        timeout_s = self._job.run.training.timeout_s
        while not self._stop.wait(min(1.0, timeout_s / 4)):
            # Four looks per timeout, so that a hang is noticed at most a quarter late.
            beat = self._reader.read()
            if beat.in_collective:  # another rank's fault; its own watch will say so
                continue
            verdict = hung({self._rank: beat}, time.perf_counter(), timeout_s)
            if verdict is not None:
                _save_failure(verdict, "hung", self._record, self._results)
                shutil.rmtree(self._job.scratch, ignore_errors=True)
                # The main thread is inside a collective that never returns: only the process can be
                # ended.
                os._exit(1)
