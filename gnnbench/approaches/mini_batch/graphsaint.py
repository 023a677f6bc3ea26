"""GraphSAINT: batches are sampled subgraphs, normalised by counts of subgraphs sampled beforehand.

A sum over neighbours in a subgraph is weighted by C_v / C_uv, v the target, and the loss of v by
R / (N_t C_v): over subgraphs, sums and loss have the full ones as their means, up to the error of
the counts, which falls with `coverage`. The counts are made once, before training, and that time is
reported as preparation.

Several subgraphs make a global batch, so that ranks have one each; their losses are averaged.
Gradients and features travel as in `sampled`.

Source: Zeng et al., ICLR 2020; sampling reference section 8, invariant SA-S10.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import GraphLike, Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise
from gnnbench.approaches.mini_batch.base import MiniBatch
from gnnbench.approaches.mini_batch.batch import BatchSizes, Form, even_batch
from gnnbench.approaches.mini_batch.writer import BatchKnobs
from gnnbench.approaches.whole_graph.partition import cached_array
from gnnbench.data.expected import saint_subgraph
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.data.saint import (
    NodeSampler,
    SaintSource,
    VertexSampler,
    WalkSampler,
    WholeGraph,
    presampled,
)
from gnnbench.data.sampling import split_seeds
from gnnbench.data.source import content_digest
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer
from gnnbench.strict import bounds, choices

PROBED_BATCHES, PROBED_COVERAGE = 20, 3
"""Batches of an epoch of a probe, at most, and how often it samples a vertex beforehand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaintKnobs(BatchKnobs):
    """Knobs of `graphsaint`.

    Args:
        sampler: walk, node, edge, or whole (every vertex: the limit, for checks).
        budget: roots of walks, drawn vertices or drawn edges of a subgraph.
        walk_length: steps of a walk.
        coverage: how often each vertex is sampled beforehand on average, for the counts.
        subgraphs: subgraphs of a global batch; 0 is one per rank.

    The others are those of every approach that trains on batches.
    """

    sampler: str = field(default="walk", metadata=choices("walk", "node", "edge", "whole"))
    budget: int = field(default=2000, metadata=bounds(1, 2**31 - 1))
    walk_length: int = field(default=2, metadata=bounds(1, 1000))
    coverage: int = field(default=50, metadata=bounds(1, 1_000_000))
    subgraphs: int = field(default=0, metadata=bounds(0, 1_000_000))


class GraphSaint(MiniBatch):
    """Card and source of `graphsaint`."""

    name = "graphsaint"
    title = "GraphSAINT"
    paper = "Zeng et al., GraphSAINT, ICLR 2020"
    summary = "batches of sampled subgraphs, their sums and losses normalised to be unbiased"
    promise = Promise(
        kind="unbiased",
        text="Over subgraphs, the sum over a vertex's neighbours and the loss have the full ones "
        "as their means, up to the error of counts made beforehand.",
        limit={"sampler": "whole", "coverage": 1},
        unbiased_with={"coverage": 2000},
    )
    accepts = Accepts(
        no_attention="weights of sampled edges make sums unbiased, and a softmax is no sum",
    )
    look = Look(colour="#CC79A7", marker="h")
    knobs_type = SaintKnobs
    form = Form(
        op="sample_saint", one_block=True, edge_weights=True, some_rows=True, loss_weights=True
    )
    estimate_basis = "subgraphs estimated from degrees of profile {name}"

    def examples(self) -> list[RunSpec]:
        quick = {"coverage": 1}
        return [
            example("graphsaint", 1, knobs={**quick, "budget": 8}),
            example(
                "graphsaint",
                3,
                model={"kind": "sage", "dropout": 0.3},
                knobs={**quick, "sampler": "node", "budget": 30},
            ),
            example(
                "graphsaint",
                knobs={
                    **quick,
                    "sampler": "edge",
                    "budget": 15,
                    "subgraphs": 3,
                    "placement": "partitioned",
                    "prefetch": 1,
                },
            ),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """Every sampler, with at least as many draws as the batch has seeds."""
        sampler = ("walk", "node", "edge")[probe.number % 3]
        budget = max(probe.run.batch.size, probe.num_nodes // PROBED_BATCHES)
        knobs = {"sampler": sampler, "budget": budget, "coverage": PROBED_COVERAGE}
        return [dataclasses.replace(probe.run, approach=self.name, ranks=1, knobs=knobs)]

    def subgraphs(self, run: RunSpec) -> int:
        """Subgraphs of a global batch."""
        found: int = self.knobs(run).subgraphs
        return found or run.ranks

    def num_steps(self, data: GraphLike, run: RunSpec) -> int:
        """An epoch samples about as many vertices as the graph has."""
        knobs: SaintKnobs = self.knobs(run)
        per_draw = {"node": 1, "edge": 2, "walk": knobs.walk_length + 1}
        most = (
            data.num_nodes if knobs.sampler == "whole" else per_draw[knobs.sampler] * knobs.budget
        )
        return max(1, -(-data.num_nodes // max(most * self.subgraphs(run), 1)))

    def sampler(self, graph: Graph, run: RunSpec) -> VertexSampler:
        """What draws the vertices of a subgraph."""
        knobs: SaintKnobs = self.knobs(run)
        if knobs.sampler == "whole":
            return WholeGraph(graph)
        if knobs.sampler == "node":
            return NodeSampler(graph, knobs.budget)
        edges = knobs.sampler == "edge"
        length = 1 if edges else knobs.walk_length
        return WalkSampler(graph, knobs.budget, length, edges=edges)

    def prepared(self, graph: Graph, run: RunSpec, cache: Path | None = None) -> NDArray[Any]:
        """Counts of subgraphs sampled beforehand."""
        knobs: SaintKnobs = self.knobs(run)
        seed = run.training.seed
        key = (
            graph.digest or content_digest(graph),
            knobs.sampler,
            knobs.budget,
            knobs.walk_length,
            knobs.coverage,
            seed,
        )
        return cached_array(
            cache,
            "saint",
            key,
            lambda: presampled(graph, self.sampler(graph, run), knobs.coverage, seed),
        )

    def source(
        self, graph: Graph, run: RunSpec, prepared: NDArray[Any] | None, *, threads: int = 1
    ) -> SaintSource:
        assert prepared is not None
        return SaintSource(
            graph,
            self.sampler(graph, run),
            prepared,
            steps=self.num_steps(graph, run),
            subgraphs=self.subgraphs(run),
            seed=run.training.seed,
            threads=threads,
        )

    def estimate(self, profile: GraphProfile, run: RunSpec, *, partitioned: bool) -> BatchSizes:
        """From degrees alone: vertices by their chance per draw, edges taken and by chance."""
        knobs: SaintKnobs = self.knobs(run)
        n, e, scanned = saint_subgraph(
            *profile.histogram(),
            knobs.sampler,
            knobs.budget,
            knobs.walk_length,
            undirected=profile.undirected,
        )
        groups = np.arange(self.subgraphs(run))
        mine = np.array([len(split_seeds(groups, run.ranks, r)) for r in range(run.ranks)])
        return even_batch(
            run.ranks,
            (n * mine, n * mine),
            (e * mine,),
            loss_rows=n * mine * profile.num_train / max(profile.num_nodes, 1),
            scanned=scanned * mine,
            partitioned=partitioned,
        )

    def sampler_buffers(self, data: GraphLike, run: RunSpec) -> tuple[Buffer, ...]:
        """Counts, marks of training vertices, and what a sampler draws by."""
        per_vertex = {"node": 8, "edge": 8, "walk": 0, "whole": 8}[self.knobs(run).sampler] + 1
        counts = 4 * (1 + data.num_nodes + data.num_edges)
        return Buffer("counts", counts), Buffer("sampler_tables", per_vertex * data.num_nodes)


APPROACH = GraphSaint()
