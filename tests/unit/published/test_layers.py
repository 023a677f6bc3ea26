"""Layers of published systems that train from the disk, as their frameworks issue them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import disk_row

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.plan import Plan
from gnnbench.published.layers import layered
from gnnbench.published.released import EAGER, PYG_SPMM
from gnnbench.published.software import ISSUE, NATIVE, Software
from gnnbench.published.systems import Case, case_of
from gnnbench.steps import Kind, Lane, Phase, Step


def planned(**given: Any) -> tuple[Plan, StackShape]:
    """MariusGNN on ogbn-arxiv, three quarters of 64 partitions in memory."""
    found = case_of(disk_row(**given))
    assert isinstance(found, Case)
    card, run, data = APPROACHES.get(found.run.approach), found.run, found.profile
    layout = Layout(world_size=1, ranks_per_host=1, device="cuda")
    plan = card.plan(data, run, card.structure(data, run), layout)
    return plan, stack_shape(data, run, "aggregate_first")


def steps_of(plan: Plan) -> list[Step]:
    return list(plan.iterations[0].classes[0].steps)


def test_our_own_layers_keep_the_plan() -> None:
    plan, shape = planned()
    assert layered(plan, shape, NATIVE) is plan


@pytest.mark.parametrize("framework", ["dgl", "pyg", "torch"])
def test_only_training_changes_and_a_valid_plan_remains(framework: str) -> None:
    plan, shape = planned()
    made = layered(plan, shape, Software(framework=framework))
    made.validate()
    before = [s for s in steps_of(plan) if s.phase in (Phase.LOAD, Phase.SAMPLE, Phase.FETCH)]
    assert steps_of(made)[: len(before)] == before
    trained = steps_of(made)[len(before) :]
    issued = [s for s in trained if s.lane is ISSUE]
    assert len(issued) == sum(s.lane is Lane.COMPUTE for s in trained) == len(trained) / 2
    # Each layer each way, and the optimizer, issue more than what the device takes.
    assert sum(s.work.calls >= EAGER for s in issued) >= 2 * 2 + 1
    assert made.moved_bytes(0) == plan.moved_bytes(0)


def test_pyg_multiplies_sparse_matrices_more_slowly() -> None:
    plan, shape = planned()
    made = layered(plan, shape, Software(framework="pyg"))
    pairs = [(s.work, o.work) for s in steps_of(plan) for o in steps_of(made) if s.name == o.name]
    sparse = [(own, other) for own, other in pairs if own.kind is Kind.SPMM]
    assert sparse
    for own, other in sparse:
        assert np.max(other.nonzeros) == pytest.approx(PYG_SPMM * np.max(own.nonzeros), rel=1e-3)


def test_mariusgnn_gathers_rows_of_neighbours_and_sums_them() -> None:
    plan, shape = planned()
    made = {s.name: s for s in steps_of(layered(plan, shape, Software(framework="torch")))}
    sparse = [s for s in steps_of(plan) if s.kind is Kind.SPMM]
    assert sparse
    for step in sparse:
        gathered, summed = made[f"{step.name}_rows"].work, made[step.name].work
        assert (gathered.kind, summed.kind) == (Kind.GATHER, Kind.SCATTER)
        assert np.array_equal(gathered.rows, step.work.nonzeros)
        assert np.array_equal(gathered.source_rows, step.work.source_rows)
        assert np.array_equal(summed.rows, step.work.nonzeros)
        assert np.array_equal(summed.source_rows, step.work.rows)
