"""What a progress bar says of the run under way."""

from __future__ import annotations

from gnnbench_runtime.pulse import Beat
from gnnbench_runtime.watching import Pace


def beat(stage: str, period: int = -1, phase: str = "") -> Beat:
    return Beat(time_s=1.0, stage=stage, period=period, phase=phase)


def test_the_rank_that_is_behind_is_described() -> None:
    pace = Pace(20)
    assert pace.words([beat("train", 0, "forward"), beat("setup")]) == "sets up"
    assert pace.words([beat("done"), beat("train", 4, "backward")]).startswith("period 5 of 20")
    assert pace.words([beat("start")]) == "starts its ranks"
    assert pace.words([]) == "ends"


def test_the_time_left_is_that_of_the_periods_left_without_the_slow_first_one() -> None:
    now = [0.0]
    pace = Pace(10, clock=lambda: now[0])
    assert pace.words([beat("train", 0, "forward")]) == "period 1 of 10, forward"
    now[0] = 30.0
    assert pace.words([beat("train", 1, "forward")]) == "period 2 of 10, forward, 4 min left"
    now[0] = 32.0
    pace.words([beat("train", 2, "forward")])
    now[0] = 34.0
    assert pace.words([beat("train", 3, "sync")]) == "period 4 of 10, sync, 14 s left"
    now[0] = 35.0
    assert pace.words([beat("train", 3, "")]) == "period 4 of 10, 13 s left"
