"""The recorder: times a rank's steps per lane and appends them to its ledger.

On CPU a step costs two clock reads and a list append, about two microseconds. On CUDA each step is
fenced by two events on the current stream, resolved when the rows are written: nothing waits for
the device in between. Steps of the lanes `host` and `disk` are always timed by the host's clock.

Rows are written when a period ends, and within long periods whenever enough of them have gathered,
so that a period of a million steps holds no more memory than a short one.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from time import perf_counter, sleep
from types import TracebackType
from typing import Any

import torch

from gnnbench.ledger import ROWS_HELD, LedgerWriter, Row
from gnnbench.steps import COUNTED, Engine, Lane, Phase, Work
from gnnbench_runtime.pulse import Pulse

_HOST_ENGINES = frozenset({Engine.HOST, Engine.DISK})
_BEAT_S = 0.5
"""Seconds between signs of life while a rank waits for its input."""


class Span:
    """One step being timed: `start` and `stop`, or a `with` block.

    The span belongs to the period and iteration in which it was made, whichever thread runs it.
    """

    __slots__ = ("_collective", "_head", "_host", "_kept", "_pulse", "_recorder", "_started")

    def __init__(self, recorder: Recorder, head: tuple, host: bool, collective: bool) -> None:
        self._recorder, self._head, self._host = recorder, head, host
        self._collective = collective
        # Asked once, at the start: a background step that ends after the period still belongs to
        # it.
        self._kept = recorder.recording
        self._pulse = recorder.pulse
        self._started: Any = 0.0

    def start(self) -> Span:
        head = self._head
        # The pulse comes first, so that a step that hangs is the one the watchdog names.
        self._pulse.beat(head[2], head[6], self._collective)
        self._started = perf_counter() if self._host else self._recorder._mark()
        return self

    def did(self, work: Work) -> None:
        """Say what the step did, where only the step itself can tell."""
        head = self._head
        # Sizes replace those of the announcement, and bytes are counted here instead of in `step`.
        self._head = (*head[:3], work.kind, work.op, *head[5:9], work.bytes, work.flops)
        if self._kept:
            self._recorder._count(work, head[6])

    def stop(self) -> Any:
        """End the step; returns the end mark (a time or a CUDA event)."""
        ended = perf_counter() if self._host else self._recorder._mark()
        if self._kept:
            self._recorder._rows.append((*self._head, self._started, ended))
        # A collective that ended no longer waits for others.
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
    """Record steps between `period_begin` and `period_end`, and in `evaluating`; else only pulse.

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
        self.period = -1
        self._cuda = device.type == "cuda"
        self._device = device
        self._writer = writer
        # Deques, because other threads append while the main one takes.
        self._rows: deque[tuple] = deque()
        self._moved: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._spare: list[Any] = []
        self._local = threading.local()
        self._main = threading.get_ident()
        self._evaluating = False
        self._origin_s: float | None = None
        self._starts: Sequence[int] = ()
        self._releases: Sequence[float] = ()
        self._base: tuple[float, Any] = (0.0, None)

    def step(
        self,
        name: str,
        work: Work,
        *,
        phase: Phase,
        lane: Lane = Lane.COMPUTE,
        layer: int = -1,
        group_size: int = 0,
        collective: bool = False,
    ) -> Span:
        """Return the span of one step, to be used in a `with` block.

        Args:
            name: as in the plan.
            work: kind, bytes and flops from the sizes of the tensors (see `gnnbench.work`).
            phase, lane, layer: as in the plan.
            group_size: ranks that take part in communication.
            collective: whether the step waits for other ranks.
        """
        if self._evaluating:
            phase = Phase.EVALUATE
        iteration = getattr(self._local, "iteration", 0)
        # A tuple, because making objects per step costs more than short kernels take.
        head = (
            self.period,
            iteration,
            name,
            work.kind,
            work.op,
            lane,
            phase,
            layer,
            group_size,
            work.bytes,
            work.flops,
        )
        if work.bytes and self.recording:
            # Counted now: a background transfer may end in a later period than it belongs to.
            self._count(work, phase)
        # CUDA events time device lanes; host and disk lanes, and everything on a CPU, have the
        # clock.
        return Span(self, head, not self._cuda or lane.engine in _HOST_ENGINES, collective)

    def _count(self, work: Work, phase: Phase) -> None:
        if work.kind in COUNTED:
            with self._lock:
                # One rank's sizes are integers, never arrays.
                self._moved[f"{work.kind}/{phase}"] += int(work.bytes)

    def arrive(self, periods: Sequence[int], releases: Sequence[float]) -> None:
        """Delay each scheduled iteration until its release time.

        Args:
            periods: iterations of each period.
            releases: earliest start of each scheduled iteration, in seconds since the origin.
        """
        self._starts, self._releases = [0, *accumulate(periods)], releases

    def at(self, iteration: int) -> None:
        """Say that this thread's next steps belong to this iteration of the period.

        Where input arrives late (see `arrive`), it first waits for the iteration's release.
        """
        self._local.iteration = iteration
        if self._releases and self.recording and not self._evaluating:
            self._wait_for(self._releases[self._starts[self.period] + iteration])
        # Only the main thread writes: the file has one order.
        if len(self._rows) > ROWS_HELD and threading.get_ident() == self._main:
            self._write(wait=False)

    @property
    def arrives(self) -> bool:
        """Whether input arrives late."""
        return len(self._releases) > 0

    def elapsed_s(self) -> float:
        """Seconds since the origin of all times; the first period sets it."""
        return 0.0 if self._origin_s is None else perf_counter() - self._origin_s

    def _wait_for(self, release_s: float) -> None:
        assert self._origin_s is not None
        # In pieces, so that the pulse continues while a rank waits for its input.
        while (left := self._origin_s + release_s - perf_counter()) > 0:
            self.pulse.beat("arrival", Phase.LOAD, False)
            sleep(min(left, _BEAT_S))

    def period_begin(self, period: int) -> None:
        """Begin to record; the first call sets the origin of all times."""
        self.period = period
        self.pulse.stage("train", period)
        self._open()
        self.at(0)

    def period_end(self) -> dict[str, int]:
        """Write the period's rows; return the bytes that it moved, by "kind/phase"."""
        return self._flush()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Record the block's steps under the phase `evaluate`, whatever phase they name.

        Within a period (a stream that is evaluated before it is learnt from), the rest of the
        period is recorded as before. Before the first period (a rehearsal) nothing is recorded.
        """
        if self.period < 0:
            yield
            return
        nested = self.recording
        self.pulse.stage("evaluate", self.period)
        if not nested:
            self.at(0)
            self._open()
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False
        if nested:
            self.pulse.stage("train", self.period)
        else:
            self._flush()

    def take_up(self, content: bytes) -> None:
        """Go on with the ledger of a run that was interrupted."""
        if self._writer is not None and content:
            self._writer.take_up(content)

    def close(self) -> None:
        """Write what ended since the last period, and close the ledger."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> None:
        mark = None
        if self._cuda:
            # The event and the clock must mark the same moment.
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
        self._write(wait=True)
        with self._lock:
            moved, self._moved = dict(self._moved), defaultdict(int)
        return moved

    def _write(self, *, wait: bool) -> None:
        """Write the rows whose times are known; with `wait`, all of them."""
        timed = []
        # Rows are written in order, up to the first whose end has not been reached.
        while self._rows:
            ended = self._rows[0][-1]
            if not (wait or isinstance(ended, float) or ended.query()):
                break
            timed.append(self._resolve(self._rows.popleft()))
        if self._writer is not None:
            self._writer.append(timed)

    def _resolve(self, row: tuple) -> Row:
        *head, started, ended = row
        assert self._origin_s is not None
        if isinstance(started, float):
            start_s, duration_s = started - self._origin_s, ended - started
        else:
            base_s, base = self._base
            start_s = base_s - self._origin_s + base.elapsed_time(started) / 1e3
            duration_s = started.elapsed_time(ended) / 1e3
            # Events are reused: creating one takes longer than recording it.
            self._spare += (started, ended)
        return Row._make((*head, start_s, duration_s))

    def _mark(self) -> Any:
        """Record a timing event on the current stream of this rank's device.

        The device is named because a thread of its own starts out on device 0.
        """
        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
