"""Speed of the simulator at 1,024 ranks: engine and replay on one plan, and every approach.

Targets in seconds of CPU: engine 5, replay 1, an approach from profile to prediction 5.
"""

from __future__ import annotations

import random
import time

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import load_profile
from gnnbench.plan import Plan
from gnnbench.spec import GraphRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench.steps import After, Kind, Lane, Phase, Step
from gnnbench.work import all_reduce_bytes
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.predict import predict_plan
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay

LAYERS = 3


def halo_plan(world_size: int, iterations: int, *, seed: int = 0) -> Plan:
    """Three layers forward and backward: exchange, spmm, gemm each; then all-reduce and update."""
    group = tuple(range(world_size))
    draw = random.Random(seed)
    ranks = []
    for rank in range(world_size):
        rows = draw.randint(8_000, 12_000)
        nonzeros = rows * draw.randint(12, 18)
        sent = [0] * world_size
        for peer in draw.sample(range(world_size), min(8, world_size - 1)):
            sent[peer] = 0 if peer == rank else 4 * 64 * draw.randint(10, 200)
        steps: list[Step] = []
        for phase in (Phase.FORWARD, Phase.BACKWARD):
            for layer in range(LAYERS):
                steps += _layer(phase, layer, rows, nonzeros, tuple(sent), group, steps)
        size = 4 * 64 * 64 * LAYERS
        steps.append(
            Step(
                name="sync", kind=Kind.ALL_REDUCE, op="all_reduce", lane=Lane.COMM, layer=-1,
                phase=Phase.SYNC, group=group, bytes=all_reduce_bytes(size, world_size),
                buffer_bytes=size, after=(After(steps[-1].name),),
            )
        )  # fmt: skip
        steps.append(
            Step(
                name="update", kind=Kind.OPTIMIZER, op="adam", lane=Lane.COMPUTE, layer=-1,
                phase=Phase.UPDATE, rows=64 * 64 * LAYERS, bytes=7 * size, after=(After("sync"),),
            )
        )  # fmt: skip
        ranks.append(tuple(steps))
    return Plan(
        approach="partition",
        world_size=world_size,
        iterations=(tuple(ranks),),
        schedule=(0,) * iterations,
        iterations_per_epoch=1,
    )


def _layer(
    phase: Phase,
    layer: int,
    rows: int,
    nonzeros: int,
    sent: tuple[int, ...],
    group: tuple[int, ...],
    before: list[Step],
) -> list[Step]:
    where = f"{phase}/{layer}"
    wait = (After(before[-1].name),) if before else ()
    return [
        Step(
            name=f"{where}/exchange", kind=Kind.ALL_TO_ALL, op="all_to_all", lane=Lane.COMM,
            phase=phase, layer=layer, group=group, bytes=sum(sent), send_bytes=sent, after=wait,
        ),
        Step(
            name=f"{where}/spmm", kind=Kind.SPMM, op="spmm", lane=Lane.COMPUTE, phase=phase,
            layer=layer, rows=rows, nonzeros=nonzeros, width=64, source_rows=rows,
            flops=2 * nonzeros * 64, bytes=8 * rows + 4 * nonzeros + 8 * rows * 64,
            after=(After(f"{where}/exchange"),),
        ),
        Step(
            name=f"{where}/gemm", kind=Kind.GEMM, op="gemm_nn", lane=Lane.COMPUTE, phase=phase,
            layer=layer, rows=rows, inner=64, width=64, flops=2 * rows * 64 * 64,
            bytes=4 * (2 * rows * 64 + 64 * 64),
        ),
    ]  # fmt: skip


def main() -> None:
    engine_and_replay()
    approaches()


def approaches() -> None:
    """Plan and predict every approach that 1,024 ranks can run on a profile."""
    cluster, graph = load_cluster("dgx-a100"), load_profile("ogbn-products")
    layout = Layout(world_size=1024, ranks_per_host=8, device="cuda")
    for name in APPROACHES.names():
        approach = APPROACHES.get(name)
        knobs = {"fanouts_from_seeds": (15, 10, 5)} if name == "sampled" else {}
        run = RunSpec(
            suite="bench", graph=GraphRef(name="products", profile="ogbn-products"),
            model=ModelSpec(name="gcn", kind="gcn", hidden=256, layers=3),
            training=TrainingSpec(), approach=name, ranks=1024, knobs=knobs,
        )  # fmt: skip
        if approach.cannot_run(run, graph):
            continue
        started = time.process_time()
        plan = approach.plan(graph, run, approach.structure(graph, run), layout)
        planned = time.process_time()
        found = predict_plan(plan, cluster)
        took = time.process_time() - started
        print(
            f"{name:20} plan {planned - started:.2f} s, all {took:.2f} s of CPU; "
            f"{found.method}, {len(found.epochs_s)} epochs"
        )


def engine_and_replay() -> None:
    """Compare the two on a halo exchange."""
    cluster = load_cluster("a100-gloo")
    plan = halo_plan(1024, 1000)
    steps = len(plan.iterations[0][0])
    started = time.process_time()
    program = compile_plan(plan, cluster)
    print(f"compile  1,024 ranks x {steps} steps: {time.process_time() - started:.2f} s")
    started = time.process_time()
    fast = replay(program)
    print(f"replay   1,024 ranks x 1,000 iterations: {time.process_time() - started:.2f} s")
    started = time.process_time()
    slow = simulate(program, epochs=10)
    print(f"engine   1,024 ranks x 10 iterations: {time.process_time() - started:.2f} s")
    gap = max(abs(a / b - 1) for a, b in zip(slow.epoch_s, fast.epoch_s, strict=False))
    print(f"largest relative difference of an epoch: {gap:.1e}")


if __name__ == "__main__":
    main()
