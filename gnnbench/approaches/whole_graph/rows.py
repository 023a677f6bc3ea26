"""Plan of full-graph training over row-partitioned vertices; one rank is the single device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnnbench import registry
from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.writing.stack import Chain, Halo, LayerSizes, StackShape, StackSteps
from gnnbench.plan import Plan, RankSteps
from gnnbench.spec import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSizes:
    """What one rank holds: vertices, their in-edges, training vertices, rows sent and received.

    `halo_nonzeros` are the in-edges from other ranks' vertices; counted where overlap wants them.
    """

    rows: int
    nonzeros: int
    train_rows: int
    send_rows: tuple[int, ...] = ()
    recv_rows: tuple[int, ...] = ()
    halo_nonzeros: int = 0

    @property
    def halo_rows(self) -> int:
        return sum(self.recv_rows)


def stack_shape(
    graph: GraphLike, run: RunSpec, order: str, *, precompute: bool = False
) -> StackShape:
    """The model of a run on this graph, product orders fixed."""
    model = registry.model(run.model.kind)
    dims = model.dims(run.model, graph.num_features, graph.num_classes)
    return StackShape.of(
        model, run.model, dims, run.training.element_bytes, order, precompute=precompute
    )


def precompute_problem(run: RunSpec) -> str | None:
    """Why the first aggregation of a run cannot be done once and for all, or None."""
    if registry.model(run.model.kind).attention:
        return f"precompute: the weights of {run.model.kind}'s sums change with its parameters"
    if run.model.input_dropout > 0:
        return (
            f"precompute: input_dropout {run.model.input_dropout:g} changes the features in every "
            "epoch; set it to 0"
        )
    return None


def full_graph_plan(
    graph: GraphLike,
    run: RunSpec,
    sizes: Sequence[RankSizes],
    *,
    order: str,
    exact: bool = True,
    basis: str = "counted on the real graph",
    precompute: bool = False,
    overlap: bool = False,
    staged: bool = False,
) -> Plan:
    """Every epoch is one iteration: forward, loss, backward, all-reduce, Adam.

    overlap and staged are told in `layers.Halo`, precompute in `layers.StackShape`.
    """
    shape = stack_shape(graph, run, order, precompute=precompute)
    world = len(sizes)
    group = tuple(range(world))
    iteration = tuple(
        rank_steps(shape, size, group, overlap=overlap, staged=staged) for size in sizes
    )
    return Plan(
        approach=run.approach,
        world_size=world,
        iterations=(iteration,),
        schedule=(0,) * run.training.epochs,
        iterations_per_epoch=1,
        resident=tuple(resident(shape, size, overlap=overlap and world > 1) for size in sizes),
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
    overlap: bool = False,
    staged: bool = False,
) -> RankSteps:
    """One epoch of one rank, behind the steps that `chain` may hold already.

    Without `exchanges` no rank of the group has a halo, and only gradients travel.
    """
    layer = LayerSizes(
        rows=size.rows,
        source_rows=size.rows + size.halo_rows,
        nonzeros=size.nonzeros,
        halo_nonzeros=size.halo_nonzeros,
    )
    halo = (
        Halo(
            group=group,
            send_rows=size.send_rows,
            recv_rows=size.recv_rows,
            overlap=overlap,
            staged=staged,
        )
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


def resident(shape: StackShape, size: RankSizes, *, overlap: bool = False) -> dict[str, int]:
    """Bytes that live from before the first epoch: data, topology both ways, parameters."""
    s, rows, sources = shape.element_bytes, size.rows, size.rows + size.halo_rows
    width, self_weight = shape.dims[0], shape.model.self_weight
    held = {
        "x": sources * width * s,
        "topology": 8 * (rows + 1) + 4 * size.nonzeros,
        "topology_t": 8 * (sources + 1) + 4 * size.nonzeros,
        "labels": 8 * rows + 3 * rows,
        "row_ids": 8 * rows,
        "train_rows": 8 * size.train_rows,
        "halo_ids": 8 * sum(size.send_rows),
        "parameters": 4 * shape.num_parameters * s,
    }
    if shape.precompute:
        held |= {"x": rows * width * s if self_weight else 0, "z1": rows * width * s}
    if overlap:  # one more row pointer for each half of the split
        held["topology"] += 8 * (rows + 1)
        held["topology_t"] += 8 * (size.halo_rows + 1)
    if shape.model.attention:
        # Self loops are entries; backward finds an entry's weight by its place, and each entry has
        # an id that keys its dropout.
        held["topology"] += 4 * rows
        held["topology_t"] += 4 * rows + 8 * (size.nonzeros + rows)
        held["edge_ids"] = 8 * (size.nonzeros + rows) if shape.dropout > 0 else 0
    else:
        scales = {"symmetric": rows + sources + rows, "mean": rows}[shape.model.normalisation]
        held["scales"] = scales * s
    return held
