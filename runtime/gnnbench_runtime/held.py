"""Comparison of a run with its plan.

The launcher makes and validates the plan before ranks start, so that collectives that do not match
are an error instead of a hang. When the run has ended, the ranks' ledgers are compared with it step
by step: names, lanes, order within a lane and, where the plan's sizes were counted, bytes and
flops. The first difference fails the run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.dataset import Dataset
from gnnbench.errors import RunFailed
from gnnbench.iterations import RankSteps
from gnnbench.ledger import Row, iter_ledger
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Phase

Performed = tuple[str, str, str, str, str, int, int, int]
"""Lane, name, kind, op, phase, layer, bytes, flops."""
_SIZES = slice(6, 8)


@dataclass(slots=True)
class Held:
    """Extent of the comparison.

    steps            of all ranks
    iterations       of all periods, and for how many of them sizes were compared
    """

    steps: int = 0
    iterations: int = 0
    sized: int = 0

    def as_record(self) -> dict[str, int]:
        return {"steps": self.steps, "iterations": self.iterations, "sized": self.sized}


def plan_run(run: RunSpec, data: Dataset, cache: Path, *, device: str, ranks_per_host: int) -> Plan:
    """The plan of a run, validated. Raises SpecError if its ranks' steps do not fit together."""
    approach = APPROACHES.get(run.approach)
    layout = Layout(
        world_size=run.ranks, ranks_per_host=ranks_per_host, device=device, performed=True
    )
    # Planned with `performed`: for the devices that are here, not for a machine to be imagined.
    plan = approach.plan(data, run, approach.structure(data, run, cache), layout)
    plan.validate()
    return plan


def planned_bytes(plan: Plan) -> list[dict[str, int]]:
    """Bytes that all ranks move in each period, by "kind/phase"."""
    known: dict[tuple[int, ...], dict[str, int]] = {}
    out = []
    for period in range(plan.num_periods):
        key = tuple(plan.scheduled(period))
        # Most periods are alike; the sum over all ranks is made once for each distinct schedule.
        if key not in known:
            moved = plan.moved_bytes(period)
            known[key] = {f"{kind}/{phase}": size for (kind, phase), size in sorted(moved.items())}
        out.append(known[key])
    return out


def hold(plan: Plan, run_folder: Path) -> Held:
    """Compare the ledgers of a run with its plan.

    Raises:
        RunFailed: at the first difference; the reason names rank, period, iteration and both steps.
    """
    held = Held()
    for rank in range(plan.world_size):
        steps, iterations = compare(plan, iter_ledger(run_folder / f"ledger-rank{rank}.csv"), rank)
        held.steps += steps
        if rank == 0:
            held.iterations = iterations
            held.sized = iterations * plan.counted
    return held


def compare(plan: Plan, rows: Iterable[Row], rank: int) -> tuple[int, int]:
    """Compare a rank's ledger with the plan; return how many steps and iterations it has.

    Evaluation between periods is no part of a plan; where a plan has steps of the phase `evaluate`
    (a stream is evaluated before it is learnt from), they are compared as all others.

    Raises:
        RunFailed: at the first difference.
    """
    num_steps = num_iterations = 0
    for period, iteration, performed in _iterations(rows):
        scheduled = plan.scheduled(period)
        if iteration >= len(scheduled):
            raise RunFailed(
                f"the run differs from its plan: {plan.period} {period} has {len(scheduled)} "
                f"iterations, performed a further one, {iteration}",
                rank=rank,
            )
        steps = plan.iterations[scheduled[iteration]][rank]
        if all(step.phase is not Phase.EVALUATE for step in steps):
            performed = [row for row in performed if row.phase != Phase.EVALUATE]
            # An evaluation between periods leaves an iteration without planned steps.
            if not performed:
                continue
        where = f"{plan.period} {period}, iteration {iteration}"
        _compare(plan, performed, steps, where, rank)
        num_steps += len(performed)
        num_iterations += 1
    # Counted, because a ledger that ends early has no differing row.
    missing = len(plan.schedule) - num_iterations
    if missing:  # a rank may have nothing to do in some iterations
        missing -= sum(not plan.iterations[index][rank] for index in plan.schedule)
    if missing:
        raise RunFailed(
            f"the run differs from its plan: {missing} of {len(plan.schedule)} planned iterations "
            "were not performed",
            rank=rank,
        )
    return num_steps, num_iterations


def _compare(plan: Plan, rows: list[Row], steps: RankSteps, where: str, rank: int) -> None:
    """Compare one iteration of one rank, lane by lane: between lanes, waits decide the order."""
    performed, planned = _by_lane(map(_of_row, rows)), _by_lane(_of_steps(steps))
    for lane in sorted(performed.keys() | planned.keys()):
        pairs = zip_longest(performed.get(lane, ()), planned.get(lane, ()))
        for place, (done, wanted) in enumerate(pairs):
            same = done == wanted
            # Sizes estimated from a profile cannot equal those performed: only names and order are
            # held.
            if not plan.counted and done is not None and wanted is not None:
                same = done[: _SIZES.start] == wanted[: _SIZES.start]
            if not same:
                raise RunFailed(
                    f"the run differs from its plan ({where}, lane {lane}, step {place}): "
                    f"performed {_shown(done)}, planned {_shown(wanted)}",
                    rank=rank,
                )


def _by_lane(steps: Iterator[Performed] | map[Performed]) -> dict[str, list[Performed]]:
    lanes: dict[str, list[Performed]] = defaultdict(list)
    for step in steps:
        lanes[step[0]].append(step)
    return lanes


def _of_row(row: Row) -> Performed:
    return (row.lane, row.name, row.kind, row.op, row.phase, row.layer, row.bytes, row.flops)


def _of_steps(steps: RankSteps) -> Iterator[Performed]:
    for s in steps:
        yield str(s.lane), s.name, s.kind.value, s.op, s.phase.value, s.layer, s.bytes, s.flops


def _shown(step: Performed | None) -> str:
    if step is None:
        return "nothing"
    _, name, _, op, _, _, size, flops = step
    return f"{name!r} ({op}, {size} bytes, {flops} flops)"


def _iterations(rows: Iterable[Row]) -> Iterator[tuple[int, int, list[Row]]]:
    """The rows of every iteration of a ledger, in the order in which they started.

    Rows of several threads are interleaved: a thread that prepares the next iteration is early, and
    a background transfer may end in the next period. A period is therefore complete when the one
    after the next begins.
    """
    waiting: dict[int, dict[int, list[Row]]] = {}
    for row in rows:
        # Two periods wait at most: memory does not grow with the length of the run.
        if row.period not in waiting:
            for period in sorted(p for p in waiting if p < row.period - 1):
                yield from _in_order(period, waiting.pop(period))
            waiting[row.period] = defaultdict(list)
        waiting[row.period][row.iteration].append(row)
    for period in sorted(waiting):
        yield from _in_order(period, waiting[period])


def _in_order(
    period: int, iterations: dict[int, list[Row]]
) -> Iterator[tuple[int, int, list[Row]]]:
    for iteration in sorted(iterations):
        yield period, iteration, iterations[iteration]
