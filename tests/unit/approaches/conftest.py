"""Plans of runs, validated, on a graph or on a profile; owners of vertices may be fixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import GraphLike, Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.data.graph import Graph
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec


@pytest.fixture
def plan_of() -> Callable[..., Plan]:
    """Return a maker of plans."""

    def make(
        data: GraphLike,
        run: RunSpec,
        owner: Sequence[int] | None = None,
        *,
        device: str = "cpu",
    ) -> Plan:
        approach = APPROACHES.get(run.approach)
        if owner is None:
            structure = approach.structure(data, run)
        else:
            assert isinstance(data, Graph)
            owners = np.array(owner, np.int32)
            structure = PartitionStructure.of_assignment(data, owners, run.ranks)
        layout = Layout(world_size=run.ranks, ranks_per_host=min(run.ranks, 8), device=device)
        plan = approach.plan(data, run, structure, layout)
        plan.validate()
        return plan

    return make


@pytest.fixture
def planned(
    plan_of: Callable[..., Plan], make_run: Callable[..., RunSpec], path_graph: Graph
) -> Callable[..., Plan]:
    """Return a maker of plans of runs written in one line; on the path graph unless told."""

    def make(
        approach: str,
        ranks: int = 1,
        *,
        data: GraphLike = path_graph,
        owner: Sequence[int] | None = None,
        device: str = "cpu",
        **run: Any,
    ) -> Plan:
        return plan_of(data, make_run(approach, ranks, **run), owner, device=device)

    return make
