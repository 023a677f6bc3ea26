"""The worker: one rank of one run, from an empty process to its part of the record.

Started by the launcher as `python -m gnnbench_runtime.worker JOB RANK`. Order: process group,
kernels, dataset (mapped), rehearsal, speed probe, memory baseline, structure, trainer, periods,
evaluation. Only `train_period` is timed as a period; barrier, ledger and evaluation lie outside.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import math
import os
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist

from gnnbench.approaches.names import APPROACHES
from gnnbench.atomic import write_json
from gnnbench.data.dataset import Dataset
from gnnbench.data.formats import native
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench.errors import GnnbenchError, MissingExtra, RunFailed, Unsupported, disk_is_full
from gnnbench.ledger import LedgerWriter
from gnnbench.resident import resident_bytes
from gnnbench_runtime import device as devices
from gnnbench_runtime import faults, kernels
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.durable import Durable
from gnnbench_runtime.gpu_meter import open_meter
from gnnbench_runtime.job import Job
from gnnbench_runtime.memory import MemoryMeter, release_free_memory
from gnnbench_runtime.peers import PeerLost
from gnnbench_runtime.probe import speed_probe
from gnnbench_runtime.protocol import RankContext, Trainer
from gnnbench_runtime.pulse import Pulse
from gnnbench_runtime.recorder import Recorder
from gnnbench_runtime.rehearsal import rehearse, scratch_context

_PR_SET_PDEATHSIG = 1
_GIB = 2**30


def main(arguments: list[str]) -> int:
    """Run the rank; on failure leave its reason and traceback where the launcher looks."""
    job, rank = Job.read(Path(arguments[0])), int(arguments[1])
    # A crash in a compiled kernel prints its stack into the rank's output.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # the launcher asks a hung rank where it is
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    _die_with(job.launcher)
    pulse = Pulse(job.pulse(rank))
    try:
        # The part is written before the group is destroyed: a peer that fails to leave must not
        # lose it.
        write_json(job.part(rank), perform(job, rank, pulse))
        pulse.stage("done")
        if dist.is_initialized():
            dist.destroy_process_group()
        return 0
    # BaseException, because SystemExit of a library, too, must leave a reason for the launcher.
    except BaseException as error:
        write_json(job.failure(rank), failure(error, pulse))
        with job.error_log(rank).open("w", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
        return 1


def perform(job: Job, rank: int, pulse: Pulse, *, group_is_open: bool = False) -> dict[str, Any]:
    """Train and measure as this rank; return its part of the record.

    Raises whatever went wrong; `failure` puts that into words.
    """
    clock = _Stopwatch()
    context, memory = _open_rank(job, rank, pulse, group_is_open=group_is_open)
    clock.lap("start")
    run, device, comm = context.run, context.device, context.comm
    data = native.load(job.data)
    approach = APPROACHES.get(run.approach)
    trainer_type = _trainer_type(approach.runtime)
    # Loads and compiles all code before memory and time are measured.
    rehearse(trainer_type, approach, scratch_context(context, job.scratch), data)
    comm.sync()
    clock.lap("rehearsal")
    probe_before_s = speed_probe(device)
    _settle(data)
    memory.take_baseline()
    # The cap counts from the baseline, so that it is set after it was measured.
    memory.limit(run.memory.caps())
    clock.lap("probe")
    trainer = _make_trainer(trainer_type, context, approach, data, clock)
    # Reading the dataset for the structure has mapped pages that training will not touch.
    _settle(data)
    memory.take_start()

    meter = open_meter(device)
    context.recorder.arrive(job.periods, job.releases)
    commits = _Commits(trainer, context.recorder, job.ledger(rank))
    periods, metrics = _train(trainer, context, memory, len(job.periods), commits)
    energy = meter.stop() if meter is not None else {}
    # Asked on every rank before the trainer frees its parameters.
    finite = trainer.is_finite()
    trainer.close()
    context.recorder.close()
    comm.sync()
    # The probe needs 36 MB of its own, which no prediction counts: under a tight cap, a run that
    # has trained to its end would be out of memory.
    memory.lift()
    probe_after_s = speed_probe(device)
    comm.close()
    used = {"device_used_bytes": energy["device_used_bytes"]} if energy else {}
    return {
        "rank": rank,
        "periods": periods,
        "metrics": metrics,
        "finite": finite,
        "memory": {**memory.report(rank), **used},
        "probe": {"before_s": probe_before_s, "after_s": probe_after_s},
        "energy": energy,
        "setup_s": clock.laps,
        "device": devices.describe(job, device),
        "versions": devices.versions(device),
    }


def _open_rank(
    job: Job, rank: int, pulse: Pulse, *, group_is_open: bool
) -> tuple[RankContext, MemoryMeter]:
    """Join the process group; make everything that a rank has before it sees data."""
    run = job.run
    pulse.stage("setup")
    # torch takes all cores by default, and ranks of one host would then compete.
    torch.set_num_threads(run.training.threads_per_rank)
    device = devices.open_device(job, rank)
    if not group_is_open:
        devices.open_group(job, rank, device)
    recorder = Recorder(device, writer=LedgerWriter(job.ledger(rank)), pulse=pulse)
    comm = Comm(
        recorder,
        rank=rank,
        world_size=job.world_size,
        device=device,
        staged=job.backend == "gloo_staged",
    )
    context = RankContext(
        run=run,
        rank=rank,
        world_size=job.world_size,
        device=device,
        comm=comm,
        recorder=recorder,
        kernels=kernels.backend(device, run.training.threads_per_rank),
        cache=job.cache,
    )
    memory = MemoryMeter(device)
    # All ranks take their baseline at the same stage.
    comm.sync()
    return context, memory


def _make_trainer(
    trainer_type: Any, context: RankContext, approach: Any, data: Any, clock: _Stopwatch
) -> Trainer:
    structure = approach.structure(data, context.run, context.cache)
    clock.lap("structure")
    trainer: Trainer = trainer_type(context, data, structure)
    clock.lap("trainer")
    trainer.warm_up()
    clock.lap("warm_up")
    return trainer


def _train(
    trainer: Trainer,
    context: RankContext,
    memory: MemoryMeter,
    num_periods: int,
    commits: _Commits,
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Train all periods; return what each was, and the metrics after the last."""
    run, recorder, comm = context.run, context.recorder, context.comm
    # A durable trainer begins after the periods that an earlier process committed.
    periods = commits.resume()
    metrics: dict[str, float] = dict(periods[-1]["metrics"]) if periods else {}
    every, last = run.training.evaluate_every, num_periods - 1
    for period in range(len(periods), num_periods):
        recorder.pulse.stage("train", period)
        # Tests make ranks fail here; without the environment's request it does nothing.
        faults.inject(context.rank, period, run.run_id)
        # All ranks begin a period together. Otherwise the first collective would include waiting
        # for a late rank.
        comm.sync()
        with memory.training():
            recorder.period_begin(period)
            begin = perf_counter()
            loss = trainer.train_period(period)
            if context.device.type == "cuda":
                # Kernels are asynchronous: the period ends when the device is idle, not when Python
                # is done.
                torch.cuda.synchronize(context.device)
            seconds = perf_counter() - begin
            ended = {"end_s": recorder.elapsed_s()} if recorder.arrives else {}
        moved = recorder.period_end()
        # Metrics that training itself yields, such as those of a stream that is evaluated before
        # learning.
        metrics = _floats(trainer.period_metrics())
        if period == last or (every and (period + 1) % every == 0):
            comm.sync()
            with memory.evaluation(), recorder.evaluating():
                metrics |= _floats(trainer.evaluate())
            # A model built for the evaluation refers to itself: until it is collected, its memory
            # would count as the next period's.
            gc.collect()
            release_free_memory()
        periods.append(
            {
                "period": period,
                "seconds": seconds,
                "loss": _finite(loss),
                "metrics": metrics,
                "bytes": moved,
                **ended,
            }
        )
        commits.commit(periods)
    return periods, metrics


class _Commits:
    """Commits the periods of a durable trainer, with their rows of the ledger."""

    def __init__(self, trainer: Trainer, recorder: Recorder, ledger: Path) -> None:
        self._durable: Durable | None = getattr(trainer, "durable", None)
        self._recorder, self._ledger, self._kept = recorder, ledger, 0

    def resume(self) -> list[dict[str, Any]]:
        """The records of the periods that an earlier process has committed."""
        if self._durable is None:
            return []
        periods, rows = self._durable.resume(), self._durable.ledger()
        self._recorder.take_up(rows)
        self._kept = len(rows)
        return periods

    def commit(self, periods: list[dict[str, Any]]) -> None:
        """Keep what the periods have learnt."""
        if self._durable is None:
            return
        with self._ledger.open("rb") as file:
            # Rows up to here were handed over with earlier periods.
            file.seek(self._kept)
            rows = file.read()
        self._durable.commit(periods, rows)
        self._kept += len(rows)


def _floats(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics that have a value: a mean over nothing has none."""
    return {key: float(value) for key, value in metrics.items() if math.isfinite(value)}


def failure(error: BaseException, pulse: Pulse) -> dict[str, Any]:
    """Put an exception into words for the launcher.

    kind: "peer" (a consequence of another rank's end), "skip" (cannot be done here), "memory",
    "disk" or "error".
    """
    where = pulse.where
    said = " ".join(str(error).split()) or "no message"
    kind, reason = "error", f"{type(error).__name__}: {said}"
    if isinstance(error, PeerLost):
        kind, reason = "peer", error.reason
    elif isinstance(error, Unsupported | MissingExtra):
        kind, reason = "skip", said
    elif _is_out_of_memory(error):
        held = resident_bytes() / _GIB
        kind, reason = "memory", f"out of memory: {said} (the rank held {held:.2f} GiB)"
    elif disk_is_full(error):
        kind, reason = (
            "disk",
            f"the disk is full writing {getattr(error, 'filename', None) or 'the ledger'}",
        )
    elif isinstance(error, RunFailed):
        reason = error.reason
    elif isinstance(error, GnnbenchError):
        reason = said
    return {
        "kind": kind,
        "reason": reason[:600],
        "phase": where.phase or where.stage,
        "period": where.period,
        "step": where.step,
    }


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _trainer_type(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _settle(data: Dataset) -> None:
    """Collect garbage and release mapped pages, so that set-up does not disturb the training."""
    gc.collect()
    gc.freeze()
    forget_mapped_pages(list(data.arrays().values()))


def _finite(loss: float) -> float | None:
    """Return the loss, or None where training has diverged (JSON knows no nan)."""
    return float(loss) if math.isfinite(loss) else None


def _die_with(launcher: int) -> None:
    # PR_SET_PDEATHSIG is Linux's; elsewhere the watchdog finds orphans later.
    """Have the kernel end this process when the launcher ends, however that happens."""
    if sys.platform == "linux" and launcher:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The launcher may have died between the fork and the call above.
        if os.getppid() != launcher:
            os._exit(1)


class _Stopwatch:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.laps[name], self._last = now - self._last, now


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not through the interpreter's shutdown: without its peers a process group can hang there.
    os._exit(status)
