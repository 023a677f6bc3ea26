"""Speed of the simulator at 1,024 ranks: engine and replay on one plan, and every approach.

Targets in seconds of CPU: engine 5, with shared links 2, replay 1, an approach from profile to
prediction 1; a million flows re-rated in 0.1.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import load_profile
from gnnbench.fabric import Fabric, Shared, Tier
from gnnbench.iterations import Iteration
from gnnbench.plan import Plan, repeated
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench.steps import After, Lane, Phase, Step
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.events import simulate_events
from gnnbench_simulator.predict import predict_plan
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay
from gnnbench_simulator.water_filling import fair_rates

RANKS, LAYERS, WIDTH = 1024, 3, 64


def halo_plan(world_size: int, iterations: int, *, seed: int = 0, copied: int = 0) -> Plan:
    """Three layers forward and backward: exchange, spmm, gemm each; then all-reduce and update."""
    draw = random.Random(seed)
    programs = [_rank_steps(rank, world_size, draw, copied) for rank in range(world_size)]
    iteration = Iteration.of_ranks(programs)
    return Plan(approach="partition", world_size=world_size, **repeated([iteration], iterations))


def _rank_steps(rank: int, world_size: int, draw: random.Random, copied: int) -> tuple[Step, ...]:
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
    if copied:
        rows_in = work.to_device(draw.randint(copied // 2, copied))
        steps.append(Step(name="load", work=rows_in, lane=Lane.COPY, phase=Phase.FETCH))
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


def fair_shares(flows: int = 1_000_000) -> None:
    """Re-rate a million flows between 1,024 devices under 64 leaves, an eighth of them capped."""
    draw = np.random.default_rng(0)
    ends = draw.integers(0, RANKS, (flows, 2))
    leaves = ends // 16
    # Ports out and in, and links of the leaves up and down.
    paths = [
        ends[:, 0],
        RANKS + ends[:, 1],
        2 * RANKS + leaves[:, 0],
        2 * RANKS + 64 + leaves[:, 1],
    ]
    links = np.stack(paths, axis=1).astype(np.int64).ravel()
    starts = np.arange(flows + 1, dtype=np.int64) * 4
    cap = np.where(draw.random(flows) < 0.125, 1e6, np.inf)
    capacity = np.concatenate([draw.uniform(2e10, 3e10, 2 * RANKS), np.full(128, 1e11)])
    given = (starts, links, np.ones(len(links)), np.ones(flows), cap, capacity)
    fair_rates(*given)  # loads the compiled loop
    started = time.process_time()
    rates = fair_rates(*given)
    print(f"max-min  {flows:,} flows: {1e3 * (time.process_time() - started):.0f} ms")
    used = np.bincount(links, np.repeat(rates, 4), len(capacity))
    print(f"fullest link: {(used / capacity).max():.6f} of its capacity")


def contended() -> None:
    """1,024 devices whose copies share PCIe switches while their rows cross narrow leaves."""
    base = load_cluster("dgx-a100-leaves")
    known = base.links.inter.bytes_per_s
    switch = Shared(devices=2, bytes_per_s=replace(known, value=2e10))
    tier = Tier(hosts=16, oversubscription=replace(known, value=16.0))
    cluster = replace(
        base,
        host=replace(base.host, hosts_max=RANKS // 8),
        fabric=Fabric(peers="nvlink", switch=switch, leaf=tier),
    )
    plan = halo_plan(RANKS, 10, copied=4_000_000)
    started = time.process_time()
    program = compile_plan(plan, cluster, ranks_per_host=8)
    print(f"compile  with a fabric: {time.process_time() - started:.2f} s; {program.contention()}")
    for name, run in (("events", simulate_events), ("engine", simulate)):
        started = time.process_time()
        found = run(program)
        took = time.process_time() - started
        print(
            f"{name:8} 1,024 ranks x 10 iterations, shared links: {took:.2f} s", found.period_s[-1]
        )


def main() -> None:
    engine_and_replay()
    approaches()
    fair_shares()
    contended()


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
