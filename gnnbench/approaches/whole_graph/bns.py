"""BNS-GCN: partition parallelism that exchanges a new random sample of halo rows in every epoch.

Closed forms, per epoch over all ranks (B_ij: rows of rank j that rank i needs, of which
k_ij = floor(p |B_ij|) are drawn; s, Phi and Psi as in `partition`, whose gradients are added):

    halo   s sum(k_ij) (Phi + Psi)  (FG-32)
    ids    8 sum(k_ij)

Convolutions multiply received rows, and their gradients, by |B_ij| / k_ij, which makes each sum
over neighbours unbiased. For attention the softmax runs over the sampled neighbours only, which no
factor on the rows can correct: the exchanged rows T = H W and their gradients are not weighted.
Rate 1 is exact for attention too; with rate 0 attention stays within the part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench import work
from gnnbench.approaches.base import GraphLike, Layout, example
from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.approaches.whole_graph.partition import (
    Partitioned,
    PartitionStructure,
    method_name,
)
from gnnbench.approaches.whole_graph.rows import (
    Options,
    RowSizes,
    buffers,
    resident,
    row_halo,
    row_iteration,
    row_layer,
    row_plan,
)
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.evaluating import (
    ANSWER_BYTES,
    EvaluationWriter,
    reads_own_rows,
)
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data.boundary import Boundary, drawn_rows, halo_edges
from gnnbench.data.graph import Graph
from gnnbench.data.halo import halo_structure
from gnnbench.data.profile import GraphProfile
from gnnbench.iterations import Iteration, LazyIterations
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer, Ints, Lane, Phase, Size, Work
from gnnbench.strict import bounds, choices

ID_BYTES = work.ID_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class BnsKnobs:
    """Knobs of `bns`.

    Args:
        rate: share p of the boundary rows of each pair of ranks that is sent, drawn at random in
            every epoch. 1 is `partition`; 0 trains each part alone. Convolutions scale the sampled
            rows by 1/p. For attention the softmax runs over the sampled neighbours only, without
            reweighting.
        partitioner: how vertices are assigned to ranks.
        objective: what METIS minimises: communication volume (vol) or edge cut (cut).
        order: which product of a layer comes first; min_width aggregates at the smaller of the
            layer's two widths.
    """

    rate: float = field(default=0.1, metadata=bounds(0, 1))
    partitioner: str = field(default="metis", metadata=choices("metis", "fennel", "hash", "chunk"))
    objective: str = field(default="vol", metadata=choices("vol", "cut"))
    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProfileBoundary(PartitionStructure):
    """Estimated sizes of a partition; `cut_edges` of a rank have their source on another rank."""

    cut_edges: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleSizes:
    """Sizes with the whole boundary (`whole`) and with the sampled share of it (`drawn`).

    Sizes are those of all ranks, or of one (integers).
    """

    shape: StackShape
    rows: Size
    nonzeros: Size
    whole_sent: Size
    whole_received: Size
    sent: Size
    received: Size
    rate: float

    @classmethod
    def of(cls, shape: StackShape, whole: RowSizes, rate: float) -> SampleSizes:
        """All ranks."""
        drawn = drawn_sizes(whole, rate)
        return cls(
            shape=shape,
            rows=whole.rows,
            nonzeros=whole.nonzeros,
            whole_sent=whole.sent_rows,
            whole_received=whole.halo_rows,
            sent=drawn.sent_rows,
            received=drawn.halo_rows,
            rate=rate,
        )

    @property
    def columns(self) -> Size:
        return self.rows + self.received

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry both ways; with attention its place, and with dropout its id."""
        if not self.shape.model.attention:
            return 8
        return 24 if self.shape.dropout > 0 else 16

    def draw_work(self) -> Work:
        """Choose the rows to send: a key per boundary row."""
        rows, read = self.whole_sent, 2 * ID_BYTES * self.whole_sent
        return work.sample(seeds=rows, edges=self.sent, vertices=rows, read=read)

    def rebuild_work(self) -> Work:
        """Make the graph of an epoch over the rows that will arrive."""
        read = self.entry_bytes * self._entries(self.nonzeros) + 16 * self.columns
        return work.sample(
            seeds=self.rows,
            edges=self.nonzeros,
            vertices=self.columns,
            read=read,
            op="prepare_blocks",
        )

    def _entries(self, nonzeros: Size) -> Size:
        """Entries of a pattern with this many edges; attention adds self loops."""
        return nonzeros + (self.rows if self.shape.model.attention else 0)

    def held(self, most: Size) -> tuple[Buffer, ...]:
        """Buffers for draws of at most this many edges, so that no epoch allocates.

        Source: fullgraph section 6, Memory: every row of the halo has an id and a place, but only
        the drawn ones have features.
        """
        model, s = self.shape.model, self.shape.element_bytes
        topology = 8 * (self.rows + 1) + 8 * (self.columns + 1)
        held = {
            "boundary": 8 * (self.whole_received + self.whole_sent),
            "sampled_topology": topology + self.entry_bytes * self._entries(most),
            "sampled_places": 4 * (self.rows + self.whole_received),
        }
        if model.normalisation == "symmetric" or (model.normalisation == "mean" and self.rate < 1):
            # Degrees of the sampled graph change in every epoch; fixed scales would be wrong.
            held["sampled_scales"] = (self.columns + self.whole_received) * s
        return buffers(held)


class Bns(Partitioned):
    """Card and plan of `bns`.

    A plan draws epochs until `max_rows` boundary rows are drawn; later epochs repeat the drawn
    ones, and a note of the plan states it. Epochs differ only in the number of nonzeros of the
    rebuilt graph.
    """

    name = "bns"
    title = "BNS-GCN (boundary node sampling)"
    paper = "Wan et al., BNS-GCN, MLSys 2022"
    summary = "partitions; each epoch exchanges another random sample of the halo rows"
    promise = Promise(
        kind="unbiased",
        text="With convolutions, the expected sum over a vertex's neighbours is the exact sum.",
        limit={"rate": 1.0},
    )
    accepts = Accepts(attention=True)
    look = Look(colour="#56B4E9", marker="v")
    published = (Published(names=r"^bns-gcn", recipe="gnnbench.published.recipes:bns"),)
    knobs_type = BnsKnobs
    runtime = "gnnbench_runtime.approaches.whole_graph.bns:BnsTrainer"
    max_rows = 20_000_000

    def examples(self) -> list[RunSpec]:
        return [
            example("bns", knobs={"rate": 0.5}),
            example("bns", 3, model={"kind": "sage", "layers": 3}, knobs={"rate": 0.3}),
            example("bns", model={"kind": "gat", "heads": 2, "dropout": 0.5}, knobs={"rate": 0.5}),
        ]

    def structure(
        self, data: GraphLike, run: RunSpec, cache: Path | None = None
    ) -> PartitionStructure:
        found = super().structure(data, run, cache)
        # On the real graph the edges are counted from the draws themselves, see `BoundaryEdges`.
        if isinstance(data, Graph) or run.ranks == 1:
            return found
        edges, basis = profile_cut(data, found, method_name(self.knobs(run)))
        return ProfileBoundary(
            sizes=found.sizes, counted=False, basis=f"{found.basis}; {basis}", cut_edges=edges
        )

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: BnsKnobs = self.knobs(run)
        sizes: RowSizes = structure.sizes
        options, epochs = Options(order=knobs.order), run.training.epochs
        plan = row_plan(data, run, sizes, options, counted=structure.counted, basis=structure.basis)
        # Without a boundary this is `partition`, and draws nothing.
        if sizes.world_size == 1:
            return plan
        drawn, shape = drawn_sizes(sizes, knobs.rate), stack_shape(data, run, knobs.order)
        sample = SampleSizes.of(shape, sizes, knobs.rate)
        travels = bool(drawn.received.any())
        entries, most = self._entries(data, run, structure, drawn, travels=travels)

        def iteration(number: int) -> Iteration:
            return row_iteration(
                shape,
                replace(drawn, nonzeros=entries[number]),
                options,
                chain=sampling(sample, drawn) if travels else None,
                exchanges=travels,
            )

        counted, basis = structure.counted, structure.basis
        if counted and travels and knobs.rate < 1 and len(entries) < epochs:
            # Later epochs draw other rows, so repeated sizes are an estimate.
            counted, basis = False, f"{basis}; entries of the draws of {len(entries)} epochs"
        lost = never_drawn(sizes, drawn)
        if lost["pairs_never_drawn"]:
            basis += "; {pairs_never_drawn} pairs of ranks, {rows_never_drawn} rows".format(**lost)
            basis += ", are too small to be drawn from"
        s, width = shape.element_bytes, shape.dims[0]
        return replace(
            plan,
            iterations=LazyIterations(len(entries), iteration),
            schedule=tuple(epoch % len(entries) for epoch in range(epochs)),
            # The input has room for the drawn rows, in place of `partition`'s for all of the halo.
            resident=tuple(b for b in resident(shape, sizes) if b.name != "x")
            + buffers({"x": sample.columns * width * s})
            + sample.held(most),
            evaluation=LazyIterations(1, lambda _: exact_evaluation(shape, sizes)),
            counted=counted,
            basis=basis,
            counted_periods=len(entries) if structure.counted else 0,
            notes={**plan.notes, "rate": knobs.rate, **lost},
        )

    def _entries(
        self,
        data: GraphLike,
        run: RunSpec,
        structure: PartitionStructure,
        drawn: RowSizes,
        *,
        travels: bool,
    ) -> tuple[list[Ints], Ints]:
        """Entries of every rank's rebuilt graph, for each epoch that is drawn; and the most."""
        rate = float(self.knobs(run).rate)
        if isinstance(data, GraphProfile):
            assert isinstance(structure, ProfileBoundary)
            expected = expected_entries(structure, drawn)
            return [expected], expected
        epochs = 1
        if travels and rate < 1:
            rows = int(structure.sizes.received.sum())
            # Drawing costs time in proportion to the boundary: a large one is drawn for fewer
            # epochs.
            epochs = max(1, min(run.training.epochs, self.max_rows // max(rows, 1)))
        edges = BoundaryEdges.of(data, structure)
        return list(edges.of_epochs(rate, run.training.seed, epochs)), edges.most(rate)


def exact_evaluation(shape: StackShape, sizes: RowSizes) -> Iteration:
    """An evaluation on the whole halo, in buffers that training does not have."""
    writer = EvaluationWriter(sizes.world_size)
    if not reads_own_rows(shape, sizes.world_size):
        columns = sizes.rows + sizes.halo_rows
        writer.step("features", {"x": columns * shape.dims[0] * shape.element_bytes})
    layers = [row_layer(sizes)] * shape.num_layers
    writer.forward(shape, layers, row_halo(sizes, Options(order="")))
    writer.step("answers", {"answers": ANSWER_BYTES * sizes.rows})
    return writer.iteration()


def drawn_sizes(sizes: RowSizes, rate: float) -> RowSizes:
    """Rows sent and received when every pair's boundary is drawn at a rate."""
    # Among a thousand peers, few counts differ.
    counts, places = np.unique(sizes.received, return_inverse=True)
    drawn = np.array([drawn_rows(rate, int(rows)) for rows in counts], np.int64)
    return replace(sizes, received=drawn[places].reshape(sizes.received.shape))


def expected_entries(structure: ProfileBoundary, drawn: RowSizes) -> Ints:
    """Entries of every rank's rebuilt graph if all halo rows have equally many edges."""
    sizes = structure.sizes
    # A halo row that is not drawn takes its edges away; the own part keeps all of its edges.
    lost = structure.cut_edges * (1 - drawn.halo_rows / np.maximum(sizes.halo_rows, 1))
    return np.asarray(sizes.nonzeros - np.round(lost).astype(np.int64))


def never_drawn(sizes: RowSizes, drawn: RowSizes) -> dict[str, object]:
    """Pairs whose boundary rounds down to no row: they bias the training (fullgraph section 6)."""
    lost = sizes.received[(sizes.received > 0) & (drawn.received == 0)]
    return {"pairs_never_drawn": len(lost), "rows_never_drawn": int(lost.sum())}


@dataclass(frozen=True, slots=True)
class BoundaryEdges:
    """Edges between a rank's own rows, and those that each row of its halo brings."""

    inner: list[int]
    edges: list[NDArray[np.int64]]
    boundaries: list[Boundary]

    @classmethod
    def of(cls, graph: Graph, structure: PartitionStructure) -> BoundaryEdges:
        assert structure.assignment is not None
        parts = halo_structure(graph, structure.assignment, structure.sizes.world_size)
        edges = halo_edges(parts)
        inner = [
            nonzeros - int(found.sum())
            for nonzeros, found in zip(structure.sizes.nonzeros.tolist(), edges, strict=True)
        ]
        return cls(inner, edges, [Boundary.of(local) for local in parts.ranks])

    def of_epochs(self, rate: float, seed: int, epochs: int) -> Iterator[Ints]:
        """Yield, per epoch, the edges of every rank's rebuilt graph, int64 [P]."""
        for epoch in range(epochs):
            yield np.array(
                [
                    kept + int(found[boundary.draw_received(rate, seed, epoch)].sum())
                    for kept, found, boundary in self._ranks()
                ]
            )

    def most(self, rate: float) -> Ints:
        """Edges of every rank's rebuilt graph when each peer's busiest rows are drawn."""
        return np.array(
            [kept + boundary.most_edges(found, rate) for kept, found, boundary in self._ranks()]
        )

    def _ranks(self) -> Iterator[tuple[int, NDArray[np.int64], Boundary]]:
        return zip(self.inner, self.edges, self.boundaries, strict=True)


def sampling(sample: SampleSizes, drawn: RowSizes) -> Chain:
    """Begin an epoch: draw rows, send their ids, rebuild the graph over the rows to be received."""
    chain = Chain()
    chain.step("sample/draw", sample.draw_work(), phase=Phase.SAMPLE)
    ids = work.all_to_all(drawn.sent, drawn.halo_rows, ID_BYTES, width=1)
    group = tuple(range(drawn.world_size))
    chain.step("sample/ids", ids, phase=Phase.SAMPLE, lane=Lane.COMM, group=group)
    chain.step("sample/rebuild", sample.rebuild_work(), phase=Phase.SAMPLE)
    return chain


def profile_cut(
    profile: GraphProfile, structure: PartitionStructure, method: str
) -> tuple[Ints, str]:
    """Edges of each rank whose source is a halo row, and the source of the number.

    Edges per halo row are those of the nearest measured partition that states them, else the
    expectation for random owners. Deviation known: METIS partitions are within a factor of 2.3 of
    that expectation (coauthors, workers, pages; 2 to 32 parts), below it for few parts and above
    it for many.
    """
    sizes = structure.sizes
    parts = sizes.world_size
    # Edges per halo row need both numbers; some measured partitions state only one.
    known = [
        p
        for p in profile.halo
        if p.method == method and p.cut_fraction is not None and p.halo_per_node > 0
    ]
    near = min(known, key=lambda p: abs(np.log(p.parts / parts)), default=None)
    if near is not None and near.cut_fraction is not None:
        cut, copies, basis = near.cut_fraction, near.halo_per_node, f"as in {near.parts} parts"
    else:
        cut, copies = 1 - 1 / parts, profile.expected_halo(parts, "hash")[0].halo_per_node
        basis = "as of random owners"
    per_row = cut * profile.num_edges / max(copies * profile.num_nodes, 1)
    edges = np.minimum(sizes.nonzeros, np.round(per_row * sizes.halo_rows).astype(np.int64))
    return edges, f"{per_row:.3g} edges per halo row {basis}"


APPROACH = Bns()
