"""What a session does just now, in words, for a progress bar: phase, period, time left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from gnnbench.spec import RunSpec
from gnnbench.units import roughly
from gnnbench_runtime.pulse import Beat

Watch = Callable[[RunSpec, str], None]
"""Called with the run under way and with what happens to it, a few times per second at most."""


def unwatched(run: RunSpec, what: str) -> None:
    """The watch of a session that nobody looks at."""


class Pace:
    """Tells the progress of one run from the pulses of its ranks.

    The time left is that of the periods left, at the mean time of the periods that have ended. The
    first one is slower than the others, so it is counted only until there are others.
    """

    def __init__(self, num_periods: int, clock: Callable[[], float] = monotonic) -> None:
        self._num_periods = num_periods
        self._clock = clock
        self._begun: dict[int, float] = {}

    def words(self, beats: Sequence[Beat]) -> str:
        """Describe the rank that is behind the others: "period 3 of 20, forward, 12 s left".

        A rank is behind another in an earlier stage, or in an earlier period.
        """
        if not beats:
            return "ends"
        slowest = min(beats, key=lambda beat: (_STAGES.get(beat.stage, 0), beat.period))
        if slowest.stage != "train" or slowest.period < 0:
            return _WORDS.get(slowest.stage, slowest.stage)
        self._begun.setdefault(slowest.period, self._clock())
        words = f"period {slowest.period + 1} of {self._num_periods}"
        words += f", {slowest.phase}" if slowest.phase else ""
        left = self.left_s(slowest.period)
        return words if left is None else f"{words}, {roughly(left)} left"

    def left_s(self, period: int) -> float | None:
        """Seconds until the last period ends; None during the first period."""
        first = min(self._begun)
        if period == first:
            return None
        if first + 1 in self._begun and period > first + 1:
            first += 1
        each = (self._begun[period] - self._begun[first]) / (period - first)
        return max(each * (self._num_periods - period) - (self._clock() - self._begun[period]), 0.0)


_STAGES = {"start": 0, "setup": 1, "train": 2, "evaluate": 2, "done": 3}
_WORDS = {"start": "starts its ranks", "setup": "sets up", "done": "ends"}
