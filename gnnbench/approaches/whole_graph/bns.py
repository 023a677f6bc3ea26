"""BNS-GCN: partition parallelism in which a fresh sample of boundary rows travels every epoch.

Volume per epoch over all ranks, weights apart: s sum(k_ij) (Phi + Psi), and 8 sum(k_ij) of ids,
k_ij = floor(p |B_ij|) (fullgraph section 6, FG-32).

Convolutions weigh what arrives, and its gradients, by |B_ij| / k_ij, which makes each sum over
neighbours unbiased. Attention normalises over the neighbours that are there, and no factor on the
rows would undo that: its rows, those of T = H W, travel and return as they are. Rate 1 is exact
for it too; rate 0 attends within the part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import GraphLike, Layout
from gnnbench.approaches.whole_graph.partition import Partition, PartitionStructure
from gnnbench.approaches.whole_graph.rows import (
    RankSizes,
    full_graph_plan,
    rank_steps,
    resident,
    stack_shape,
)
from gnnbench.approaches.writing.stack import Chain, StackShape
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.plan import Iteration, Kind, Lane, Phase, Plan, Step
from gnnbench.spec import RunSpec
from gnnbench.strict import bounds, choices

if TYPE_CHECKING:
    from gnnbench.data.boundary import Boundary

ID_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BnsKnobs:
    """Knobs of `bns`.

    rate: share p of every pair's boundary rows that travels; 1 is `partition`, 0 trains each part
    by itself. Convolutions weigh drawn rows for the ones that were not; attention takes its softmax
    over those that came, as they are. partitioner, objective, order: as in `partition`.
    """

    rate: float = field(default=0.1, metadata=bounds(0, 1))
    partitioner: str = field(default="metis", metadata=choices("metis", "hash", "chunk"))
    objective: str = field(default="vol", metadata=choices("vol", "cut"))
    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileBoundary(PartitionStructure):
    """Sizes of a partition that is not there; `cut_edges` per rank come from other ranks' rows."""

    cut_edges: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSizes:
    """What one rank's sampled graph takes: `whole` has all of the boundary, `drawn` the share."""

    shape: StackShape
    whole: RankSizes
    drawn: RankSizes
    rate: float

    @property
    def columns(self) -> int:
        return self.whole.rows + self.drawn.halo_rows

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry both ways; with attention its place, and with dropout its id."""
        if not self.shape.model.attention:
            return 8
        return 24 if self.shape.dropout > 0 else 16

    @property
    def rebuild_bytes(self) -> int:
        """Bytes that pass when the graph of an epoch is made."""
        return self.entry_bytes * self._entries(self.whole.nonzeros) + 16 * self.columns

    def _entries(self, nonzeros: int) -> int:
        """Entries of a pattern of so many edges: attention has self loops among them."""
        return nonzeros + (self.whole.rows if self.shape.model.attention else 0)

    def held(self, most: int) -> dict[str, int]:
        """Bytes of buffers that serve draws of at most so many edges, so that no epoch allocates.

        Source: fullgraph section 6, Memory: every row of the halo has an id and a place, but only
        the drawn ones have features.
        """
        model, s, whole = self.shape.model, self.shape.element_bytes, self.whole
        topology = 8 * (whole.rows + 1) + 8 * (self.columns + 1)
        held = {
            "x": self.columns * self.shape.dims[0] * s,
            "boundary": 8 * (whole.halo_rows + sum(whole.send_rows)),
            "sampled_topology": topology + self.entry_bytes * self._entries(most),
            "sampled_places": 4 * (whole.rows + whole.halo_rows),
        }
        if model.normalisation == "symmetric" or (model.normalisation == "mean" and self.rate < 1):
            held["sampled_scales"] = (self.columns + whole.halo_rows) * s
        return held


class Bns(Partition):
    """Card and plan of `bns`.

    `max_steps` and `max_rows` bound the epochs that a plan tells apart, by steps written and
    boundary rows drawn; later epochs repeat them, and the plan says so. Only the number of
    entries of the rebuilt graph differs between epochs.
    """

    name = "bns"
    title = "BNS-GCN (boundary node sampling)"
    paper = "Wan et al., BNS-GCN, MLSys 2022"
    summary = "vertices split over ranks; a random share of boundary rows travels, anew each epoch"
    exact = False
    runtime = "gnnbench_runtime.approaches.whole_graph.bns:BnsTrainer"
    knobs_type = BnsKnobs
    attention = True

    def skip_reason(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
        """Any number of ranks; it has none of `partition`'s knobs that need a rule."""
        return None

    max_steps = 60_000
    max_rows = 20_000_000

    def structure(
        self, graph: GraphLike, run: RunSpec, cache: Path | None = None
    ) -> PartitionStructure:
        found = super().structure(graph, run, cache)
        if isinstance(graph, Graph) or run.ranks == 1:
            return found
        knobs: BnsKnobs = self.knobs(run)
        method = knobs.partitioner
        method = f"metis-{knobs.objective}" if method == "metis" else method
        edges, basis = profile_cut(graph, found, method)
        return ProfileBoundary(
            sizes=found.sizes, exact=False, basis=f"{found.basis}; {basis}", cut_edges=edges
        )

    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: BnsKnobs = self.knobs(run)
        sizes: list[RankSizes] = structure.sizes
        plan = full_graph_plan(
            graph, run, sizes, order=knobs.order, exact=structure.exact, basis=structure.basis
        )
        if len(sizes) == 1:
            return plan
        drawn = [drawn_sizes(size, knobs.rate) for size in sizes]
        shape, group = stack_shape(graph, run, knobs.order), tuple(range(len(sizes)))
        samples = [
            SampleSizes(shape=shape, whole=whole, drawn=less, rate=knobs.rate)
            for whole, less in zip(sizes, drawn, strict=True)
        ]
        travels = any(size.halo_rows for size in drawn)

        def iteration(entries: list[int]) -> Iteration:
            return tuple(
                rank_steps(
                    shape,
                    replace(sample.drawn, nonzeros=kept),
                    group,
                    chain=sampling(sample, group) if travels else None,
                    exchanges=travels,
                )
                for sample, kept in zip(samples, entries, strict=True)
            )

        epochs = run.training.epochs
        varies = travels and knobs.rate < 1
        if isinstance(graph, GraphProfile):
            entries = [expected_entries(structure, drawn)]
            most = entries[0]
        else:
            told = self._told_apart(sizes, epochs, len(plan.iterations[0][0])) if varies else 1
            seed, edges = run.training.seed, BoundaryEdges.of(graph, structure)
            entries = list(edges.of_epochs(knobs.rate, seed, told))
            most = edges.most(knobs.rate)
        exact, basis = structure.exact, structure.basis
        if exact and varies and len(entries) < epochs:
            exact, basis = False, f"{basis}; entries of the draws of {len(entries)} epochs"
        lost = never_drawn(sizes, drawn)
        if lost["pairs_never_drawn"]:
            basis += "; {pairs_never_drawn} pairs of ranks, {rows_never_drawn} rows".format(**lost)
            basis += ", are too small to be drawn from"
        return replace(
            plan,
            iterations=tuple(iteration(kept) for kept in entries),
            schedule=tuple(epoch % len(entries) for epoch in range(epochs)),
            resident=tuple(
                resident(shape, sample.whole) | sample.held(edges)
                for sample, edges in zip(samples, most, strict=True)
            ),
            exact=exact,
            basis=basis,
            notes={**plan.notes, "rate": knobs.rate, **lost},
        )

    def _told_apart(self, sizes: list[RankSizes], epochs: int, steps: int) -> int:
        rows = sum(size.halo_rows for size in sizes)
        most = min(self.max_steps // (steps * len(sizes)), self.max_rows // max(rows, 1))
        return max(1, min(epochs, most))


def drawn_sizes(size: RankSizes, rate: float) -> RankSizes:
    """A rank's rows sent and received when every pair's boundary is drawn at a rate."""
    from gnnbench.data.boundary import drawn_rows

    # Among a thousand peers, few counts differ.
    drawn = {rows: drawn_rows(rate, rows) for rows in {*size.send_rows, *size.recv_rows}}
    return replace(
        size,
        send_rows=tuple(drawn[rows] for rows in size.send_rows),
        recv_rows=tuple(drawn[rows] for rows in size.recv_rows),
    )


def expected_entries(structure: ProfileBoundary, drawn: list[RankSizes]) -> list[int]:
    """Entries of every rank's rebuilt graph if each halo row brings as many as any other."""
    return [
        size.nonzeros - round(cut * (1 - less.halo_rows / max(size.halo_rows, 1)))
        for size, less, cut in zip(structure.sizes, drawn, structure.cut_edges, strict=True)
    ]


def never_drawn(sizes: list[RankSizes], drawn: list[RankSizes]) -> dict[str, object]:
    """Pairs whose boundary rounds down to no row: they bias the training (fullgraph section 6)."""
    lost = [
        rows
        for size, less in zip(sizes, drawn, strict=True)
        for rows, kept in zip(size.recv_rows, less.recv_rows, strict=True)
        if rows and not kept
    ]
    return {"pairs_never_drawn": len(lost), "rows_never_drawn": sum(lost)}


@dataclass(frozen=True, slots=True)
class BoundaryEdges:
    """Edges between a rank's own rows, and those that each row of its halo brings."""

    inner: list[int]
    edges: list[NDArray[np.int64]]
    boundaries: list[Boundary]

    @classmethod
    def of(cls, graph: Graph, structure: PartitionStructure) -> BoundaryEdges:
        from gnnbench.data.boundary import Boundary, halo_edges
        from gnnbench.data.halo import halo_structure

        assert structure.assignment is not None
        parts = halo_structure(graph, structure.assignment, len(structure.sizes))
        edges = halo_edges(parts)
        inner = [
            size.nonzeros - int(found.sum())
            for size, found in zip(structure.sizes, edges, strict=True)
        ]
        return cls(inner, edges, [Boundary.of(local) for local in parts.ranks])

    def of_epochs(self, rate: float, seed: int, epochs: int) -> Iterator[list[int]]:
        """Yield, per epoch, the edges of every rank's rebuilt graph."""
        for epoch in range(epochs):
            yield [
                kept + int(found[boundary.draw_received(rate, seed, epoch)].sum())
                for kept, found, boundary in self._ranks()
            ]

    def most(self, rate: float) -> list[int]:
        """Edges of every rank's rebuilt graph when each peer's busiest rows are drawn."""
        return [kept + boundary.most_edges(found, rate) for kept, found, boundary in self._ranks()]

    def _ranks(self) -> Iterator[tuple[int, NDArray[np.int64], Boundary]]:
        return zip(self.inner, self.edges, self.boundaries, strict=True)


def sampling(sample: SampleSizes, group: tuple[int, ...]) -> Chain:
    """Begin an epoch: draw, send the ids, rebuild the graph over what will come."""
    chain, whole, drawn = Chain(), sample.whole, sample.drawn
    given, taken = sum(drawn.send_rows), drawn.halo_rows
    chain.add(
        Step(
            name="sample/draw", kind=Kind.SAMPLE, op="sample", lane=Lane.COMPUTE,
            phase=Phase.SAMPLE, rows=sum(whole.send_rows), nonzeros=given,
            source_rows=sum(whole.send_rows), bytes=2 * ID_BYTES * sum(whole.send_rows),
        )
    )  # fmt: skip
    chain.add(
        Step(
            name="sample/ids", kind=Kind.ALL_TO_ALL, op="all_to_all", lane=Lane.COMM,
            phase=Phase.SAMPLE, rows=given, width=1, bytes=ID_BYTES * given, group=group,
            send_bytes=tuple(ID_BYTES * rows for rows in drawn.send_rows),
            buffer_bytes=ID_BYTES * max(given, taken),
        )
    )  # fmt: skip
    chain.add(
        Step(
            name="sample/rebuild", kind=Kind.SAMPLE, op="prepare_blocks", lane=Lane.COMPUTE,
            phase=Phase.SAMPLE, rows=whole.rows, nonzeros=whole.nonzeros,
            source_rows=sample.columns, bytes=sample.rebuild_bytes,
        )
    )  # fmt: skip
    return chain


def profile_cut(
    profile: GraphProfile, structure: PartitionStructure, method: str
) -> tuple[tuple[int, ...], str]:
    """Edges of each rank that come from its halo, and what the number rests on.

    Edges per halo row are taken from the nearest measured partition that says so, else as random
    owners have them. Deviation known: METIS's own lie within a factor of 2.3 of that (coauthors,
    workers, pages; 2 to 32 parts), below it in few parts and above it in many.
    """
    parts = len(structure.sizes)
    known = [
        p for p in profile.halo
        if p.method == method and p.cut_fraction is not None and p.halo_per_node > 0
    ]  # fmt: skip
    near = min(known, key=lambda p: abs(np.log(p.parts / parts)), default=None)
    if near is not None and near.cut_fraction is not None:
        cut, copies, basis = near.cut_fraction, near.halo_per_node, f"as in {near.parts} parts"
    else:
        cut, copies = 1 - 1 / parts, profile.expected_halo(parts, "hash")[0].halo_per_node
        basis = "as of random owners"
    per_row = cut * profile.num_edges / max(copies * profile.num_nodes, 1)
    edges = [min(s.nonzeros, round(per_row * s.halo_rows)) for s in structure.sizes]
    return tuple(edges), f"{per_row:.3g} edges per halo row {basis}"


APPROACH = Bns()
