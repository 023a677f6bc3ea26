"""Rows that count rows, bytes and partitions, against closed forms and published counts."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import disk_row, row

from gnnbench.published.disk_counts import DISK_COUNTS, DISK_TIMES, UNITS, DiskCount
from gnnbench.published.disk_epochs import Epoch, _binomial, epoch_of
from gnnbench.published.reason import Reason
from gnnbench.published.rows import PublishedRow
from gnnbench.published.split import INPUT, SCORE, used
from gnnbench.published.systems import case_of

FREEBASE_GB = 68.8433208
"""Table and Adagrad state of Freebase86M at width 100 (out-of-core reference section 2)."""


def stated(metric: str, **given: Any) -> PublishedRow:
    cells = {
        "source": "DiskGNN repo result files",
        "system": "DiskGNN",
        "dataset": "friendster",
        "layers": "3.0",
        "fanout": "10;15;20",
        "batch": "1024.0",
        "metric": metric,
        "unit": next(iter(UNITS[metric])),
        "value": 1.0,
        "notes": "10% cache",
    }
    return row(**(cells | given))


def counted(metric: str, **given: Any) -> float:
    found = case_of(stated(metric, **given))
    assert isinstance(found, DiskCount), found
    return found.expected(metric)[0]


@pytest.mark.parametrize(
    ("system", "notes", "swaps"),
    [
        ("BETA/Elimination (simulated)", "p=32, buffer c=p/4", 78),
        ("BETA/Elimination (simulated)", "p=16, buffer c=p/4", 42),
        ("Lower bound (analytic)", "p=32, buffer c=p/4", 67),
        ("Lower bound (analytic)", "p=16, buffer c=p/4", 38),
    ],
)
def test_swaps_move_two_partitions_each(system: str, notes: str, swaps: int) -> None:
    partitions = int(notes[2:4])
    found = counted(
        "total_io_per_epoch",
        system=system,
        dataset="Freebase86M",
        model="ComplEx",
        hidden="100",
        notes=notes,
    )
    assert found == pytest.approx(2 * swaps * FREEBASE_GB * 1e9 / partitions)


def test_an_ordering_that_is_not_built_has_a_reason() -> None:
    found = case_of(
        stated(
            "total_io_per_epoch",
            system="HilbertSymmetric (simulated)",
            dataset="Freebase86M",
            model="ComplEx",
            hidden="100",
            notes="p=32, buffer c=p/4",
        )
    )
    assert isinstance(found, Reason)
    assert "ordering not built" in str(found)


def test_training_vertices_fill_the_first_partitions() -> None:
    """Papers100M in 8,192 partitions: 90 hold its training vertices, as the published log says."""
    found = counted(
        "num_train_partitions", dataset="ogbn-papers100M", system="MariusGNN", notes="p=8192"
    )
    assert found == 90


def test_the_rows_of_an_epoch_are_near_the_published_ones() -> None:
    """956 M of Friendster and 1,427 M of papers100M; no profile was made from these."""
    metric = "feature_rows_requested_per_epoch"
    assert counted(metric) == pytest.approx(956_089_708, rel=0.4)
    assert counted(metric, dataset="ogbn-papers100M") == pytest.approx(1_426_557_031, rel=0.1)


def test_a_larger_cache_misses_less_and_a_whole_one_nothing() -> None:
    metric = "packed_feature_blowup"
    values = [counted(metric, notes=f"{share}% cache") for share in (10, 20, 50)]
    assert values == sorted(values, reverse=True)
    assert isinstance(case_of(stated(metric, notes="100% cache")), Reason)


def test_uses_beyond_a_cache_add_up_to_all_uses_without_one() -> None:
    found = case_of(stated("feature_rows_missed_per_epoch", notes="0% cache"))
    all_of_them = counted("feature_rows_requested_per_epoch")
    assert isinstance(found, DiskCount)
    assert found.value == pytest.approx(all_of_them, rel=0.02)


def test_static_caches_hold_the_most_used_rows() -> None:
    """Three kinds of rows in four batches; uses are binomial, worked out by hand."""
    from gnnbench.data.reach import Inclusion

    epoch = Epoch(
        profile=None,  # type: ignore[arg-type]
        batches=4,
        inputs=0.0,
        chances=Inclusion(
            rows=np.array([10.0, 100.0, 1000.0]),
            degree=np.ones(3),
            seed=np.zeros(3),
            chance=np.array([1.0, 0.5, 0.0]),
        ),
        counted=False,
    )
    assert epoch.beyond(0) == pytest.approx(4 * 10 + 2 * 100)
    # Ten rows are used in all batches, and 100 / 16 of the second kind as well.
    assert epoch.beyond(10 + 100 / 16) == pytest.approx(100 * (4 * 3 + 6 * 2 + 4 * 1) / 16)
    assert epoch.beyond(1110) == 0


def test_a_binomial_adds_up_and_has_its_mean() -> None:
    uses = np.arange(8.0)
    pmf = _binomial(uses, 7, np.array([0.0, 0.3, 1.0]))
    assert pmf.sum(axis=1) == pytest.approx([1, 1, 1])
    assert pmf @ uses == pytest.approx([0, 2.1, 7])
    assert pmf[1, 2] == pytest.approx(math.comb(7, 2) * 0.3**2 * 0.7**5)


def test_a_batch_that_a_profile_was_made_from_is_an_input() -> None:
    given = {
        "system": "GraphBolt DiskBasedFeature",
        "dataset": "ogbn-papers100M",
        "fanout": "10;10;10",
        "value": 669_013.0,
    }
    own = stated("input_nodes_per_batch_shown", **given)
    found = case_of(own)
    assert isinstance(found, DiskCount)
    assert used(own, found) == INPUT
    other = dataclasses.replace(own, fanout="10;15;20")
    assert used(other, case_of(other)) == SCORE  # type: ignore[arg-type]


def test_a_volume_is_bound_by_requests_at_small_blocks_and_by_bytes_at_large_ones() -> None:
    given = {"hardware": "looks like an EBS gp3 volume", "storage": "unknown volume"}
    deep = "block {} KiB, random iodepth64 numjobs4"
    small = counted("read_throughput", notes=deep.format(4), **given)
    large = counted("read_throughput", notes=deep.format(1024), **given)
    assert small == pytest.approx(3000 * 4096, rel=0.1)
    assert large == pytest.approx(131_072_000, rel=0.05)


def test_every_counted_metric_has_units() -> None:
    assert {*DISK_COUNTS, *DISK_TIMES} == set(UNITS)


def test_an_epoch_reaches_more_of_a_graph_than_one_counted_batch_shows() -> None:
    """Its chances add up to the counted batch, and its share lies between the batch's and all."""
    row = disk_row(
        source="DiskGNN repo result files",
        system="DiskGNN",
        dataset="ogbn-papers100M",
        layers="3",
        fanout="10;10;10",
        batch="1024",
    )
    epoch = epoch_of(row)
    found = epoch.chances
    assert float((found.rows * found.chance).sum()) == pytest.approx(666_946, rel=0.01)
    reached = epoch.profile.reached_share((10, 10, 10), 1024)
    share = float(found.rows[found.chance > 0].sum()) / epoch.profile.num_nodes
    assert reached < share < 1.0
    assert share == pytest.approx(reached**0.5, rel=0.01)
