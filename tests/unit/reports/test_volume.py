"""Counted and planned bytes are compared as integers, epoch by epoch."""

from __future__ import annotations

from typing import Any

from gnnbench_reports.volume import compare_volumes, sent_bytes


def repeat(*tables: dict[str, int]) -> list[dict[str, Any]]:
    return [{"period": at, "bytes": table} for at, table in enumerate(tables)]


def test_equal_integers_are_equal() -> None:
    (volume,) = compare_volumes([repeat({"all_reduce/sync": 10})] * 2, [{"all_reduce/sync": 10}])
    assert (volume.kind, volume.phase, volume.counted_bytes) == ("all_reduce", "sync", 10)
    assert volume.equal is True


def test_one_byte_too_many_is_seen_in_the_repeat_that_has_it() -> None:
    repeats = [repeat({"a/b": 10**15}), repeat({"a/b": 10**15 + 1})]
    (volume,) = compare_volumes(repeats, [{"a/b": 10**15}])
    assert volume.equal is False


def test_epochs_that_differ_but_agree_on_average_are_not_equal() -> None:
    (volume,) = compare_volumes([repeat({"a/b": 1}, {"a/b": 3})], [{"a/b": 2}, {"a/b": 2}])
    assert volume.counted_bytes == volume.planned_bytes == 2
    assert volume.equal is False


def test_only_epochs_that_both_cover_are_compared() -> None:
    (volume,) = compare_volumes([repeat({"a/b": 5}, {"a/b": 7}, {"a/b": 9})], [{"a/b": 5}])
    assert (volume.periods, volume.counted_bytes, volume.equal) == (1, 5, True)


def test_a_collective_that_one_side_lacks_counts_as_zero() -> None:
    volumes = compare_volumes([repeat({"a/b": 5})], [{"a/b": 5, "c/d": 0, "e/f": 4}])
    assert {volume.kind: volume.equal for volume in volumes} == {"a": True, "c": True, "e": False}


def test_without_a_partner_bytes_are_means_without_verdict() -> None:
    (measured,) = compare_volumes([repeat({"a/b": 1}, {"a/b": 2})], None)
    (predicted,) = compare_volumes([], [{"a/b": 4}])
    assert (measured.counted_bytes, measured.planned_bytes, measured.equal) == (1.5, None, None)
    assert (predicted.planned_bytes, predicted.equal) == (4, None)
    assert sent_bytes([measured], "planned") is None


def test_counts_are_compared_with_the_runs_own_plan_and_with_the_prediction() -> None:
    def one(counted: int, planned: int, predicted: int | None = None) -> bool | None:
        period = {"period": 0, "bytes": {"a/b": counted}, "planned": {"a/b": planned}}
        (volume,) = compare_volumes([[period]], predicted and [{"a/b": predicted}])
        return volume.equal

    assert one(5, 5) is True
    assert one(5, 6) is False
    assert one(5, 5, 6) is False


def test_bytes_sent_leave_out_copies_and_the_disk() -> None:
    volumes = compare_volumes([], [{"all_to_all/fetch": 3, "read/load": 50, "copy/fetch": 7}])
    assert sent_bytes(volumes, "planned") == 3


def test_an_estimate_gives_no_verdict_and_a_plan_of_the_run_comes_first() -> None:
    """Of batches, a prediction may draw some epochs only: its bytes are near, not equal."""
    counted = [{"period": 0, "bytes": {"a/b": 5}}, {"period": 1, "bytes": {"a/b": 7}}]
    own = [{**period, "planned": period["bytes"]} for period in counted]
    (near,) = compare_volumes([counted], [{"a/b": 6}, {"a/b": 6}], estimated=True)
    assert (near.counted_bytes, near.planned_bytes, near.equal) == (6, 6, None)
    (exact,) = compare_volumes([own], [{"a/b": 6}, {"a/b": 6}], estimated=True)
    assert (exact.planned_bytes, exact.periods, exact.equal) == (6, 2, True)
    (wrong,) = compare_volumes([own], [{"a/b": 6}, {"a/b": 6}])
    assert wrong.equal is False
