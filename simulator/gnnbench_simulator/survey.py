"""What a sweep shows: the cheapest what-ifs, Pareto sets, break-even rents and a tornado."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnnbench_simulator.planner import Planned, Planner
from gnnbench_simulator.sensitivity import Swing, tornado
from gnnbench_simulator.sweep import (
    OBJECTIVES,
    BreakEven,
    Grid,
    WhatIf,
    break_even,
    pareto,
    sweep,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A sweep and what it shows.

    Attributes:
        cheapest: the cheapest what-if that fits of the first workload that has one; by time where
            no machine has a price. None if nothing fits.
        by_workload: the cheapest of each workload that has one.
        pareto: by `objectives`, those that were asked for and are known, see `sweep.pareto`.
        ties: rents at which other machines cost as much as the cheapest.
        swings: the tornado of the cheapest.
    """

    grid: Grid
    what_ifs: list[WhatIf]
    objectives: tuple[str, ...]
    cheapest: WhatIf | None
    by_workload: list[WhatIf]
    pareto: list[WhatIf]
    ties: list[BreakEven]
    swings: list[Swing]


def survey(grid: Grid, data: Any, objectives: Sequence[str], cache: Path | None = None) -> Survey:
    """Sweep a grid; `data` is a dataset or a profile. Raises as `sweep` and `pareto`."""
    pareto([], objectives)  # a misspelt objective is found before minutes of work
    planner = Planner(data, cache)
    found = sweep(grid, planner)
    # Without any price, or any power, the set is over what is known.
    asked = [
        name for name in objectives if any(OBJECTIVES[name](o) is not None for o in found if o.fits)
    ]
    best = [
        min(fitting, key=_cost)
        for number in range(len(grid.workloads))
        if (fitting := [one for one in found if one.workload == number and one.fits])
    ]
    first = best[0] if best else None
    swings: list[Swing] = []
    if first is not None:
        planned = planner.planned(first.run, first.machine)
        assert isinstance(planned, Planned)
        swings = tornado(planned, first.machine)
    return Survey(
        grid=grid,
        what_ifs=found,
        objectives=tuple(asked),
        cheapest=first,
        by_workload=best,
        pareto=pareto(found, asked) if asked else [],
        ties=[] if first is None else break_even(found, first),
        swings=swings,
    )


def _cost(one: WhatIf) -> tuple[float, float]:
    return (float("inf") if one.usd is None else one.usd), one.total_s
