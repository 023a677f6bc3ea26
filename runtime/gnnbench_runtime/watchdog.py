"""The watchdog's judgement: from pulses and exit codes to which rank failed, where and why.

Pure functions; the launcher observes and ends processes.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnnbench_runtime.pulse import Beat

# Loading, partitioning and compiling have no steps, so they may take longer than a step.
_SETUP_FACTOR, _SETUP_AT_LEAST_S = 10.0, 300.0
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a run ended: `status` is "failed", "skipped" or "running" (unfinished)."""

    status: str
    reason: str
    rank: int | None = None
    phase: str = ""


@dataclass(frozen=True, slots=True)
class MemoryHint:
    """What is known of memory around a rank's sudden end."""

    held_bytes: int = 0
    available_bytes: int = 0
    total_bytes: int = 0
    oom_kills: int = 0

    @property
    def suspicious(self) -> bool:
        """The kernel says so, or less than a twentieth of the memory was left."""
        # A twentieth: the killer starts before the memory is used up.
        return self.oom_kills > 0 or self.available_bytes < self.total_bytes / 20


def limit_s(beat: Beat, timeout_s: float) -> float:
    """Return how long the rank may be silent."""
    if beat.stage in ("train", "evaluate"):
        return timeout_s
    # Set-up may convert a dataset or compile kernels, without a step.
    return max(_SETUP_FACTOR * timeout_s, _SETUP_AT_LEAST_S)


def hung(beats: Mapping[int, Beat], now_s: float, timeout_s: float) -> Verdict | None:
    """Name the rank that hangs, or return None.

    `beats` are of the ranks still running. A rank that waits in a collective hangs only if every
    rank is silent; then those are to blame that entered the fewest collectives.
    """
    silent = {r: b for r, b in beats.items() if now_s - b.time_s > limit_s(b, timeout_s)}
    # A rank that is silent outside a collective keeps the others waiting.
    guilty = {r: b for r, b in silent.items() if not b.in_collective}
    if not guilty:
        # Some ranks still work: those in a collective wait for them.
        if not silent or len(silent) < len(beats):
            return None
        fewest = min(beat.collective for beat in silent.values())
        # Ranks that have entered fewer collectives are behind the others.
        guilty = {r: b for r, b in silent.items() if b.collective == fewest}
    rank = min(guilty)
    beat = guilty[rank]
    reason = (
        f"{_ranks(sorted(guilty))} hung: no step ended for {now_s - beat.time_s:.0f} s, {_at(beat)}"
    )
    waiting = sorted(r for r, b in beats.items() if r not in guilty and b.in_collective)
    if waiting:
        verb = "waits" if len(waiting) == 1 else "wait"
        reason += f"; {_ranks(waiting)} {verb} in {beats[waiting[0]].step!r}"
    elif len(guilty) == len(beats) > 1:
        reason += "; all ranks wait in it, so the network or the collective itself hangs"
    return Verdict("failed", reason, rank, beat.phase or beat.stage)


def died(
    rank: int,
    returncode: int,
    beat: Beat,
    said: Mapping[str, Any] | None,
    memory: MemoryHint,
    output_tail: str = "",
) -> Verdict:
    """Say why a rank's process ended without its part of the record."""
    phase = beat.phase or beat.stage
    if said is not None:
        # A full disk is not the run's fault, so the run is left unfinished.
        status = {"skip": "skipped", "disk": "running"}.get(said["kind"], "failed")
        return Verdict(status, str(said["reason"]), rank, str(said["phase"] or phase))
    if returncode < 0:
        # A negative code is the number of the signal.
        reason = f"killed by {_signal_name(-returncode)}"
        if -returncode == signal.SIGKILL and memory.suspicious:
            reason += ", likely by the out-of-memory killer"
            reason += f": it held {memory.held_bytes / _GIB:.2f} GiB"
            reason += f", {memory.available_bytes / _GIB:.2f} GiB were left"
        return Verdict("failed", f"{reason}, {_at(beat)}", rank, phase)
    # The last line of a traceback states the error.
    last = output_tail.strip().splitlines()[-1:] or ["no message"]
    return Verdict("failed", f"ended with code {returncode}: {last[0][:300]}", rank, phase)


def cause(verdicts: Sequence[tuple[Verdict, str]]) -> Verdict:
    """Choose among the ranks that ended, in order of their end, each with its kind of failure.

    A rank that lost its peer is a consequence, so any other explains more.
    """
    for verdict, kind in verdicts:
        if kind != "peer":
            return verdict
    return verdicts[0][0]


def _at(beat: Beat) -> str:
    where = f"in {beat.stage}" if beat.period < 0 else f"in period {beat.period}"
    return f"{where}, last step {beat.step!r}" if beat.step else where


def _ranks(ranks: Sequence[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
