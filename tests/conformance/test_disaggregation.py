"""Ranks that sample for others: the updates of a run without them (sampling invariant SA-P6)."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.source import Library
from gnnbench.spec import RunSpec
from gnnbench_runtime.conformance.pool import Pools
from gnnbench_runtime.held import planned_bytes

FEW = {"size": 16, "fanouts_from_seeds": (4, 3)}
DATA = Library([]).open(example("sampled").dataset)
PERFORM = "gnnbench_runtime.conformance.perform:perform"
ASKED: list[tuple[int, int, dict[str, Any]]] = [
    (3, 1, {"queue": 1}),
    (3, 2, {"prefetch": 2, "queue": 3}),
    (3, 1, {"placement": "partitioned", "cache_policy": "presampling", "weights": "degree"}),
]


def run_of(ranks: int, **knobs: Any) -> RunSpec:
    return example("sampled", ranks, batch=FEW, model={"dropout": 0.3}, knobs=knobs)


@pytest.mark.distributed
@pytest.mark.parametrize(("ranks", "samplers", "knobs"), ASKED)
def test_updates_are_those_of_as_many_ranks_without_samplers(
    ranks: int, samplers: int, knobs: dict[str, Any], pools: Pools
) -> None:
    alone = {k: v for k, v in knobs.items() if k != "queue"}
    plain = run_of(ranks - samplers, **alone)
    apart = run_of(ranks, samplers=samplers, **knobs)
    wanted = pools.of(plain.ranks).run(PERFORM, plain, DATA)[0]
    for got in pools.of(ranks).run(PERFORM, apart, DATA):
        np.testing.assert_allclose(got.losses, wanted.losses, rtol=0, atol=1e-9)
        np.testing.assert_allclose(got.learnt, wanted.learnt, rtol=0, atol=1e-9)
        assert got.metrics == wanted.metrics


@pytest.mark.distributed
def test_bytes_of_blocks_are_counted_as_planned(pools: Pools) -> None:
    """P7; and a sampler is never further ahead than its queue is long."""
    run = run_of(3, samplers=1, queue=2)
    approach = APPROACHES.get("sampled")
    structure = approach.structure(DATA, run)
    plan = approach.plan(DATA, run, structure, Layout(world_size=3, ranks_per_host=3))
    found = pools.of(3).run(PERFORM, run, DATA)
    for period, planned in enumerate(planned_bytes(plan)):
        sent = sum(of.moved[period].get("send/sample", 0) for of in found)
        assert sent == planned["send/sample"] > 0
    drawn, received = deque[str](), 0
    for row in found[2].rows:  # in the order in which steps ended
        if row.name.startswith("sample/draw"):
            drawn.append(row.name)
        received += row.name.startswith(("sample/credit", "sample/unclaimed"))
        assert len(drawn) - received <= 2
    assert len(drawn) == received == sum(plan.periods) * 2


@pytest.mark.distributed
def test_a_sampler_that_has_less_to_do_than_there_are_steps_idles(pools: Pools) -> None:
    """Two samplers, one trainer, one step an epoch: the second sampler draws nothing."""
    run = dataclasses.replace(run_of(3, samplers=2), batch=example("sampled", batch=WHOLE).batch)
    plain = dataclasses.replace(run_of(1), batch=run.batch)
    wanted = pools.of(1).run(PERFORM, plain, DATA)[0]
    got = pools.of(3).run(PERFORM, run, DATA)
    assert got[0].losses == wanted.losses
    assert not any(row.name.startswith("sample/draw") for row in got[2].rows)


WHOLE = {"size": 1000, "fanouts_from_seeds": (4, 3)}
