"""Speed of the simulator at 1,024 ranks: engine and replay on one plan, and every approach.

Targets in seconds of CPU: engine 5, replay 1, an approach from profile to prediction 1.
"""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import load_profile
from gnnbench.iterations import Iteration
from gnnbench.plan import Plan, repeated
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench.steps import After, Lane, Phase, Step
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.predict import predict_plan
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay

RANKS, LAYERS, WIDTH = 1024, 3, 64


def halo_plan(world_size: int, iterations: int, *, seed: int = 0) -> Plan:
    """Three layers forward and backward: exchange, spmm, gemm each; then all-reduce and update."""
    draw = random.Random(seed)
    programs = [_rank_steps(rank, world_size, draw) for rank in range(world_size)]
    iteration = Iteration.of_ranks(programs)
    return Plan(approach="partition", world_size=world_size, **repeated([iteration], iterations))


def _rank_steps(rank: int, world_size: int, draw: random.Random) -> tuple[Step, ...]:
    group = tuple(range(world_size))
    rows = draw.randint(8_000, 12_000)
    nonzeros = rows * draw.randint(12, 18)
    sent = np.zeros(world_size, np.int64)
    for peer in draw.sample(range(world_size), min(8, world_size - 1)):
        sent[peer] = 0 if peer == rank else draw.randint(10, 200)
    exchange = work.all_to_all(sent, int(sent.sum()), 4 * WIDTH, width=WIDTH)
    spmm = work.spmm(rows=rows, nonzeros=nonzeros, width=WIDTH, source_rows=rows, element_bytes=4)
    gemm, parameters = work.gemm("gemm_nn", rows, WIDTH, WIDTH, 4), WIDTH * WIDTH * LAYERS
    steps: list[Step] = []
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        for layer in range(LAYERS):
            where, wait = f"{phase}/{layer}", tuple(After(s.name) for s in steps[-1:])
            place: dict[str, Any] = {"phase": phase, "layer": layer}
            met = Step(
                name=f"{where}/exchange",
                work=exchange,
                lane=Lane.COMM,
                group=group,
                after=wait,
                **place,
            )
            summed = Step(name=f"{where}/spmm", work=spmm, after=(After(met.name),), **place)
            steps += [met, summed, Step(name=f"{where}/gemm", work=gemm, **place)]
    reduced, adam = work.all_reduce(parameters, 4, world_size), work.adam(parameters, 4)
    wait = (After(steps[-1].name),)
    sync = Step(
        name="sync", work=reduced, lane=Lane.COMM, phase=Phase.SYNC, group=group, after=wait
    )
    update = Step(name="update", work=adam, phase=Phase.UPDATE, after=(After("sync"),))
    return (*steps, sync, update)


def main() -> None:
    engine_and_replay()
    approaches()


def approaches() -> None:
    """Plan and predict every approach that 1,024 ranks can run on a profile."""
    cluster, graph = load_cluster("dgx-a100"), load_profile("ogbn-products")
    layout = Layout(world_size=RANKS, ranks_per_host=8, device="cuda")
    dataset = DatasetRef(name="products", profile="ogbn-products", kind="graph")
    model = ModelSpec(name="gcn", kind="gcn", hidden=256, layers=3)
    for name in APPROACHES.names():
        approach = APPROACHES.get(name)
        run = RunSpec(
            suite="bench",
            dataset=dataset,
            model=model,
            training=TrainingSpec(),
            approach=name,
            ranks=RANKS,
        )
        if approach.cannot_run(run, graph):
            continue
        started = time.process_time()
        plan = approach.plan(graph, run, approach.structure(graph, run), layout)
        planned = time.process_time()
        found = predict_plan(plan, cluster)
        took = time.process_time() - started
        print(
            f"{name:20} plan {planned - started:.2f} s, all {took:.2f} s of CPU; "
            f"{found.method}, {len(found.periods_s)} epochs"
        )


def engine_and_replay() -> None:
    """Compare the two on a halo exchange."""
    cluster = load_cluster("a100-gloo")
    plan = halo_plan(RANKS, 1000)
    steps = len(plan.iterations[0][0])
    started = time.process_time()
    program = compile_plan(plan, cluster)
    print(f"compile  1,024 ranks x {steps} steps: {time.process_time() - started:.2f} s")
    started = time.process_time()
    fast = replay(program)
    print(f"replay   1,024 ranks x 1,000 iterations: {time.process_time() - started:.2f} s")
    started = time.process_time()
    slow = simulate(program, periods=10)
    print(f"engine   1,024 ranks x 10 iterations: {time.process_time() - started:.2f} s")
    gap = max(abs(a / b - 1) for a, b in zip(slow.period_s, fast.period_s, strict=False))
    print(f"largest relative difference of an epoch: {gap:.1e}")


if __name__ == "__main__":
    main()
