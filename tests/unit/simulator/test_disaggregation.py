"""Samplers and trainers in simulated time: bounded queues and overlap (SA-D1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import load_cluster
from gnnbench.data.generators import planted_partition
from gnnbench.ledger import Row
from gnnbench.spec import RunSpec
from gnnbench.steps import Phase
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.outcome import ledger
from gnnbench_simulator.program import compile_plan

GRAPH = planted_partition(400, 8, 4, 16, seed=1)


def simulated(make_run: Callable[..., RunSpec], **knobs: int) -> tuple[list[list[Row]], float]:
    """Rows of two trainers and a sampler, and the seconds of the first epoch."""
    batch = {"size": 20, "fanouts_from_seeds": (4, 4)}
    run = make_run("sampled", 3, batch=batch, samplers=1, **knobs)
    approach = APPROACHES.get("sampled")
    layout = Layout(world_size=3, ranks_per_host=3)
    plan = approach.plan(GRAPH, run, approach.structure(GRAPH, run), layout)
    program = compile_plan(plan, load_cluster("cpu-2core"), ranks_per_host=3)
    result = simulate(program, record=range(3))
    return [ledger(program, result, rank) for rank in range(3)], float(result.period_s[0])


@pytest.mark.parametrize("queue", [1, 3])
def test_a_sampler_draws_no_further_ahead_than_its_queue(
    make_run: Callable[..., RunSpec], queue: int
) -> None:
    rows, _ = simulated(make_run, queue=queue)
    received = sorted(
        row.start_s + row.duration_s for of in rows[:2] for row in of if row.name == "sample/blocks"
    )
    begun = sorted(row.start_s for row in rows[2] if row.name.startswith("sample/draw"))
    assert len(received) == len(begun)
    ahead = [
        number + 1 - sum(end <= start + 1e-12 for end in received)
        for number, start in enumerate(begun)
    ]
    assert max(ahead) == queue  # the bound holds, and is reached


def test_an_epoch_takes_as_long_as_its_slower_role_and_less_where_roles_overlap(
    make_run: Callable[..., RunSpec],
) -> None:
    rows, epoch_s = simulated(make_run, queue=4, prefetch=1)

    def busy(rank: int, *phases: Phase) -> float:
        first = [row for row in rows[rank] if row.period == 0 and row.lane in ("host", "compute")]
        return sum(row.duration_s for row in first if row.phase in phases)

    sampling = busy(2, Phase.SAMPLE)
    training = max(busy(r, Phase.FORWARD, Phase.BACKWARD, Phase.UPDATE) for r in range(2))
    assert epoch_s >= max(sampling, training)
    _, in_turns = simulated(make_run, queue=1)
    assert epoch_s < in_turns
