"""Exact approaches on 8 and 9 ranks, more than the cores of the machine (FG-1..4, FG-6, FG-7).

Grids of CAGNET 1.5D and 2D on 8 and 9 ranks are in `test_cagnet`; the mixture's in `test_mixture`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
from test_exactness import check_equal, random_graph

from gnnbench_runtime.conformance.pool import RankPool

pytestmark = [pytest.mark.distributed, pytest.mark.deep]

GCN = {"kind": "gcn", "hidden": 8, "layers": 2, "dropout": 0.4}
SAGE = {"kind": "sage", "hidden": 5, "layers": 3}
GAT = {"kind": "gat", "hidden": 8, "heads": 4, "layers": 2}
RUNS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("partition", GCN, {}),
    ("partition", SAGE, {"partitioner": "hash"}),
    ("partition", GAT, {}),
    ("cagnet-1d", GCN, {}),
    ("cagnet-1d", SAGE, {}),
    ("mixture", GAT, {}),
    ("mixed-accelerators", GCN, {"sparse_ranks": 3, "chunks": 4}),
    ("mixed-accelerators", SAGE, {"chunks": 2}),
]


@pytest.fixture(scope="module", params=[8, 9])
def ranks(request: pytest.FixtureRequest) -> Iterator[RankPool]:
    """So many ranks end before those of other tests begin."""
    pool = RankPool(request.param)
    yield pool
    pool.close()


@pytest.mark.parametrize(("approach", "model", "knobs"), RUNS)
def test_exact_approaches_are_exact_on_many_ranks(
    approach: str, model: dict[str, Any], knobs: dict[str, Any], ranks: RankPool
) -> None:
    """A directed graph of 40 vertices: widths and parts smaller than the ranks are many."""
    graph = random_graph(undirected=False)
    single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}), None, 3)
    run = cases.make_run(approach, ranks.world_size, model, knobs)
    results = ranks.run("cases:train_full", graph, run, None, 3)
    check_equal(results, single, f"{approach}, {model}, {ranks.world_size} ranks")
