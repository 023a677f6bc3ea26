"""Judge tables of operations: kernels and collectives that others timed.

A timing that the catalogue's constants were not fitted to is predicted by them. A timing
that they were fitted to is predicted by a fit that left out its matrix, shape or size, and again by
a fit that left out its whole device.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gnnbench.costs import between_hosts, kernel_fit
from gnnbench.costs import collective_tables as tables
from gnnbench.costs.collective_tables import collective_time, shipped_table
from gnnbench.costs.elsewhere import fitted_forms, model_of
from gnnbench.costs.kernel_fit import Judged
from gnnbench.costs.points import Points, is_table, read_points, shipped_points
from gnnbench.errors import SpecError

UNSEEN = "unseen"
"""As what was left out: the catalogue's constants never had these timings."""
_WHOLE = ("cusparse", "gemm")
"""Kernels all of whose fitted points are shipped, so that a new one can be told from a known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a table of operations says of the catalogue's constants.

    `judged` are groups of timings; those whose `left_out` is "device" repeat timings of others, and
    are not part of the score. `reasons` count rows without a prediction.
    """

    rows: int
    judged: tuple[Judged, ...]
    reasons: dict[str, int]

    @property
    def scored(self) -> list[Judged]:
        """Groups in which every timing counts once."""
        return [j for j in self.judged if j.left_out != "device"]

    @property
    def median_error(self) -> float | None:
        """Median of |predicted / measured - 1| over the scored timings."""
        errors = _all(j.errors for j in self.scored)
        return float(np.median(np.abs(np.expm1(-errors)))) if len(errors) else None

    @property
    def inside(self) -> float | None:
        """Share of the scored timings inside their 90 % interval."""
        inside = _all(j.inside for j in self.scored)
        return float(inside.mean()) if len(inside) else None


def is_operation_table(text: str) -> bool:
    """Whether a CSV holds timings of operations, not of training systems."""
    kinds = (is_table, tables.is_collective_table, between_hosts.is_between_table)
    return any(matches(text) for matches in kinds)


def judge(text: str, where: str) -> Judgement:
    """Judge a table.

    Raises:
        SpecError: not a table of operations, or none of its rows can be predicted.
    """
    if tables.is_collective_table(text):
        judged, reasons = _collectives(text)
    elif between_hosts.is_between_table(text):
        table, left_out = between_hosts.read_between(text)
        judged, more = between_hosts.judge_between(table)
        reasons = Counter(left_out) + Counter(more)
    else:
        groups, reasons = read_points(text, where)
        judged = _kernels(groups, reasons)
    rows = text.count("\n") + (not text.endswith("\n")) - 1
    if not judged:
        listed = "; ".join(f"{reason} ({n} rows)" for reason, n in reasons.most_common())
        raise SpecError(f"{where}: no row can be predicted: {listed or 'the table is empty'}")
    return Judgement(rows=rows, judged=tuple(judged), reasons=dict(reasons.most_common()))


def _kernels(groups: Sequence[Points], reasons: Counter[str]) -> list[Judged]:
    known: dict[str, list[Points]] = defaultdict(list)
    judged = []
    for group in groups:
        if not any(k == group.kernel for k, _ in fitted_forms()):
            reasons[f"kernel {group.kernel}: no device was measured"] += len(group)
            continue
        fresh = _fresh(group)
        if np.any(fresh):
            model = model_of(group.kernel, group.device.device)
            if model is None:
                only = "its form is of one device, and no other was left out to judge a transfer"
                reasons[f"{group.kernel} on {group.device.device}: {only}"] += int(fresh.sum())
            else:
                unseen = kernel_fit.take(group, fresh)
                errors = kernel_fit.errors_of(model.kernel, unseen, model.form.params)
                inside = np.abs(errors) <= model.form.radius
                judged.append(kernel_fit.judged_of(unseen, UNSEEN, errors, inside.astype(float)))
        seen = kernel_fit.take(group, ~fresh)
        if len(set(seen.origins)) > 3:
            known[group.kernel].append(seen)
        elif len(seen):
            reasons["known point, with too few others of its device to leave it out"] += len(seen)
    for same in known.values():
        judged += kernel_fit.leave_origins_out(same) + kernel_fit.leave_devices_out(same)
    return judged


def _fresh(group: Points) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which timings the catalogue's forms were not fitted to."""
    device = group.device.device
    fitted = any(k == group.kernel and d == device for k, d in fitted_forms())
    if not fitted or group.kernel not in _WHOLE:
        return np.full(len(group), not fitted)
    shipped = [p for p in shipped_points() if (p.kernel, p.device.device) == (group.kernel, device)]
    seen = {origin for points in shipped for origin in points.origins}
    return np.array([origin not in seen for origin in group.origins])


def _collectives(text: str) -> tuple[list[Judged], Counter[str]]:
    table, left_out = tables.read_table(text)
    reasons, shipped = Counter(left_out), shipped_table()
    known: dict[tuple[str, str, int], tables.Curve] = {}
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key, (sizes, seconds) in table.curves.items():
        device, op, ranks = key
        fresh = ~np.isin(np.round(sizes, 6), np.round(shipped.curves.get(key, ((), ()))[0], 6))
        for size, measured in zip(sizes[fresh], seconds[fresh], strict=True):
            found = collective_time(device, op, ranks, float(np.exp(size)))
            if found is None:
                reasons[f"{op} of {ranks} ranks on {device}: nothing to anchor it on"] += 1
            else:
                errors[device].append((float(measured) - np.log(found.seconds), found.radius))
        if not np.all(fresh):
            known[key] = sizes[~fresh], seconds[~fresh]
    judged = [
        Judged(
            kernel="nccl",
            device=device,
            left_out=UNSEEN,
            errors=np.array([e for e, _ in pairs]),
            inside=np.array([float(abs(e) <= radius) for e, radius in pairs]),
        )
        for device, pairs in errors.items()
    ]
    if known:
        seen = tables.Table(curves=known)
        # Sizes beside it say too much of a size: a device's table is judged by other devices' too.
        judged += tables.leave_sizes_out(seen)
        judged += tables.leave_devices_out(seen)
    return judged, reasons


def _all(parts: object) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([np.zeros(0), *parts])  # type: ignore[misc]
