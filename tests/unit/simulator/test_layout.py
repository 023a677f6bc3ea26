"""Layouts: collectives are matched before anything runs, ranks form classes, steps form blocks."""

from __future__ import annotations

from typing import Any

import pytest

from gnnbench.errors import SpecError
from gnnbench.iterations import Iteration
from gnnbench.plan import Plan, repeated
from gnnbench.steps import After, Kind, Lane
from gnnbench_simulator.layout import Mode
from gnnbench_simulator.program import Program, compile_plan

PAIR = (0, 1)


def _compiled(kit: Any, *ranks: Any) -> Program:
    plan = Plan(approach="test", world_size=len(ranks), **repeated([Iteration.of_ranks(ranks)], 1))
    return compile_plan(plan, kit.cluster())


@pytest.mark.parametrize("other", ["missing", "another kind", "too many"])
def test_mismatched_collectives_are_found_before_the_plan_runs(kit: Any, other: str) -> None:
    one = kit.meet("m", PAIR)
    steps = {
        "missing": (),
        "another kind": (kit.meet("m", PAIR, kind=Kind.ALL_TO_ALL),),
        "too many": (one, kit.meet("n", PAIR)),
    }
    with pytest.raises(SpecError, match=r"ranks 0 and 1 disagree on the collectives of group"):
        _compiled(kit, (one,), steps[other])


def test_collectives_match_by_their_number_within_a_group(kit: Any) -> None:
    """Rank 2 meets its own group twice; ranks 0 and 1 meet two groups once each."""
    ranks = [
        (kit.meet("m", PAIR, 10), kit.meet("n", (rank,), 10))
        if rank < 2
        else (kit.meet("m", (2,)), kit.meet("n", (2,)))
        for rank in range(3)
    ]
    program = _compiled(kit, *ranks)
    (layout,) = program.layouts
    assert [cls.ranks.tolist() for cls in layout.classes] == [[0, 1], [2]]
    met = [[block.meeting.sequence for block in cls.blocks] for cls in layout.classes]
    assert met == [[0, 0], [0, 1]]
    seconds = [table.tolist() for table in program.iterations[0].seconds]
    assert seconds == [[[2.0, 2.0], [0.0, 0.0]], [[0.0], [0.0]]]


def test_steps_of_a_lane_are_one_block_up_to_one_that_others_wait_for(kit: Any) -> None:
    steps = (
        kit.work("a", 1),
        kit.work("b", 2),
        kit.work("h", 1, lane=Lane.HOST, after=(After("b"),)),
        kit.work("c", 3, after=(After("a"),)),
        kit.meet("m", (0,)),
    )
    program = _compiled(kit, steps)
    (cls,) = program.layouts[0].classes
    blocks = [[cls.steps[place].name for place in block.steps] for block in cls.blocks]
    assert blocks == [["a", "b"], ["h"], ["c"], ["m"]]
    assert [block.publishes for block in cls.blocks] == ["b", "", "", ""]
    assert [block.mode for block in cls.blocks] == [Mode.LOCAL] * 3 + [Mode.COLLECTIVE]
    assert program.iterations[0].totals[0][:, 0].tolist() == [3.0, 1.0, 3.0, 0.0]
