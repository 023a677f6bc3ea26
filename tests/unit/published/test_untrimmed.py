"""Layers that are computed on all vertices and edges of a batch, and Capsule's subgraphs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import Planned, mini_batch, planned, row

from gnnbench.published.systems import Case, case_of
from gnnbench.published.untrimmed import untrimmed
from gnnbench.steps import Kind, Lane, Phase, Step
from gnnbench_simulator.validation import compare_rows

CAPSULE = {
    "source": "Capsule SIGMOD25 supplement",
    "dataset": "ogbn-products",
    "layers": "3",
    "fanout": "10;10;10",
    "batch": "1024",
    "gpus": "1",
    "hardware": "RTX 4080 16GB, 128GB RAM",
}


def steps_of(planned: Planned) -> dict[str, Step]:
    return {step.name: step for step in planned.ours.iterations[0].classes[0].steps}


def test_every_layer_has_the_edges_and_vertices_of_the_first() -> None:
    before = steps_of(mini_batch(model="GraphSAGE"))
    after = {step.name: step for step in untrimmed(tuple(before.values()))}
    first = before["forward/1/spmm"].work
    for name, step in after.items():
        if step.kind is Kind.SPMM:
            assert np.array_equal(step.work.nonzeros, first.nonzeros), name
            assert np.array_equal(step.work.rows, first.source_rows), name
            assert np.array_equal(step.work.source_rows, first.source_rows), name
    own = before["forward/2/spmm"].work
    grown, was = after["forward/2/spmm"].work, own
    assert np.allclose(grown.flops, was.flops * first.nonzeros / own.nonzeros)


def test_products_take_the_rows_of_all_vertices_and_the_loss_those_of_the_seeds() -> None:
    before = steps_of(mini_batch(model="GraphSAGE"))
    after = {step.name: step for step in untrimmed(tuple(before.values()))}
    vertices = before["forward/1/spmm"].work.source_rows
    products = [s for s in after.values() if s.kind is Kind.GEMM and s.phase is Phase.FORWARD]
    assert products
    assert all(np.array_equal(step.work.rows, vertices) for step in products)
    assert after["forward/loss"] == before["forward/loss"]
    weights = [s for s in after.values() if s.name.endswith("/weight") and s.kind is Kind.GEMM]
    assert all(np.array_equal(step.work.inner, vertices) for step in weights)


def test_capsule_draws_on_the_device_and_pyg_trains_on_a_list_of_edges() -> None:
    of_dgl, of_pyg = (case_of(row(system=f"Capsule ({f})", **CAPSULE)) for f in ("DGL", "PyG"))
    assert isinstance(of_dgl, Case) and isinstance(of_pyg, Case)
    dgl, pyg = of_dgl.software.loader, of_pyg.software.loader
    assert dgl is not None and pyg is not None
    assert (dgl.sampler, dgl.features) == (pyg.sampler, pyg.features) == ("device", "device")
    assert (dgl.framework, dgl.untrimmed) == ("dgl", False)
    assert (pyg.framework, pyg.untrimmed) == ("edges", True)
    blocks, edges = compare_rows([row(system=f"Capsule ({f})", **CAPSULE) for f in ("DGL", "PyG")])
    assert blocks.predicted is not None and edges.predicted is not None
    assert edges.predicted > 2 * blocks.predicted


def test_every_subgraph_of_capsule_comes_once_an_epoch() -> None:
    """Features, 20 bytes of a vertex and 4 of an edge are read ahead, and copied before a batch."""
    found = planned(system="Capsule (DGL)", **CAPSULE)
    data = found.case.profile
    batches = -(-data.num_train // 1024)
    steps = {step.name: step for step in found.released.iterations[0].classes[0].steps}
    read, copy = steps["sample/draw_files"], steps["sample/draw_subgraph"]
    table = (4 * data.num_features + 20) * data.num_nodes + 4 * data.num_edges
    assert batches * int(read.work.bytes) / 2 == pytest.approx(table, rel=1e-3)
    assert int(copy.work.bytes) > int(read.work.bytes) / 2
    assert copy.lane is Lane.COMPUTE and read.lane is not Lane.COMPUTE
    assert [wait.step for wait in copy.after] == [read.name]


def test_a_graph_that_others_hold_as_a_whole_brings_no_subgraphs() -> None:
    found = mini_batch(model="GraphSAGE")
    names = {step.name for step in found.released.iterations[0].classes[0].steps}
    assert not names & {"sample/draw_files", "sample/draw_subgraph"}
