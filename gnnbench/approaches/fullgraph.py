"""Plan of full-graph training over row-partitioned vertices; one rank is the single device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnnbench import registry
from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.layers import Chain, Halo, LayerSizes, StackShape, StackSteps
from gnnbench.plan import Plan, RankSteps
from gnnbench.spec import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSizes:
    """What one rank holds: vertices, their in-edges, training vertices, rows sent and received."""

    rows: int
    nonzeros: int
    train_rows: int
    send_rows: tuple[int, ...] = ()
    recv_rows: tuple[int, ...] = ()

    @property
    def halo_rows(self) -> int:
        return sum(self.recv_rows)


def stack_shape(graph: GraphLike, run: RunSpec, order: str) -> StackShape:
    """The model of a run on this graph, product orders fixed."""
    model = registry.model(run.model.kind)
    dims = model.dims(run.model, graph.num_features, graph.num_classes)
    return StackShape.of(model, run.model, dims, run.training.element_bytes, order)


def full_graph_plan(
    graph: GraphLike,
    run: RunSpec,
    sizes: Sequence[RankSizes],
    *,
    order: str,
    exact: bool = True,
    basis: str = "counted on the real graph",
) -> Plan:
    """Every epoch is one iteration: forward, loss, backward, all-reduce, Adam."""
    shape = stack_shape(graph, run, order)
    world = len(sizes)
    group = tuple(range(world))
    iteration = tuple(rank_steps(shape, size, group) for size in sizes)
    return Plan(
        approach=run.approach,
        world_size=world,
        iterations=(iteration,),
        schedule=(0,) * run.training.epochs,
        iterations_per_epoch=1,
        resident=tuple(resident(shape, size) for size in sizes),
        exact=exact,
        basis=basis,
        notes={
            "order": shape.orders,
            "halo_rows": sum(s.halo_rows for s in sizes),
            "num_parameters": shape.num_parameters,
        },
    )


def rank_steps(
    shape: StackShape,
    size: RankSizes,
    group: tuple[int, ...],
    *,
    writer: type[StackSteps] = StackSteps,
    chain: Chain | None = None,
    exchanges: bool = True,
) -> RankSteps:
    """One epoch of one rank, behind the steps that `chain` may hold already.

    Without `exchanges` no rank of the group has a halo, and only gradients travel.
    """
    layer = LayerSizes(
        rows=size.rows, source_rows=size.rows + size.halo_rows, nonzeros=size.nonzeros
    )
    halo = (
        Halo(group=group, send_rows=size.send_rows, recv_rows=size.recv_rows)
        if exchanges and len(group) > 1
        else None
    )
    chain = chain or Chain()
    steps = writer(shape, [layer] * shape.num_layers, halo, chain)
    steps.forward()
    steps.loss(size.train_rows)
    steps.backward()
    steps.update(group)
    return chain.done()


def resident(shape: StackShape, size: RankSizes) -> dict[str, int]:
    """Bytes that live from before the first epoch: data, topology both ways, parameters."""
    s, rows, sources = shape.element_bytes, size.rows, size.rows + size.halo_rows
    scales = {"symmetric": rows + sources + rows, "mean": rows}[shape.model.normalisation]
    return {
        "x": sources * shape.dims[0] * s,
        "topology": 8 * (rows + 1) + 4 * size.nonzeros,
        "topology_t": 8 * (sources + 1) + 4 * size.nonzeros,
        "scales": scales * s,
        "labels": 8 * rows + 3 * rows,
        "row_ids": 8 * rows,
        "train_rows": 8 * size.train_rows,
        "halo_ids": 8 * sum(size.send_rows),
        "parameters": 4 * shape.num_parameters * s,
    }
