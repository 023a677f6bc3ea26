"""Batches on ranks: P of them are one on the union; patterns both ways are one matrix."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases

from gnnbench.approaches.base import example
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.source import Library
from gnnbench_runtime.conformance.pool import Pools

FEW = {"size": 17, "fanouts_from_seeds": (4, 3)}
APPROACHES_KNOBS: dict[str, dict[str, Any]] = {
    "cluster-gcn": {"clusters": 9, "merged": 2, "subgraphs": 3},
    "graphsaint": {"budget": 6, "subgraphs": 3, "coverage": 20},
    "labor": {},
    "ladies": {"layer_vertices": 20},
}
DATA = Library([]).open(example("labor").dataset)


@pytest.mark.distributed
@pytest.mark.parametrize("name", APPROACHES_KNOBS)
@pytest.mark.parametrize("kind", ["gcn", "sage"])
def test_training_does_not_depend_on_the_number_of_ranks(
    name: str, kind: str, pools: Pools
) -> None:
    """SA-P1: losses, parameters and metrics; batches are uneven, some ranks' parts are empty."""
    model = {"kind": kind, "dropout": 0.3}
    run = example(name, 1, model=model, knobs=APPROACHES_KNOBS[name], batch=FEW)
    one = cases.train_sampled(0, 1, DATA, run)
    for ranks in (2, 4):
        several = dataclasses.replace(run, ranks=ranks)
        for got in pools.of(ranks).run("cases:train_sampled", DATA, several):
            np.testing.assert_allclose(got["losses"], one["losses"], rtol=1e-9)
            np.testing.assert_allclose(got["parameters"], one["parameters"], atol=1e-8)
            assert got["metrics"] == one["metrics"]


def matrix(indptr: Any, indices: Any, weights: Any, columns: int) -> np.ndarray:
    dense = np.zeros((len(indptr) - 1, columns))
    rows = np.repeat(np.arange(len(dense)), np.diff(indptr.numpy()))
    np.add.at(dense, (rows, indices.numpy()), 1.0 if weights is None else weights.numpy())
    return dense


@pytest.mark.parametrize("name", APPROACHES_KNOBS)
def test_a_backward_pattern_is_the_transpose_of_its_forward_one(name: str) -> None:
    """Weights of edges go with their edges; the layers of a subgraph share one pattern."""
    run = example(name, 1, knobs=APPROACHES_KNOBS[name], batch=FEW)
    trainer, recorder, _ = cases.make_trainer(0, 1, run, DATA)
    recorder.period_begin(0)
    batch = next(iter(trainer.batches.of_period(0)))
    patterns = batch.aggregations
    assert (patterns[0] is patterns[1]) == APPROACHES.get(name).form.one_block
    last = patterns[-1]
    forward = matrix(last.indptr, last.indices, last.edge_scale, last.source_rows)
    backward = matrix(last.indptr_t, last.indices_t, last.edge_scale_t, last.rows)
    np.testing.assert_array_equal(forward.T, backward)
    assert (last.edge_scale is not None) == APPROACHES.get(name).form.edge_weights
    if last.edge_scale is not None:
        assert len(set(last.edge_scale.tolist())) > 5
