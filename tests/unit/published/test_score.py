"""Scores of comparisons: errors, what counts, and the order of systems and ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import row

from gnnbench.published.reason import Reason
from gnnbench.published.score import Comparison, score, states_time
from gnnbench.published.split import FIT, HELD_OUT, INPUT, SCORE

VANILLA, PIPE = "Vanilla partition parallel", "PipeGCN"


def compared(system: str, gpus: int, published: float, predicted: float) -> Comparison:
    one = row(system=system, gpus=str(gpus), value=published)
    return Comparison(row=one, published=published, predicted=predicted, used=SCORE)


def test_fg_67_the_order_of_systems_and_of_ranks_is_counted_by_pairs() -> None:
    right = score([compared(VANILLA, 4, 2.0, 3.0), compared(PIPE, 4, 1.0, 0.5)])
    assert [(r.of, r.tau) for r in right.rankings] == [("systems", 1.0)]
    wrong = score([compared(VANILLA, 2, 2.0, 3.0), compared(VANILLA, 4, 1.0, 4.0)])
    assert [(r.of, r.tau) for r in wrong.rankings] == [("ranks", -1.0)]


def test_repeats_of_one_configuration_are_no_pair() -> None:
    assert not score([compared(VANILLA, 4, 2.0, 3.0), compared(VANILLA, 4, 1.0, 3.0)]).rankings


def test_systems_that_are_predicted_equal_are_tied() -> None:
    (found,) = score([compared(VANILLA, 4, 2.0, 3.0), compared(PIPE, 4, 1.0, 3.0)]).rankings
    assert (found.pairs, found.concordant, found.tied, found.tau) == (1, 0, 1, 0.0)


def test_an_error_is_relative_and_signed() -> None:
    assert compared(VANILLA, 4, 2.0, 1.0).error == -0.5
    assert compared(VANILLA, 4, 2.0, 1.0).inside is None


def test_only_scores_and_held_out_rows_enter_the_median() -> None:
    errors = {SCORE: 0.1, HELD_OUT: 0.3, FIT: 5.0, INPUT: 7.0}
    rows = [
        Comparison(row=row(), published=1.0, predicted=1.0 + error, used=used)
        for used, error in errors.items()
    ]
    found = score([*rows, Comparison(row=row(), reason=Reason("metric not modelled", "loss"))])
    assert (found.rows, found.modelled, found.unmodelled, found.scored) == (5, 4, 1, 2)
    assert found.median_error == pytest.approx(0.2)
    assert found.reasons == {"metric not modelled: loss": 1}
    assert [group.used for group in found.groups] == sorted(errors)


def test_counts_of_vertices_are_in_groups_and_not_in_the_median() -> None:
    one = row(metric="halo_nodes_total", unit="vertices", value=10)
    found = score([Comparison(row=one, published=10, predicted=12, used=SCORE)])
    assert (found.scored, found.median_error) == (0, None)
    assert found.groups[0].median_error == pytest.approx(0.2)


def test_what_lies_within_its_interval_is_counted_as_a_share() -> None:
    narrow = {"published": 1.0, "predicted": 2.0, "used": SCORE, "low": 1.5, "high": 3.0}
    wide = narrow | {"low": 0.5}
    found = score([Comparison(row=row(), **narrow), Comparison(row=row(), **wide)])
    assert found.inside == 0.5


def test_a_table_says_how_many_of_its_rows_with_a_time_are_modelled_and_how_well() -> None:
    rows = [
        Comparison(row=row(row_id="t:2"), published=1.0, predicted=2.0, used=SCORE),
        Comparison(row=row(row_id="t:3"), published=1.0, predicted=0.5, used=SCORE),
        Comparison(row=row(row_id="t:4", metric="init_time"), reason=Reason("metric")),
        Comparison(row=row(row_id="t:5", metric="time_to_accuracy"), reason=Reason("training")),
        Comparison(row=row(row_id="u:2", metric="accuracy", unit="%"), reason=Reason("training")),
    ]
    first, second = score(rows).tables
    assert (first.table, first.timed, first.modelled) == ("t", 3, 2)
    assert first.ratio == pytest.approx(1.0)
    assert first.median_error == pytest.approx(0.75)
    assert (second.table, second.timed, second.ratio, second.tau) == ("u", 0, None, None)


def test_what_is_a_time_is_decided_by_unit_and_words() -> None:
    assert states_time(row(metric="extract_time_per_epoch"))
    assert states_time(row(metric="preprocess_time", unit="min"))
    assert not states_time(row(metric="time_to_accuracy"))
    assert not states_time(row(metric="speedup", unit="x"))


def part(metric: str, ratio: float, published: float = 1.0) -> Comparison:
    one = row(system="SGNN", metric=metric, value=published)
    return Comparison(row=one, published=published, predicted=ratio * published, used=SCORE)


def test_an_epoch_that_is_met_by_parts_that_are_missed_both_ways_is_named() -> None:
    parts = [
        part("epoch_time", 1.1),
        part("sample_time_per_epoch", 2.0),
        part("extract_time_per_epoch", 1.0),
        part("train_time_per_epoch", 0.4),
    ]
    (found,) = score(parts).cancelling
    assert found.epoch == pytest.approx(1.1)
    assert found.slowest == ("sample_time_per_epoch", pytest.approx(2.0))
    assert found.fastest == ("train_time_per_epoch", pytest.approx(0.4))
    one_way = [part("epoch_time", 1.1), part("sample_time_per_epoch", 2.0)]
    assert not score(one_way).cancelling
    missed = [part("epoch_time", 3.0), *parts[1:]]
    assert not score(missed).cancelling
