"""A prediction says how long, how sure, how many bytes and how much memory."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import IterationModel, OpModel, list_clusters, load_cluster
from gnnbench.data.profile import GraphProfile
from gnnbench.plan import Plan
from gnnbench.reuse import BINS
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench.steps import COMMUNICATION, After, Kind, Lane
from gnnbench_simulator.compute import Durations
from gnnbench_simulator.predict import estimate_s, predict_plan
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.uncertainty import interval


def _plan(kit: Any, periods: int = 3) -> Plan:
    ranks = [
        (
            kit.work("a", seconds, after=(After("m", 1),)),
            kit.meet("m", (0, 1), 20, after=(After("a"),)),
        )
        for seconds in (10, 20)
    ]
    return kit.plan(*ranks, periods=periods)


def test_a_prediction_holds_its_parts_together(kit: Any) -> None:
    p = predict_plan(_plan(kit), kit.cluster())
    assert p.period_s == pytest.approx(23.0)
    assert p.low_s < p.period_s < p.high_s
    assert (p.method, p.reason, p.slowest_rank) == ("replay", "", 1)
    assert p.bytes == [{"all_reduce/sync": 40}] * 3
    assert p.phases == {"forward": pytest.approx(20.0), "sync": pytest.approx(3.0)}
    assert p.work == {"work": pytest.approx(20.0), "all_reduce": pytest.approx(3.0)}
    assert set(p.ledgers) == {0, 1}
    assert len(p.ledgers[1]) == 6
    assert [m["rank"] for m in p.memory] == [0, 1]


def test_a_plan_with_contention_is_simulated_by_events(kit: Any) -> None:
    host = dataclasses.replace(kit.cluster().host, cores=1)
    p = predict_plan(_plan(kit), kit.cluster(host=host))
    assert p.method == "events"
    assert "cores" in p.reason
    assert p.period_s > 23.0


def test_the_grade_is_of_the_weakest_class_that_matters(kit: Any) -> None:
    def grade(status: str, seconds: int) -> str:
        other = OpModel(
            op="other", kind="gemm", form="linear", params={"s_per_byte": 1.0}, status=status
        )
        cluster = kit.cluster(ops=(*kit.cluster().ops, other))
        small = kit.work("b", seconds, kind=Kind.GEMM, op="other")
        return predict_plan(kit.plan((kit.work("a", 100), small)), cluster).grade

    assert grade("assumed", 50) == "datasheet"
    assert grade("assumed", 1) == "measured"
    assert grade("measured", 50) == "measured"


def test_a_wider_radius_makes_a_wider_interval(kit: Any) -> None:
    def width(radius: float) -> float:
        op = OpModel(
            op="work", kind="elementwise", form="linear", params={"s_per_byte": 1.0}, radius=radius
        )
        spread = interval(compile_plan(_plan(kit), kit.cluster(ops=(op,))))
        return spread.high / spread.low

    assert 1.0 < width(0.1) < width(0.3) < width(0.9)


def test_errors_that_the_steps_of_a_run_share_do_not_average_out(kit: Any) -> None:
    def width(shared: float | None) -> float:
        op = OpModel(
            op="work",
            kind="elementwise",
            form="linear",
            params={"s_per_byte": 1.0},
            radius=0.4,
            shared=shared,
        )
        plan = kit.plan(tuple(kit.work(name, 10) for name in "abcdefgh"))
        spread = interval(compile_plan(plan, kit.cluster(ops=(op,))))
        return math.log(spread.high / spread.low)

    assert width(0.0) < width(None) < width(1.0)
    assert width(1.0) > 2 * width(0.0)


def test_intervals_are_as_wide_as_sums_of_probes_were_found_to_need(kit: Any) -> None:
    ops = tuple(
        OpModel(op=op, kind="elementwise", form="linear", params={"s_per_byte": 1.0}, radius=0.5)
        for op in ("work", "other")
    )

    def width(**earned: float) -> float:
        cluster = kit.cluster(ops=ops)
        if earned:
            cluster = dataclasses.replace(cluster, iterations=(IterationModel(**earned),))
        first = kit.work("a", 9)
        second = kit.work("b", 9)
        second = dataclasses.replace(second, work=second.work._replace(op="other"))
        spread = interval(compile_plan(kit.plan((first, second)), cluster))
        return math.log(spread.high / spread.low)

    assert width(factor=0.5) < 0.7 * width(factor=1.0)
    assert width(common=1.0) > 1.2 * width(common=0.0)
    assert width() == pytest.approx(width(common=0.0, factor=1.0), rel=0.1)


def test_a_graph_of_unknown_order_and_shapes_not_measured_widen_the_interval(kit: Any) -> None:
    op = OpModel(
        op="spmm",
        kind="spmm",
        form="spmm",
        params={"s_per_byte": 1e-9},
        radius=0.1,
        blind_radius=0.6,
        range=((0.0, 9.0),) * 6,
        stretch=0.2,
    )

    def predicted(nodes: int, reuse: tuple[float, ...]) -> Any:
        known = GraphProfile(
            name="g",
            source="made up",
            status="measured",
            num_nodes=nodes,
            num_edges=8 * nodes,
            num_features=16,
            num_classes=4,
            num_train=nodes // 2,
            reuse=reuse,
        )
        run = dataclasses.replace(example("single", 1), dataset=DatasetRef(profile="g.toml"))
        approach = APPROACHES.get("single")
        structure = approach.structure(known, run)
        plan = approach.plan(known, run, structure, Layout(world_size=1, ranks_per_host=1))
        return predict_plan(plan, dataclasses.replace(load_cluster("cpu-2core"), ops=(op,)))

    near = (1.0, *(0.0,) * (BINS - 1))
    radius = {
        name: found.notes["classes"]["spmm"]["radius"]
        for name, found in {
            "known": predicted(3000, near),
            "blind": predicted(3000, ()),
            "larger": predicted(3_000_000, near),
        }.items()
    }
    assert radius["known"] == pytest.approx(0.1)
    assert radius["blind"] == pytest.approx(0.6)
    assert radius["larger"] > 0.1 + 0.2 * math.log(100)
    assert "outside" not in predicted(3000, near).notes
    lines = predicted(3_000_000, near).notes["outside"]
    assert "spmm: rows 3,000,000, measured 1 to 8,103" in lines


def test_one_class_alone_has_its_radius_as_interval(kit: Any) -> None:
    """exp(+-r) is 90 %, up to the drift shared by every measurement."""
    op = OpModel(
        op="work", kind="elementwise", form="linear", params={"s_per_byte": 1.0}, radius=0.5
    )
    spread = interval(compile_plan(kit.plan((kit.work("a", 9),)), kit.cluster(ops=(op,))))
    assert spread.high == pytest.approx(1.65, rel=0.05)
    assert spread.low == pytest.approx(1 / 1.65, rel=0.05)


def test_a_machine_whose_probe_spread_in_calibration_drifts_by_as_much(kit: Any) -> None:
    work = OpModel(
        op="work", kind="elementwise", form="linear", params={"s_per_byte": 1.0}, radius=0.01
    )
    probe = dataclasses.replace(work, op="speed_probe", radius=0.5)
    # Older files say 0.5 where all probes counted as one source, so that nothing judged them.
    unknown = dataclasses.replace(probe, mape=-math.expm1(-0.5))
    shared = dataclasses.replace(probe, shared=0.25)
    plan = kit.plan((kit.work("a", 9),))
    calm = interval(compile_plan(plan, kit.cluster(ops=(work,))))
    restless, lively, untold = (
        interval(compile_plan(plan, kit.cluster(ops=(work, one))))
        for one in (probe, shared, unknown)
    )
    assert calm.high == pytest.approx(math.exp(1.645 * 0.06), rel=0.03)
    assert restless.high == pytest.approx(math.exp(0.5), rel=0.05)
    assert lively.high == pytest.approx(math.exp(0.25), rel=0.05)
    assert untold.high == pytest.approx(calm.high, rel=0.01)


def test_ranks_that_take_turns_on_cores_also_do_so_in_the_speed_probe(kit: Any) -> None:
    probes = tuple(
        OpModel(op="speed_probe", kind="host", form="linear", params={"t0_s": t}, co_located=n)
        for n, t in ((1, 2.0), (2, 3.0))
    )
    host = dataclasses.replace(kit.cluster().host, cores=2)
    cluster = kit.cluster(host=host, ops=(*kit.cluster().ops, *probes))
    told = [
        predict_plan(kit.plan(*[(kit.work("a", 1),)] * ranks), cluster).probe_s
        for ranks in (1, 2, 4)
    ]
    assert told == [2.0, 3.0, 6.0]


def test_errors_of_like_collectives_do_not_cancel(kit: Any) -> None:
    def high(steps: int) -> float:
        names = [f"m{n}" for n in range(steps)]
        ranks = [tuple(kit.meet(name, (0, 1), n) for n, name in enumerate(names))] * 2
        return interval(compile_plan(kit.plan(*ranks), kit.cluster())).high

    assert high(8) == pytest.approx(high(1), rel=0.02)


MODELS = tuple(
    OpModel(
        op="work", kind="elementwise", form="linear", params={"s_per_byte": k}, co_located=int(k)
    )
    for k in (1.0, 2.0, 4.0)
)


def test_lanes_of_a_rank_that_work_at_once_disturb_each_other_as_ranks_do(kit: Any) -> None:
    alone = kit.plan((kit.work("a", 10), kit.work("b", 10)))
    beside = kit.plan((kit.work("a", 10), kit.work("b", 10, lane=Lane.HOST)))
    cluster = kit.cluster(ops=MODELS)
    assert estimate_s(alone, cluster, ranks_per_host=1) == pytest.approx(20.0)
    assert estimate_s(beside, cluster, ranks_per_host=1) == pytest.approx(20.0)
    waiting = kit.plan((kit.work("a", 10), kit.work("b", 10, lane=Lane.DISK, kind=Kind.READ)))
    found = compile_plan(waiting, cluster, ranks_per_host=1)
    assert found.iterations[0].seconds[0][0] == pytest.approx(10.0)


def test_calibration_is_taken_for_the_ranks_that_share_the_host(kit: Any) -> None:
    models = MODELS
    step = kit.work("a", 10)
    for co_located, seconds in ((1, 10.0), (2, 20.0), (3, 20.0), (4, 40.0), (9, 40.0)):
        durations = Durations(kit.cluster(ops=models), co_located=co_located)
        assert durations.seconds([step])[0].tolist() == [seconds]


def test_an_uncalibrated_operation_is_predicted_from_peak_rates_and_named(kit: Any) -> None:
    """80 % of 1 B/s of memory: never the constants of the calibrated operation of its kind."""
    plan = kit.plan((kit.work("a", 10, op="novel"), kit.work("b", 1)))
    predicted = predict_plan(plan, kit.cluster())
    assert predicted.period_s == pytest.approx(10 / 0.8 + 1)
    assert (predicted.grade, predicted.notes["uncalibrated"]) == ("datasheet", ["novel"])
    known = predict_plan(kit.plan((kit.work("b", 1),)), kit.cluster())
    assert "uncalibrated" not in known.notes


def test_a_datasheet_prediction_covers_every_kind_of_step(kit: Any) -> None:
    sizes = dict(flops=10**6, rows=1000, nonzeros=9000, width=32, inner=32, source_rows=1000)
    steps = [
        kit.work(kind.value, 10**6, kind=kind, op=kind.value, **sizes)
        for kind in Kind
        if kind not in COMMUNICATION
    ]
    for name in list_clusters():
        cluster = load_cluster(name)
        cluster = dataclasses.replace(cluster, storage=cluster.storage or kit.cluster().storage)
        seconds, labels = Durations(cluster).seconds(steps)
        assert (seconds > 0).all()
        assert all(labels)


def test_predicting_imports_neither_torch_nor_the_slow_parts_of_the_stack() -> None:
    code = """
import sys, gnnbench_simulator.predict
print([m for m in ("torch", "scipy", "pandas", "matplotlib", "simpy") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_record_of_a_prediction_can_be_saved(kit: Any) -> None:
    run = RunSpec(
        suite="s",
        dataset=DatasetRef(name="g", path="x"),
        model=ModelSpec(name="m"),
        training=TrainingSpec(),
        approach="single",
        ranks=2,
    )
    record = predict_plan(_plan(kit), kit.cluster()).record(run, ranks_per_host=2)
    assert record.config_id == run.config_id
    json.dumps(dataclasses.asdict(record), allow_nan=False)


def test_the_time_between_steps_counts_for_the_period_and_for_no_step(kit: Any) -> None:
    gap = OpModel(op="gap", kind="host", form="rows", params={"s_per_row": 0.5})
    cluster = kit.cluster(ops=(*kit.cluster().ops, gap))
    plan = kit.plan((kit.work("a", 2), kit.work("b", 3)), periods=2)
    p = predict_plan(plan, cluster)
    assert p.periods_s == pytest.approx([6.0, 6.0])
    spans = [(row.start_s, row.duration_s) for row in p.ledgers[0]]
    assert sum(spans, ()) == pytest.approx((0.0, 2.0, 2.5, 3.0, 6.0, 2.0, 8.5, 3.0))
    assert p.work == {"work": pytest.approx(5.0), "gap": pytest.approx(1.0)}


def test_the_time_after_a_step_that_took_the_caches_is_longer(kit: Any) -> None:
    """Half a cold gap where a step's bytes equal the cache."""
    gap = OpModel(
        op="gap",
        kind="host",
        form="gap",
        params={"t0_s": 0.25, "cold_s": 0.5, "cache_bytes": 1000.0},
    )
    cluster = kit.cluster(ops=(*kit.cluster().ops, gap))
    p = predict_plan(kit.plan((kit.work("a", 0), kit.work("b", 1000))), cluster)
    assert p.work["gap"] == pytest.approx(0.25 + 0.25 + 0.5 * 0.5, rel=1e-3)
