"""The launcher: start the ranks of one run, watch them, and write down how it ended.

Every run gets fresh processes, so that memory baselines are honest and nothing of a failed run
lives on. Whatever happens to a rank becomes a record; only what happens to the launcher itself
(Ctrl-C, a full disk) is raised.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gnnbench import errors, owner
from gnnbench.data.dataset import Dataset
from gnnbench.errors import MissingExtra, RunFailed, Unsupported
from gnnbench.plan import Plan
from gnnbench.results import Results, RunRecord
from gnnbench.spec import RunSpec
from gnnbench_runtime.held import hold, plan_run
from gnnbench_runtime.job import DEVICES, Job, generations_folder
from gnnbench_runtime.merge import merge
from gnnbench_runtime.pulse import Beat, PulseReader
from gnnbench_runtime.watchdog import MemoryHint, Verdict, cause, died, hung
from gnnbench_runtime.watching import Pace, Watch, unwatched

_POLL_S = 0.25
# How long after the first end of a rank others may still say that they were the cause.
_GRACE_S = 2.0


def launch(
    run: RunSpec,
    data: Dataset,
    folder: Path,
    results: Results,
    *,
    device: str = "auto",
    facts: dict[str, Any] | None = None,
    watch: Watch = unwatched,
) -> RunRecord:
    """Train one run on local ranks and return its record, saved in `results`.

    Args:
        run: what to train; its dataset has a digest.
        data: the dataset.
        folder: where it lies in native form.
        results: where the record is saved.
        device: "auto", "cpu" or "cuda".
        facts: of the dataset, for the record.
        watch: told what the run does.
    """
    record = new_record(run, facts or {})
    # Ledgers of an earlier try would be read as those of this one.
    clear(results.run_folder(run.run_id))
    # Saved before the ranks start: a launcher that is killed leaves a run marked as running, not
    # none.
    results.save_run(record)
    begin = time.monotonic()
    with owner.scratch("gnnbench-run-") as scratch:
        try:
            job = _job(run, folder, results, scratch, device)
            watch(run, "is planned")
            plan = plan_run(
                run, data, job.cache, device=job.device, ranks_per_host=job.ranks_per_host
            )
            job = dataclasses.replace(job, periods=plan.periods, releases=plan.releases)
            record = _ended(job, plan, record, _watch(job, watch))
            if record.status == "ok":
                results.save_run(record)  # before what it was resumed from is removed
                shutil.rmtree(generations_folder(job.cache, run.run_id), ignore_errors=True)
        # Ctrl-C is not a failure of the run; the record keeps the time and a later command trains
        # it again.
        except KeyboardInterrupt:
            record.reason = "interrupted"
            record.wall_s = time.monotonic() - begin
            results.save_run(record)
            raise
        except (Unsupported, MissingExtra) as error:
            record = judged(record, Verdict("skipped", str(error)))
    record.wall_s = time.monotonic() - begin
    results.save_run(record)
    # A full disk leaves the record at "running"; every later run would end the same way, so the
    # suite stops.
    if record.status == "running":
        raise OSError(errno.ENOSPC, record.reason, str(results.folder))
    return record


def _ended(job: Job, plan: Plan, record: RunRecord, verdict: Verdict | None) -> RunRecord:
    """The record of a run whose ranks have ended, held to its plan."""
    if verdict is not None:
        return judged(record, verdict)
    # Parts exist for all ranks: `_until_end` returns None only where every rank wrote its own.
    parts = [_json(job.part(rank)) for rank in range(job.world_size)]
    return finished(record, parts, plan, job.run_folder)


def finished(
    record: RunRecord, parts: Sequence[dict[str, Any]], plan: Plan, run_folder: Path
) -> RunRecord:
    """Merge the ranks' parts; a difference from the plan makes the run a failed one."""
    merged = merge(record, parts, plan)
    try:
        merged.held = hold(plan, run_folder).as_record()
    except RunFailed as error:
        return judged(merged, Verdict("failed", error.reason, error.rank, "plan"))
    return merged


def new_record(run: RunSpec, facts: dict[str, Any]) -> RunRecord:
    """Return the record of a run that begins now."""
    return RunRecord(
        run_id=run.run_id,
        config_id=run.config_id,
        spec=run.to_dict(),
        non_defaults=run.non_defaults(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset=facts,
    )


def judged(record: RunRecord, verdict: Verdict) -> RunRecord:
    """Return the record with a verdict in it."""
    return dataclasses.replace(
        record,
        status=verdict.status,
        reason=verdict.reason,
        failed_rank=verdict.rank if verdict.status == "failed" else None,
        failed_phase=verdict.phase if verdict.status == "failed" else "",
    )


def cuda_devices() -> int:
    """Return how many CUDA devices torch would see; torch is imported only if there may be one."""
    # Importing torch takes a second, which commands on a machine without a GPU need not pay.
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
        return 0
    import torch

    return torch.cuda.device_count()


def choose_device(asked: str, ranks_per_host: int) -> tuple[str, str, bool]:
    """Return kind of device, backend, and whether ranks must share a GPU. Raises Unsupported."""
    if asked not in DEVICES:
        raise Unsupported(f"device {asked!r}: allowed: {', '.join(DEVICES)}")
    devices = 0 if asked == "cpu" else cuda_devices()
    if asked == "cuda" and not devices:
        raise Unsupported("device cuda: torch sees no CUDA device here; use --device cpu")
    return ("cuda", "nccl", ranks_per_host > devices) if devices else ("cpu", "gloo", False)


def _job(run: RunSpec, data: Path, results: Results, scratch: Path, device: str) -> Job:
    kind, backend, practice = choose_device(device, run.ranks)
    return Job(
        run=run,
        run_folder=results.run_folder(run.run_id).absolute(),
        data=data.absolute(),
        cache=results.cache("shared").absolute(),
        scratch=scratch,
        world_size=run.ranks,
        ranks_per_host=run.ranks,
        device=kind,
        backend=backend,
        practice=practice,
        launcher=os.getpid(),
    )


def _watch(job: Job, watch: Watch) -> Verdict | None:
    """Run the ranks to their end; return None if all ended well."""
    readers = [PulseReader(job.pulse(rank)) for rank in range(job.world_size)]
    kills_before = _oom_kills()
    with _ranks(job) as processes, selectors.DefaultSelector() as selector:
        for rank, process in enumerate(processes):
            # A pidfd becomes readable when the process ends, so that an end is seen at once and
            # without polling each process.
            selector.register(os.pidfd_open(process.pid), selectors.EVENT_READ, rank)
        try:
            return _until_end(job, processes, readers, selector, kills_before, watch)
        finally:
            for key in list(selector.get_map().values()):
                os.close(key.fd)
            for reader in readers:
                reader.close()


def _until_end(
    job: Job,
    processes: list[subprocess.Popen[bytes]],
    readers: list[PulseReader],
    selector: selectors.BaseSelector,
    kills_before: int,
    watch: Watch,
) -> Verdict | None:
    pace = Pace(len(job.periods))
    begun_s = time.perf_counter()
    # Ranks that end well leave this table; the loop ends with the last one.
    running = dict(enumerate(processes))
    ended: list[tuple[Verdict, str]] = []
    deadline: float | None = None
    held: dict[int, MemoryHint] = {}
    while running:
        for key, _ in selector.select(_POLL_S):
            rank = key.data
            selector.unregister(key.fd)
            os.close(key.fd)
            # The exit code alone is not enough: a rank that was killed while it wrote has no part.
            code = running.pop(rank).wait()
            if code == 0 and job.part(rank).exists():
                continue
            # What the rank itself said is better evidence than its exit code.
            said = _json(job.failure(rank)) if job.failure(rank).exists() else None
            kills = _oom_kills() - kills_before
            hint = dataclasses.replace(held.get(rank, MemoryHint()), oom_kills=kills)
            output = _tail(job, rank)
            verdict = died(rank, code, readers[rank].read(), said, hint, output)
            if said is None:
                job.error_log(rank).write_text(f"{verdict.reason}\n\n{output}", encoding="utf-8")
            ended.append((verdict, said["kind"] if said else "died"))
            # The first end starts the grace period: ranks that fail because a peer vanished end
            # later than the peer, and the cause is to be named, not the consequence.
            deadline = deadline or time.monotonic() + _GRACE_S
        if any(kind != "peer" for _, kind in ended):
            return cause(ended)
        if deadline is not None and (not running or time.monotonic() > deadline):
            return cause(ended)
        # Read while the ranks live: the size of a process cannot be asked after its end.
        held = {rank: _memory_hint(process.pid) for rank, process in running.items()}
        watch(job.run, pace.words([readers[rank].read() for rank in running]))
        beats = {rank: _alive(readers[rank].read(), begun_s) for rank in running}
        # After a death the others wait in a collective and would look hung.
        hang = None if ended else hung(beats, time.perf_counter(), _timeout_s(job))
        if hang is not None:
            for rank, process in running.items():
                _ask_where(job, rank, process, hang)
            return hang
    return None


@contextmanager
def _ranks(job: Job) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start all ranks; on leaving, end and reap whichever still run."""
    path = job.write()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(job.world_size):
            with job.output(rank).open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "gnnbench_runtime.worker", str(path), str(rank)],
                        env=rank_environment(
                            rank, job.world_size, job.run.training.threads_per_rank
                        ),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        # A session of its own keeps the terminal's Ctrl-C from the ranks; the
                        # launcher ends them in order.
                        start_new_session=True,
                    )
                )
        yield processes
    # SIGKILL, because a rank inside a collective does not return to Python to handle SIGTERM.
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        for process in processes:
            # All are killed before the first is waited for: waiting in between would let the others
            # time out.
            process.wait()


def rank_environment(rank: int, world_size: int, threads: int) -> dict[str, str]:
    """Return the environment of a local rank: its place, its threads, where the packages lie."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    roots = [Path(errors.__file__).parents[1], Path(__file__).parents[1]]
    path = [*map(str, roots), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        **dict.fromkeys(names, str(threads)),
        # Idle OpenMP threads must not spin on the cores that samplers and other ranks need.
        "OMP_WAIT_POLICY": "passive",
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(rank),
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(path),
    }


def _ask_where(job: Job, rank: int, process: subprocess.Popen[bytes], verdict: Verdict) -> None:
    """Have a rank of a hung run write its stack into its error log."""
    # The stack is written by the rank's own signal handler; a rank that is stuck in the kernel
    # writes none, so the wait is bounded.
    before = len(_tail(job, rank))
    process.send_signal(signal.SIGUSR1)
    until = time.monotonic() + 1.0
    while len(_tail(job, rank)) == before and time.monotonic() < until:
        time.sleep(0.02)
    job.error_log(rank).write_text(f"{verdict.reason}\n\n{_tail(job, rank)}", encoding="utf-8")


def _alive(beat: Beat, begun_s: float) -> Beat:
    """A rank that has not yet written its pulse counts from the start of the ranks.

    Both by `perf_counter`, which no change of the wall clock moves and which processes share.
    """
    return beat if beat.time_s else dataclasses.replace(beat, time_s=begun_s)


def _timeout_s(job: Job) -> float:
    return job.run.training.timeout_s


def clear(folder: Path) -> None:
    """Remove what an earlier try of the run has left."""
    for path in (*folder.glob("ledger-rank*.csv"), *folder.glob("error-rank*.log")):
        path.unlink(missing_ok=True)


def _tail(job: Job, rank: int) -> str:
    try:
        # The end of the output has the error; a rank that prints without end must not fill the
        # record.
        return job.output(rank).read_text(encoding="utf-8", errors="replace")[-20_000:]
    except OSError:
        return ""


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _memory_hint(pid: int) -> MemoryHint:
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        held = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        lines = Path("/proc/meminfo").read_text().splitlines()
    except (OSError, IndexError):
        return MemoryHint()
    sizes = {key: int(rest.split()[0]) * 1024 for key, _, rest in (x.partition(":") for x in lines)}
    return MemoryHint(held, sizes.get("MemAvailable", 0), sizes.get("MemTotal", 0))


def _oom_kills() -> int:
    """Return how often the kernel has killed for memory in this control group or machine."""
    # Version 2 of control groups first, then version 1, then the whole machine.
    for path, key in (
        ("/sys/fs/cgroup/memory.events", "oom_kill"),
        ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
        ("/proc/vmstat", "oom_kill"),
    ):
        try:
            for line in Path(path).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == key:
                    return int(value)
        except (OSError, ValueError):
            continue
    return 0
