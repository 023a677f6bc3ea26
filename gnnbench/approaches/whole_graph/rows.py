"""Whole-graph training over row-partitioned vertices: sizes of the parts, and the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.evaluating import answered
from gnnbench.approaches.writing.shape import Halo, LayerSizes, StackShape, stack_shape
from gnnbench.approaches.writing.stack import StackWriter, parameter_buffers
from gnnbench.iterations import Iteration, RankClass
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan, repeated
from gnnbench.reuse import Reuse
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer, Ints

ID_BYTES = work.ID_BYTES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowSizes:
    """Sizes of a vertex partition for all ranks; arrays are int64 [P].

    Args:
        rows: own vertices.
        nonzeros: in-edges of own vertices.
        train_rows: own training vertices.
        received: [P, P], rows of rank j that rank i receives; the diagonal is 0.
        halo_nonzeros: in-edges from vertices of other ranks; counted only if `overlap` needs them.
        reuse: of the rows that each rank reads, in the order of the vertices.
    """

    rows: Ints
    nonzeros: Ints
    train_rows: Ints
    received: Ints
    halo_nonzeros: Ints
    reuse: Reuse | None = None

    @property
    def world_size(self) -> int:
        return len(self.rows)

    @property
    def sent(self) -> Ints:
        """Rows of rank i that rank j receives, [P, P]."""
        return self.received.T

    @property
    def halo_rows(self) -> Ints:
        """Rows that each rank receives."""
        return np.asarray(self.received.sum(axis=1))

    @property
    def sent_rows(self) -> Ints:
        """Rows that each rank sends, a row counted once for each receiver."""
        return np.asarray(self.received.sum(axis=0))

    @classmethod
    def whole(cls, data: GraphLike) -> RowSizes:
        """One rank that owns every vertex."""
        return cls(
            rows=np.array([data.num_nodes]),
            nonzeros=np.array([data.num_edges]),
            train_rows=np.array([data.num_train]),
            received=np.zeros((1, 1), np.int64),
            halo_nonzeros=np.zeros(1, np.int64),
            reuse=data.reuse_of_rows(),
        )


def precompute_problem(run: RunSpec) -> str | None:
    """Reason why the first aggregation cannot be computed before training, or None."""
    if MODELS.get(run.model.kind).attention:
        return f"precompute: the edge weights of {run.model.kind} change with its parameters"
    if run.model.input_dropout > 0:
        return (
            f"precompute: input_dropout {run.model.input_dropout:g} changes the features in every "
            "epoch; set it to 0"
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Exchange of halo rows (see `writing.shape.Halo`), and whether layer 1 is precomputed."""

    order: str
    precompute: bool = False
    overlap: bool = False
    staged: bool = False


def row_plan(
    data: GraphLike,
    run: RunSpec,
    sizes: RowSizes,
    options: Options,
    *,
    counted: bool = True,
    basis: str = "counted on the real graph",
) -> Plan:
    """The plan of partition parallelism: an epoch is one forward, backward, all-reduce, update."""
    shape = stack_shape(data, run, options.order, precompute=options.precompute)
    plan = Plan(
        approach=run.approach,
        world_size=sizes.world_size,
        **repeated([row_iteration(shape, sizes, options)], run.training.epochs),
        resident=resident(shape, sizes, overlap=options.overlap and sizes.world_size > 1),
        counted=counted,
        basis=basis,
        notes={
            "order": shape.orders,
            "halo_rows": int(sizes.received.sum()),
            "num_parameters": shape.num_parameters,
        },
    )
    return answered(plan)


def row_iteration(
    shape: StackShape,
    sizes: RowSizes,
    options: Options,
    *,
    writer: type[StackWriter] = StackWriter,
    chain: Chain | None = None,
    exchanges: bool = True,
) -> Iteration:
    """One epoch of all ranks, which are one class.

    Args:
        shape: the model.
        sizes: of the parts.
        options: how rows travel.
        writer: of the stack's steps.
        chain: steps that come first.
        exchanges: False where no rank has a halo, so that only gradients travel.
    """
    world = sizes.world_size
    layer = row_layer(sizes)
    halo = row_halo(sizes, options) if exchanges and world > 1 else None
    steps = writer(shape, [layer] * shape.num_layers, halo, chain or Chain())
    steps.forward()
    steps.loss(sizes.train_rows)
    steps.backward()
    steps.update(tuple(range(world)))
    return Iteration([RankClass(range(world), steps.chain.done())])


def row_layer(sizes: RowSizes) -> LayerSizes:
    """Sizes of a layer over all edges of the own vertices."""
    return LayerSizes(
        rows=sizes.rows,
        source_rows=sizes.rows + sizes.halo_rows,
        nonzeros=sizes.nonzeros,
        halo_nonzeros=sizes.halo_nonzeros,
        reuse=sizes.reuse,
    )


def row_halo(sizes: RowSizes, options: Options) -> Halo:
    """How halo rows travel between the ranks."""
    return Halo(
        group=tuple(range(sizes.world_size)),
        send=sizes.sent,
        receive=sizes.received,
        overlap=options.overlap,
        staged=options.staged,
    )


def resident(shape: StackShape, sizes: RowSizes, *, overlap: bool = False) -> tuple[Buffer, ...]:
    """Buffers that live from before the first epoch: data, topology both ways, parameters."""
    return share_buffers(shape, sizes, overlap=overlap) + parameter_buffers(shape)


def share_buffers(
    shape: StackShape, sizes: RowSizes, *, overlap: bool = False
) -> tuple[Buffer, ...]:
    """Each rank's share of the data: features, topology both ways, labels, scales."""
    s, rows, sources = shape.element_bytes, sizes.rows, sizes.rows + sizes.halo_rows
    width, self_weight = shape.dims[0], shape.model.self_weight
    held: dict[str, Any] = {
        "x": sources * width * s,
        "topology": 8 * (rows + 1) + 4 * sizes.nonzeros,
        "topology_t": 8 * (sources + 1) + 4 * sizes.nonzeros,
        "labels": 8 * rows + 3 * rows,
        "row_ids": ID_BYTES * rows,
        "train_rows": ID_BYTES * sizes.train_rows,
        "halo_ids": ID_BYTES * sizes.sent_rows,
    }
    if shape.precompute:
        held |= {"x": rows * width * s if self_weight else 0, "z1": rows * width * s}
    if overlap:  # one more row pointer for each half of the split
        held["topology"] += 8 * (rows + 1)
        held["topology_t"] += 8 * (sizes.halo_rows + 1)
    if shape.model.attention:
        # Self loops are entries; backward finds an entry's weight by its place, and each entry has
        # an id that keys its dropout.
        held["topology"] += 4 * rows
        held["topology_t"] += 4 * rows + 8 * (sizes.nonzeros + rows)
        held["edge_ids"] = 8 * (sizes.nonzeros + rows) if shape.dropout > 0 else 0
    else:
        scales = {"symmetric": rows + sources + rows, "mean": rows}[shape.model.normalisation]
        held["scales"] = scales * s
    return buffers(held)


def buffers(held: dict[str, Any]) -> tuple[Buffer, ...]:
    """Buffers of the device from their sizes by name."""
    return tuple(Buffer(name, size) for name, size in held.items())
