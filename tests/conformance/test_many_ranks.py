"""Exact approaches on 8 and 9 ranks, more than the cores of the machine (FG-1..4, FG-6, FG-7).

Grids of CAGNET 1.5D and 2D on 8 and 9 ranks are in `test_cagnet`; the mixture's in `test_mixture`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
from pool import close_all, pool
from test_exactness import check_equal, random_graph

pytestmark = pytest.mark.distributed

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


@pytest.fixture(autouse=True)
def _pools():
    """So many ranks end before those of other tests begin."""
    yield
    close_all()


@pytest.mark.parametrize("world_size", [8, 9])
def test_exact_approaches_are_exact_on_many_ranks(world_size: int, tmp_path: Path) -> None:
    """A directed graph of 40 vertices: widths and parts smaller than the ranks are many."""
    graph = random_graph(undirected=False)
    ranks = pool(world_size, tmp_path)
    for approach, model, knobs in RUNS:
        reference = cases.make_run("single", 1, model, {})
        single = cases.train_full(0, 1, graph, reference, None, 3)
        run = cases.make_run(approach, world_size, model, knobs)
        results = ranks.run("cases:train_full", graph, run, None, 3)
        check_equal(results, single, f"{approach}, {model}, {world_size} ranks")
