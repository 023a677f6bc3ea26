"""Times in tables of training from disk: whole trainings, stages, and what is left out."""

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
from gnnbench.plan import Plan
from gnnbench.published.metrics import epochs_of, meaning, phases_of, without_load
from gnnbench.published.reason import Reason
from gnnbench.published.rows import PublishedRow
from gnnbench.published.software import NATIVE, Software
from gnnbench.published.systems import Case, case_of
from gnnbench.published.threads import resorted, threaded
from gnnbench.steps import Phase
from gnnbench_simulator.validation import compare_rows


def marius(**given: Any) -> PublishedRow:
    """MariusGNN on ogbn-arxiv, half of 64 partitions in memory."""
    return disk_row(**given)


def predicted(*rows: PublishedRow) -> list[float]:
    found = compare_rows(rows)
    assert all(c.predicted is not None for c in found), [str(c.reason) for c in found]
    return [c.predicted or 0.0 for c in found]


def test_whole_trainings_are_so_many_epochs() -> None:
    one, twenty, fifty = predicted(
        marius(),
        marius(metric="train_20_epochs_time"),
        marius(metric="total_train_time_50_epochs"),
    )
    assert twenty == pytest.approx(20 * one)
    assert fifty == pytest.approx(50 * one)
    assert epochs_of(marius(metric="epoch_time_steady")) == 1
    assert epochs_of(marius(metric="train_99999_epochs_time")) == 0
    assert epochs_of(marius(metric="buffer_fill_time")) == 0


def test_stages_of_a_serial_epoch_add_up_to_their_total() -> None:
    stages = ("feature_load", "graph_load", "graph_sample", "feature_assemble", "model_train")
    *parts, total = predicted(*(marius(metric=f"stage_{name}") for name in (*stages, "total_time")))
    assert all(part > 0 for part in parts)
    assert sum(parts) == pytest.approx(total)


def test_an_epoch_without_filling_the_buffer_is_shorter_by_it() -> None:
    plain, without, fill = predicted(
        marius(),
        marius(notes="p=64, c=48; epoch time excludes buffer fill", metric="epoch_time_mean"),
        marius(metric="buffer_fill_time"),
    )
    assert plain - without == pytest.approx(fill)
    assert without_load(marius(notes="epoch time excludes buffer fill"))


def test_what_a_time_is_a_sum_of_is_said() -> None:
    assert meaning(marius()) == "1 epoch, overlap included"
    assert "20 epochs" in meaning(marius(metric="train_20_epochs_time"))
    assert "load/partitions" in meaning(marius(metric="stage_feature_load")).replace(
        "(load|ahead)", "load"
    )
    assert "sample" not in phases_of(marius(metric="epoch_time_without_sampling"))
    assert meaning(marius(metric="test_accuracy")) == ""


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("superbatch_sampling_time", "topology on the disk"),
        ("changeset_precompute_time", "on the GPU"),
        ("preprocess_time", "preparation"),
        ("epoch_time_min", "a spread of repeats"),
        ("train_20_epochs_failed", "an outcome"),
        ("experiment_time_estimate", "rounded estimate"),
        ("filtered_mrr_low", "needs training"),
    ],
)
def test_a_metric_that_is_not_predicted_has_a_reason(metric: str, reason: str) -> None:
    found = case_of(marius(metric=metric))
    assert isinstance(found, Reason)
    assert reason in str(found)


def test_heads_may_stand_beside_the_width() -> None:
    found = case_of(marius(model="GAT", hidden="32 x 4 heads"))
    assert isinstance(found, Case)
    assert (found.run.model.hidden, found.run.model.heads) == (128, 4)


def test_the_loader_of_pyg_draws_on_the_host() -> None:
    given = {"system": "PyG", "storage": "", "notes": "", "fanout": "10;5"}
    found = case_of(marius(**given))
    assert isinstance(found, Case)
    loader = found.software.loader
    assert loader is not None
    assert (loader.sampler, loader.features, loader.workers) == ("host", "staged_pageable", 1)
    assert found.run.batch.fanouts_from_seeds == (10, 5)
    several = case_of(
        marius(**(given | {"notes": "num_workers=6", "gpus": "4", "batch": "64/GPU"}))
    )
    assert isinstance(several, Case)
    assert several.software.loader is not None
    assert several.software.loader.workers == 6
    for unstated in ({"gpus": "4", "batch": "64/GPU"}, {"notes": "blocking (exposed) time"}):
        assert "unstated number of workers" in str(case_of(marius(**(given | unstated))))


def planned() -> Plan:
    found = case_of(marius())
    assert isinstance(found, Case)
    card, run, data = APPROACHES.get(found.run.approach), found.run, found.profile
    layout = Layout(world_size=1, ranks_per_host=1, device="cuda")
    return card.plan(data, run, card.structure(data, run), layout)


def test_threads_divide_what_the_host_draws_and_gathers() -> None:
    plan = planned()
    four = threaded(plan, Software(workers=4))
    assert threaded(plan, NATIVE) is plan
    before, after = (one.iterations[0].classes[0].steps for one in (plan, four))
    assert [step.name for step in before] == [step.name for step in after]
    for own, shared in zip(before, after, strict=True):
        divided = own.phase is Phase.SAMPLE or own.name == "fetch/gather"
        ratio = np.max(shared.work.bytes) / max(np.max(own.work.bytes), 1)
        assert ratio == pytest.approx(0.25 if divided else 1.0, rel=1e-3), own.name


def test_mariusgnn_sorts_the_edges_of_its_buffer() -> None:
    plan = planned()
    made = resorted(plan, Software(sorts=True), both_ways=True)
    assert resorted(plan, NATIVE, both_ways=True) is plan
    before, after = (one.iterations[0].classes[0].steps for one in (plan, made))
    changed = [(own, new) for own, new in zip(before, after, strict=True) if own != new]
    assert [own.name for own, _ in changed] == ["load/graph"]
    own, new = changed[0]
    assert (own.work.op, new.work.op) == ("enter_buffer", "sort_edges")
    # Each edge is kept once and sorted twice.
    assert new.work.rows == own.work.rows // 2
    assert new.work.bytes > own.work.bytes


def test_threads_and_requests_in_flight_are_no_other_plan() -> None:
    assert not Software(workers=8, depth=64, sorts=True, batches="files").rewrites
    assert Software(precompute=True).rewrites
