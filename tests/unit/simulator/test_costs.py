"""Fits find the physics again, residuals are bounded, and radii cover what was not seen."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from gnnbench import work
from gnnbench.cluster import OpModel
from gnnbench.costs.facts import Facts
from gnnbench.costs.fit import conformal_radius, fit_collective, fit_op, shared_of
from gnnbench.costs.forms import CEILINGS, FORMS, form
from gnnbench.costs.model import BOUND, collective_seconds, op_seconds
from gnnbench.costs.ranges import beyond, outside, radius_of, stretch_of
from gnnbench.errors import SpecError
from gnnbench.reuse import BINS, Reuse
from gnnbench.steps import Kind, Work


def _gemm(rows: int, inner: int, width: int) -> Work:
    return work.gemm("gemm", rows, inner, width, 4)


def _spmm(rows: int, degree: int, width: int) -> Work:
    nonzeros = rows * degree
    return work.spmm(rows=rows, nonzeros=nonzeros, width=width, source_rows=rows, element_bytes=4)


GEMMS = [_gemm(r, k, n) for r in (500, 4000, 60000) for k in (16, 128, 700) for n in (8, 64, 256)]
SPMMS = [_spmm(r, d, w) for r in (800, 9000, 120000) for d in (3, 20) for w in (8, 64, 256)]


def _larger(step: Work) -> Work:
    if step.kind is Kind.GEMM:
        return _gemm(step.rows * 4 // 3, step.inner, step.width)
    return _spmm(step.rows * 4 // 3, step.nonzeros // step.rows, step.width)


def _gemm_truth(step: Work) -> float:
    return 5e-6 + step.flops / 4e10 + 2e-10 * step.rows * step.inner


def _spmm_truth(step: Work) -> float:
    fits = step.source_rows * step.width * 4 < 8e6
    traffic = step.nonzeros * step.width * 4
    return 8e-6 + 1.5e-9 * step.nonzeros + traffic / (4e10 if fits else 9e9)


@pytest.mark.parametrize(
    ("steps", "truth", "bound"), [(GEMMS, _gemm_truth, 0.05), (SPMMS, _spmm_truth, 0.2)]
)
def test_a_fit_predicts_shapes_it_has_not_seen(steps, truth, bound) -> None:  # type: ignore[no-untyped-def]
    noise = np.exp(np.random.default_rng(1).normal(0, 0.02, len(steps)))
    model = fit_op([(s, truth(s) * n) for s, n in zip(steps, noise, strict=True)])
    near = [_larger(step) for step in steps]
    errors = np.log(op_seconds(model, Facts.of(near)) / [truth(s) for s in near])
    assert np.median(np.abs(errors)) < bound
    assert np.mean(np.abs(errors) <= model.radius) >= 0.8


def _graph(kind: str, rows: int, degree: int, width: int, near: float) -> tuple[Work, str]:
    """A product of which the share `near` of the reads follow within a few rows."""
    shares = np.zeros(BINS)
    shares[1], shares[int(np.log2(rows)) - 1] = near, 1 - near
    found = _spmm(rows, degree, width)._replace(reuse=Reuse(shares))
    return found, kind


_NEAR = {"web": 0.9, "grid": 1.0, "random": 0.0, "stars": 0.5, "blocks": 0.7}
GRAPHS = [
    _graph(kind, rows, degree, width, near)
    for kind, near in _NEAR.items()
    for rows in (2_000, 40_000, 400_000)
    for degree in (4, 16)
    for width in (16, 64, 256)
]


def _ordered_truth(step: Work) -> float:
    """A near read costs what a cache gives; a far one of a large table, four times as much."""
    assert step.reuse is not None
    traffic = step.nonzeros * step.width * 4
    table = step.source_rows * step.width * 4
    far = traffic * float(step.reuse.shares[2:].sum()) * (table > 1.6e7)
    return 8e-6 + 1.5e-9 * step.nonzeros + traffic / 4e10 + far / 1e10


def test_near_and_far_reads_have_costs_of_their_own() -> None:
    model = fit_op(
        [(step, _ordered_truth(step)) for step, _ in GRAPHS], graphs=[kind for _, kind in GRAPHS]
    )
    assert model.held_out == "kinds of graph" and model.radius < 0.35
    assert model.blind_radius > 2 * model.radius  # the order of the vertices is worth knowing
    far, _ = _graph("x", 300_000, 10, 128, 0.0)
    near, _ = _graph("x", 300_000, 10, 128, 1.0)
    times = op_seconds(model, Facts.of([near, far]))
    truth = np.array([_ordered_truth(near), _ordered_truth(far)])
    assert np.abs(np.log(times / truth)).max() < 0.3 and truth[1] > 3 * truth[0]


def test_rising_rows_of_a_gather_cost_their_bytes_and_no_latency() -> None:
    rows = 100_000
    random = work.gather(rows, 64, rows, 4)
    rising = work.gather(rows, 64, rows, 4, reuse=Reuse.in_turn(rows))
    few = work.gather(rows, 64, rows, 4, reuse=Reuse.in_turn(16))
    cache = {"near_cache_bytes": 1e5, "cache_bytes": 1e6}
    late = form("gather").seconds(Facts.of([random, rising]), {"s_per_missed_row": 1.0, **cache})
    assert late[0] > 0.9 * rows and late[1] == 0.0
    far = form("gather").seconds(Facts.of([rising, few]), {"s_per_missed_byte": 1.0, **cache})
    assert far[0] > 0.9 * rows * 256 and far[1] < 0.01 * far[0]


def test_sums_over_edges_miss_less_where_neighbours_are_near() -> None:
    near, far = (
        work.edge_sums(500_000, 2, 4, reuse=Reuse.in_turn(distance)) for distance in (8, 400_000)
    )
    plain = work.elementwise("relu", 500_000, 2, passes=2, element_bytes=4)
    params = {"s_per_missed_line": 1.0, "cache_bytes": 1e6}
    times = form("rows").seconds(Facts.of([near, far, plain]), params)
    assert times[0] < 0.01 * times[1] and times[1] > 0.7 * 500_000 and times[2] == 0.0


@pytest.mark.parametrize("form_name", sorted(FORMS))
def test_no_fit_claims_more_for_what_its_samples_hardly_show_than_a_memory_can_cost(
    form_name: str,
) -> None:
    """Small steps hardly miss a cache; what a miss costs is then a guess, of a real machine's."""
    found = form(form_name)
    steps = [
        Work(
            kind=Kind.SAMPLE,
            op="x",
            bytes=24 * rows,
            flops=rows,
            rows=rows,
            nonzeros=3 * rows,
            width=8,
            inner=4,
            source_rows=rows,
        )
        for rows in (64, 160, 250, 400, 900, 1500)
    ]
    samples = [(step, 2e-5 + 3e-8 * step.rows) for step in steps]
    model = fit_op(samples, form=form_name)
    for name, most in CEILINGS.items():
        assert model.params.get(name, 0.0) <= most * (1 + 1e-5), name
    large = Facts.of([step._replace(rows=2_000_000, source_rows=2_000_000) for step in steps[:1]])
    if "s_per_row" in found.coefficients:
        assert op_seconds(model, large)[0] < 20 * 3e-8 * 2_000_000


def test_neighbours_that_lie_side_by_side_miss_by_the_line() -> None:
    """`labor` calibrated on 8 to 30 neighbours per vertex, and asked about 500."""

    def scan(rows: int, degree: int, tables: int) -> Work:
        looked = rows * degree
        return work.draw_neighbours(
            [4 * rows, rows, 0], [3 * rows, 0], looked, "sample_labor", tables=tables
        )

    def truth(step: Work) -> float:
        far = 1 / (1 + (2e7 / step.width) ** 1.5)
        return float(1e-4 + 5e-8 * step.rows + (2e-9 + 3e-9 * far / 16) * step.inner)

    steps = [
        scan(rows, degree, tables)
        for rows in (300, 2_000, 15_000)
        for degree in (8, 30)
        for tables in (1_000_000, 8_000_000, 60_000_000)
    ]
    dense = scan(2_000, 500, 10_000_000)
    found = fit_op([(step, truth(step)) for step in steps])
    assert found.form == "scan"
    assert op_seconds(found, Facts.of([dense]))[0] == pytest.approx(truth(dense), rel=0.2)
    assert beyond(found, Facts.of([dense])).any()


def test_the_order_of_a_graph_that_is_not_known_widens_the_interval() -> None:
    step, _ = _graph("x", 40_000, 10, 64, 0.5)
    known = OpModel(op="spmm", kind="spmm", form="spmm", params={}, radius=0.2, blind_radius=0.9)
    blind = step._replace(reuse=Reuse.unknown())
    for work_of, radius in ((step, 0.2), (blind, 0.9), (step._replace(reuse=None), 0.2)):
        facts = Facts.of([work_of])
        assert radius_of(known, facts, beyond(known, facts))[0] == radius


def test_shapes_beyond_the_measured_ones_widen_the_interval_and_are_named() -> None:
    inside = [s for s in GEMMS if s.inner < 700]
    model = fit_op([(s, _gemm_truth(s) * (1 + (s.inner > 100))) for s in inside])
    model = dataclasses.replace(model, stretch=0.5)
    facts = Facts.of([_gemm(500, 128, 64), _gemm(500, 1280, 64)])
    over = beyond(model, facts)
    assert over[0].max() == 0 and over[1].max() == pytest.approx(math.log(10), abs=1e-3)
    radii = radius_of(model, facts, over)
    assert radii[1] - radii[0] == pytest.approx(0.5 * math.log(10), abs=1e-3)
    assert outside(model, facts, over, np.array([1.0, 1.0])) == [
        "gemm: inner 1,280, measured 16 to 128"
    ]
    assert outside(model, facts, over, np.array([1.0, 0.001])) == []


def test_extrapolation_costs_what_it_did_where_the_upper_range_was_left_out() -> None:
    features = np.linspace(0.0, 8.0, 40)[:, None]

    def errors(out: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        cut = features[~out].max()
        return 0.1 + 0.3 * (features[out, 0] - cut)

    assert stretch_of(features, 0.1, errors, [0]) == pytest.approx(0.3)
    assert stretch_of(features, 5.0, errors, [0]) == 0.0
    assert stretch_of(features[:9], 0.1, errors, [0]) == 0.0  # too few to leave any out


def test_an_outlier_does_not_move_a_fit() -> None:
    samples = [(s, _gemm_truth(s)) for s in GEMMS]
    samples[3] = (samples[3][0], samples[3][1] * 8)
    model = dataclasses.replace(fit_op(samples), residuals=())
    errors = np.log(op_seconds(model, Facts.of(GEMMS)) / [_gemm_truth(s) for s in GEMMS])
    assert np.median(np.abs(errors)) < 0.03


def test_every_form_is_zero_or_more_and_grows_with_its_work() -> None:
    small, large = _spmm(100, 5, 16), _spmm(10_000, 9, 64)
    for name, shape in FORMS.items():
        params = dict.fromkeys(shape.coefficients, 1e-9)
        params |= {cache: 1e6 for cache in shape.shapes}
        times = form(name).seconds(Facts.of([small, large]), params)
        assert 0 <= times[0] <= times[1], name


def test_a_residual_is_bounded_and_fades_far_from_its_points() -> None:
    model = OpModel(
        op="gemm",
        kind="gemm",
        form="linear",
        params={"s_per_flop": 1.0, "t0_s": 0.0},
        residuals=((math.log(100), math.log(10), 3.0),),
    )
    here = Work(kind=Kind.GEMM, op="gemm", flops=100, bytes=10)
    far = here._replace(flops=10**9)
    seconds = op_seconds(model, Facts.of([here, far]))
    assert seconds[0] == pytest.approx(100 * math.exp(BOUND))
    assert seconds[1] == pytest.approx(1e9)


def test_a_conformal_radius_is_the_right_order_statistic() -> None:
    errors = np.arange(1, 20) / 100  # m = 19: the ceil(20 x 0.9) = 18th smallest
    assert conformal_radius(errors) == pytest.approx(0.18)
    assert conformal_radius(np.array([0.1, 0.2])) == pytest.approx(0.3)


def test_a_collective_fit_finds_latency_and_rate() -> None:
    sizes = np.geomspace(1e3, 1e8, 8)
    model = fit_collective([(b, 4e-5 + b / 2e9) for b in sizes], op="all_reduce", ranks=2)
    assert model.latency_s == pytest.approx(4e-5, rel=0.02)
    assert model.bytes_per_s == pytest.approx(2e9, rel=0.02)
    assert collective_seconds(model, np.array([3e5]))[0] == pytest.approx(1.9e-4, rel=0.05)


def test_a_barrier_fit_is_its_median() -> None:
    model = fit_collective([(0, 2e-5), (0, 3e-5), (0, 9e-5)], op="barrier", ranks=2)
    assert collective_seconds(model, np.zeros(1))[0] == pytest.approx(3e-5)


def test_too_few_samples_or_a_time_of_zero_are_refused() -> None:
    with pytest.raises(SpecError, match="at least 4"):
        fit_op([(GEMMS[0], 1.0)])
    with pytest.raises(SpecError, match="above zero"):
        fit_op([(s, 0.0) for s in GEMMS])
    with pytest.raises(SpecError, match="did you mean 'spmm'"):
        form("spm")


def test_residuals_of_an_older_form_are_left_aside() -> None:
    """A cluster file may be older than a form's features."""
    step = GEMMS[0]
    known = OpModel(op="g", kind="gemm", form="gemm", params={"t0_s": 1.0})
    older = dataclasses.replace(known, residuals=((1.0, 2.0, 0.3),))
    assert op_seconds(older, Facts.of([step])) == op_seconds(known, Facts.of([step]))


def test_the_facts_of_several_calls_are_those_of_one() -> None:
    one = _gemm(500, 16, 8)
    many = one._replace(calls=3, flops=3 * one.flops, bytes=3 * one.bytes, rows=3 * one.rows)
    assert Facts.of([many]).flops == Facts.of([one]).flops
    assert Facts.of([many]).width == Facts.of([one]).width


def test_what_steps_of_a_workload_have_in_common_is_a_share_of_the_variance() -> None:
    own, common = np.array([0.1, -0.1, 0.1, -0.1]), np.array([0.1, 0.1, -0.1, -0.1])
    places = np.array([1, 1, 2, 2])
    assert shared_of(common, places, 0.3) == 1.0
    assert shared_of(own, places, 0.3) == 0.0
    assert shared_of((own + common)[[0, 2]], places[[0, 2]], 0.3) is None  # one step of each
    mixed = np.random.default_rng(0)
    both = mixed.normal(0, 0.2, 400).repeat(4) + mixed.normal(0, 0.2, 1600)
    assert shared_of(both, np.arange(400).repeat(4), 0.5) == pytest.approx(0.5, abs=0.06)
