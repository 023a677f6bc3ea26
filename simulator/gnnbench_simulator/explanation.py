"""What an answer rests on: the steps that make the time, and the constants behind them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gnnbench.cluster import Cluster, Constant
from gnnbench.costs.elsewhere import PREFERRED, model_of
from gnnbench.steps import COLLECTIVES, STORAGE, Kind
from gnnbench_simulator.choices import Advice, Choice
from gnnbench_simulator.compute import EFFICIENCY, calibrated
from gnnbench_simulator.predict import Prediction

CHOICES = 5
"""Choices whose order a measurement may change."""
_FROM_TABLES = ("measured elsewhere", "transferred")
_BETWEEN_RANKS = frozenset(kind.value for kind in COLLECTIVES | {Kind.SEND, Kind.RECV})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds per period of one step of the slowest rank, waiting included; `share` of all."""

    name: str
    op: str
    kind: str
    lane: str
    seconds: float
    share: float
    grade: str
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """One constant that a time rests on."""

    name: str
    value: float
    unit: str
    status: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The measurement that would change the ranking most.

    `share` is the operation's of the period; its 90 % range moves the total by the factors `low` to
    `high`, and the order changes from `turn` on (a factor; None: there is no other choice).
    """

    choice: Choice
    op: str
    grade: str
    share: float
    low: float
    high: float
    turn: float | None
    against: Choice | None


def step_times(prediction: Prediction) -> list[StepTime]:
    """The steps of the slowest rank by their time, longest first."""
    rows = prediction.ledgers.get(prediction.slowest_rank, [])
    periods = {row.period for row in rows}
    skip = 1 if len(periods) > 1 else 0
    kept = [row for row in rows if row.period >= skip]
    count = max(len({row.period for row in kept}), 1)
    recorded: dict[str, float] = defaultdict(float)
    for row in kept:
        recorded[row.phase] += row.duration_s / count
    seconds: dict[tuple[str, str, str, str], float] = defaultdict(float)
    for row in kept:
        # Ledgers of advice keep a part of many equal iterations; phases are of all of them.
        whole = prediction.phases[row.phase] / recorded[row.phase] if recorded[row.phase] else 1.0
        seconds[row.name, row.op or row.kind, row.kind, row.lane] += whole * row.duration_s
    total = sum(seconds.values()) or 1.0
    classes = prediction.notes["classes"]
    found = [
        StepTime(
            name=name,
            op=op,
            kind=kind,
            lane=lane,
            seconds=spent / count,
            share=spent / total,
            grade=classes.get(op, {}).get("grade", ""),
            radius=classes.get(op, {}).get("radius", 0.0),
        )
        for (name, op, kind, lane), spent in seconds.items()
    ]
    return sorted(found, key=lambda step: -step.seconds)


def bases(cluster: Cluster, steps: Iterable[StepTime], per_host: int) -> list[Basis]:
    """The constants of a cluster behind these steps, each once."""
    found: dict[str, Basis] = {}
    for step in steps:
        for basis in _behind(cluster, step, per_host):
            found.setdefault(basis.name, basis)
    return list(found.values())


def _behind(cluster: Cluster, step: StepTime, per_host: int) -> Iterable[Basis]:
    op = step.op
    model = calibrated(cluster, op, per_host)
    if model is not None:
        for name, value in model.params.items():
            yield Basis(
                name=f"{op}.{name}",
                value=value,
                unit="",
                status=model.status,
                source=model.source or f"{model.points} points, {100 * model.mape:.0f} % off",
            )
        return
    if op in _BETWEEN_RANKS and step.grade in _FROM_TABLES:
        yield Basis(
            name=f"{op}, 90 % error of tables",
            value=math.exp(step.radius) - 1,
            unit="",
            status=step.grade,
            source="NCCL times in and between hosts that others measured, catalogue/measured",
        )
    elif op in _BETWEEN_RANKS:
        yield from _collective(cluster, op)
    elif op in {kind.value for kind in STORAGE} and cluster.storage is not None:
        for constant, unit in zip(
            cluster.storage.constants(write=op == Kind.WRITE.value),
            ("bytes/s", "s", "1/s"),
            strict=True,
        ):
            yield _basis(f"storage, {op}, {unit}", constant, unit)
    elif op == Kind.COPY.value and cluster.links.host is not None:
        yield _basis("host link", cluster.links.host.bytes_per_s, "bytes/s")
    elif step.grade in _FROM_TABLES and (step.kind, _FP32) in PREFERRED:
        yield from _table(cluster, step)
    else:
        yield from _device(cluster)


_FP32 = 4.0
"""Bytes of an element in the tables whose kernels predict training."""


def _table(cluster: Cluster, step: StepTime) -> Iterable[Basis]:
    """The form of a kernel that was fitted to public measurements."""
    kernel = PREFERRED[step.kind, _FP32]
    found = model_of(kernel, cluster.device.name)
    assert found is not None, "its grade says that the step rests on such a form"
    form = found.form
    device = form.device or "devices together"
    yield Basis(
        name=f"{kernel} kernel, median error on matrices left out",
        value=form.median_error,
        unit="",
        status=found.grade,
        source=f"{form.points} points on {device}: {form.source}",
    )
    yield _basis("launch", cluster.device.launch_s, "s")


def _collective(cluster: Cluster, op: str) -> Iterable[Basis]:
    for model in cluster.collectives:
        if model.op == op:
            name = f"{op}, {model.ranks} ranks, {model.layout}"
            yield Basis(
                name=name,
                value=model.bytes_per_s,
                unit="bytes/s",
                status=model.status,
                source=model.source,
            )
            return
    for place in ("intra", "inter"):
        link = getattr(cluster.links, place)
        yield _basis(f"links.{place}", link.bytes_per_s, "bytes/s")
        yield _basis(f"links.{place} latency", link.latency_s, "s")
    if cluster.nccl is not None:
        yield _basis("nccl.host_s", cluster.nccl.host_s, "s")
        yield _basis("nccl.factor", cluster.nccl.factor, "")


def _device(cluster: Cluster) -> Iterable[Basis]:
    device = cluster.device
    yield _basis("peak float32", device.peak_flops_per_s.float32, "flop/s")
    yield _basis("memory bandwidth", device.memory_bytes_per_s, "bytes/s")
    yield _basis("last cache", device.cache_bytes, "bytes")
    yield _basis("launch", device.launch_s, "s")
    for word, share in zip(("compute", "bandwidth"), EFFICIENCY[device.arch], strict=True):
        source = f"fp32 kernels on {device.arch}: fitted on public measurements, else assumed"
        yield Basis(
            name=f"share of peak {word}", value=share, unit="", status="fitted", source=source
        )


def _basis(name: str, constant: Constant, unit: str) -> Basis:
    return Basis(
        name=name,
        value=constant.value,
        unit=unit,
        status=constant.status,
        source=constant.source,
    )


def decisive(advice: Advice) -> Measurement | None:
    """The operation whose uncertainty, against the distance to the next choice, is largest."""
    best = advice.best
    if best is None:
        return None
    others = [
        choice
        for choice in advice.ranked
        if choice.machine != best.machine
        and choice.prediction is not None
        and (choice.usd is None) == (best.usd is None)
    ]
    found = [
        measurement
        for choice in [best, *others[: CHOICES - 1]]
        for measurement in _swings(choice, best, others)
    ]
    return max(found, key=_weight, default=None)


def _swings(choice: Choice, best: Choice, others: Sequence[Choice]) -> Iterable[Measurement]:
    """How far each operation moves a choice, and how far it is from changing its place."""
    prediction = choice.prediction
    if prediction is None or choice.period_s <= 0:
        return
    for op, seconds in prediction.work.items():
        known = prediction.notes["classes"].get(op)
        if known is None or seconds <= 0:
            continue
        # A kernel is as fast on all hosts of a device: measuring it moves them all alike.
        rivals = others if choice is best else [best]
        if op not in _BETWEEN_RANKS:
            name = choice.machine.cluster.device.name
            rivals = [c for c in rivals if c.machine.cluster.device.name != name]
        against = rivals[0] if rivals else None
        share = min(seconds / choice.period_s, 1.0)
        yield Measurement(
            choice=choice,
            op=op,
            grade=known["grade"],
            share=share,
            low=1 - share * (1 - math.exp(-known["radius"])),
            high=1 + share * (math.exp(known["radius"]) - 1),
            turn=None if against is None else _turn(choice, against),
            against=against,
        )


def _turn(choice: Choice, against: Choice) -> float | None:
    """The rival's cost over the choice's; None where either is free, which no time changes."""
    costs = _cost(against), _cost(choice)
    return costs[0] / costs[1] if min(costs) > 0 else None


def _cost(choice: Choice) -> float:
    return choice.total_s if choice.usd is None else choice.usd


def _weight(found: Measurement) -> float:
    """The move over the distance, both logarithmic; little where no other choice is near."""
    move = max(math.log(found.high), -math.log(max(found.low, 1e-9)))
    if found.turn is None:
        return 0.01 * move
    # A dearer best choice falls behind; a cheaper other one takes its place.
    move = math.log(found.high) if found.turn >= 1 else -math.log(max(found.low, 1e-9))
    return move / max(abs(math.log(found.turn)), 0.01)


def explanation(choice: Choice, *, most: int = 12) -> dict[str, Any]:
    """Steps, constants and memory of a choice that was predicted in full."""
    prediction = choice.prediction
    assert prediction is not None
    host = prediction.slowest_rank // choice.machine.per_host
    own = choice.machine.cluster.of_host(host)
    steps = step_times(prediction)
    shown: Sequence[StepTime] = steps[:most]
    return {
        "steps": shown,
        "other_steps": max(len(steps) - most, 0),
        "other_s": sum(step.seconds for step in steps[most:]),
        "phases_s": prediction.phases,
        "lanes": prediction.lanes,
        "constants": bases(own, shown, choice.machine.per_host),
        "memory": choice.memory,
        "basis": prediction.basis,
    }
