"""P3 on real ranks: gradients, bias and bytes (SA-P2, P5, P7); conformance tests parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.mini_batch.p3 import APPROACH
from gnnbench.data.source import Library
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed
FOUR = pytest.param(4, marks=pytest.mark.deep)
BATCH = {"size": 17, "fanouts_from_seeds": (4, 3)}
DATA = Library([]).open(example("p3").dataset)
MODELS: list[dict[str, Any]] = [
    {"kind": "gcn", "dropout": 0.3, "input_dropout": 0.4},
    {"kind": "sage", "norm": "layer"},
    {"kind": "gat", "heads": 2, "dropout": 0.3, "input_dropout": 0.2},
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["kind"])
@pytest.mark.parametrize("ranks", [2, FOUR])
def test_gradients_equal_those_of_data_parallelism(
    model: dict[str, Any], ranks: int, pools: Pools
) -> None:
    """SA-P2: loss and every gradient on the same sample; 7 columns, uneven seeds."""
    run = example("p3", ranks, model=model, batch=BATCH)
    slices = APPROACH.slices(DATA, run)
    wanted = pools.of(ranks).run(
        "p3_cases:first_gradient", dataclasses.replace(run, approach="sampled"), DATA
    )
    found = pools.of(ranks).run("p3_cases:first_gradient", run, DATA)
    (loss, whole), width = wanted[0], slices.shape.dims[1]
    first = np.concatenate([[0], np.cumsum(slices.columns)])
    rows = slices.shape.dims[0]
    for rank, (own_loss, own) in enumerate(found):
        assert abs(own_loss - loss) < 1e-9
        mine = slice(first[rank], first[rank + 1])
        matrices = [
            whole[at * rows * width : (at + 1) * rows * width].reshape(rows, width)[mine].ravel()
            for at in range(slices.matrices)
        ]
        shared = whole[slices.matrices * rows * width :]
        np.testing.assert_allclose(own, np.concatenate([*matrices, shared]), rtol=0, atol=1e-9)
    assert np.abs(whole).max() > 1e-3


def test_counted_bytes_are_those_of_the_closed_form(pools: Pools) -> None:
    """SA-P7: buffers that collectives sent, the plan, and the formula are one integer."""
    from gnnbench.approaches.mini_batch.batch import draw_batch
    from gnnbench.approaches.mini_batch.push_pull import Merged

    run = example("p3", 3, model={"kind": "sage"}, batch=BATCH)
    shape, source = APPROACH.slices(DATA, run).shape, APPROACH.source(DATA, run, None)
    wanted = sum(
        Merged.of(draw_batch(source, 3, None, 0, step), shape).sent_bytes(8, 8)
        for step in range(source.steps)
    )
    structure = APPROACH.structure(DATA, run)
    plan = APPROACH.plan(DATA, run, structure, Layout(world_size=3, ranks_per_host=3))
    planned = sum(size for (kind, _), size in plan.moved_bytes(0).items() if kind != "all_reduce")
    assert planned == 3 * wanted
    for got in pools.of(3).run("cases:train_sampled", DATA, run, 1):
        sent = sum(size for key, size in got["sent"][0].items() if "all_reduce" not in key)
        assert sent == wanted


def test_the_number_of_ranks_changes_nothing(pools: Pools) -> None:
    """Some ranks have no seeds in the last batch; losses and metrics stay."""
    run = example("p3", 1, model={"kind": "sage", "dropout": 0.3}, batch=BATCH)
    one = cases.train_sampled(0, 1, DATA, run)
    for ranks in (2, 4):
        several = dataclasses.replace(run, ranks=ranks)
        for got in pools.of(ranks).run("cases:train_sampled", DATA, several):
            np.testing.assert_allclose(got["losses"], one["losses"], rtol=1e-9)
            assert got["metrics"] == one["metrics"]
