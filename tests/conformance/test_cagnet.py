"""CAGNET in both worlds: exact on every grid, and performing its plan to the byte.

FG-1..9, FG-11, FG-12, FG-23..28.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
from test_exactness import MODELS, ORDERS, check_equal, random_graph
from test_worlds import performed, planned

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph, from_edges
from gnnbench.plan import Plan
from gnnbench.steps import Kind
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed
DEEP = pytest.mark.deep

ROWS = [
    *(pytest.param("cagnet-1d", ranks, {}, id=f"1d on {ranks}") for ranks in (1, 2, 3)),
    pytest.param("cagnet-1d", 4, {}, id="1d on 4", marks=DEEP),
    pytest.param("cagnet-1.5d", 1, {"replication": 1}, id="1.5d c=1 on 1"),
    pytest.param("cagnet-1.5d", 3, {"replication": 1}, id="1.5d c=1 on 3"),
    pytest.param("cagnet-1.5d", 4, {"replication": 2}, id="1.5d c=2 on 4"),
    pytest.param("cagnet-1.5d", 8, {"replication": 2}, id="1.5d c=2 on 8", marks=DEEP),
    pytest.param("cagnet-1.5d", 9, {"replication": 3}, id="1.5d c=3 on 9", marks=DEEP),
]
SQUARES = [
    *(pytest.param("cagnet-2d", ranks, {}, id=f"2d on {ranks}") for ranks in (1, 4)),
    pytest.param("cagnet-2d", 9, {}, id="2d on 9", marks=DEEP),
]


@pytest.fixture(scope="module")
def single() -> dict[str, Any]:
    """One-device results by (directed, model kind, order)."""
    found = {}
    for undirected in (True, False):
        graph = random_graph(undirected=undirected)
        for model in MODELS:
            for order in ORDERS:
                run = cases.make_run("single", 1, model, {"order": order})
                found[undirected, model["kind"], order] = cases.train_full(0, 1, graph, run)
    return found


def train(pools: Pools, ranks: int, graph: Graph, run: Any, epochs: int = 5) -> list[dict]:
    if ranks == 1:
        return [cases.train_full(0, 1, graph, run, None, epochs)]
    return pools.of(ranks).run("cases:train_full", graph, run, None, epochs)


def once(results: list[dict]) -> list[dict]:
    """Replicas must agree bit by bit; one of each block stays."""
    kept: dict[bytes, dict] = {}
    for got in results:
        first = kept.setdefault(got["rows"].tobytes() or bytes([len(kept)]), got)
        assert np.array_equal(first["logits"], got["logits"])
    return list(kept.values())


def make_plan(graph: Graph, run: Any) -> Plan:
    approach = APPROACHES.get(run.approach)
    structure = approach.structure(graph, run)
    plan = approach.plan(
        graph, run, structure, Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    )
    plan.validate()
    return plan


@pytest.mark.parametrize(("approach", "ranks", "knobs"), [*ROWS, *SQUARES])
def test_every_grid_equals_single_and_performs_its_plan(
    approach: str, ranks: int, knobs: dict, single: dict, pools: Pools
) -> None:
    """FG-1..6, FG-9, FG-11, FG-12, FG-24, FG-28: 40 vertices, both directions, both models."""
    many = ranks > 4  # processes, on few cores: the harder direction and one order must do
    for undirected in (False,) if many else (True, False):
        graph = random_graph(undirected=undirected)
        for model in MODELS:
            for order in ("min_width",) if many else ORDERS:
                run = cases.make_run(approach, ranks, model, {**knobs, "order": order})
                results = train(pools, ranks, graph, run)
                what = f"undirected={undirected}, {model['kind']}, {order}"
                reference = single[undirected, model["kind"], order]
                check_equal(once(results), reference, what)
                for got in results:
                    assert np.array_equal(got["parameters"], results[0]["parameters"]), what
                plan = make_plan(graph, run)
                for rank, got in enumerate(results):
                    assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank), what
                counted: dict[str, int] = {}
                for got in results:
                    for key, value in got["sent"].items():
                        counted[key] = counted.get(key, 0) + value
                assert counted == {f"{k}/{p}": b for (k, p), b in plan.moved_bytes().items() if b}


@pytest.mark.parametrize(("approach", "ranks", "knobs"), ROWS)
@pytest.mark.parametrize("order", ORDERS)
def test_bytes_of_block_rows_are_the_closed_form(
    approach: str, ranks: int, knobs: dict, order: str
) -> None:
    """FG-9, FG-26: broadcasts N d (P/c - 1) words in total; all-reduces 2 (c-1)/c of each block."""
    graph = random_graph(undirected=False)
    run = cases.make_run(approach, ranks, MODELS[0], {**knobs, "order": order})
    shape = stack_shape(graph, run, order)
    widths = shape.forward_widths() + shape.backward_widths()
    c = knobs.get("replication", 1)
    plan = make_plan(graph, run)
    moved = plan.moved_bytes()
    broadcasts = sum(size for (kind, _), size in moved.items() if kind == Kind.BROADCAST)
    assert broadcasts == 8 * graph.num_nodes * widths * (ranks // c - 1)
    reduced = sum(
        size for (kind, phase), size in moved.items() if kind == Kind.ALL_REDUCE and phase != "sync"
    )
    blocks = np.diff(APPROACHES.get(approach).structure(graph, run).edges).tolist()
    layers = range(1, shape.num_layers + 1)
    passes = [(n, 1 + (n > 1 or shape.orders[0] == "transform_first")) for n in layers]
    assert reduced == sum(
        times * c * (2 * (c - 1) * 8 * rows * shape.exchange_width(layer) // c)
        for layer, times in passes
        for rows in blocks
    )


def test_replication_one_is_1d_in_bytes_and_values(pools: Pools) -> None:
    """FG-25."""
    graph = random_graph(undirected=False)
    one = cases.make_run("cagnet-1d", 3, MODELS[1], {})
    other = cases.make_run("cagnet-1.5d", 3, MODELS[1], {"replication": 1})
    pairs = zip(train(pools, 3, graph, one), train(pools, 3, graph, other), strict=True)
    for a, b in pairs:
        assert np.array_equal(a["parameters"], b["parameters"])
        assert a["sent"] == b["sent"]


ODD_GRIDS = [("cagnet-1d", 4, {}), ("cagnet-1.5d", 4, {"replication": 2}), ("cagnet-2d", 4, {})]


@pytest.mark.parametrize(("approach", "ranks", "knobs"), ODD_GRIDS)
def test_fewer_vertices_than_ranks_and_widths_below_the_grid_are_exact(
    approach: str, ranks: int, knobs: dict, pools: Pools
) -> None:
    """FG-7: empty blocks, an input width of 1 and a hidden width of 2."""
    for nodes in (1, 3, 5):
        graph = from_edges(
            "path",
            np.arange(nodes - 1),
            np.arange(1, nodes),
            nodes,
            undirected=False,
            features=np.linspace(-1, 1, nodes, dtype=np.float32)[:, None] + 0.5,
            labels=np.arange(nodes) % 2,
            num_classes=2,
            train_mask=np.arange(nodes) != 2,
            test_mask=np.arange(nodes) == 2,
        )
        for kind in ("gcn", "sage"):
            model = {"kind": kind, "hidden": 2, "layers": 3, "dropout": 0.3}
            alone = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}))
            run = cases.make_run(approach, ranks, model, knobs)
            results = train(pools, ranks, graph, run)
            check_equal(once(results), alone, f"{nodes} vertices, {kind}")
            plan = make_plan(graph, run)
            for rank, got in enumerate(results):
                assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank)


def blocks_of(total: int, parts: int) -> list[int]:
    """Sizes of a split into even runs, the longer ones first: a definition of its own."""
    return [len(part) for part in np.array_split(np.arange(total), parts)]


@pytest.mark.parametrize(("approach", "ranks", "knobs"), SQUARES)
@pytest.mark.parametrize("order", ORDERS)
def test_bytes_of_the_square_grid_are_the_closed_form(
    approach: str, ranks: int, knobs: dict, order: str
) -> None:
    """FG-9, FG-26: each product Q - 1 times the patterns and N d; dense products and logits N d."""
    graph = random_graph(undirected=False)
    model = {**MODELS[0], "layers": 3}
    run = cases.make_run(approach, ranks, model, {**knobs, "order": order})
    shape, q, n = stack_shape(graph, run, order), round(ranks**0.5), graph.num_nodes
    plan = make_plan(graph, run)
    moved = sum(b for (kind, _), b in plan.moved_bytes().items() if kind == Kind.BROADCAST)
    products = 3 + 2 + (shape.orders[0] == "transform_first")
    pattern = graph.num_edges + q * n + q * q  # every block has one pointer more than rows
    sparse = (q - 1) * (products * pattern + n * (shape.forward_widths() + shape.backward_widths()))
    forward, backward = sum(shape.dims[:-1]), sum(shape.dims[1:])
    dense = (q - 1) * n * (forward + backward + graph.num_classes)
    assert moved == 8 * (sparse + dense)
    # Per rank and stage too: what rank (i, t) of the first sparse product sends.
    widths = blocks_of(shape.exchange_width(1), q)
    for rank, steps in enumerate(plan.iterations[0]):
        i, j = divmod(rank, q)
        sent = sum(s.bytes for s in steps if s.name.startswith("forward/1/broadcast/"))
        assert sent == 8 * (q - 1) * blocks_of(n, q)[i] * widths[j]


def send_large_ids(rank: int, world_size: int) -> tuple[list[int], list[int]]:
    """What a rank has after rank 0 broadcast a pattern with columns above 2^24."""
    import torch

    from gnnbench_runtime.approaches.whole_graph.cagnet2d import broadcast_adjacency, pack
    from gnnbench_runtime.comm import Comm
    from gnnbench_runtime.recorder import Recorder

    comm = Comm(Recorder(torch.device("cpu")), rank=rank, world_size=world_size)
    pointers, columns = torch.tensor([0, 1, 3]), torch.tensor(LARGE, dtype=torch.int32)
    packed = pack(pointers, columns) if rank == 0 else torch.zeros(6, dtype=torch.int64)
    got = broadcast_adjacency(comm, packed, 2, 0, "forward/1/adjacency/0", "forward", 1)
    return got[0].tolist(), got[1].tolist()


LARGE = [2**24 + 1, 2**24 + 3, 2**31 - 1]


def test_ids_above_2_to_the_24_survive_the_broadcast(pools: Pools) -> None:
    """FG-27: none of these three is a float32."""
    assert all(int(np.float32(value)) != value for value in LARGE)
    for pointers, columns in pools.of(2).run("test_cagnet:send_large_ids"):
        assert (pointers, columns) == ([0, 1, 3], LARGE)


@pytest.mark.parametrize("kind", ["cpu", "torch"])
@pytest.mark.parametrize("first", [0, 1, 4, 6])
def test_dropout_of_a_block_of_columns_is_the_block_of_the_dropout(kind: str, first: int) -> None:
    """FG-12: masks are keyed by the column's own number, whoever holds it."""
    import torch

    from gnnbench_runtime.kernels import CpuKernels, TorchKernels

    kernels = CpuKernels(1) if kind == "cpu" else TorchKernels("cpu", 1)
    x, ids = torch.arange(1.0, 45.0).view(4, 11) - 8.0, torch.tensor([5, 2, 9, 0])
    whole, block = torch.empty(4, 11), x[:, first : first + 5].clone()
    kernels.dropout(x, whole, 0.5, 77, ids)
    part = torch.empty_like(block)
    kernels.dropout(block, part, 0.5, 77, ids, first)
    assert torch.equal(part, whole[:, first : first + 5])
    kernels.relu_dropout(x, whole, 0.5, 77, ids)
    kernels.relu_dropout(block, part, 0.5, 77, ids, first)
    assert torch.equal(part, whole[:, first : first + 5])
