"""The summary's figures, on rows small enough to work out by hand."""

from __future__ import annotations

import pytest

from gnnbench_reports.comparison import Comparison
from gnnbench_reports.summary import choices, error_table, scaling_points, summarise
from gnnbench_reports.verdict import NOTHING, verdict


def made(
    label: str, measured: float, predicted: float, ranks: int = 1, **more: object
) -> Comparison:
    fields: dict[str, object] = {
        "config_id": f"{label}-{ranks}",
        "label": label,
        "approach": label,
        "dataset": "g",
        "model": "m",
        "ranks": ranks,
        "status": "ok",
        "measured_period_s": measured,
        "predicted_period_s": predicted,
        "ratio": predicted / measured,
        "error": predicted / measured - 1,
    }
    return Comparison(**(fields | more))  # type: ignore[arg-type]


def test_errors_are_of_either_sign_and_the_bias_is_geometric() -> None:
    summary = summarise([made("a", 1.0, 2.0), made("b", 1.0, 0.5), made("c", 1.0, 1.1)])
    assert summary.median_error == pytest.approx(0.5)
    assert summary.p90_error == pytest.approx(1.0)
    assert summary.bias == pytest.approx(1.1 ** (1 / 3))


def test_coverage_counts_only_rows_that_have_an_interval() -> None:
    rows = [
        made("a", 1.0, 1.0, inside_interval=True),
        made("b", 1.0, 1.0, inside_interval=False),
        made("c", 1.0, 1.0),
    ]
    summary = summarise(rows)
    assert (summary.coverage, summary.num_intervals) == (0.5, 2)


def test_only_pairs_further_apart_than_fifteen_percent_are_judged() -> None:
    close = [made("a", 1.0, 1.2), made("b", 1.1, 1.0)]
    assert summarise(close).order_pairs == 0
    apart = [made("a", 1.0, 1.2), made("b", 1.2, 1.0), made("c", 2.0, 2.0)]
    summary = summarise(apart)
    assert (summary.order_right, summary.order_pairs) == (2, 3)
    assert summary.kendall_tau == pytest.approx(1 / 3)


def test_a_tie_in_prediction_is_not_an_order_got_right() -> None:
    summary = summarise([made("a", 1.0, 1.0), made("b", 2.0, 1.0)])
    assert (summary.order_right, summary.order_pairs) == (0, 1)


def test_approaches_compete_only_on_equal_terms() -> None:
    assert choices([made("a", 1.0, 1.0, ranks=1), made("b", 2.0, 1.0, ranks=2)]) == []


def test_regret_is_what_trusting_the_prediction_costs() -> None:
    (pick,) = choices([made("a", 1.0, 1.2), made("b", 1.3, 1.0)])
    assert pick.measured_order == "a < b"
    assert pick.predicted_order == "b < a"
    assert pick.regret == pytest.approx(0.3)


def test_scaling_efficiency_is_compared_in_points() -> None:
    # Efficiency on 2 ranks: measured 1/(2*0.5) = 100 %, predicted 1/(2*0.625) = 80 %.
    rows = [made("a", 1.0, 1.0, ranks=1), made("a", 0.5, 0.625, ranks=2)]
    assert scaling_points(rows) == [pytest.approx(20.0)]


def test_the_error_table_breaks_down_only_by_what_varies() -> None:
    rows = [made("a", 1.0, 1.1), made("b", 1.0, 1.3)]
    table = error_table(rows)
    assert [(line.by, line.group) for line in table] == [
        ("all", "all"),
        ("approach", "a"),
        ("approach", "b"),
    ]
    assert table[2].median_error == pytest.approx(0.3)


def test_a_single_byte_is_a_sentence_of_the_verdict() -> None:
    rows = [made("a", 1.0, 1.0, bytes_equal=True), made("b", 1.0, 1.0, bytes_equal=False)]
    sentences = " ".join(verdict(summarise(rows), rows))
    assert "differ from the plan's in 1 of 2 configurations" in sentences


def test_an_empty_folder_has_a_verdict_too() -> None:
    assert verdict(summarise([]), []) == [NOTHING]
    assert error_table([]) == []


def test_one_program_under_two_names_is_neither_a_pair_nor_a_choice() -> None:
    """Both take 1.0 by prediction; what measurement says of them is noise."""
    same = [made("a", 1.0, 1.0, program="x"), made("b", 1.3, 1.0, program="x")]
    assert choices(same) == []
    (pick,) = choices([*same, made("c", 2.0, 3.0, program="y")])
    assert (pick.decisive_pairs, pick.right_pairs) == (2, 2)
    assert pick.regret == 0.0


def test_regret_is_of_the_program_whichever_name_it_was_measured_under() -> None:
    """Prediction favours x, which took 2.0 and 4.0; y took 1.5."""
    rows = [made("a", 2.0, 1.0, program="x"), made("b", 4.0, 1.0, program="x")]
    (pick,) = choices([*rows, made("c", 1.5, 2.0, program="y")])
    assert pick.regret == pytest.approx(3.0 / 1.5 - 1)


def test_identical_programs_and_times_within_the_noise_have_no_order() -> None:
    rows = [
        made("partition", 1.00, 1.0, program="p"),
        made("single", 1.01, 1.0, program="p"),
        made("mixture", 1.02, 1.0, program="m"),
        made("sampled", 2.0, 2.2, program="s"),
    ]
    (pick,) = choices(rows)
    assert pick.measured_order == "partition = single ≈ mixture < sampled"
    assert pick.predicted_order == "partition = single ≈ mixture < sampled"


def test_predictions_are_apart_where_their_intervals_say_so() -> None:
    wide = {"predicted_low_s": 0.6, "predicted_high_s": 1.6}
    (pick,) = choices([made("a", 1.0, 1.0, **wide), made("b", 2.0, 1.2, **wide)])
    assert (pick.measured_order, pick.predicted_order) == ("a < b", "a ≈ b")
