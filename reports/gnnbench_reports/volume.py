"""Bytes sent, counted in the run and written in the plan: equal integers or a bug."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Bytes that all ranks together send in one epoch, by one kind of communication in one phase.

    The figures are means over `epochs`, the epochs compared, and integers where that divides.
    `equal` is judged per epoch on integers, over all repeats; None when one side is missing.
    """

    kind: str
    phase: str
    measured_bytes: float | None
    predicted_bytes: float | None
    epochs: int
    equal: bool | None


def compare_volumes(
    measured: Sequence[Sequence[Mapping[str, Any]]], predicted: Sequence[Mapping[str, int]] | None
) -> tuple[Volume, ...]:
    """Compare counted with predicted bytes on the epochs that both cover.

    Args:
        measured: the epochs of each repeat's run record.
        predicted: "kind/phase" to bytes for epoch 0, 1, ...; None or empty if unknown.
    """
    counted = [
        {int(epoch.get("epoch", at)): epoch.get("bytes") or {} for at, epoch in enumerate(repeat)}
        for repeat in measured
    ]
    counted = [repeat for repeat in counted if repeat]
    planned = dict(enumerate(predicted or ()))
    common = [epoch for epoch in planned if all(epoch in repeat for repeat in counted)]
    if not counted:
        return _one_side(planned.values(), measured=False)
    if not common:
        return _one_side((table for repeat in counted for table in repeat.values()), measured=True)
    keys = {key for epoch in common for key in planned[epoch]}
    keys |= {key for repeat in counted for epoch in common for key in repeat[epoch]}
    return tuple(
        _volume(
            key,
            [repeat[epoch].get(key, 0) for repeat in counted for epoch in common],
            [planned[epoch].get(key, 0) for epoch in common],
            all(
                repeat[epoch].get(key, 0) == planned[epoch].get(key, 0)
                for repeat in counted
                for epoch in common
            ),
        )
        for key in sorted(keys)
    )


def pool_volumes(seeds: Sequence[tuple[Volume, ...]]) -> tuple[Volume, ...]:
    """Pool the volumes of several seeds: mean bytes; equal if they are in every seed judged."""
    if len(seeds) == 1:
        return seeds[0]
    found: dict[tuple[str, str], list[Volume]] = {}
    for volumes in seeds:
        for volume in volumes:
            found.setdefault((volume.kind, volume.phase), []).append(volume)
    return tuple(
        Volume(
            kind=kind,
            phase=phase,
            measured_bytes=_known_mean([v.measured_bytes for v in together]),
            predicted_bytes=_known_mean([v.predicted_bytes for v in together]),
            epochs=sum(v.epochs for v in together),
            equal=all(judged)
            if (judged := [v.equal for v in together if v.equal is not None])
            else None,
        )
        for (kind, phase), together in sorted(found.items())
    )


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    total = sum(known)
    return total // len(known) if total % len(known) == 0 else total / len(known)


def _one_side(tables: Iterable[Mapping[str, int]], *, measured: bool) -> tuple[Volume, ...]:
    epochs = list(tables)
    found = []
    for key in sorted({key for table in epochs for key in table}):
        values = [table.get(key, 0) for table in epochs]
        found.append(_volume(key, values if measured else None, None if measured else values, None))
    return tuple(found)


def _volume(
    key: str, measured: Sequence[int] | None, predicted: Sequence[int] | None, equal: bool | None
) -> Volume:
    kind, _, phase = key.partition("/")
    return Volume(
        kind=kind,
        phase=phase,
        measured_bytes=None if measured is None else _mean(measured),
        predicted_bytes=None if predicted is None else _mean(predicted),
        epochs=len(predicted if predicted is not None else measured or ()),
        equal=equal,
    )


def _mean(values: Sequence[int]) -> float:
    total, count = sum(values), len(values)
    return total // count if total % count == 0 else total / count


def total_bytes(volumes: Iterable[Volume], side: str) -> float | None:
    """Sum one side ("measured" or "predicted") over kinds and phases; None if it is unknown."""
    values = [getattr(volume, f"{side}_bytes") for volume in volumes]
    known = [value for value in values if value is not None]
    return sum(known) if known else None
