"""Predict a plan on a cluster: time per period with interval and grade, bytes, memory, ledgers."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gnnbench.cluster import Cluster
from gnnbench.costs.facts import Floats
from gnnbench.errors import Unsupported
from gnnbench.ledger import Row
from gnnbench.plan import Plan
from gnnbench.results import PredictionRecord
from gnnbench.spec import RunSpec
from gnnbench.steps import COLLECTIVES
from gnnbench_simulator.compute import PROBE_OP, calibrated
from gnnbench_simulator.energy import energy, volumes
from gnnbench_simulator.events import simulate_events
from gnnbench_simulator.layout import Layout, Rules
from gnnbench_simulator.memory import predict_memory
from gnnbench_simulator.needs import Needs
from gnnbench_simulator.outcome import SimResult, ledger
from gnnbench_simulator.program import Program, Shared, compile_plan
from gnnbench_simulator.replay import replay, replay_together
from gnnbench_simulator.uncertainty import (
    class_errors,
    interval,
    prediction_grade,
    work_by_class,
)

_ENGINE_STEPS = 300_000
_REPLAY_STEPS = 3_000_000
_PLANNED = ("policy", "partitions", "buffer")
"""Notes of a plan that a record keeps: what a knob left to the plan."""


@dataclass(slots=True, kw_only=True)
class Prediction:
    """The prediction of one plan on one cluster.

    period_s, low_s, high_s  seconds per period: median of those after the first, 90 % interval
    periods_s                seconds of each simulated period
    period                   what a period is: "epoch", "increment" or "round"
    grade                    weakest grade of the constants that contribute to the time
    method, reason           "replay", "events" or "engine", and why the replay was not used
    bytes                    per simulated period, bytes moved by all ranks by "kind/phase"
    memory                   per rank, see `memory.predict_memory`
    energy                   of a period, see `energy.Energy`; empty where no power is known
    phases                   seconds per period by phase on the slowest rank, waiting included
    lanes                    share of the time that each lane of the slowest rank is busy
    work                     seconds per period by cost class on the slowest rank, waiting left out
    ledgers                  rows of the worst, median and best rank by work
    """

    cluster: str
    period_s: float
    low_s: float
    high_s: float
    periods_s: list[float]
    period: str
    grade: str
    method: str
    reason: str
    bytes: list[dict[str, int]]
    memory: list[dict[str, Any]]
    energy: dict[str, Any]
    phases: dict[str, float]
    lanes: dict[str, float]
    work: dict[str, float]
    ledgers: dict[int, list[Row]]
    slowest_rank: int
    counted: bool
    basis: str
    probe_s: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    def record(self, run: RunSpec, *, ranks_per_host: int) -> PredictionRecord:
        """The prediction as a results folder keeps it."""
        return PredictionRecord(
            config_id=run.config_id,
            spec=run.to_dict(),
            cluster=self.cluster,
            ranks_per_host=ranks_per_host,
            period=self.period,
            period_s=self.period_s,
            low_s=self.low_s,
            high_s=self.high_s,
            grade=self.grade,
            method=self.method,
            bytes=self.bytes,
            memory=self.memory,
            energy=self.energy,
            phases=self.phases,
            lanes=self.lanes,
            counted=self.counted,
            basis=self.basis,
            probe_s=self.probe_s,
            notes={
                **self.notes,
                "periods_s": self.periods_s,
                "work_s": self.work,
                "slowest_rank": self.slowest_rank,
                "method_reason": self.reason,
            },
        )


def predict_plan(
    plan: Plan,
    cluster: Cluster,
    *,
    ranks_per_host: int | None = None,
    periods: int | None = None,
    element_bytes: float = 4.0,
    caps: Mapping[str, float] | None = None,
    needs: Needs | None = None,
    ledger_blocks: int | None = None,
    slowest_only: bool = False,
    evaluates: bool = True,
) -> Prediction:
    """Predict a plan on a cluster.

    Args:
        plan: steps of all ranks.
        cluster: devices, links and calibrated constants.
        ranks_per_host: by default as many as a host has devices.
        periods: how many periods to simulate; by default all, or as many as take about a second.
        element_bytes: bytes of a feature element.
        caps: limits in bytes per rank, by memory space ("device", "host").
        needs: of the plan's buffers, where they are known already.
        ledger_blocks: blocks that ledgers keep of equal iterations in a row; None keeps all.
        slowest_only: keep the ledger of the slowest rank and of no other.
        evaluates: whether the memory must hold the evaluation as well as the training.

    Raises:
        SpecError: the ranks' steps do not fit together.
        RunFailed: the plan's ranks wait for each other in a circle.
        Unsupported: the cluster lacks what the plan needs.
    """
    program = compile_plan(
        plan, cluster, ranks_per_host=ranks_per_host, element_bytes=element_bytes
    )
    reason = program.contention()
    work = work_by_class(program)
    effort = _effort(program, work)
    # A stable sort keeps the lower rank first among equals, so that predictions do not change with
    # the version of numpy.
    order = np.argsort(effort, kind="stable")
    slowest = int(order[-1])
    # Ledgers of all ranks would be too large to keep; the slowest, the median and the fastest show
    # the load imbalance.
    shown = [slowest] if slowest_only else [slowest, int(order[len(order) // 2]), int(order[0])]
    recorded = sorted(set(shown))
    result = _simulate(program, reason, periods, recorded, ledger_blocks)
    covered = len(result.period_s)
    period_s = _steady_s(result)
    spread = interval(program)
    rows = {rank: ledger(program, result, rank) for rank in recorded if result.spans[rank]}
    span = float(result.period_s.sum())
    return Prediction(
        cluster=cluster.name,
        period_s=period_s,
        low_s=period_s * spread.low,
        high_s=period_s * spread.high,
        periods_s=result.period_s.tolist(),
        period=plan.period,
        grade=prediction_grade(program, work, slowest, period_s),
        method=result.method,
        reason=reason,
        bytes=_moved(program, covered),
        memory=predict_memory(
            plan,
            cluster,
            ranks_per_host=program.ranks_per_host,
            caps=caps,
            needs=needs,
            evaluates=evaluates,
        ),
        energy=_energy(plan, program, period_s, element_bytes),
        phases=_phases(plan, rows.get(slowest, []), covered),
        # Utilisation of the slowest rank: it sets the period, so that its idle lanes are the ones
        # to ask about.
        lanes={
            lane: float(busy[slowest]) / span if span > 0 else 0.0
            for lane, busy in result.busy_s.items()
        },
        work={label: float(seconds[slowest]) for label, seconds in work.items()},
        ledgers=rows,
        slowest_rank=slowest,
        counted=plan.counted,
        basis=plan.basis,
        probe_s=_probe_s(cluster, program.ranks_per_host),
        notes=_notes(program) | {"program": plan.program_key(), "classes": _classes(program, work)},
    )


def _energy(plan: Plan, program: Program, period_s: float, element_bytes: float) -> dict[str, Any]:
    if all(kind.power is None for kind in program.cluster.kinds):
        return {}
    found = energy(
        volumes(plan, element_bytes=element_bytes),
        program.cluster,
        period_s,
        ranks=plan.world_size,
        ranks_per_host=program.ranks_per_host,
    )
    return {} if found is None else dataclasses.asdict(found)


def estimate_s(
    plan: Plan,
    cluster: Cluster,
    *,
    ranks_per_host: int | None = None,
    element_bytes: float = 4.0,
) -> float:
    """Seconds per period as `predict_plan` finds them, without interval, memory and ledgers."""
    program = compile_plan(
        plan, cluster, ranks_per_host=ranks_per_host, element_bytes=element_bytes
    )
    # The first period carries warm-up that `_steady` leaves out; the second is enough for a rank
    # order.
    return _steady_s(_simulate(program, program.contention(), min(2, plan.num_periods), []))


def estimate_together(
    plan: Plan,
    clusters: Sequence[Cluster],
    *,
    ranks_per_host: int,
    element_bytes: float = 4.0,
    known: MutableMapping[Rules, list[Layout]] | None = None,
) -> list[float | Unsupported]:
    """`estimate_s` of one plan on several clusters; clusters that can share one replay do.

    Args:
        plan: steps of all ranks.
        clusters: any.
        ranks_per_host: on all of them.
        element_bytes: bytes of a feature element.
        known: layouts of the plan by the rules of clusters; new ones are added.

    Returns:
        Seconds per period by cluster, or what a cluster lacks.
    """
    # Layouts depend on the plan and a few rules of the cluster, not on its speeds: what-ifs share
    # them.
    shared = Shared({} if known is None else known)
    periods = min(2, plan.num_periods)
    found: list[float | Unsupported] = [0.0] * len(clusters)
    alike: dict[int, list[tuple[int, Program]]] = defaultdict(list)
    for place, cluster in enumerate(clusters):
        try:
            program = compile_plan(
                plan,
                cluster,
                ranks_per_host=ranks_per_host,
                element_bytes=element_bytes,
                shared=shared,
            )
            if program.contention():
                # Transfers that share a link must be simulated in time, one cluster at a time.
                found[place] = _steady_s(_simulate(program, program.contention(), periods, []))
            else:
                # Clusters with the same layout differ in step durations only: one replay serves all
                # of them as columns.
                alike[id(program.layouts)].append((place, program))
        except Unsupported as error:
            found[place] = error
    for group in alike.values():
        try:
            times = replay_together([program for _, program in group], periods=periods)
        except Unsupported:  # no order found
            times = np.array(
                [_simulate(program, "", periods, []).period_s for _, program in group]
            ).T
        for (place, _), column in zip(group, times.T, strict=True):
            found[place] = _steady(column)
    return found


def _steady_s(result: SimResult) -> float:
    """The median period after the first, or the first where there is no other."""
    return _steady(result.period_s)


def _steady(period_s: Floats) -> float:
    # The median, because one period of a stream or of sampled batches may be an outlier.
    return float(np.median(period_s[1:] if len(period_s) > 1 else period_s))


def _probe_s(cluster: Cluster, co_located: int) -> float:
    """Time of the speed probe if this many ranks run it at once.

    More ranks than were calibrated, and than there are cores, take turns.
    """
    probe = calibrated(cluster, PROBE_OP, co_located)
    if probe is None:
        return cluster.speed_probe_s

    def turns(ranks: int) -> float:
        return max(1.0, ranks * cluster.device.threads / cluster.host.cores)

    return probe.params.get("t0_s", 0.0) * turns(co_located) / turns(probe.co_located)


def _simulate(
    program: Program,
    reason: str,
    periods: int | None,
    recorded: list[int],
    most: int | None = None,
) -> SimResult:
    if not reason:
        # Replay is the faster method. It cannot simulate transfers that share links, or cores that
        # several ranks compete for.
        count = _affordable(program, _REPLAY_STEPS) if periods is None else periods
        try:
            return replay(program, periods=count, record=recorded, most=most)
        except Unsupported:
            pass  # no order found; the engine also says if ranks truly wait in a circle
    count = _affordable(program, _ENGINE_STEPS) if periods is None else periods
    try:
        return simulate_events(program, periods=count, record=recorded)
    except Unsupported:
        # Imported late: SimPy takes time to load, and few plans need it.
        from gnnbench_simulator.engine import simulate

        return simulate(program, periods=count, record=recorded)


def _affordable(program: Program, budget: int) -> int:
    """Periods whose steps of all ranks stay within a budget; at least two if the plan has them."""
    plan = program.plan
    return min(plan.num_periods, max(2, budget // max(plan.num_steps(), 1)))


def _effort(program: Program, work: Mapping[str, Floats]) -> Floats:
    """Seconds of local work of each rank; collectives are excluded because they include waiting."""
    shared = {kind.value for kind in COLLECTIVES}
    total = np.zeros(program.world_size)
    # Waiting inside a collective is as long as the others are late: counting it would make the
    # fastest rank look slowest.
    for label, seconds in work.items():
        if label not in shared:
            total += seconds
    return total


def _moved(program: Program, periods: int) -> list[dict[str, int]]:
    """Bytes moved in each period, by "kind/phase"; repeats are counted once."""
    plan = program.plan
    known: dict[tuple[int, ...], dict[str, int]] = {}
    out = []
    for period in range(periods):
        # Most periods schedule the same iterations; the sums are made once for each distinct
        # schedule.
        key = tuple(plan.scheduled(period))
        if key not in known:
            totals: dict[str, int] = defaultdict(int)
            for index, times in Counter(key).items():
                for (kind, phase), size in program.iterations[index].sent.items():
                    totals[f"{kind}/{phase}"] += times * size
            known[key] = dict(totals)
        out.append(known[key])
    return out


def _phases(plan: Plan, rows: list[Row], periods: int) -> dict[str, float]:
    """Seconds by phase per period; the first period is left out where there are others."""
    # The first period has no prefetched batches and would bias the mean.
    skip = 1 if periods > 1 else 0
    places = {plan.starts[row.period] + row.iteration for row in rows if row.period >= skip}
    recorded = Counter(plan.schedule[place] for place in places)
    scheduled = Counter(plan.schedule[plan.starts[skip] : plan.starts[periods]])
    totals: dict[str, float] = defaultdict(float)
    for row in rows:
        if row.period >= skip:
            # Of many equal iterations in a row, some are recorded and stand for the others.
            index = plan.schedule[plan.starts[row.period] + row.iteration]
            times = scheduled[index] / recorded[index]
            totals[row.phase] += times * row.duration_s / (periods - skip)
    return dict(totals)


def _classes(program: Program, work: Mapping[str, Floats]) -> dict[str, dict[str, Any]]:
    """Grade, conformal radius and the error common to all shapes of the classes that take time."""
    classes, errors = program.cost_classes, class_errors(program)
    return {
        label: {
            "grade": classes[label].grade,
            "radius": classes[label].radius,
            "common": errors[label][1],
        }
        for label in work
        if label in classes
    }


def _notes(program: Program) -> dict[str, Any]:
    hosts = -(-program.world_size // program.ranks_per_host)
    notes: dict[str, Any] = {"hosts": hosts, "ranks_per_host": program.ranks_per_host}
    planned = program.plan.notes
    of_caches = [
        name for name in planned if name.startswith("cache_") or name.endswith("_hit_rate")
    ]
    notes |= {name: planned[name] for name in planned if name in of_caches or name in _PLANNED}
    if program.plan.arrivals:
        plan = program.plan
        ends = plan.starts[1:]
        notes |= {
            "events": list(plan.arrivals),
            "releases_s": [float(plan.releases[end - 1]) for end in ends],
        }
    missing = sorted(c.name for c in program.cost_classes.values() if c.uncalibrated)
    if missing:
        notes["uncalibrated"] = missing
    outside = sorted(line for c in program.cost_classes.values() for line in c.outside)
    if outside:
        notes["outside"] = outside
    if hosts > program.cluster.host.hosts_max:
        most = program.cluster.host.hosts_max
        notes["beyond"] = f"needs {hosts} hosts; the cluster is described for {most}"
    return notes
