"""Batches that come from files, and rows that are read one by one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import disk_row

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.plan import Plan
from gnnbench.published.rows import PublishedRow
from gnnbench.published.software import NATIVE, Software
from gnnbench.published.systems import Case, case_of
from gnnbench.published.traces import EDGE_BYTES, VERTEX_BYTES, trace_bytes, traced
from gnnbench.steps import After, Kind, Phase, Step
from gnnbench_simulator.validation import compare_rows

FILES, TRACES = Software(batches="files"), Software(batches="traces")


def stated(**given: Any) -> PublishedRow:
    """DGL on disk, on ogbn-arxiv: rows of 512 bytes, eight of them in a block."""
    return disk_row(**{"system": "DGL mmap on disk", "notes": "", **given})


def planned() -> Plan:
    found = case_of(stated())
    assert isinstance(found, Case)
    card, run, data = APPROACHES.get(found.run.approach), found.run, found.profile
    layout = Layout(world_size=1, ranks_per_host=1, device="cuda")
    return card.plan(data, run, card.structure(data, run), layout)


def steps_of(plan: Plan, number: int = 0) -> dict[str, Step]:
    return {step.name: step for step in plan.iterations[number].classes[0].steps}


def test_code_that_draws_in_memory_keeps_the_plan() -> None:
    plan = planned()
    assert traced(plan, NATIVE) is plan


@pytest.mark.parametrize("software", [FILES, TRACES])
def test_every_missing_row_is_a_request_of_a_block(software: Software) -> None:
    plan = planned()
    before, after = steps_of(plan)["fetch/misses"], steps_of(traced(plan, software))["fetch/misses"]
    inputs = steps_of(plan)["fetch/gather"].work.rows
    # Nothing is cached, so every input row is read.
    assert after.work.rows == before.work.source_rows == inputs
    assert after.work.bytes == 4096 * inputs
    assert before.work.rows < after.work.rows


def test_a_batch_takes_two_ids_per_edge_and_one_per_vertex() -> None:
    steps = steps_of(planned())
    edges = sum(
        s.work.nonzeros for n, s in steps.items() if n.startswith("forward/") and n.endswith("spmm")
    )
    assert edges > 0
    inputs = steps["fetch/gather"].work.rows
    found = trace_bytes(list(steps.values()))
    assert found == EDGE_BYTES * edges + VERTEX_BYTES * inputs


def test_batches_from_files_are_not_drawn_and_nothing_overlaps() -> None:
    plan = traced(planned(), FILES)
    steps = steps_of(plan)
    drawn = [step for step in steps.values() if step.phase is Phase.SAMPLE]
    assert drawn
    assert all(step.work.bytes == 0 for step in drawn)
    assert steps["load/graph"].work.bytes == trace_bytes(list(steps.values()))
    first, last = (
        next(iter(steps.values())),
        [s for s in steps.values() if s.kind is Kind.OPTIMIZER],
    )
    assert After(last[0].name, 1) in first.after


def test_traces_are_written_when_a_superbatch_is_drawn_and_read_batch_by_batch() -> None:
    plan = traced(planned(), TRACES)
    steps = steps_of(plan)
    batches = plan.notes["steps"]
    size = steps["load/graph"].work.bytes
    assert steps["sample/traces"].work.bytes == batches * size
    assert steps["sample/superbatch"].work.bytes > 0
    assert After("sample/traces") in steps["sample/inspect"].after


def test_stages_of_dgl_on_disk_add_up_to_its_epoch() -> None:
    names = ("graph_load", "feature_load", "feature_assemble", "model_train", "total_time")
    rows = [stated(metric=f"stage_{name}") for name in names]
    found = compare_rows([*rows, stated(metric="epoch_time")])
    assert all(c.predicted is not None for c in found), [str(c.reason) for c in found]
    *parts, total, epoch = (c.predicted or 0.0 for c in found)
    assert sum(parts) == pytest.approx(total, rel=0.01)
    assert epoch == pytest.approx(total, rel=0.01)
