"""Fair rates with caps and uneven loads: shares worked by hand, and by searching for each level."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench_simulator import water_filling
from gnnbench_simulator.fairness import max_min_rates
from gnnbench_simulator.water_filling import AT_CAP, fair_rates, filled

Flow = tuple[dict[int, float], float, float]
"""Usage by link, weight and cap."""


def rates(flows: list[Flow], capacity: list[float]) -> list[float]:
    starts = np.cumsum([0, *(len(usage) for usage, _, _ in flows)])
    links = np.array([link for usage, _, _ in flows for link in usage], np.int64)
    usage = np.array([value for usage, _, _ in flows for value in usage.values()])
    weight = np.array([weight for _, weight, _ in flows])
    cap = np.array([cap for _, _, cap in flows])
    return fair_rates(starts, links, usage, weight, cap, np.array(capacity)).tolist()


def searched(flows: list[Flow], capacity: list[float]) -> list[float]:
    """Raise the level of all flows by bisection until one more step overfills a link; freeze."""
    frozen: dict[int, float] = {}

    def at(level: float) -> list[float]:
        return [frozen.get(i, min(w * level, cap)) for i, (_, w, cap) in enumerate(flows)]

    def over(found: list[float]) -> list[int]:
        used = [0.0] * len(capacity)
        for (usage, _, _), rate in zip(flows, found, strict=True):
            for link, value in usage.items():
                used[link] += value * rate
        return [i for i, most in enumerate(capacity) if used[i] > most * (1 + 1e-12)]

    while len(frozen) < len(flows):
        low, high = 0.0, 1e6
        if not over(at(high)):
            return at(high)
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (low, middle) if over(at(middle)) else (middle, high)
        full = set(over(at(high * (1 + 1e-9))))
        found = at(low)
        for i, (usage, _, cap) in enumerate(flows):
            if i not in frozen and (full & set(usage) or found[i] >= cap):
                frozen[i] = found[i]
    return at(0.0)


def test_a_long_flow_and_two_short_ones() -> None:
    """Capacities 1 and 2: a half each on the first, and what is left on the second."""
    flows: list[Flow] = [({0: 1, 1: 1}, 1, inf), ({0: 1}, 1, inf), ({1: 1}, 1, inf)]
    assert rates(flows, [1.0, 2.0]) == pytest.approx([0.5, 0.5, 1.5])


def test_a_capped_flow_leaves_its_share_to_the_others() -> None:
    assert rates([({0: 1}, 1, 1.0), ({0: 1}, 1, inf)], [6.0]) == pytest.approx([1.0, 5.0])


def test_a_collective_of_two_messages_gets_twice_the_share_of_one_message() -> None:
    """Two messages of 3 B cross a link of 9 B/s beside one other: each gets 3 B/s, so 1/s."""
    assert rates([({0: 6}, 1 / 3, inf), ({0: 1}, 1, inf)], [9.0]) == pytest.approx([1.0, 3.0])


def test_a_collective_that_is_held_up_on_one_link_takes_less_of_the_others() -> None:
    """On link 0 it gets 1/s of 2 B; on link 1 it then uses 1 of 10 B/s, and the flow there 9."""
    assert rates([({0: 2, 1: 1}, 1, inf), ({1: 1}, 1, inf)], [2.0, 10.0]) == pytest.approx([1, 9])


_flows = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 3), st.sampled_from((0.5, 1.0, 3.0)), max_size=3),
        st.sampled_from((0.25, 1.0, 2.0)),
        st.sampled_from((0.5, 2.0, 50.0)),
    ),
    min_size=1,
    max_size=7,
)
_capacity = st.lists(st.sampled_from((0.5, 1.0, 4.0, 9.0)), min_size=4, max_size=4)


@settings(max_examples=150, deadline=None)
@given(flows=_flows, capacity=_capacity)
def test_rates_are_those_of_a_search(flows: list[Flow], capacity: list[float]) -> None:
    assert rates(flows, capacity) == pytest.approx(searched(flows, capacity), rel=1e-6)


def _arrays(
    draw: np.random.Generator, flows: int, links: int, *, even: bool
) -> tuple[np.ndarray, ...]:
    """Flows over some of the links; few values, so that many flows are equal."""
    counts = draw.integers(0, 4, flows)
    path = np.concatenate(
        [np.sort(draw.choice(links, count, replace=False)) for count in counts.tolist()]
    )
    entries = len(path)
    return (
        np.concatenate([[0], np.cumsum(counts)]),
        path.astype(np.int64),
        np.ones(entries) if even else draw.choice([0.5, 1.0], entries),
        np.ones(flows) if even else draw.choice([1.0, 2.0], flows),
        draw.choice([0.5, 3.0, inf], flows),
        draw.uniform(5, 50, links),
    )


@pytest.mark.parametrize("even", [True, False], ids=["even", "uneven"])
@pytest.mark.parametrize(("links", "merged"), [(5, True), (5, False), (40, True)])
def test_the_compiled_loops_give_the_same(
    monkeypatch: pytest.MonkeyPatch, links: int, merged: bool, even: bool
) -> None:
    """In classes of equal flows, one by one, and where there are too many classes to merge."""
    given = _arrays(np.random.default_rng(links), 3000, links, even=even)
    # Without a link a flow runs at its cap; an infinite one says nothing.
    given[4][np.diff(given[0]) == 0] = 3.0
    plain, by = filled(*given)
    loops = pytest.importorskip(
        "gnnbench_simulator.filling_loops", reason="needs the runtime extra"
    )
    monkeypatch.setattr(loops, "_WORTH_MERGING", 0 if merged else 10_000)
    monkeypatch.setattr(water_filling, "_COMPILED_FROM", 0)
    rates, limits = filled(*given)
    assert rates == pytest.approx(plain, rel=1e-12)
    assert ((limits == AT_CAP) == (by == AT_CAP)).all()
    if even:
        paths = np.split(given[1], given[0][1:-1])
        flows = [(tuple(p.tolist()), cap) for p, cap in zip(paths, given[4].tolist(), strict=True)]
        checked = max_min_rates(flows, dict(enumerate(given[5].tolist())))
        assert rates == pytest.approx(checked, rel=1e-9)


def test_links_that_never_fill_are_left_out_and_those_that_do_are_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1,600 flows over a narrow link and a port each: a second link fills once the first has."""
    loops = pytest.importorskip(
        "gnnbench_simulator.filling_loops", reason="needs the runtime extra"
    )
    monkeypatch.setattr(loops, "_WORTH_MERGING", 0)
    monkeypatch.setattr(water_filling, "_COMPILED_FROM", 0)
    half = 800
    # Flows of the first half cross links 0 and 1, the others link 1; each also has a wide port.
    path = [[0, 1, 2 + n] if n < half else [1, 2 + n] for n in range(2 * half)]
    starts = np.cumsum([0, *(len(p) for p in path)])
    links = np.concatenate(path).astype(np.int64)
    capacity = np.array([half * 1.0, half * 4.0, *[100.0] * (2 * half)])
    found = fair_rates(
        starts, links, np.ones(len(links)), np.ones(2 * half), np.full(2 * half, inf), capacity
    )
    # 1 each on link 0; the rest of link 1, 3 each, goes to the others.
    assert found == pytest.approx([1.0] * half + [3.0] * half)
