"""The recorder: times a rank's steps per lane and appends them to its ledger as epochs end.

On CPU a step costs two clock reads and a list append, about two microseconds. On CUDA each step is
fenced by two events on the current stream, resolved at the end of the epoch: nothing waits for the
device in between. Steps of the lanes `host` and `disk` are timed by the host's clock everywhere.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from types import TracebackType
from typing import Any

import torch

from gnnbench.ledger import LedgerWriter, Row
from gnnbench.plan import COMMUNICATION, Phase
from gnnbench_runtime.pulse import Pulse

_HOST_LANES = frozenset({"host", "disk"})
_COMMUNICATION = frozenset(str(kind) for kind in COMMUNICATION)


class Span:
    """One step being timed: `start` and `stop`, or a `with` block.

    The span belongs to the epoch and iteration in which it was made, whichever thread runs it.
    """

    __slots__ = ("_collective", "_head", "_host", "_kept", "_pulse", "_recorder", "_started")

    def __init__(self, recorder: Recorder, head: tuple, host: bool, collective: bool) -> None:
        self._recorder, self._head, self._host = recorder, head, host
        self._collective = collective
        self._kept = recorder.recording
        self._pulse = recorder.pulse
        self._started: Any = 0.0

    def start(self) -> Span:
        head = self._head
        self._pulse.beat(head[2], head[6], self._collective)
        self._started = perf_counter() if self._host else self._recorder._mark()
        return self

    def size(self, bytes: int, flops: int = 0) -> None:
        """Say how much was moved, where only the step itself can tell."""
        self._head = (*self._head[:-2], bytes, flops)

    def stop(self) -> Any:
        """End the step; returns the end mark (a time or a CUDA event)."""
        ended = perf_counter() if self._host else self._recorder._mark()
        if self._kept:
            self._recorder._rows.append((*self._head, self._started, ended))
        if self._collective:
            self._pulse.leave()
        return ended

    def __enter__(self) -> Span:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        # A step that raised has not happened, and its pulse must keep saying where it was.
        if kind is None:
            self.stop()


class Recorder:
    """Record steps between `epoch_begin` and `epoch_end`, and in `evaluating`; else only pulse.

    Threads other than the main one may record; each says its iteration by `at`.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        writer: LedgerWriter | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self.pulse = pulse or Pulse(None)
        self.recording = False
        self.epoch = -1
        self._cuda = device.type == "cuda"
        self._device = device
        self._writer = writer
        # Deques, because other threads append while the main one takes.
        self._rows: deque[tuple] = deque()
        self._sent: deque[tuple[str, int]] = deque()
        self._spare: list[Any] = []
        self._local = threading.local()
        self._evaluating = False
        self._origin_s: float | None = None
        self._base: tuple[float, Any] = (0.0, None)

    def step(
        self,
        name: str,
        kind: str,
        op: str,
        lane: str,
        phase: str,
        layer: int = -1,
        bytes: int = 0,
        flops: int = 0,
        group_size: int = 0,
        *,
        collective: bool = False,
    ) -> Span:
        """Return the span of one step, to be used in a `with` block."""
        if self._evaluating:
            phase = Phase.EVALUATE
        iteration = getattr(self._local, "iteration", 0)
        head = (self.epoch, iteration, name, kind, op, lane, phase, layer, group_size, bytes, flops)
        if bytes and self.recording and kind in _COMMUNICATION:
            # Counted now: a background transfer may end in a later epoch than it belongs to.
            self._sent.append((f"{kind}/{phase}", bytes))
        return Span(self, head, not self._cuda or lane in _HOST_LANES, collective)

    def at(self, iteration: int) -> None:
        """Say that this thread's next steps belong to this iteration of the epoch."""
        self._local.iteration = iteration

    def epoch_begin(self, epoch: int) -> None:
        """Begin to record; the first call sets the origin of all times."""
        self.epoch = epoch
        self.at(0)
        self.pulse.stage("train", epoch)
        self._open()

    def epoch_end(self) -> dict[str, int]:
        """Append the epoch's rows to the ledger; return the bytes sent by "kind/phase"."""
        return self._flush()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Record the block's steps under the phase `evaluate`, whatever phase they name."""
        self.pulse.stage("evaluate", self.epoch)
        self.at(0)
        self._evaluating = True
        self._open()
        try:
            yield
        finally:
            self._evaluating = False
        self._flush()

    def close(self) -> None:
        """Append what ended since the last epoch, and close the ledger."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> None:
        mark = None
        if self._cuda:
            torch.cuda.synchronize(self._device)
            mark = self._mark()
        now = perf_counter()
        if self._origin_s is None:
            self._origin_s = now
        self._base = (now, mark)
        self.recording = True

    def _flush(self) -> dict[str, int]:
        self.recording = False
        if self._cuda:
            torch.cuda.synchronize(self._device)
        timed = [self._resolve(row) for row in _taken(self._rows)]
        if self._writer is not None:
            self._writer.append(timed)
        sent: dict[str, int] = defaultdict(int)
        for key, size in _taken(self._sent):
            sent[key] += size
        return dict(sent)

    def _resolve(self, row: tuple) -> Row:
        *head, started, ended = row
        assert self._origin_s is not None
        if isinstance(started, float):
            start_s, duration_s = started - self._origin_s, ended - started
        else:
            base_s, base = self._base
            start_s = base_s - self._origin_s + base.elapsed_time(started) / 1e3
            duration_s = started.elapsed_time(ended) / 1e3
            self._spare += (started, ended)
        return Row._make((*head, start_s, duration_s))

    def _mark(self) -> Any:
        """Record a timing event on the current stream of this rank's device.

        The device is named because a thread of its own starts out on device 0.
        """
        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def _taken(queue: deque) -> Iterator[Any]:
    while queue:
        yield queue.popleft()
