"""Sweeps: products of what-ifs that are timed as predictions are, Pareto sets, break-even rents."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gnnbench.data.profile import load_profile
from gnnbench.errors import GnnbenchError
from gnnbench.machines import Machine, find_machines
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench_simulator.memory import FITS, TIGHT, TOO_LARGE
from gnnbench_simulator.planner import Planned, Planner
from gnnbench_simulator.predict import estimate_s
from gnnbench_simulator.sensitivity import STEP, constants_of, tornado, with_value
from gnnbench_simulator.survey import Survey, survey
from gnnbench_simulator.sweep import Grid, WhatIf, break_even, pareto, sweep

RUN = RunSpec(
    suite="advice",
    dataset=DatasetRef(name="products", profile="ogbn-products", kind="graph"),
    model=ModelSpec(name="sage", kind="sage", hidden=64, layers=2),
    training=TrainingSpec(),
    approach="",
    ranks=1,
)
MACHINES = ("8xp4de.24xlarge", "8xp4d.24xlarge", "8xdgx-h100", "8xg4dn.12xlarge", "1xh200")


def _grid(*words: str, approaches: tuple[str, ...] = ("partition", "sampled"), **more: Any) -> Grid:
    machines = tuple(find_machines(words or MACHINES))
    return Grid(**{"workloads": (RUN,), "approaches": approaches, "machines": machines, **more})


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(load_profile("ogbn-products"))


@pytest.fixture(scope="module")
def found(planner: Planner) -> list[WhatIf]:
    return sweep(_grid(), planner)


def test_a_sweep_is_the_product_and_each_is_timed_as_alone(
    found: list[WhatIf], planner: Planner
) -> None:
    # partition and sampled (replicated, partitioned, host) on four hosts of 8; none is partitioned
    # on one rank
    assert len(found) == 4 * 4 + 3
    for one in found:
        planned = planner.planned(one.run, one.machine)
        assert isinstance(planned, Planned)
        alone = estimate_s(planned.plan, one.machine.cluster, ranks_per_host=one.machine.per_host)
        assert one.period_s == pytest.approx(alone, rel=1e-12)


def test_what_ifs_of_one_layout_share_plan_and_blocks(
    found: list[WhatIf], planner: Planner
) -> None:
    alike = [one for one in found if one.run.approach == "partition" and one.machine.ranks == 8]
    plans = {
        id(planner.planned(one.run, one.machine)) for one in alike if one.machine.per_host == 8
    }
    assert len(plans) == 1
    planned = planner.planned(alike[0].run, alike[0].machine)
    assert isinstance(planned, Planned)
    assert len(planned.blocks) == 1  # three machines, one set of rules


def test_price_and_energy_are_of_the_whole_training(found: list[WhatIf]) -> None:
    for one in found:
        rent = one.machine.usd_per_hour()
        assert rent is not None
        assert one.usd == pytest.approx(rent * one.total_s / 3600)
        assert one.energy_j is not None
        power = one.machine.cluster.power
        assert power is not None
        devices = one.machine.hosts * one.machine.cluster.host.devices_per_host
        ceiling = devices * power.limit_w.value * power.overhead.value * one.total_s
        assert devices * power.idle_w.value * one.total_s < one.energy_j < ceiling


def _made(like: WhatIf, total: float, usd: float | None, **more: Any) -> WhatIf:
    made = dataclasses.replace(like, period_s=total / like.periods, usd=usd, **more)
    return made


def test_a_pareto_set_has_what_no_other_of_its_kind_beats(found: list[WhatIf]) -> None:
    like = next(one for one in found if one.fits)
    fast, cheap = _made(like, 1.0, 9.0), _made(like, 9.0, 1.0)
    beaten, equal = _made(like, 2.0, 9.0), _made(like, 1.0, 9.0)
    other = _made(like, 99.0, 99.0, steps_per_epoch=like.steps_per_epoch + 1)
    unpriced = _made(like, 0.1, None)
    kept = pareto([beaten, other, fast, cheap, unpriced, equal], ("time", "price"))
    assert [one.total_s for one in kept] == pytest.approx([1.0, 9.0, 99.0])
    assert [one.total_s for one in pareto([fast, cheap, unpriced], ("time",))] == [
        pytest.approx(0.1)
    ]


def test_what_does_not_fit_is_kept_with_its_reason_and_is_in_no_pareto_set(
    planner: Planner,
) -> None:
    small = find_machines(["8xg4dn.12xlarge"], constants={"device.memory_bytes": "1.5e9"})
    every = sweep(_grid(approaches=("partition", "single"), machines=tuple(small)), planner)
    verdicts = {one.run.approach: one.reason or one.memory["verdict"] for one in every}
    assert verdicts == {"partition": TOO_LARGE, "single": "single runs on 1 rank, 8 asked"}
    assert pareto(every, ("time",)) == []


def test_the_verdict_is_fits_only_where_running_out_is_unlikely(found: list[WhatIf]) -> None:
    for one in found:
        chance = max(s["p_out_of_memory"] for s in one.memory["spaces"].values())
        assert one.memory["verdict"] in (FITS, TIGHT, TOO_LARGE)
        assert one.fits == (chance <= 0.05)


def test_at_its_break_even_rent_a_machine_costs_what_the_cheapest_does(
    found: list[WhatIf],
) -> None:
    fitting = [one for one in found if one.fits and one.run.approach == "partition"]
    best = min(fitting, key=lambda one: one.usd or 0.0)
    ties = break_even(found, best)
    assert ties
    for tie in ties:
        assert tie.usd_per_host_hour * tie.one.machine.hosts * tie.one.total_s / 3600 == (
            pytest.approx(best.usd)
        )
        assert tie.one.like(best)
        assert tie.one.machine.name != best.machine.name


def test_a_tornado_moves_one_cause_at_a_time(planner: Planner, found: list[WhatIf]) -> None:
    one = next(w for w in found if w.run.approach == "partition" and w.machine.ranks == 8)
    planned = planner.planned(one.run, one.machine)
    assert isinstance(planned, Planned)
    swings = tornado(planned, one.machine)
    widths = [swing.width for swing in swings]
    assert widths == sorted(widths, reverse=True)
    assert {swing.what for swing in swings} == {"operation", "constant"}
    assert all(swing.low <= 1.0 <= swing.high for swing in swings)
    peak = next(s for s in swings if s.name == "device.peak_flops_per_s.float32")
    slower = with_value(
        one.machine.cluster,
        peak.name,
        one.machine.cluster.device.peak_flops_per_s.float32.value / STEP,
    )
    alone = estimate_s(planned.plan, slower, ranks_per_host=one.machine.per_host)
    assert peak.high == pytest.approx(alone / one.period_s)


def test_every_constant_of_a_cluster_is_found_by_its_key() -> None:
    (machine,) = find_machines(["8xp4de.24xlarge"])
    keys = dict(constants_of(machine.cluster))
    assert keys["links.inter.bytes_per_s"].value == 5e10
    changed = with_value(machine.cluster, "links.inter.bytes_per_s", 1.0)
    assert changed.links.inter.bytes_per_s.value == 1.0
    assert changed.links.intra == machine.cluster.links.intra


def test_a_survey_answers_with_the_cheapest_of_each_workload() -> None:
    wide = dataclasses.replace(RUN, model=dataclasses.replace(RUN.model, hidden=256))
    grid = _grid("8xp4de.24xlarge", "8xp4d.24xlarge", workloads=(RUN, wide))
    got = survey(grid, load_profile("ogbn-products"), ("time", "price"))
    assert isinstance(got, Survey)
    assert [one.workload for one in got.by_workload] == [0, 1]
    assert got.cheapest is got.by_workload[0]
    assert got.by_workload[0].total_s < got.by_workload[1].total_s
    assert all(a.fits for a in got.pareto)


def test_without_any_price_the_pareto_set_is_over_what_is_known() -> None:
    grid = _grid("7xrtx2080tix8", "2xa100-pciex2", approaches=("sampled",))
    got = survey(grid, load_profile("ogbn-products"), ("time", "price", "energy"))
    assert got.objectives == ("time", "energy")
    assert got.pareto
    assert got.ties == []


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"knobs": {"partitoner": ("hash",)}}, "did you mean 'partitioner'?"),
        ({"knobs": {"partitioner": ("metiss",)}}, "metiss"),
        ({"knobs": {"single.partitioner": ("hash",)}}, "none of partition, sampled has it"),
        ({"approaches": ("partitions",)}, "did you mean 'partition'?"),
    ],
)
def test_a_knob_or_approach_that_is_not_there_is_refused(
    planner: Planner, more: dict[str, Any], problem: str
) -> None:
    with pytest.raises(GnnbenchError) as error:
        sweep(_grid(**more), planner)
    assert problem in str(error.value)


def test_knobs_are_a_product_of_those_that_an_approach_has(planner: Planner) -> None:
    knobs = {"partitioner": ("metis", "hash"), "sampled.prefetch": (0, 2)}
    every = sweep(_grid("8xp4de.24xlarge", knobs=knobs), planner)
    by_name = {
        name: [one.run.knobs for one in every if one.run.approach == name]
        for name in ("partition", "sampled")
    }
    assert by_name["partition"] == [{}, {"partitioner": "hash"}]
    assert len(by_name["sampled"]) == 4


def test_a_machine_that_cannot_be_timed_says_what_it_lacks() -> None:
    machine = Machine(cluster=find_machines(["1xg6.xlarge"])[0].cluster, ranks=1, per_host=1)
    grid = _grid(machines=(machine,), approaches=("belady",))
    (one, *_) = sweep(grid, Planner(load_profile("ogbn-products")))
    assert one.reason
    assert not one.fits
