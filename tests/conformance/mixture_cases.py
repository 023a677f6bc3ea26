"""What ranks do in tests of `mixture`, and how tests deal vertices out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import cases
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.mixture import Mixture, MixtureStructure
from gnnbench.approaches.whole_graph.relayout import Relayouts, even_split
from gnnbench.data.graph import Graph
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Phase
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.conformance.pool import Pools
from gnnbench_runtime.kernels import backend
from gnnbench_runtime.models.relayout import Relayout
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.recorder import Recorder


def on_ranks(pools: Pools, world_size: int, function: str, *args: object) -> list[Any]:
    """Run a function of this module on every rank."""
    if world_size == 1:
        return [globals()[function](0, 1, *args)]
    return pools.of(world_size).run(f"mixture_cases:{function}", *args)


def splits(num_nodes: int, parts: int) -> dict[str, tuple[int, ...]]:
    """Ways to deal vertices out: evenly, lopsided, with ranks that own nothing."""
    found = {"even": even_split(num_nodes, parts)}
    if parts > 1:
        found["lopsided"] = (num_nodes - 3 * (parts - 1),) + (3,) * (parts - 1)
        found["first empty"] = (0, *even_split(num_nodes, parts - 1))
        found["all on the last"] = (0,) * (parts - 1) + (num_nodes,)
    return found


def plan_of(graph: Graph, run: RunSpec, rows: tuple[int, ...]) -> Plan:
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    structure = MixtureStructure.of_rows(graph, rows)
    plan = APPROACHES.get("mixture").plan(graph, run, structure, layout)
    plan.validate()
    return plan


def moved(rows: tuple[int, ...], width: int) -> int:
    """FG-18: N F less what stays, with columns dealt out one by one."""
    columns = [len(range(rank, width, len(rows))) for rank in range(len(rows))]
    return sum(rows) * width - sum(n * f for n, f in zip(rows, columns, strict=True))


# -- on a rank -----------------------------------------------------------------------------------


def train(
    rank: int, world_size: int, graph: Graph, run: RunSpec, rows: Any = None, epochs: int = 5
) -> dict[str, Any]:
    """`cases.train_full`, with the vertices dealt out in these numbers."""
    if rows is None:
        return cases.train_full(rank, world_size, graph, run, None, epochs)

    def dealt(self: Any, graph: Graph, run: RunSpec, cache: Path | None = None) -> Any:
        return MixtureStructure.of_rows(graph, rows)

    with mock.patch.object(Mixture, "structure", dealt):
        return cases.train_full(rank, world_size, graph, run, None, epochs)


def there_and_back(
    rank: int, world_size: int, rows: list[int], width: int
) -> tuple[Any, Any, Any, int]:
    """Re-lay a matrix out to columns and back; returns own rows, columns, own rows, bytes sent."""
    device = torch.device("cpu")
    recorder = Recorder(device)
    context = RankContext(
        run=None,
        rank=rank,
        world_size=world_size,
        device=device,
        recorder=recorder,
        comm=Comm(recorder, rank=rank, world_size=world_size, device=device),
        kernels=backend(device, 1),
        cache=Path("."),
    )
    both = Relayouts(forward=((width, width),), backward=((),), x_rows=True, x_columns=False)
    relayout = Relayout(context, rows, both, Workspace(device, torch.float64))
    generator = torch.Generator().manual_seed(rank)
    mine = torch.randn((rows[rank], width), generator=generator, dtype=torch.float64)
    recorder.period_begin(0)
    columns = relayout.to_columns(mine, 1, Phase.FORWARD)
    relayout.aggregated(width).copy_(columns)
    back = torch.full_like(mine, torch.nan)
    relayout.to_rows(relayout.aggregated(width), back, 1, Phase.FORWARD)
    sent = sum(recorder.period_end().values())
    return mine.numpy(), columns.numpy().copy(), back.numpy(), sent


class Shapes(TorchDispatchMode):
    """Keep the shape of every matrix of floats that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.seen.add(tuple(tensor.shape))
        return out


def buffers_of_an_epoch(
    rank: int, world_size: int, graph: Graph, run: RunSpec, rows: Any
) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of the workspace's buffers after an epoch, and of what was held before it."""
    structure = MixtureStructure.of_rows(graph, rows)
    trainer, _, _ = cases.make_trainer(rank, world_size, run, graph, structure)
    held = {"pattern": trainer.whole.num_bytes, "x": trainer.batches.x.nbytes}
    trainer.train_period(0)
    return {k: t.nbytes for k, t in trainer.workspace._flat.items() if t.nbytes}, held


def shapes_of_an_epoch(rank: int, world_size: int, graph: Graph, run: RunSpec) -> set[Any]:
    """Every shape of a floating-point tensor made while loading and in one epoch."""
    with Shapes() as shapes:
        trainer, _, _ = cases.make_trainer(rank, world_size, run, graph)
        trainer.train_period(0)
        trainer.evaluate()
    return shapes.seen
