"""Max-min fairness: nobody gains without a poorer flow losing."""

from __future__ import annotations

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from gnnbench_simulator.fairness import max_min_rates
from gnnbench_simulator.links import Fluid


def test_flows_on_one_link_share_it_evenly() -> None:
    assert max_min_rates([(("a",), 9.0)] * 3, {"a": 6.0}) == [2.0, 2.0, 2.0]


def test_a_capped_flow_leaves_its_share_to_the_others() -> None:
    assert max_min_rates([(("a",), 1.0), (("a",), 9.0)], {"a": 6.0}) == [1.0, 5.0]


def test_the_textbook_line_of_two_links() -> None:
    """One long flow over both links, one short flow on each; capacities 1 and 2."""
    rates = max_min_rates([(("a", "b"), 9.0), (("a",), 9.0), (("b",), 9.0)], {"a": 1.0, "b": 2.0})
    assert rates == pytest.approx([0.5, 0.5, 1.5])


LINKS = ("a", "b", "c")


@given(
    paths=st.lists(st.sets(st.sampled_from(LINKS), min_size=1), min_size=1, max_size=6),
    capacity=st.tuples(*[st.floats(0.5, 10)] * 3),
    cap=st.floats(0.1, 20),
)
def test_no_link_is_overfull_and_every_flow_has_a_bottleneck(
    paths: list[set[str]], capacity: tuple[float, ...], cap: float
) -> None:
    limits = dict(zip(LINKS, capacity, strict=True))
    flows = [(tuple(sorted(path)), cap) for path in paths]
    rates = max_min_rates(flows, limits)
    used = {
        link: sum(r for (path, _), r in zip(flows, rates, strict=True) if link in path)
        for link in LINKS
    }
    assert all(used[link] <= limits[link] + 1e-9 for link in LINKS)
    for (path, _), rate in zip(flows, rates, strict=True):
        full = [link for link in path if used[link] >= limits[link] - 1e-9]
        largest_there = any(
            all(rate >= r - 1e-9 for (p, _), r in zip(flows, rates, strict=True) if link in p)
            for link in full
        )
        assert rate >= cap - 1e-9 or largest_there


def test_a_flow_speeds_up_when_its_neighbour_ends() -> None:
    env = simpy.Environment()
    fluid, ends = Fluid(env, lambda _: 1.0), []

    def watch(work: float, after: float):  # type: ignore[no-untyped-def]
        yield env.timeout(after)
        yield fluid.start(["link"], work)
        ends.append(env.now)

    for work, after in ((4.0, 0.0), (1.0, 1.0)):
        env.process(watch(work, after))
    env.run()
    assert ends == pytest.approx([3.0, 5.0])
