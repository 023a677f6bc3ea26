"""A team covers every range once, whoever does it, and passes failures on."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.data.threads import Team


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_range_is_done_once(threads: int) -> None:
    team, done = Team(threads), np.zeros(1000, np.int64)

    def work(start: int, stop: int) -> None:
        done[start:stop] += 1

    team.run(work, team.split(1000))
    team.close()
    assert (done == 1).all()


@given(st.integers(0, 200), st.integers(1, 50), st.integers(1, 6))
def test_splits_cover_without_overlap(count: int, least: int, threads: int) -> None:
    ranges = Team(threads).split(count, least)
    assert [i for a, b in ranges for i in range(a, b)] == list(range(count))


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 40), st.integers(1, 6))
def test_row_splits_cover_and_balance(degrees: list[int], least: int, threads: int) -> None:
    indptr = np.concatenate([[0], np.cumsum(np.array(degrees, np.int64))])
    ranges = Team(threads).split_rows(indptr, least)
    assert [i for a, b in ranges for i in range(a, b)] == list(range(len(degrees)))
    if len(ranges) > 1:
        share = (indptr[-1] + len(degrees)) / (threads * 4)
        heaviest = max(int(indptr[b] - indptr[a]) + b - a for a, b in ranges)
        assert heaviest <= max(share, 2 * least) + max(degrees) + 1


@pytest.mark.parametrize("threads", [1, 3])
def test_a_failing_range_raises_in_the_caller(threads: int) -> None:
    def work(start: int, stop: int) -> None:
        if start == 5:
            raise ZeroDivisionError("range 5")

    team = Team(threads)
    with pytest.raises(ZeroDivisionError, match="range 5"):
        team.run(work, [(i, i + 1) for i in range(8)])
    team.close()


@pytest.mark.parametrize("threads", [1, 4])
def test_what_follows_a_range_is_called_in_order_and_one_at_a_time(threads: int) -> None:
    team, worked, order, inside = Team(threads), set(), [], threading.Lock()

    def work(start: int, stop: int) -> None:
        time.sleep(0.001 * (start % 3))
        worked.add(start)

    def then(start: int, stop: int) -> None:
        assert inside.acquire(blocking=False), "two calls at once"
        assert start in worked
        order.append(start)
        inside.release()

    for _ in range(20):
        worked.clear(), order.clear()
        team.run(work, [(i, i + 1) for i in range(9)], then)
        assert order == list(range(9))
    team.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_failure_of_what_follows_raises_in_the_caller(threads: int) -> None:
    def then(start: int, stop: int) -> None:
        if start == 5:
            raise ZeroDivisionError("after range 5")

    team = Team(threads)
    with pytest.raises(ZeroDivisionError, match="after range 5"):
        team.run(lambda start, stop: None, [(i, i + 1) for i in range(8)], then)
    team.close()


def test_callers_may_share_a_team() -> None:
    team, totals = Team(3), [0, 0]
    lock = threading.Lock()

    def call(caller: int) -> None:
        def work(start: int, stop: int) -> None:
            with lock:
                totals[caller] += stop - start

        for _ in range(50):
            team.run(work, [(i, i + 1) for i in range(10)])

    callers = [threading.Thread(target=call, args=(i,)) for i in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    team.close()
    assert totals == [500, 500]
