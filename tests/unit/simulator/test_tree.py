"""Broadcasts down gloo's tree: who leaves when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.steps import NO_ROOT, Lane
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.events import simulate_events
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay
from gnnbench_simulator.tree import Descent, Descents, tree_of

GROUP = (0, 1, 2, 3)


def test_the_tree_of_five_members_is_gloo_s() -> None:
    """Round 0: 0 to 1; round 1: 0 to 2 and 1 to 3; round 2: 0 to 4."""
    tree = tree_of(5)
    assert tree.depth == 3
    assert tree.parents == (0, 0, 0, 1, 0)
    assert tree.rounds == (-1, 0, 1, 1, 2)
    assert tree.children == ((1, 2, 4), (3,), (), (), ())


@given(size=st.integers(2, 40))
def test_members_that_come_together_have_it_round_by_round(size: int) -> None:
    descent, ends = Descent(tree_of(size), 1.0), {}
    for member in range(size):
        ends |= dict(descent.arrive(member, 10.0))
    assert descent.over and sorted(ends) == list(range(size))
    assert descent.has_s == {m: 10.0 + m.bit_length() for m in range(size)}
    assert max(ends.values()) == 10.0 + tree_of(size).depth == ends[0]


@given(data=st.data())
def test_ends_do_not_depend_on_who_was_told_first_and_never_lie_in_the_past(
    data: st.DataObject,
) -> None:
    size = data.draw(st.integers(3, 12))
    times = data.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    rising, tree = sorted(range(size), key=lambda m: times[m]), tree_of(size)
    found: list[dict[int, float]] = []
    for order in (rising, data.draw(st.permutations(range(size)))):
        descent, ends = Descent(tree, 2.0), {}
        for member in order:
            known = descent.arrive(member, float(times[member]))
            assert not ends.keys() & {one for one, _ in known}
            assert all(end >= times[member] for _, end in known)
            ends |= dict(known)
        found.append(ends)
    assert found[0] == found[1]
    members = np.arange(size)
    flat = Descents.of([(np.zeros(size, np.intp), members)])
    arrivals = np.array(times, dtype=float)[:, None]
    (at_once,) = flat.ends([arrivals], np.array([[2.0 * tree.depth]]), [arrivals])
    assert at_once[:, 0].tolist() == [found[0][m] for m in range(size)]


def _late(kit: Any, late: int, root: int) -> Any:
    """A broadcast of 2 s (two rounds of one) to which one rank of four comes 9 s late."""
    ranks = []
    for rank in GROUP:
        steps = [kit.work("w", 9)] if rank == late else []
        ranks.append((*steps, kit.cast("b", GROUP, 10, rank, root, lane=Lane.COMPUTE)))
    return kit.plan(*ranks)


@pytest.mark.parametrize("execute", [simulate, simulate_events, replay])
def test_a_late_leaf_holds_up_its_parent_alone(kit: Any, execute: Any) -> None:
    """Root 1 sends to 2 and 3, and 2 to 0: nobody but 2 waits for 0."""
    program = compile_plan(_late(kit, late=0, root=1), kit.cluster())
    assert execute(program).end_s.tolist() == [10.0, 2.0, 10.0, 2.0]


@pytest.mark.parametrize("execute", [simulate, simulate_events, replay])
def test_a_late_root_holds_up_all(kit: Any, execute: Any) -> None:
    program = compile_plan(_late(kit, late=1, root=1), kit.cluster())
    assert execute(program).end_s.tolist() == [11.0] * 4


def test_without_one_sender_all_leave_together(kit: Any) -> None:
    """A broadcast without a root: 9 s of work on the late rank, then 2 s."""
    plan = _late(kit, late=0, root=NO_ROOT)
    assert simulate(compile_plan(plan, kit.cluster())).end_s.tolist() == [11.0] * 4
