"""Threads that read ahead behind caches of single rows: DiskGNN, its ablation, and GraphBolt."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import disk_row

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.plan import Plan
from gnnbench.published.ahead import BATCHES_AHEAD, COLD_BYTES, HOT_BYTES, worked_ahead
from gnnbench.published.disk_epochs import epoch_of
from gnnbench.published.reason import Reason
from gnnbench.published.rows import PublishedRow
from gnnbench.published.software import NATIVE, Ahead, Software
from gnnbench.published.systems import Case, case_of
from gnnbench.published.traces import trace_bytes
from gnnbench.steps import After, Kind, Phase, Step
from gnnbench_simulator.validation import compare_rows

CACHES = "cache ratio 10%, cache size 0.004+0.002 GB (CPU+GPU for DiskGNN)"


def diskgnn(**given: Any) -> PublishedRow:
    """DiskGNN on ogbn-arxiv, rows of 512 bytes; 4 MB are cached on the host, 2 on the device."""
    return disk_row(**{"system": "DiskGNN", "notes": CACHES, **given})


def graphbolt(**given: Any) -> PublishedRow:
    """GraphBolt on ogbn-arxiv, 20,000 of its 169,343 rows in memory."""
    cells = {"system": "GraphBolt DiskBasedFeature", "notes": "epoch 1; 0.02M-row CPU cache"}
    return disk_row(**{**cells, **given})


def case(row: PublishedRow) -> Case:
    found = case_of(row)
    assert isinstance(found, Case), found
    return found


def ahead_of(row: PublishedRow) -> Ahead:
    found = case(row).software.ahead
    assert found is not None
    return found


def plans(row: PublishedRow) -> tuple[Plan, Plan, Ahead]:
    """Our plan of a row, the one of its threads, and what they do."""
    found = case(row)
    card, run, data = APPROACHES.get(found.run.approach), found.run, found.profile
    layout = Layout(world_size=1, ranks_per_host=1, device="cuda")
    plan = card.plan(data, run, card.structure(data, run), layout)
    return plan, worked_ahead(plan, found.software), ahead_of(row)


def steps_of(plan: Plan) -> dict[str, Step]:
    return {step.name: step for step in plan.iterations[0].classes[0].steps}


def test_the_rows_used_most_are_on_the_device_and_the_next_ones_on_the_host() -> None:
    row = diskgnn()
    epoch, found = epoch_of(row), ahead_of(row)
    on_device, cached = 2e6 / 512, 6e6 / 512
    assert found.device == pytest.approx(1 - epoch.beyond(on_device) / epoch.requested)
    assert found.missed == pytest.approx(epoch.beyond(cached) / epoch.requested)
    assert 0 < found.device < 1 - found.missed < 1


def test_the_ablation_adds_packing_and_caches_one_by_one() -> None:
    by_parts = {
        parts: ahead_of(diskgnn(system=f"DiskGNN ablation Naive{parts}"))
        for parts in ("", "+G", "+G+C", "+P", "+P+G", "+P+G+C")
    }
    assert {parts: found.apart for parts, found in by_parts.items()} == {
        "": True,
        "+G": True,
        "+G+C": True,
        "+P": False,
        "+P+G": False,
        "+P+G+C": False,
    }
    assert (by_parts[""].device, by_parts[""].missed) == (0.0, pytest.approx(1.0))
    assert by_parts["+P+G"].missed == pytest.approx(1 - by_parts["+P+G"].device)
    assert by_parts["+P+G+C"] == ahead_of(diskgnn())


@pytest.mark.parametrize(
    "given",
    [
        {"system": "DiskGNN ablation Naive+P+G+C+D"},
        {"notes": f"{CACHES}; disk-space budget 0.01x of the raw features"},
    ],
)
def test_rows_that_batches_share_on_the_disk_are_not_modelled(given: dict[str, str]) -> None:
    found = case_of(diskgnn(**given))
    assert isinstance(found, Reason)
    assert "share on the disk" in str(found)


def test_code_without_such_threads_keeps_the_plan() -> None:
    plan, _, _ = plans(diskgnn())
    assert worked_ahead(plan, NATIVE) is plan
    assert not Software(ahead=Ahead()).rewrites


def test_a_packed_batch_is_a_read_of_its_blocks_and_one_of_places_and_rows() -> None:
    plan, made, ahead = plans(diskgnn())
    before, after = steps_of(plan), steps_of(made)
    rows = int(np.max(before["fetch/gather"].work.rows))
    missed = round(ahead.missed * rows)
    places = COLD_BYTES * missed + HOT_BYTES * (rows - missed)
    assert after["fetch/misses"].work.bytes == 512 * missed + places
    assert after["load/graph"].work.bytes == trace_bytes(list(before.values()))
    assert after["fetch/rows"].work.bytes == round((1 - ahead.device) * 512 * rows)
    drawn = [s for s in after.values() if s.phase is Phase.SAMPLE]
    assert all(step.work.bytes == 0 for step in drawn)
    update = next(name for name, s in after.items() if s.kind is Kind.OPTIMIZER)
    assert After(update, BATCHES_AHEAD) in after["fetch/misses"].after


def test_a_row_that_is_read_alone_is_a_request_of_a_block() -> None:
    _, made, ahead = plans(graphbolt())
    steps = steps_of(made)
    missed = round(ahead.missed * int(steps["fetch/place"].work.rows))
    assert steps["fetch/misses"].work.rows == missed + 1
    assert steps["fetch/misses"].work.bytes == 4096 * missed


def test_graphbolt_draws_while_it_trains() -> None:
    _, made, _ = plans(graphbolt())
    steps = steps_of(made)
    assert steps["sample/superbatch"].work.bytes > 0
    assert "load/graph" not in steps


def test_the_first_epoch_also_fills_the_cache() -> None:
    first, later = (ahead_of(graphbolt(notes=f"epoch {n}; 0.15M-row CPU cache")) for n in (0, 1))
    epoch = epoch_of(graphbolt())
    filled = min(0.15e6, epoch.touched) / epoch.requested
    used = epoch.touched / epoch.requested
    assert first.missed == pytest.approx(max(used, min(1.0, later.missed + filled)))
    assert later.missed < first.missed
    assert "rows in the caches" in str(case_of(graphbolt(notes="epoch 1")))


def test_a_row_is_first_used_in_one_epoch() -> None:
    """Rows first used in some epochs are those that as many epochs in one use at all."""
    epoch = epoch_of(graphbolt())
    twice = replace(epoch, batches=2 * epoch.batches)
    assert epoch.first_used(0) + epoch.first_used(1) == pytest.approx(twice.touched)
    assert epoch.first_used(1) < epoch.first_used(0)


def test_a_row_names_the_policy_of_its_cache() -> None:
    epoch, notes = epoch_of(graphbolt()), "epoch 5; 0.05M-row CPU cache"
    share = 0.05e6 / epoch.profile.num_nodes
    missed = [ahead_of(graphbolt(notes=f"{notes} {name}")).missed for name in ("s3-fifo", "lru")]
    assert missed[0] == pytest.approx(epoch.missed_by_three_queues(share))
    assert missed[1] == pytest.approx(epoch.missed_by_recent(share))
    assert missed[0] != pytest.approx(missed[1], rel=0.01)


def test_stages_take_turns_in_a_total_and_overlap_in_an_epoch() -> None:
    names = ("graph_load", "feature_load", "feature_assemble", "model_train", "total_time")
    rows = [diskgnn(metric=f"stage_{name}") for name in names]
    found = compare_rows([*rows, diskgnn(metric="epoch_time")])
    assert all(c.predicted is not None for c in found), [str(c.reason) for c in found]
    *parts, total, epoch = (c.predicted or 0.0 for c in found)
    assert sum(parts) == pytest.approx(total, rel=0.01)
    assert max(parts) < epoch < total


def test_packing_adds_little_to_an_epoch_of_diskgnn_and_much_to_others() -> None:
    metric = "epoch_time_plus_preprocessing_share"
    plain, shared = compare_rows([diskgnn(), diskgnn(metric=metric)])
    assert plain.predicted == shared.predicted
    assert "a share of preparation" in str(case_of(disk_row(metric=metric)))


def test_packing_reads_rows_one_by_one_or_the_table_as_a_whole() -> None:
    study = {"source": "DiskGNN repo result files", "system": "DiskGNN preprocessing"}
    given = {**study, "notes": "", "dataset": "ogbn-papers100M", "layers": "3"}
    given |= {"fanout": "10;15;20", "batch": "1024", "hidden": "256"}
    rows = [disk_row(metric=f"preprocess_{how}_feature_read", **given) for how in WAYS]
    by_rows, as_table = compare_rows(rows)
    assert as_table.predicted == pytest.approx(111_059_956 * 512 / 2e9)
    assert by_rows.predicted is not None
    assert by_rows.predicted > as_table.predicted
    assert by_rows.low is not None and by_rows.low < by_rows.predicted


WAYS = ("primitive", "optimized")
