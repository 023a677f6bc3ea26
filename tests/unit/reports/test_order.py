"""Kendall's tau of the order of approaches, on rows small enough to count by hand."""

from __future__ import annotations

import pytest
from scipy.stats import kendalltau

from gnnbench_reports.comparison import Comparison
from gnnbench_reports.order import orders


def made(label: str, measured: float, predicted: float, **more: object) -> Comparison:
    fields: dict[str, object] = {
        "config_id": label,
        "label": label,
        "approach": label,
        "dataset": "g",
        "model": "m",
        "ranks": 2,
        "status": "ok",
        "measured_period_s": measured,
        "predicted_period_s": predicted,
        "repeat_spread": 0.01,
        "ratio": predicted / measured,
    }
    return Comparison(**(fields | more))  # type: ignore[arg-type]


def test_tau_is_kendalls_where_nothing_ties() -> None:
    measured, predicted = [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 3.0, 2.0, 5.0, 4.0]
    rows = [made(f"a{n}", m, p) for n, (m, p) in enumerate(zip(measured, predicted, strict=True))]
    (row,) = orders(rows)
    assert row.pairs == row.distinct == 10
    assert row.tau == pytest.approx(kendalltau(measured, predicted).statistic)


def test_pairs_within_their_noise_have_no_order_to_predict() -> None:
    rows = [made("a", 1.0, 1.1), made("b", 1.04, 1.0), made("c", 2.0, 2.0)]
    (row,) = orders(rows)
    assert (row.pairs, row.distinct) == (3, 2)
    assert row.tau == 1.0
    assert row.tau_all == pytest.approx(1 / 3)


def test_repeats_that_happen_to_agree_are_as_noisy_as_others() -> None:
    """Two times of 1 % spread, 10 % apart, in a study whose repeats spread by 8 % in the median."""
    calm = [made("a", 1.0, 1.0), made("b", 1.1, 1.2)]
    others = [made("c", 9.0, 9.0, repeat_spread=0.08, ranks=n) for n in (1, 4, 8)]
    assert [(row.pairs, row.distinct) for row in orders(calm)] == [(1, 1)]
    assert [(row.pairs, row.distinct) for row in orders(calm + others)] == [(1, 0)]


def test_one_program_under_two_names_has_no_order() -> None:
    rows = [
        made("a", 1.0, 1.0, program="x"),
        made("b", 2.0, 1.0, program="x"),
        made("c", 3.0, 3.0, program="y"),
        made("d", 4.0, 4.0),
    ]
    (row,) = orders(rows)
    assert (row.pairs, row.distinct, row.tau) == (5, 5, 1.0)
    assert orders(rows[:2]) == []


def test_a_time_measured_once_is_noisier_than_its_epochs_say() -> None:
    once = {"repeat_spread": None, "period_spread": 0.001}
    (row,) = orders([made("a", 1.0, 1.0, **once), made("b", 1.04, 1.1, **once)])
    assert (row.distinct, row.tau) == (0, None)


def test_a_tie_in_prediction_counts_as_nothing_got_right() -> None:
    (row,) = orders([made("a", 1.0, 1.0), made("b", 2.0, 1.0)])
    assert (row.distinct, row.tau) == (1, 0.0)


def test_graphs_are_judged_apart_and_rank_counts_never_compete() -> None:
    rows = [
        made("a", 1.0, 1.0, dataset="g"),
        made("b", 2.0, 2.0, dataset="g"),
        made("a", 1.0, 2.0, dataset="h"),
        made("b", 2.0, 1.0, dataset="h"),
        made("c", 9.0, 0.1, dataset="h", ranks=4),
    ]
    assert [(row.dataset, row.pairs, row.tau) for row in orders(rows)] == [
        ("g", 1, 1.0),
        ("h", 1, -1.0),
    ]


def test_regret_is_the_worst_choice_on_the_graph() -> None:
    rows = [
        made("a", 1.0, 1.1),
        made("b", 1.5, 1.0),
        made("a", 1.0, 1.0, ranks=4),
        made("b", 3.0, 3.0, ranks=4),
    ]
    (row,) = orders(rows)
    assert row.regret == pytest.approx(0.5)
