"""The worked example of CONTRIBUTING: an approach of another package, held to what it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench import work
from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.source import Library
from gnnbench.steps import Kind, Phase
from gnnbench_runtime.conformance import trials
from gnnbench_runtime.conformance.statements import Ranks
from gnnbench_simulator.conformance import plan_trials

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def ranks() -> Any:
    found = Ranks()
    yield found
    found.pools.close()


@pytest.mark.parametrize("number", range(4))
def test_every_statement_holds_of_an_example(number: int, ranks: Ranks) -> None:
    tried = [*plan_trials("replicated"), *trials("replicated", ranks)]
    own = [trial for trial in tried if trial.number == number]
    assert len(own) > 10
    for trial in own:
        trial.check()


@pytest.mark.parametrize("num_ranks", [2, 5])
def test_only_the_gradient_travels(num_ranks: int) -> None:
    approach, run = APPROACHES.get("replicated"), example("replicated", num_ranks)
    data = Library([]).open(run.dataset)
    layout = Layout(world_size=num_ranks, ranks_per_host=num_ranks)
    plan = approach.plan(data, run, approach.structure(data, run), layout)
    elements = plan.notes["num_parameters"] + 1
    each = work.all_reduce_bytes(8 * elements, num_ranks)
    assert plan.moved_bytes(0) == {(Kind.ALL_REDUCE, Phase.SYNC): num_ranks * each}


@pytest.mark.parametrize("deal", ["round_robin", "blocks"])
def test_every_training_vertex_is_dealt_once(deal: str) -> None:
    from gnnbench_replicated.card import share

    vertices = np.arange(11)
    dealt = np.concatenate([vertices[share(deal, 11, 4, rank)] for rank in range(4)])
    assert sorted(dealt.tolist()) == vertices.tolist()
