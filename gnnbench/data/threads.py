"""A team of threads for compiled loops that release the interpreter lock.

The loops of this project are compiled once, serially, and run over ranges of rows; a team
distributes the ranges. It replaces numba's parallel loops on purpose: numba's thread layer is a
process-wide choice, one of the layers fails under concurrent calls (prefetch threads), the OpenMP
layer spins against torch's, and every loop would be compiled twice. Distributing a range costs a
few microseconds.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

Work = Callable[[int, int], object]
Range = tuple[int, int]

RANGES_PER_THREAD = 4  # enough for skewed rows, few enough that handing out stays cheap


class _Job:
    """The ranges of one call. It is done when all have been worked on, however late a worker is.

    A worker that the system does not run yet would otherwise be waited for on a busy machine,
    although it has nothing left to do.
    """

    def __init__(self, work: Work, ranges: Sequence[Range], then: Work | None = None) -> None:
        self.work, self.ranges, self.then = work, ranges, then
        self.failure: BaseException | None = None
        # next() is atomic under the interpreter lock.
        self.next: Iterator[int] = itertools.count()
        self._finished: Iterator[int] = itertools.count(1)
        self._done: SimpleQueue[None] = SimpleQueue()
        self._worked, self._turn = [False] * len(ranges), 0
        self._turns = threading.Lock()

    def take_until_empty(self) -> None:
        """Work on ranges that nobody has taken; after a failure they are skipped."""
        for i in self.next:
            if i >= len(self.ranges):
                return
            try:
                if self.failure is None:
                    self.work(*self.ranges[i])
                    self._follow(i)
            except BaseException as error:
                self.failure = error
            if next(self._finished) == len(self.ranges):
                self._done.put(None)

    def _follow(self, i: int) -> None:
        """Range i has been worked on: call `then` for every range whose turn has come.

        Whoever holds the lock takes all turns that have come; the others go on with their work.
        """
        if self.then is None:
            return
        self._worked[i] = True
        # Another range may end after the last look at it and before the lock is released.
        while self._turn_has_come() and self._turns.acquire(blocking=False):
            try:
                while self._turn_has_come():
                    self.then(*self.ranges[self._turn])
                    self._turn += 1
            finally:
                self._turns.release()

    def _turn_has_come(self) -> bool:
        turn = self._turn
        return turn < len(self.ranges) and self._worked[turn]

    def wait(self) -> None:
        """Wait for ranges that others took; raise what a range raised."""
        self._done.get()
        # A late worker may hold the job for a while: what it worked on need not live as long.
        self.work = self.then = _nothing
        if self.failure is not None:
            raise self.failure


def _nothing(start: int, stop: int) -> None:
    """The work of a job that is done."""


class Team:
    """Run `work(start, stop)` over ranges on `threads` threads, the caller's included.

    One thread means plain calls. Calls from several threads at once are safe and share the workers.
    Workers are daemons and start at the first parallel call.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = max(1, threads)
        self._inbox: SimpleQueue[_Job] = SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._lock = threading.Lock()

    def run(self, work: Work, ranges: Sequence[Range], then: Work | None = None) -> None:
        """Call work on every range, in any order, and wait. Raises what a call raised.

        Args:
            work: is called on all threads.
            ranges: to work on.
            then: is called on every range that has been worked on, one after the other in the order
                of the ranges, while later ranges are worked on.
        """
        helpers = min(self.threads, len(ranges)) - 1
        if helpers < 1:
            for start, stop in ranges:
                work(start, stop)
                if then is not None:
                    then(start, stop)
            return
        self._start()
        job = _Job(work, ranges, then)
        for _ in range(helpers):
            self._inbox.put(job)
        job.take_until_empty()
        job.wait()

    def split(self, count: int, least: int = 1) -> list[Range]:
        """Cut range(count) into even ranges of at least `least` items."""
        pieces = 1 if self.threads == 1 else self.threads * RANGES_PER_THREAD
        pieces = max(1, min(pieces, count // max(least, 1)))
        return [(count * i // pieces, count * (i + 1) // pieces) for i in range(pieces)]

    def split_rows(self, indptr: NDArray[np.int64], least: int = 1) -> list[Range]:
        """Cut the rows of a compressed matrix into ranges of about equal entries + rows.

        `least` is the smallest number of entries + rows worth a range.
        """
        rows = len(indptr) - 1
        total = int(indptr[-1]) + rows
        pieces = 1 if self.threads == 1 else self.threads * RANGES_PER_THREAD
        pieces = max(1, min(pieces, total // max(least, 1)))
        if pieces == 1:
            return [(0, rows)]
        cuts = [_row_at(indptr, total * i // pieces) for i in range(pieces)] + [rows]
        return [(a, b) for a, b in itertools.pairwise(cuts) if a < b]

    def _start(self) -> None:
        with self._lock:
            while len(self._workers) < self.threads - 1:
                worker = threading.Thread(target=_serve, args=(self._inbox,), daemon=True)
                worker.start()
                self._workers.append(worker)

    def close(self) -> None:
        """Let the workers end. The team starts new ones if it is used again."""
        with self._lock:
            for _ in self._workers:
                self._inbox.put(_STOP)
            self._workers.clear()


_STOP = _Job(_nothing, ())


def _serve(inbox: SimpleQueue[_Job]) -> None:
    while (job := inbox.get()) is not _STOP:
        job.take_until_empty()


def _row_at(indptr: NDArray[np.int64], target: int) -> int:
    """Return the first row r with indptr[r] + r >= target, by bisection."""
    low, high = 0, len(indptr) - 1
    while low < high:
        middle = (low + high) // 2
        if int(indptr[middle]) + middle < target:
            low = middle + 1
        else:
            high = middle
    return low
