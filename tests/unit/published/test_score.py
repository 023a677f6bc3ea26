"""Scores of comparisons: errors, what counts, and the order of systems and ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import row

from gnnbench.published.reason import Reason
from gnnbench.published.score import Comparison, score
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
