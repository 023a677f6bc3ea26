"""Keep apart what was not given the same: epochs and increments, few and many increments, disks.

A stream may be learnt in increments by one approach and in epochs by another, in 4 increments or in
16; a suite may give one approach a slow and a fast disk. Such times are no times of the same work,
and the shorter one is no merit of an approach. Tables, figures and answers compare the rows of one
dataset and model, so the model's name says what was given where it varies: "tgn (16 increments)",
"tgn (epochs)", "sage (disk: 5 MB/s)".
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gnnbench.disk_limit import DiskKnobs
from gnnbench_reports.labels import knobs_of, spec_name

Spec = Mapping[str, Any]

_DISK = tuple(field.name for field in dataclasses.fields(DiskKnobs))


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """A configuration's spec, and its period ("epoch", ...); "" if it was never timed."""

    spec: Spec
    period: str


def model_names(given: Mapping[str, Given]) -> dict[str, str]:
    """The model's name of each configuration, with what was given where it varies."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key, one in given.items():
        groups[spec_name(one.spec, "dataset"), spec_name(one.spec, "model")].append(key)
    found: dict[str, str] = {}
    for (_, model), keys in groups.items():
        parts = [_periods([given[key] for key in keys]), _disks([given[key] for key in keys])]
        for key, said in zip(keys, zip(*parts, strict=True), strict=True):
            words = ", ".join(filter(None, said))
            found[key] = f"{model} ({words})" if words else model
    return found


def _periods(group: Sequence[Given]) -> list[str]:
    """What the periods are, such as "epochs" or "16 increments"; empty texts where all are alike.

    A configuration without a time has no period: it goes with the timed ones of its approach, or
    with most of them.
    """
    timed = [one for one in group if one.period]
    usual = Counter(one.period for one in timed).most_common(1)
    of_approach = {str(one.spec.get("approach", "")): one.period for one in timed}
    nouns = [
        one.period
        or of_approach.get(str(one.spec.get("approach", "")), usual[0][0] if usual else "epoch")
        for one in group
    ]
    counts = [_increments(one.spec) for one in group]
    several = len({c for c, noun in zip(counts, nouns, strict=True) if noun == "increment"}) > 1
    if len(set(nouns)) < 2 and not several:
        return [""] * len(group)
    return [
        f"{count} {noun}{'s' if count != 1 else ''}"
        if several and noun == "increment"
        else f"{noun}s"
        for count, noun in zip(counts, nouns, strict=True)
    ]


def _increments(spec: Spec) -> int:
    return int((spec.get("training") or {}).get("increments") or 0)


def _disks(group: Sequence[Given]) -> list[str]:
    """The limits of the disk; empty texts where all have the same."""
    limits = [tuple(float(knobs_of(one.spec).get(name) or 0) for name in _DISK) for one in group]
    if len(set(limits)) < 2:
        return [""] * len(group)
    return [f"disk: {_limit(*limit)}" for limit in limits]


def _limit(bytes_per_s: float, iops: float) -> str:
    said = []
    if bytes_per_s:
        said.append(f"{bytes_per_s / 1e6:g} MB/s")
    if iops:
        said.append(f"{iops:,.0f} requests/s")
    return " and ".join(said) or "no limit"
