"""The mixture of parallelism: aggregation on column slices, update on row slices.

Every rank has the whole graph, so an aggregation of its columns needs nobody; the update needs
whole rows of its own vertices, so that needs nobody either. In between the features are laid out
anew by an all-to-all. No halo exists: total bytes stay below 4 N s sum(w_l) whatever the ranks, and
work is balanced by construction (fullgraph section 9, FG-17 to FG-22). Exact for any split.
Attention transforms first and aggregates with weights that each rank computes for the heads of its
columns (`approaches.relayout` has the volume, `steps.attention_columns` the steps).

Legend: P ranks, N vertices, n the rows of a rank, f its columns of a width F.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.approaches.base import Approach, GraphLike, Layout
from gnnbench.approaches.whole_graph.relayout import Relayouts, even_split
from gnnbench.approaches.whole_graph.rows import precompute_problem, stack_shape
from gnnbench.approaches.writing.layers import attention, attention_columns
from gnnbench.approaches.writing.stack import Chain, LayerSizes, StackShape, StackSteps
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Lane, Phase, Step
from gnnbench.strict import choices


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureKnobs:
    """Knobs of `mixture`.

    order: which product comes first in a layer; min_width aggregates the narrower side.
    precompute: aggregate the input features once, before training, and keep the result; the first
    layer then aggregates first and communicates nothing. Not with input dropout, which changes the
    features every epoch, nor with attention, which also transforms first whatever the order.
    """

    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )
    precompute: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureStructure:
    """How vertices are dealt out: rank i owns the `rows[i]` vertices after those of rank i - 1.

    `symmetric`: every edge is stored both ways, so that one copy of the graph serves both passes.
    """

    rows: tuple[int, ...]
    train_rows: tuple[int, ...]
    nonzeros: int
    symmetric: bool
    exact: bool = True
    basis: str = "counted on the real graph"

    @classmethod
    def of_rows(cls, graph: Graph, rows: Sequence[int]) -> MixtureStructure:
        """Deal the vertices of a graph out in these numbers."""
        bounds = np.concatenate([[0], np.cumsum(rows)])
        assert bounds[-1] == graph.num_nodes, "every vertex is owned once"
        train = np.searchsorted(graph.train_nodes(), bounds)
        return cls(
            rows=tuple(int(n) for n in rows),
            train_rows=tuple(np.diff(train).tolist()),
            nonzeros=graph.num_edges,
            symmetric=graph.undirected,
        )

    def first_row(self, rank: int) -> int:
        """The first vertex of a rank."""
        return sum(self.rows[:rank])


def mixture_shape(graph: GraphLike, run: RunSpec, knobs: MixtureKnobs) -> StackShape:
    """The model of a run; a precomputed first layer aggregates first, whatever the policy."""
    shape = stack_shape(graph, run, knobs.order)
    return precomputed(shape) if knobs.precompute else shape


def precomputed(shape: StackShape) -> StackShape:
    """The shape whose first layer can be aggregated once and for all."""
    return replace(shape, orders=("aggregate_first", *shape.orders[1:]))


class _Peers:
    """Bytes to each peer in the two directions; ranks with equal shares share the work."""

    def __init__(self, rows: tuple[int, ...], element_bytes: int) -> None:
        self.rows, self.element_bytes = rows, element_bytes
        self.group = tuple(range(len(rows)))
        self._known: dict[tuple[str, int, int], tuple[int, ...]] = {}

    def columns(self, width: int) -> tuple[int, ...]:
        """f_i of every rank."""
        return even_split(width, len(self.rows))

    def to_columns(self, rank: int, width: int) -> tuple[int, ...]:
        """n_i x f_j to rank j."""
        return self._sent("columns", rank, self.rows[rank], width, self.columns(width))

    def to_rows(self, rank: int, width: int) -> tuple[int, ...]:
        """n_j x f_i to rank j."""
        return self._sent("rows", rank, self.columns(width)[rank], 0, self.rows)

    def scores_to_columns(self, rank: int, layer: int, heads: tuple[int, ...]) -> tuple[int, ...]:
        """Two scores of each of n_i rows and k_j heads to rank j."""
        return self._sent(f"scores of {layer}", rank, 2 * self.rows[rank], 0, heads)

    def scores_to_rows(self, rank: int, heads: tuple[int, ...]) -> tuple[int, ...]:
        """Two gradients of each of n_j rows and k_i heads to rank j."""
        return self._sent("gradients", rank, 2 * heads[rank], 0, self.rows)

    def _sent(
        self, way: str, rank: int, share: int, width: int, peers: tuple[int, ...]
    ) -> tuple[int, ...]:
        key = (way, share, width)
        if key not in self._known:
            self._known[key] = tuple(share * peer * self.element_bytes for peer in peers)
        known = self._known[key]
        return (*known[:rank], 0, *known[rank + 1 :])


class MixtureSteps(StackSteps):
    """Steps of one rank. `size.rows` are its rows; aggregation runs over all vertices."""

    def __init__(
        self,
        shape: StackShape,
        structure: MixtureStructure,
        relayouts: Relayouts,
        peers: _Peers,
        rank: int,
    ) -> None:
        own = structure.rows[rank]
        size = LayerSizes(rows=own, source_rows=own, nonzeros=structure.nonzeros)
        super().__init__(shape, [size] * shape.num_layers, None, Chain())
        self.rank, self.rows, self.num_nodes = rank, own, sum(structure.rows)
        self.relayouts, self.peers, self.world_size = relayouts, peers, len(structure.rows)
        self.train_rows = structure.train_rows[rank]

    # -- re-layout -------------------------------------------------------------------------------

    def _columns(self, width: int) -> int:
        return self.peers.columns(width)[self.rank]

    def _buffer(self, name: str, first: bool) -> tuple[tuple[str, int], ...]:
        """A buffer for the widest re-layout that uses it; `first`: also of a lone way back."""
        s = self.shape.element_bytes
        layers = (*self.relayouts.forward, *self.relayouts.backward)
        widest = max((layer[0] for layer in layers if len(layer) > (0 if first else 1)), default=0)
        elements = (
            self.rows * widest if name == "packed" else self.num_nodes * self._columns(widest)
        )
        return ((name, elements * s),)

    def _regroup(self, name: str, phase: Phase, layer: int, width: int, **facts: Any) -> None:
        """Between whole rows and blocks of rows by owner of the columns, either way."""
        s, pieces = self.shape.element_bytes, min(self.world_size, width)
        self._compute(
            f"{phase}/{layer}/{name}", Kind.GATHER, "gather", phase, layer,
            rows=self.rows * pieces, width=-(-width // pieces), source_rows=self.rows * pieces,
            bytes=2 * self.rows * width * s, **facts,
        )  # fmt: skip

    def _all_to_all(
        self, name: str, phase: Phase, layer: int, width: int, sent: tuple[int, ...],
        allocates: tuple[tuple[str, int], ...] = (),
    ) -> None:  # fmt: skip
        s = self.shape.element_bytes
        whole = max(self.rows * width, self.num_nodes * self._columns(width))
        total = sum(sent)
        self.chain.add(
            Step(
                name=f"{phase}/{layer}/{name}", kind=Kind.ALL_TO_ALL, op="all_to_all",
                lane=Lane.COMM, phase=phase, layer=layer, rows=total // s, width=width, bytes=total,
                send_bytes=sent, buffer_bytes=whole * s, group=self.peers.group,
                allocates=allocates,
            )
        )  # fmt: skip

    def _to_columns(
        self, phase: Phase, layer: int, width: int, held: tuple[tuple[str, int], ...]
    ) -> None:
        """Own rows of a matrix to own columns, which are `held` then."""
        self._regroup("pack", phase, layer, width, allocates=self._buffer("packed", True))
        sent = self.peers.to_columns(self.rank, width)
        self._all_to_all("to_columns", phase, layer, width, sent, held)

    def _to_rows(
        self, phase: Phase, layer: int, width: int, out: tuple[tuple[str, int], ...] = ()
    ) -> None:
        """Own columns of a matrix to own rows, which are `out` then."""
        sent = self.peers.to_rows(self.rank, width)
        packed = self._buffer("packed", True)
        self._all_to_all("to_rows", phase, layer, width, sent, packed)
        self._regroup("unpack", phase, layer, width, allocates=out)

    def _by_columns(
        self, phase: Phase, layer: int, width: int, out: tuple[tuple[str, int], ...] = (),
    ) -> None:  # fmt: skip
        """Row layout to row layout: to columns, the local product, back to rows.

        `out` is what the result allocates. An input held in columns skips the first third.
        """
        where, nonzeros = f"{phase}/{layer}", self.sizes[layer - 1].nonzeros
        if self.world_size == 1:
            self._spmm(
                f"{where}/spmm", phase, layer, self.rows, self.rows, nonzeros, width, allocates=out
            )
            return
        held = self.relayouts.forward if phase is Phase.FORWARD else self.relayouts.backward
        if len(held[layer - 1]) == 2:
            self._to_columns(phase, layer, width, self._buffer("columns", False))
        aggregated = self._buffer("aggregated", True)
        if self._columns(width):
            self._spmm(
                f"{where}/spmm", phase, layer, self.num_nodes, self.num_nodes, nonzeros,
                self._columns(width), allocates=aggregated,
            )  # fmt: skip
        self._to_rows(phase, layer, width, out)

    # -- passes ----------------------------------------------------------------------------------

    def epoch(self) -> tuple[Step, ...]:
        """One epoch of one rank."""
        self.forward()
        self.loss(self.train_rows)
        self.backward()
        self.update(self.peers.group)
        return self.chain.done()

    def _forward_layer(self, layer: int) -> None:
        shape, n = self.shape, self.rows
        if not shape.model.attention:
            self._convolve(layer)
        elif self.world_size == 1:
            attention.forward(self, layer)
        else:
            attention_columns.forward(self, layer)
        if layer < shape.num_layers:
            name = shape.model.activation
            op = f"{name}_dropout" if shape.dropout > 0 else name
            where = f"forward/{layer}/activation"
            self._elementwise(where, op, Phase.FORWARD, layer, n, shape.dims[layer], 2)

    def _convolve(self, layer: int) -> None:
        shape, n, s = self.shape, self.rows, self.shape.element_bytes
        fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
        where, phase = f"forward/{layer}", Phase.FORWARD
        out = ((f"h{layer}", n * fan_out * s),)
        if shape.orders[layer - 1] == "aggregate_first":
            if layer > 1 or not self.relayouts.precomputed:
                self._by_columns(phase, layer, fan_in, ((f"z{layer}", n * fan_in * s),))
            self._gemm(
                f"{where}/gemm", "gemm_nn_bias", phase, layer, n, fan_in, fan_out, allocates=out
            )
        else:
            transformed = ((f"t{layer}", n * fan_out * s),)
            self._gemm(
                f"{where}/gemm", "gemm_nn", phase, layer, n, fan_in, fan_out, allocates=transformed
            )
            self._by_columns(phase, layer, fan_out, out)
            self._elementwise(f"{where}/bias", "bias", phase, layer, n, fan_out, 2)
        if shape.model.self_weight:
            self._gemm(f"{where}/self", "gemm_nn_add", phase, layer, n, fan_in, fan_out)

    def _backward_layer(self, layer: int) -> None:
        shape, n = self.shape, self.rows
        if not shape.model.attention:
            self._convolve_backward(layer)
        elif self.world_size == 1:
            attention.backward(self, layer)
        else:
            attention_columns.backward(self, layer)
        if layer > 1:
            op, where = f"{shape.model.activation}_backward", f"backward/{layer}/activation"
            width = shape.dims[layer - 1]
            self._elementwise(where, op, Phase.BACKWARD, layer - 1, n, width, 3)

    def _convolve_backward(self, layer: int) -> None:
        shape, n, s = self.shape, self.rows, self.shape.element_bytes
        fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
        where, phase = f"backward/{layer}", Phase.BACKWARD
        self._elementwise(f"{where}/bias", "column_sum", phase, layer, n, fan_out, 1)
        grad = ((f"g{layer - 1}", n * fan_in * s),)
        if shape.orders[layer - 1] == "aggregate_first":
            self._gemm(f"{where}/weight", "gemm_tn", phase, layer, fan_in, n, fan_out)
            if layer > 1:
                self._gemm(f"{where}/input", "gemm_nt", phase, layer, n, fan_out, fan_in)
                self._by_columns(phase, layer, fan_in, grad)
        else:
            self._by_columns(phase, layer, fan_out)
            self._gemm(f"{where}/weight", "gemm_tn", phase, layer, fan_in, n, fan_out)
            if layer > 1:
                self._gemm(
                    f"{where}/input", "gemm_nt", phase, layer, n, fan_out, fan_in, allocates=grad
                )
        if shape.model.self_weight:
            self._gemm(f"{where}/self_weight", "gemm_tn", phase, layer, fan_in, n, fan_out)
            if layer > 1:
                self._gemm(f"{where}/self_input", "gemm_nt_add", phase, layer, n, fan_out, fan_in)


def resident(
    shape: StackShape, structure: MixtureStructure, relayouts: Relayouts, rank: int
) -> dict[str, int]:
    """Bytes that live from before the first epoch: the whole graph, a share of everything else."""
    s, rows, num_nodes = shape.element_bytes, structure.rows[rank], sum(structure.rows)
    fan_in, world_size = shape.dims[0], len(structure.rows)
    columns = even_split(fan_in, world_size)[rank]
    topology = 8 * (num_nodes + 1) + 4 * structure.nonzeros
    held = {
        "x": rows * fan_in * s if relayouts.x_rows else 0,
        "x_columns": num_nodes * columns * s if relayouts.x_columns else 0,
        "z1": rows * fan_in * s if relayouts.precomputed else 0,
        "topology": topology,
        "topology_t": 0 if structure.symmetric else topology,
        "labels": 8 * rows + 3 * rows,
        "row_ids": 8 * rows,
        "train_rows": 8 * structure.train_rows[rank],
        "parameters": 4 * shape.num_parameters * s,
    }
    if shape.model.attention:
        # As in partition parallelism: self loops are entries, which backward finds by their place.
        entries = structure.nonzeros + num_nodes
        held["topology"] += 4 * num_nodes
        held["topology_t"] = held["topology"] + 8 * entries
        held["edge_ids"] = 8 * entries if shape.dropout > 0 else 0
    else:
        held["scales"] = {"symmetric": 3, "mean": 1}[shape.model.normalisation] * num_nodes * s
    return held


class Mixture(Approach):
    """Card and plan of `mixture`."""

    name = "mixture"
    title = "Mixture of parallelism (column slices to aggregate, row slices to update)"
    paper = "MixGCN's mixture of parallelism; RDM (IPDPS 2023) redistributes matrices the same way"
    summary = "whole graph on every rank; features re-laid out between columns and rows, no halo"
    exact = True
    attention = True
    runtime = "gnnbench_runtime.approaches.whole_graph.mixture:MixtureTrainer"
    knobs_type = MixtureKnobs

    def problems(self, run: RunSpec) -> list[str]:
        """A stored aggregation cannot serve inputs that are dropped out anew every epoch."""
        if self.knobs(run).precompute and run.model.input_dropout > 0:
            return [
                f"precompute: found true with input_dropout = {run.model.input_dropout} of model "
                f"{run.model.name!r}; allowed: false, or a model with input_dropout = 0"
            ]
        return []

    def skip_reason(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
        """Any number of ranks; only weights that stay can be summed up once and for all."""
        return precompute_problem(run) if run.knobs.get("precompute") else None

    def structure(
        self, graph: GraphLike, run: RunSpec, cache: Path | None = None
    ) -> MixtureStructure:
        """Deal vertices out evenly and contiguously; a profile says as much as the graph."""
        rows = even_split(graph.num_nodes, run.ranks)
        if not isinstance(graph, GraphProfile):
            return MixtureStructure.of_rows(graph, rows)
        return MixtureStructure(
            rows=rows,
            train_rows=even_split(graph.num_train, run.ranks),
            nonzeros=graph.num_edges,
            symmetric=graph.undirected,
            exact=run.ranks == 1,
            basis="closed forms of the profile's counts; training vertices dealt out evenly",
        )

    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: MixtureKnobs = self.knobs(run)
        shape = mixture_shape(graph, run, knobs)
        relayouts = Relayouts.of(shape, ranks=run.ranks, precompute=knobs.precompute)
        rows: tuple[int, ...] = structure.rows
        peers = _Peers(rows, shape.element_bytes)
        ranks = range(len(rows))
        iteration = tuple(
            MixtureSteps(shape, structure, relayouts, peers, rank).epoch() for rank in ranks
        )
        return Plan(
            approach=run.approach,
            world_size=len(rows),
            iterations=(iteration,),
            schedule=(0,) * run.training.epochs,
            iterations_per_epoch=1,
            resident=tuple(resident(shape, structure, relayouts, rank) for rank in ranks),
            exact=structure.exact,
            basis=structure.basis,
            notes={
                "order": shape.orders,
                "relayout_widths": relayouts.widths,
                "relayout_elements": relayouts.epoch_elements(rows),
                "num_parameters": shape.num_parameters,
            },
        )


APPROACH = Mixture()
