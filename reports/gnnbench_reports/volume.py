"""Bytes moved, counted from buffers in the run and planned: integers that must be equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnnbench.steps import COMMUNICATION

SENT = frozenset(kind.value for kind in COMMUNICATION)
"""Kinds whose bytes go from rank to rank; the others copy within a rank or go to or from disk."""
SIDES = ("counted", "planned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Bytes that all ranks together move per period, by one kind of step in one phase.

    Attributes:
        kind, phase: as in `gnnbench.steps`.
        counted_bytes, planned_bytes: means over `periods`, integers where the mean is one.
        periods: how many were compared.
        equal: whether every count of every repeat is the plan's integer; None with one side only,
            and where the plan estimates.
    """

    kind: str
    phase: str
    counted_bytes: float | None
    planned_bytes: float | None
    periods: int
    equal: bool | None


def compare_volumes(
    measured: Sequence[Sequence[Mapping[str, Any]]],
    predicted: Sequence[Mapping[str, int]] | None,
    *,
    estimated: bool = False,
) -> tuple[Volume, ...]:
    """Compare counted with planned bytes in the periods that both cover.

    A run's record holds what its own plan says; a prediction holds the same plan as the simulator
    executed it. Counts are compared with both where both are there. A prediction that estimates
    sizes serves only where a run has no plan of its own, and there without a verdict.

    Args:
        measured: the periods of each repeat's run record.
        predicted: "kind/phase" to bytes for period 0, 1, ...; None or empty if unknown.
        estimated: whether the prediction estimates sizes instead of counting them.
    """
    simulated = dict(enumerate(predicted or ()))
    counted = [
        (
            {int(p.get("period", at)): p.get("bytes") or {} for at, p in enumerate(repeat)},
            {
                int(p.get("period", at)): p["planned"]
                for at, p in enumerate(repeat)
                if p.get("planned")
            },
        )
        for repeat in measured
        if repeat
    ]
    own_plans = any(own for _, own in counted)
    exact = own_plans or not estimated
    pairs = [
        (period, bytes_of[period], plan[period])
        for bytes_of, own in counted
        for plan in ((own,) if own_plans and estimated else (own, simulated))
        for period in bytes_of
        if period in plan
    ]
    if not counted:
        return _one_side(list(simulated.values()), "planned")
    if not pairs:
        return _one_side(
            [table for bytes_of, _ in counted for table in bytes_of.values()], "counted"
        )
    keys = {key for _, *tables in pairs for table in tables for key in table}
    return tuple(_volume(key, pairs, exact=exact) for key in sorted(keys))


def pool_volumes(seeds: Sequence[tuple[Volume, ...]]) -> tuple[Volume, ...]:
    """Pool the volumes of several seeds: mean bytes; equal if they are with every seed judged."""
    if len(seeds) == 1:
        return seeds[0]
    found: dict[tuple[str, str], list[Volume]] = {}
    for volumes in seeds:
        for volume in volumes:
            found.setdefault((volume.kind, volume.phase), []).append(volume)
    return tuple(_pooled(*key, together) for key, together in sorted(found.items()))


def _pooled(kind: str, phase: str, together: Sequence[Volume]) -> Volume:
    judged = [volume.equal for volume in together if volume.equal is not None]
    return Volume(
        kind=kind,
        phase=phase,
        counted_bytes=_known_mean(volume.counted_bytes for volume in together),
        planned_bytes=_known_mean(volume.planned_bytes for volume in together),
        periods=sum(volume.periods for volume in together),
        equal=all(judged) if judged else None,
    )


def _one_side(tables: Sequence[Mapping[str, int]], side: str) -> tuple[Volume, ...]:
    """Volumes of a side without its partner: no verdict."""
    found = []
    for key in sorted({key for table in tables for key in table}):
        kind, _, phase = key.partition("/")
        mean = _mean([table.get(key, 0) for table in tables])
        known = {f"{one}_bytes": mean if one == side else None for one in SIDES}
        found.append(Volume(kind=kind, phase=phase, periods=len(tables), equal=None, **known))
    return tuple(found)


def _volume(
    key: str, pairs: Sequence[tuple[int, Mapping[str, int], Mapping[str, int]]], *, exact: bool
) -> Volume:
    kind, _, phase = key.partition("/")
    both = [(counted.get(key, 0), planned.get(key, 0)) for _, counted, planned in pairs]
    return Volume(
        kind=kind,
        phase=phase,
        counted_bytes=_mean([counted for counted, _ in both]),
        planned_bytes=_mean([planned for _, planned in both]),
        periods=len({period for period, *_ in pairs}),
        equal=all(counted == planned for counted, planned in both) if exact else None,
    )


def _known_mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _mean(values: Sequence[float]) -> float:
    total, count = sum(values), len(values)
    return total // count if total % count == 0 else total / count


def sent_bytes(volumes: Iterable[Volume], side: str) -> float | None:
    """Bytes sent to other ranks per period, "counted" or "planned"; None if they are not known.

    Copies and disk transfers are left out.
    """
    values = [getattr(volume, f"{side}_bytes") for volume in volumes if volume.kind in SENT]
    known = [value for value in values if value is not None]
    return sum(known) if known else None
