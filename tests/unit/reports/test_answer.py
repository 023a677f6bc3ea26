"""The first lines of a report answer which approach is fastest, how surely, and what limits it."""

from __future__ import annotations

from typing import Any

from gnnbench.ledger import Row, write_ledger
from gnnbench_reports.answer import answers, opening
from gnnbench_reports.opening import read_study


def evaluated(seconds: float, *values: float) -> list[dict[str, Any]]:
    return [
        {"period": at, "kind": "epoch", "seconds": seconds, "loss": 1.0, "bytes": {}}
        | {"metrics": {"val_accuracy": value}}
        for at, value in enumerate(values)
    ]


def sentences(fabricator: Any) -> str:
    (answer,) = answers(read_study(fabricator.results))
    return " ".join(answer.sentences)


def twice(
    fabricator: Any, approach: str, ranks: int, times: tuple[float, ...], **more: Any
) -> None:
    for repeat, seconds in enumerate(times):
        spec = fabricator.spec(approach=approach, ranks=ranks, repeat=repeat)
        fabricator.run(spec, seconds=seconds, ledgers=False, **more)


def test_the_fastest_approach_is_named_with_ratio_error_and_accuracy(fabricator: Any) -> None:
    twice(fabricator, "sampled", 2, (0.98, 1.02), metrics={"test_accuracy": 0.821})
    twice(fabricator, "single", 1, (2.35, 2.45), metrics={"test_accuracy": 0.823})
    text = sentences(fabricator)
    assert text.startswith("sampled on 2 ranks is fastest per epoch (1.00 s); 2.4")
    assert "± 0.08 × faster than single on 1 rank (2.40 s)" in text
    assert "at equal test accuracy (82.1 % against 82.3 %)" in text


def test_a_faster_approach_with_a_worse_model_is_called_so(fabricator: Any) -> None:
    twice(fabricator, "sampled", 2, (1.0, 1.0), metrics={"test_accuracy": 0.7})
    twice(fabricator, "single", 1, (2.0, 2.0), metrics={"test_accuracy": 0.8})
    assert "with test accuracy 10.0 points lower (70.0 % against 80.0 %" in sentences(fabricator)


def test_accuracies_that_differ_are_not_called_equal(fabricator: Any) -> None:
    twice(fabricator, "sampled", 2, (1.0, 1.0), metrics={"test_accuracy": 0.974})
    twice(fabricator, "single", 1, (2.0, 2.0), metrics={"test_accuracy": 0.983})
    text = sentences(fabricator)
    assert ", with test accuracy 0.9 points lower (97.4 % against 98.3 %)." in text
    assert "equal" not in text


def test_a_difference_within_the_spread_of_repeats_is_called_so(fabricator: Any) -> None:
    for repeat, accuracy in enumerate((0.80, 0.82)):
        spec = fabricator.spec(approach="sampled", ranks=1, repeat=repeat)
        fabricator.run(spec, seconds=1.0, ledgers=False, metrics={"test_accuracy": accuracy})
    twice(fabricator, "single", 1, (2.0, 2.0), metrics={"test_accuracy": 0.82})
    text = sentences(fabricator)
    assert "1.0 points lower (81.0 % against 82.0 %, within the spread of repeats)" in text


def test_nothing_is_one_times_faster(fabricator: Any) -> None:
    """A ratio that is written as 1 is no gain, over ranks and between approaches."""
    for approach, ranks, seconds in (
        ("partition", 1, 1.0),
        ("partition", 2, 0.97),
        ("single", 1, 1.3),
    ):
        spec = fabricator.spec(approach=approach, ranks=ranks)
        wide = {"low_s": 0.9 * seconds, "high_s": 1.1 * seconds}
        fabricator.prediction(spec, seconds=seconds, **wide)
    text = sentences(fabricator)
    assert "By prediction, partition gains nothing from more than 1 rank" in text
    assert "1 × faster" not in text and "1.0 ±" not in text


def test_times_within_the_noise_have_no_winner(fabricator: Any) -> None:
    twice(fabricator, "sampled", 2, (0.9, 1.1))
    twice(fabricator, "single", 1, (1.0, 1.1))
    text = sentences(fabricator)
    assert text.startswith("no approach is fastest per epoch: ")
    assert "differ by less than the noise" in text


def test_one_program_under_two_names_is_one_contender(fabricator: Any) -> None:
    for approach in ("single", "partition"):
        twice(fabricator, approach, 1, (1.0, 1.0))
        spec = fabricator.spec(approach=approach, ranks=1)
        fabricator.prediction(spec, seconds=1.0, notes={"program": "same"})
    twice(fabricator, "sampled", 1, (3.0, 3.0))
    text = sentences(fabricator)
    assert text.startswith("partition = single on 1 rank is fastest per epoch")
    assert "than sampled on 1 rank" in text


def test_the_time_to_accuracy_counts_the_epochs_until_the_target(fabricator: Any) -> None:
    slow, quick = evaluated(1.0, 0.2, 0.4, 0.6, 0.8), evaluated(1.5, 0.795, 0.8, 0.8, 0.8)
    for approach, periods in (("single", slow), ("sampled", quick)):
        fabricator.run(fabricator.spec(approach=approach, ranks=1), periods=periods)
    never = evaluated(0.5, 0.1, 0.1, 0.1, 0.1)
    fabricator.run(fabricator.spec(approach="cluster-gcn", ranks=1), periods=never)
    text = sentences(fabricator)
    assert "To 79.0 % validation accuracy: sampled on 1 rank in 1.50 s (1 epoch)" in text
    assert "single takes 4.00 s, 2.7 × as long; not reached by cluster-gcn" in text


def test_the_predicted_time_to_accuracy_stands_beside_the_measured_one(fabricator: Any) -> None:
    for approach, period_s in (("single", 1.2), ("sampled", 1.6)):
        spec = fabricator.spec(approach=approach, ranks=1)
        values = (0.2, 0.8, 0.8) if approach == "single" else (0.2, 0.4, 0.8)
        fabricator.run(spec, periods=evaluated(1.0, *values))
        fabricator.prediction(spec, seconds=period_s)
    text = sentences(fabricator)
    assert "single on 1 rank in 2.00 s (2 epochs, predicted 2.4 s)" in text
    assert "sampled takes 3.00 s (predicted 4.8 s), 1.50 × as long" in text


def test_what_limits_scaling_is_the_part_that_does_not_shrink(fabricator: Any) -> None:
    def ledgers(spec: Any, forward: float, halo: float) -> None:
        record = fabricator.prediction(spec, seconds=forward + halo)
        folder = fabricator.results.prediction_folder(record)
        kind, lane = "all_to_all", "comm"
        rows = [
            Row(1, 0, "f", "gemm", "gemm", "compute", "forward", 0, 1, 0, 0, 0.0, forward),
            Row(1, 0, "h", kind, kind, lane, "forward", 0, spec.ranks, 8, 0, forward, halo),
        ]
        write_ledger(folder / "ledger-rank0.csv", rows)

    for ranks, forward, halo in ((1, 8.0, 0.0), (2, 4.0, 1.0), (4, 2.0, 4.0)):
        ledgers(fabricator.spec(ranks=ranks), forward, halo)
    text = sentences(fabricator)
    assert text.startswith("partition on 2 ranks takes 5.00 s per epoch by prediction.")
    assert "scales to 2 ranks, 1.6 × faster than on 1 rank (efficiency 80 %)" in text
    assert "on 4 ranks communication limits it: 67 % of the time" in text


def test_a_gain_from_ranks_within_the_noise_is_no_scaling(fabricator: Any) -> None:
    twice(fabricator, "partition", 1, (1.0, 1.1))
    twice(fabricator, "partition", 2, (0.93, 1.01))
    assert "Measured, partition gains less than the noise from more than 1 rank" in sentences(
        fabricator
    )


def test_noise_is_a_warning_before_any_number(fabricator: Any) -> None:
    twice(fabricator, "single", 1, (1.0, 1.6))
    first, second = opening(read_study(fabricator.results))[:2]
    assert first.startswith("Mind: repeats spread by ±23 % in the median")
    assert second.startswith("cora, gcn: single on 1 rank takes")


def test_what_was_run_once_has_no_known_noise(fabricator: Any) -> None:
    fabricator.run(fabricator.spec(approach="single", ranks=1))
    assert "nothing was repeated" in opening(read_study(fabricator.results))[0]
