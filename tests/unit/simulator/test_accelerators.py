"""A GNN on a sparse and a dense engine. FG-60..64, FG-68."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from gnnbench.accelerators import Accelerator, list_accelerators, load_accelerator
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.cluster import Constant
from gnnbench.data.generators import generate
from gnnbench.data.graph import Graph
from gnnbench.data.profile import load_profile, profile
from gnnbench.errors import SpecError, UnknownName
from gnnbench.models.names import MODELS
from gnnbench.spec import ModelSpec
from gnnbench_simulator.acceleration import Acceleration, Setup
from gnnbench_simulator.accelerators import Accelerate
from gnnbench_simulator.engine_costs import RowTable, systolic_cycles
from gnnbench_simulator.operations import operations


def shape_of(kind: str = "gcn", order: str = "min_width", dims: tuple[int, ...] = (32, 16, 8)):
    spec = ModelSpec(name="m", kind=kind, hidden=16, layers=2)
    return StackShape.of(MODELS.get(kind), spec, dims, 4, order)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return generate("rmat", scale=10, edge_factor=12, seed=1)


def go(graph: Graph, sparse: str = "hygcn", dense: str = "hygcn", **setup) -> Acceleration:
    order = setup.pop("shape_order", "aggregate_first")
    pair = load_accelerator(sparse), load_accelerator(dense)
    return Accelerate(graph, shape_of(order=order), *pair, Setup(**setup)).best()


def zero(value: Constant) -> Constant:
    return dataclasses.replace(value, value=0.0)


def without_overhead(device: Accelerator) -> Accelerator:
    """No chunk overhead, no fill and drain: flat lanes."""
    assert device.sparse is not None and device.dense is not None
    return dataclasses.replace(
        device,
        sparse=dataclasses.replace(
            device.sparse, chunk_overhead_s=zero(device.sparse.chunk_overhead_s)
        ),
        dense=dataclasses.replace(
            device.dense, chunk_overhead_s=zero(device.dense.chunk_overhead_s), dataflow="flat"
        ),
    )


# Devices


@pytest.mark.parametrize("name", list_accelerators())
def test_every_constant_of_a_preset_says_how_it_is_known(name: str) -> None:
    device = load_accelerator(name)
    assert device.name == name
    assert all(constant.source for constant in device.constants().values())


def test_headline_ratios_are_never_inputs() -> None:
    """FG-68: no field can hold one, and no preset carries the published figures as a constant."""
    fields = {
        field.name
        for name in list_accelerators()
        for part in ("sparse", "dense", "memory", "energy")
        if (table := getattr(load_accelerator(name), part)) is not None
        for field in dataclasses.fields(table)
    }
    words = ("speed_up", "speedup", "ratio", "gain", "over_gpu", "saving", "prune")
    assert not [f for f in fields if any(word in f for word in words)]
    headlines = {5.7, 403.0, 17.2, 6.5, 80.3, 7.7, 5.1, 0.38, 0.62, 2.3, 3.8, 37.0}
    for name in list_accelerators():
        values = {constant.value for constant in load_accelerator(name).constants().values()}
        assert not values & headlines, name


def test_a_wrong_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(UnknownName, match="hygcn"):
        load_accelerator("hygnc")


def test_a_device_without_the_engine_says_which_have_one(graph: Graph) -> None:
    with pytest.raises(SpecError, match=r"dense engine only; allowed: .*hygcn"):
        go(graph, sparse="tpu-v1")


# Costs


def test_systolic_folds_are_those_of_scale_sim() -> None:
    """Section 9: one fold of a weight-stationary 4 x 4 array takes 2R + C + M - 2 cycles."""
    engine = load_accelerator("hygcn").dense
    assert engine is not None
    four = dataclasses.replace(engine.array_rows, value=4.0)
    one = dataclasses.replace(engine.arrays, value=1.0)
    small = dataclasses.replace(engine, arrays=one, array_rows=four, array_cols=four)
    m, k = np.array([100.0]), np.array([8.0])
    assert systolic_cycles(small, m, k, 5) == [2 * 2 * (8 + 4 + 100 - 2)]
    stationary = dataclasses.replace(small, dataflow="output_stationary")
    assert systolic_cycles(stationary, m, k, 5) == [25 * 2 * (4 + 4 + 8 - 2)]


def test_chunks_hold_every_row_and_entry(graph: Graph) -> None:
    table = RowTable(graph, loops=True)
    for order in ("natural", "rising", "falling"):
        for count in (1, 7, 64):
            chunks = table.cut(count, order, transpose=False)
            assert chunks.rows.sum() == graph.num_nodes
            assert chunks.nonzeros.sum() == graph.num_edges + graph.num_nodes
    rising = table.cut(64, "rising", transpose=False).nonzeros
    assert (np.diff(rising / 16) >= -1e-9).all()


def test_a_profile_gives_the_same_degree_chunks_as_its_graph(graph: Graph) -> None:
    stored = profile(graph, parts=(), fanouts=())
    real = RowTable(graph, loops=True).cut(8, "rising", transpose=False)
    told = RowTable(stored, loops=True).cut(8, "rising", transpose=False)
    assert told.nonzeros.sum() == pytest.approx(real.nonzeros.sum())
    np.testing.assert_allclose(told.nonzeros, real.nonzeros, rtol=0.1, atol=20)


def test_the_hit_rate_rises_with_the_buffer_and_reaches_one(graph: Graph) -> None:
    table = RowTable(graph, loops=True)
    rates = [table.hit_rate(rows) for rows in (8, 64, 512, 1024)]
    assert rates == sorted(rates)
    assert 0 < rates[0] < 1
    assert rates[-1] == 1.0


def test_uniform_degrees_hit_as_often_as_their_share_of_the_buffer() -> None:
    """Che's approximation has this closed form where every row is touched as often."""
    ring = np.arange(1000)
    from gnnbench.data.graph import from_edges

    table = RowTable(from_edges("ring", ring, np.roll(ring, 1), 1000), loops=False)
    assert table.hit_rate(250) == pytest.approx(0.25, abs=1e-6)


# The pair


@pytest.mark.parametrize("order", ["row_wise", "outer_product"])
@pytest.mark.parametrize("passes", ["forward", "training"])
@pytest.mark.parametrize("pair", [("hygcn", "hygcn"), ("gpu-a100", "tpu-v5e")])
def test_busy_and_idle_make_the_makespan(
    graph: Graph, order: str, passes: str, pair: tuple[str, str]
) -> None:
    """FG-64: per engine; a lane never does two things at once."""
    found = go(graph, *pair, product_order=order, passes=passes, chunks=16)
    for engine in ("sparse", "dense"):
        spans = sorted(
            (row.start_s, row.start_s + row.duration_s)
            for row in found.rows()
            if row.lane == engine
        )
        idle, at = 0.0, 0.0
        for start, end in spans:
            assert start >= at - 1e-12
            idle, at = idle + start - at, end
        idle += found.makespan_s - at
        assert found.busy_s(engine) + idle == pytest.approx(found.makespan_s)
        assert 0 < found.utilisation(engine) <= 1


@pytest.mark.parametrize("pair", [("hygcn", "hygcn"), ("hygcn", "tpu-v5e"), ("gcnax", "tpu-v1")])
@pytest.mark.parametrize("order", ["row_wise", "outer_product"])
def test_johnsons_order_of_the_chunks_is_never_worse(
    graph: Graph, pair: tuple[str, str], order: str
) -> None:
    """FG-63, with a link and with two buffers as well."""
    for chunks in (4, 32):
        given = go(graph, *pair, product_order=order, chunks=chunks)
        turned = go(graph, *pair, product_order=order, chunks=chunks, node_order="johnson")
        assert turned.makespan_s <= given.makespan_s * (1 + 1e-12)


def test_more_chunks_never_hurt_without_overhead(graph: Graph) -> None:
    """FG-62: powers of two are nested cuts, so each refines the last; buffers enough."""
    device = without_overhead(load_accelerator("hygcn"))
    setup = Setup(slots=2048, memory="apart")
    shape = shape_of(order="aggregate_first")
    cuts = [dataclasses.replace(setup, chunks=2**power) for power in range(9)]
    times = [Accelerate(graph, shape, device, device, cut).best().makespan_s for cut in cuts]
    assert all(fine <= coarse * (1 + 1e-9) for coarse, fine in pairwise(times))
    assert times[-1] < times[0]


def test_the_best_chunk_count_is_the_best_of_those_tried(graph: Graph) -> None:
    found = go(graph, "hygcn", "tpu-v5e")
    assert found.makespan_s == pytest.approx(min(found.tried.values()))
    assert found.closed_form_chunks in found.tried
    assert len(found.tried) > 8


def test_the_pipeline_beats_the_serial_order_of_the_same_engines(graph: Graph) -> None:
    found = go(graph, memory="apart")
    assert found.speed_up > 1.0
    assert found.makespan_s >= sum(group.bound_s for group in found.groups) - 1e-15


def test_one_fabric_for_both_products_gains_nothing(graph: Graph) -> None:
    found = go(graph, "awb-gcn", "awb-gcn", chunks=8)
    busy = found.busy_s("sparse") + found.busy_s("dense")
    assert found.makespan_s == pytest.approx(busy)


def test_a_shared_memory_is_never_faster_than_two(graph: Graph) -> None:
    for chunks in (1, 8, 64):
        both = go(graph, memory="apart", chunks=chunks)
        one = go(graph, memory="shared", chunks=chunks)
        assert one.makespan_s >= both.makespan_s * (1 - 1e-12)


def test_fusing_saves_the_bytes_it_says(graph: Graph) -> None:
    apart = go(graph, chunks=4)
    fused = go(graph, chunks=4, fuse=("scale", "bias", "activation"))
    moved = [
        sum(work.offchip_bytes for group in run.groups for work in group.works)
        for run in (apart, fused)
    ]
    assert moved[0] - moved[1] == pytest.approx(fused.bytes_saved)
    # scale d_0, d_1; bias d_1, d_2; activation d_1: one read and one write of each
    assert fused.bytes_saved == 2 * 4 * graph.num_nodes * (32 + 16 + 16 + 8 + 16)
    assert fused.makespan_s <= apart.makespan_s


def test_operations_of_a_pass_do_the_work_of_the_model(graph: Graph) -> None:
    """The same multiply-accumulates as the plan of `single`, in either order and pass."""
    for order in ("aggregate_first", "transform_first", "min_width"):
        shape = shape_of(order=order)
        n, e = graph.num_nodes, graph.num_edges + graph.num_nodes
        found = go(graph, shape_order=order, chunks=1)
        macs = sum(work.macs for group in found.groups for work in group.works)
        gemm = n * (32 * 16 + 16 * 8)
        spmm = e * sum(shape.exchange_width(layer) for layer in (1, 2))
        assert macs == gemm + spmm


def test_training_has_a_backward_pass_and_layer_one_needs_no_input_gradient() -> None:
    first = operations(shape_of(order="aggregate_first"), "training")
    names = [op.name for op in first]
    assert names == [
        "forward/1/sparse",
        "forward/1/dense",
        "forward/2/sparse",
        "forward/2/dense",
        "backward/2/dense",
        "backward/2/sparse",
        "backward/1/dense",
    ]
    assert not any(gemm.reduces is False for gemm in first[-1].gemms)


def test_which_operations_overlap_depends_on_the_product_order(graph: Graph) -> None:
    names = {
        order: [group.name for group in go(graph, product_order=order, chunks=4).groups]
        for order in ("row_wise", "outer_product")
    }
    assert names["row_wise"] == [
        "forward/1/sparse > forward/1/dense",
        "forward/2/sparse > forward/2/dense",
    ]
    assert names["outer_product"] == [
        "forward/1/sparse",
        "forward/1/dense > forward/2/sparse",
        "forward/2/dense",
    ]


def test_a_faster_memory_is_never_slower(graph: Graph) -> None:
    """FG-61."""
    device = load_accelerator("hygcn")
    spans = []
    for factor in (0.25, 1.0, 4.0):
        rate = dataclasses.replace(
            device.memory.bytes_per_s, value=device.memory.bytes_per_s.value * factor
        )
        quick = dataclasses.replace(
            device, memory=dataclasses.replace(device.memory, bytes_per_s=rate)
        )
        spans.append(Accelerate(graph, shape_of(), quick, quick, Setup(chunks=8)).best().makespan_s)
    assert spans == sorted(spans, reverse=True)


def test_energy_is_operations_and_bytes_at_their_price(graph: Graph) -> None:
    device = load_accelerator("hygcn")
    found = go(graph, chunks=4)
    macs = sum(work.macs for group in found.groups for work in group.works)
    moved = sum(work.offchip_bytes for group in found.groups for work in group.works)
    price = device.energy
    want = macs * price.joules_per_mac.value + moved * price.joules_per_offchip_byte.value
    assert sum(found.energy_j.values()) == pytest.approx(want)


def test_a_stored_profile_can_be_accelerated() -> None:
    stored = load_profile("reddit")
    shape = shape_of(dims=(stored.num_features, 128, stored.num_classes))
    device = load_accelerator("hygcn")
    found = Accelerate(stored, shape, device, device, Setup(node_order="degree")).best()
    assert not found.exact
    assert found.makespan_s > 0
    assert found.grade == "datasheet"


def test_widths_that_are_missing_are_named(graph: Graph) -> None:
    device = load_accelerator("hygcn")
    with pytest.raises(SpecError, match="--features and --classes"):
        Accelerate(graph, shape_of(dims=(0, 16, 8)), device, device, Setup())
