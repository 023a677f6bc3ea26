"""The worker: one rank of one run, from an empty process to its part of the record.

Started by the launcher as `python -m gnnbench_runtime.worker JOB RANK`. Order: process group,
kernels, graph (mapped), rehearsal, speed probe, memory baseline, structure, trainer, epochs,
evaluation. Only `train_epoch` is timed as an epoch; barrier, ledger and evaluation lie outside.
"""

from __future__ import annotations

import ctypes
import errno
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

from gnnbench import registry
from gnnbench.data.formats import native
from gnnbench.data.graph import Graph
from gnnbench.errors import GnnbenchError, MissingExtra, RunFailed, Unsupported
from gnnbench.ledger import LedgerWriter
from gnnbench.results import write_json
from gnnbench_runtime import device as devices
from gnnbench_runtime import faults, kernels
from gnnbench_runtime.comm import Comm, PeerLost
from gnnbench_runtime.gpu_meter import open_meter
from gnnbench_runtime.job import Job
from gnnbench_runtime.memory import MemoryMeter, forget_mapped_pages, resident_bytes
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
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # the launcher asks a hung rank where it is
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    _die_with(job.launcher)
    pulse = Pulse(job.pulse(rank))
    try:
        write_json(job.part(rank), perform(job, rank, pulse))
        pulse.stage("done")
        if dist.is_initialized():
            dist.destroy_process_group()
        return 0
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
    run = job.run
    pulse.stage("setup")
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
    memory = MemoryMeter(device)
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
    comm.sync()
    clock.lap("start")
    graph = native.load(job.graph)
    approach = registry.approach(run.approach)
    trainer_type = _trainer_type(approach.runtime)
    rehearse(trainer_type, approach, scratch_context(context, job.scratch), graph)
    comm.sync()
    clock.lap("rehearsal")
    probe_before_s = speed_probe(device)
    _settle(graph)
    memory.take_baseline()
    clock.lap("probe")

    structure = approach.structure(graph, run, job.cache)
    clock.lap("structure")
    trainer = trainer_type(context, graph, structure)
    clock.lap("trainer")
    warm_up = getattr(trainer, "warm_up", None)
    if warm_up is not None:
        warm_up()
    clock.lap("warm_up")
    _settle(graph)
    memory.take_start()

    meter = open_meter(device)
    epochs, accuracy = _train(trainer, context, memory)
    energy = meter.stop() if meter is not None else {}
    trainer.close()
    recorder.close()
    comm.sync()
    probe_after_s = speed_probe(device)
    comm.close()
    used = {"device_used_bytes": energy["device_used_bytes"]} if energy else {}
    return {
        "rank": rank,
        "epochs": epochs,
        "accuracy": accuracy,
        "memory": {**memory.report(rank), **used},
        "probe": {"before_s": probe_before_s, "after_s": probe_after_s},
        "energy": energy,
        "setup_s": clock.laps,
        "device": devices.describe(job, device),
        "versions": devices.versions(device),
    }


def _train(
    trainer: Trainer, context: RankContext, memory: MemoryMeter
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Train all epochs; return what each was, and the accuracy after the last."""
    run, recorder, comm = context.run, context.recorder, context.comm
    epochs: list[dict[str, Any]] = []
    accuracy: dict[str, float] = {}
    every, last = run.training.evaluate_every, run.training.epochs - 1
    for epoch in range(run.training.epochs):
        recorder.pulse.stage("train", epoch)
        faults.inject(context.rank, epoch, run.run_id)
        comm.sync()
        with memory.training():
            recorder.epoch_begin(epoch)
            begin = perf_counter()
            loss = trainer.train_epoch(epoch)
            if context.device.type == "cuda":
                torch.cuda.synchronize(context.device)
            seconds = perf_counter() - begin
        sent = recorder.epoch_end()
        entry = {"epoch": epoch, "seconds": seconds, "loss": _finite(loss), "bytes": sent}
        if epoch == last or (every and (epoch + 1) % every == 0):
            comm.sync()
            with memory.evaluation(), recorder.evaluating():
                accuracy = {key: float(value) for key, value in trainer.evaluate().items()}
            entry |= {f"{k}_accuracy": accuracy[k] for k in ("val", "test") if k in accuracy}
        epochs.append(entry)
    return epochs, accuracy


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
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind, reason = "disk", f"the disk is full writing {error.filename or 'the ledger'}"
    elif isinstance(error, RunFailed):
        reason = error.reason
    elif isinstance(error, GnnbenchError):
        reason = said
    return {
        "kind": kind,
        "reason": reason[:600],
        "phase": where.phase or where.stage,
        "epoch": where.epoch,
        "step": where.step,
    }


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _trainer_type(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _settle(graph: Graph) -> None:
    """Leave nothing of the set-up behind that would disturb or inflate the training."""
    gc.collect()
    gc.freeze()
    arrays = ("indptr", "indices", "features", "labels", "train_mask", "val_mask", "test_mask")
    forget_mapped_pages([getattr(graph, name) for name in arrays])


def _finite(loss: float) -> float | None:
    """Return the loss, or None where training has diverged (JSON knows no nan)."""
    return float(loss) if math.isfinite(loss) else None


def _die_with(launcher: int) -> None:
    """Have the kernel end this process when the launcher ends, however that happens."""
    if sys.platform == "linux" and launcher:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
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
