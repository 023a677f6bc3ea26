"""What evaluations hold: buffers of their own, beside those of the training, until they end."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.temporal import metrics
from gnnbench.approaches.temporal.metrics import link_metrics
from gnnbench.buffers import EVALUATED, FEATURES, TOPOLOGY, category
from gnnbench.data.source import Library
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Phase, Space


def planned(run: RunSpec, **layout: Any) -> Plan:
    """The plan of a run on its generated dataset."""
    card, data = APPROACHES.get(run.approach), Library([]).open(run.dataset)
    where = Layout(world_size=run.ranks, ranks_per_host=run.ranks, **layout)
    return card.plan(data, run, card.structure(data, run), where)


@pytest.mark.parametrize("name", APPROACHES.names())
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_an_evaluation_allocates_ends_with_it(name: str, device: str) -> None:
    for run in APPROACHES.get(name).examples():
        plan = planned(run, device=device)
        living: set[str] = set()
        for iteration in plan.evaluation:
            for of in iteration.classes:
                for step in of.steps:
                    assert step.phase is Phase.EVALUATE
                    living |= {buffer.name for buffer in step.allocates}
                    assert set(step.frees) <= living, step.name
                    living -= set(step.frees)
                assert not living
        for _, step in plan.evaluated():
            assert all(buffer.name.startswith(EVALUATED) for buffer in step.allocates)


@pytest.mark.parametrize("name", APPROACHES.names())
def test_the_periods_peak_whether_an_evaluation_follows_or_not(name: str) -> None:
    plan = planned(APPROACHES.get(name).examples()[0])
    (alone,) = plan.peaks([(Space.DEVICE, Space.HOST)])
    (both,) = plan.peaks([(Space.DEVICE, Space.HOST)], evaluates=True)
    assert alone.training.tolist() == both.training.tolist()
    # What the periods leave is what an evaluation begins with.
    assert (alone.evaluation <= both.evaluation).all()


def test_bns_evaluates_on_the_whole_halo_and_sends_transformed_rows() -> None:
    """Two layers 7 -> 8 -> 4: the first aggregates at 7, and so needs the halo's features."""
    plan = planned(example("bns", knobs={"rate": 0.5}))
    sizes = {b.name: np.asarray(b.bytes) for _, step in plan.evaluated() for b in step.allocates}
    own = np.asarray(next(b.bytes for b in plan.resident if b.name == "row_ids")) // 8
    halo = sizes["evaluated_x"] // (8 * 7) - own
    assert (halo > 0).all()
    assert sizes["evaluated_h1"].tolist() == (own * 8 * 8).tolist()
    assert sizes["evaluated_answers"].tolist() == (11 * own).tolist()
    wide = planned(example("bns", knobs={"rate": 0.5}, options={"num_features": 30}))
    assert "evaluated_x" not in {b.name for _, step in wide.evaluated() for b in step.allocates}


def test_rows_on_the_device_are_read_in_place() -> None:
    batch = {"size": 16, "fanouts_from_seeds": (4, 3)}

    def loaded(**knobs: Any) -> int:
        plan = planned(example("sampled", 1, batch=batch, knobs=knobs))
        held = {b.name: b.bytes for _, step in plan.evaluated() for b in step.allocates}
        return int(np.max(held["evaluated_x"]))

    assert loaded() == 0
    assert loaded(placement="host") == 90 * 7 * 8


def test_an_evaluation_of_a_stream_copies_the_memory_that_it_changes() -> None:
    tgn = {"kind": "tgn", "layers": 1, "heads": 2}
    batch = {"size": 64, "fanouts_from_seeds": (5,), "negatives": 2}
    run = example("tgl", 1, kind="stream", model=tgn, batch=batch, training={"epochs": 2})
    plan = planned(run)
    held = {b.name: np.max(b.bytes) for b in plan.resident}
    copied = {b.name: np.max(b.bytes) for _, step in plan.evaluated() for b in step.allocates}
    assert copied["evaluated_memory"] == held["memory"] > 0
    assert copied["evaluated_clock"] == held["clock"] > 0
    increments = dataclasses.replace(
        run, approach="continuous", training=dataclasses.replace(run.training, increments=2)
    )
    assert not planned(increments).evaluation


@pytest.mark.parametrize("at_once", [1, 3, 10, 1 << 16])
def test_metrics_do_not_depend_on_how_many_pairs_are_ranked_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    indptr = np.concatenate([[0], np.cumsum(rng.integers(1, 9, 40))])
    scores = rng.integers(0, 4, indptr[-1]).astype(np.float64)
    whole = link_metrics(scores, indptr)
    monkeypatch.setattr(metrics, "PAIRS_AT_ONCE", at_once)
    assert link_metrics(scores, indptr) == whole


def test_buffers_of_an_evaluation_have_the_categories_of_what_they_hold() -> None:
    assert category("evaluated_x", resident=False) == FEATURES
    assert category("evaluated_topology", resident=False) == TOPOLOGY
    assert category("evaluated_z1", resident=False) == category("z1", resident=False)
