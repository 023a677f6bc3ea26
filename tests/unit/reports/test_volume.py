"""Counted and planned bytes are compared as integers, epoch by epoch."""

from __future__ import annotations

from typing import Any

from gnnbench_reports.volume import compare_volumes, total_bytes


def repeat(*tables: dict[str, int]) -> list[dict[str, Any]]:
    return [{"epoch": at, "bytes": table} for at, table in enumerate(tables)]


def test_equal_integers_are_equal() -> None:
    (volume,) = compare_volumes([repeat({"all_reduce/sync": 10})] * 2, [{"all_reduce/sync": 10}])
    assert (volume.kind, volume.phase, volume.measured_bytes) == ("all_reduce", "sync", 10)
    assert volume.equal is True


def test_one_byte_too_many_is_seen_in_the_repeat_that_has_it() -> None:
    repeats = [repeat({"a/b": 10**15}), repeat({"a/b": 10**15 + 1})]
    (volume,) = compare_volumes(repeats, [{"a/b": 10**15}])
    assert volume.equal is False


def test_epochs_that_differ_but_agree_on_average_are_not_equal() -> None:
    (volume,) = compare_volumes([repeat({"a/b": 1}, {"a/b": 3})], [{"a/b": 2}, {"a/b": 2}])
    assert volume.measured_bytes == volume.predicted_bytes == 2
    assert volume.equal is False


def test_only_epochs_that_both_cover_are_compared() -> None:
    (volume,) = compare_volumes([repeat({"a/b": 5}, {"a/b": 7}, {"a/b": 9})], [{"a/b": 5}])
    assert (volume.epochs, volume.measured_bytes, volume.equal) == (1, 5, True)


def test_a_collective_that_one_side_lacks_counts_as_zero() -> None:
    volumes = compare_volumes([repeat({"a/b": 5})], [{"a/b": 5, "c/d": 0, "e/f": 4}])
    assert {volume.kind: volume.equal for volume in volumes} == {"a": True, "c": True, "e": False}


def test_without_a_partner_bytes_are_means_without_verdict() -> None:
    (measured,) = compare_volumes([repeat({"a/b": 1}, {"a/b": 2})], None)
    (predicted,) = compare_volumes([], [{"a/b": 4}])
    assert (measured.measured_bytes, measured.predicted_bytes, measured.equal) == (1.5, None, None)
    assert (predicted.predicted_bytes, predicted.equal) == (4, None)
    assert total_bytes([measured], "predicted") is None
