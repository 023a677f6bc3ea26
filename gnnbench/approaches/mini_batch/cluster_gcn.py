"""Cluster-GCN: batches are random clusters of a partition, merged.

A batch is the subgraph of its clusters' vertices, edges between its clusters included, its
adjacency normalised anew. Edges to other batches are dropped, so gradients are biased; with all
clusters in one batch it is full-graph training. The clusters are made once, before training (METIS,
edge cut), and that time is reported as preparation.

Deviation from the paper: no diagonal enhancement. Several subgraphs make a global batch, so that
ranks have one each. Gradients and features travel as in `sampled`.

Source: Chiang et al., KDD 2019; sampling reference section 7, invariants SA-S4, SA-S9.
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
from gnnbench.approaches.whole_graph.partition import assign
from gnnbench.data.expected import expected_within
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.data.sampling import split_seeds
from gnnbench.data.subgraphs import ClusterSource, cluster_steps
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer
from gnnbench.strict import bounds

PROBED_BATCHES = 6
"""Batches of an epoch of a probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterKnobs(BatchKnobs):
    """Knobs of `cluster-gcn`.

    Args:
        clusters: number c of clusters.
        merged: number q of clusters in a subgraph.
        subgraphs: subgraphs of a global batch; 0 is one per rank.

    The others are those of every approach that trains on batches.
    """

    clusters: int = field(default=1500, metadata=bounds(1, 2**31 - 1))
    merged: int = field(default=20, metadata=bounds(1, 2**31 - 1))
    subgraphs: int = field(default=0, metadata=bounds(0, 1_000_000))


class ClusterGcn(MiniBatch):
    """Card and source of `cluster-gcn`."""

    name = "cluster-gcn"
    title = "Cluster-GCN"
    paper = "Chiang et al., Cluster-GCN, KDD 2019"
    summary = "batches of merged METIS clusters, with the edges among them"
    promise = Promise(
        kind="own",
        text="Every training vertex is in one batch per epoch, whose edges are those of the graph "
        "between its vertices; with all clusters in one batch it is full-graph training.",
        limit={"merged": 2**31 - 1},
    )
    accepts = Accepts(attention=True)
    look = Look(colour="#CC79A7", marker="s")
    knobs_type = ClusterKnobs
    form = Form(op="sample_subgraph", one_block=True, renormalised=True, some_rows=True)
    estimate_basis = "sizes of clusters by the edge cut of profile {name}"

    def examples(self) -> list[RunSpec]:
        few = {"clusters": 9, "merged": 2}
        return [
            example("cluster-gcn", 1, knobs=few),
            example("cluster-gcn", 3, model={"kind": "sage", "norm": "layer"}, knobs=few),
            example("cluster-gcn", knobs={**few, "placement": "partitioned", "prefetch": 1}),
            example(
                "cluster-gcn",
                model={"kind": "gat", "heads": 2, "dropout": 0.3},
                knobs={**few, "subgraphs": 3},
            ),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """A sixth of the graph per batch, in one to sixteen clusters."""
        merged = 4 ** (probe.number % 3)
        knobs = {"clusters": PROBED_BATCHES * merged, "merged": merged}
        return [dataclasses.replace(probe.run, approach=self.name, ranks=1, knobs=knobs)]

    def clusters(self, data: GraphLike, run: RunSpec) -> int:
        """Clusters of a run: no more than there are vertices."""
        wanted: int = self.knobs(run).clusters
        return max(1, min(wanted, data.num_nodes))

    def subgraphs(self, run: RunSpec) -> int:
        """Subgraphs of a global batch."""
        found: int = self.knobs(run).subgraphs
        return found or run.ranks

    def num_steps(self, data: GraphLike, run: RunSpec) -> int:
        merged = self.knobs(run).merged
        return cluster_steps(self.clusters(data, run), merged, self.subgraphs(run))

    def prepared(self, graph: Graph, run: RunSpec, cache: Path | None = None) -> NDArray[Any]:
        """The cluster of each vertex, int32 [N]."""
        # A partition into as many parts as a run of so many ranks would have.
        parts = dataclasses.replace(run, ranks=self.clusters(graph, run))
        return assign(graph, parts, "metis", "cut", cache)

    def source(
        self, graph: Graph, run: RunSpec, prepared: NDArray[Any] | None, *, threads: int = 1
    ) -> ClusterSource:
        assert prepared is not None
        return ClusterSource(
            graph,
            prepared,
            count=self.clusters(graph, run),
            merged=self.knobs(run).merged,
            subgraphs=self.subgraphs(run),
            seed=run.training.seed,
            threads=threads,
        )

    def estimate(self, profile: GraphProfile, run: RunSpec, *, partitioned: bool) -> BatchSizes:
        """Even clusters; edges within them, and between those that a subgraph merges."""
        count, groups = self.clusters(profile, run), self.subgraphs(run)
        merged = min(self.knobs(run).merged, count)
        points = [
            (point.parts, point.cut_fraction)
            for method in ("metis-vol", "metis-cut")
            for point in profile.halo
            if point.method == method and point.cut_fraction is not None
        ]
        within = expected_within(count, points)
        kept = within + (1 - within) * (merged - 1) / max(count - 1, 1)
        # The last batch of an epoch may have fewer subgraphs; this one is the mean of all.
        groups = min(groups, -(-count // merged))
        mine = [len(split_seeds(np.arange(groups), run.ranks, r)) for r in range(run.ranks)]
        share = np.array(mine) / (groups * self.num_steps(profile, run))
        n, e = profile.num_nodes * share, profile.num_edges * share
        return even_batch(
            run.ranks,
            (n, n),
            (e * kept,),
            loss_rows=profile.num_train * share,
            scanned=e,
            partitioned=partitioned,
        )

    def sampler_buffers(self, data: GraphLike, run: RunSpec) -> tuple[Buffer, ...]:
        """Clusters, their members, marks of training vertices."""
        return (Buffer("clusters", (4 + 8 + 1) * data.num_nodes),)


APPROACH = ClusterGcn()
