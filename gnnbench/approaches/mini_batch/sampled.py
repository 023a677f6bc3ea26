"""Node-wise neighbour sampling, data parallel; features replicated, partitioned or on the host.

Computation graph `per_layer` (sampling section 2): in every hop each destination is sampled again,
seeds included. Each rank takes an even slice of the global batch. With `samplers`, some ranks only
draw batches and send them to the others (`roles`).

Closed forms, per batch and rank (P ranks, theta parameters, s bytes per element, f features):

    gradients              floor(2 (P - 1) S / P) with S = (theta + 1) s, the ring all-reduce
    replicated features    nothing
    partitioned features   8 (P - 1) of counts; 8 per input row that another rank owns; f s per
                           input row of another rank that this one owns
    host features          f s per input row, from the host to the device

A cache on the device takes the rows that it holds out of the last two.

With k samplers, P counts the other ranks. A batch of n_0 ... n_L vertices and e_1 ... e_L edges is
sent once, as 8 (2 L + 2) of sizes and `work.message_bytes` of blocks; 8 return as its credit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import GraphLike, Layout, Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.approaches.mini_batch.base import BatchStructure, MiniBatch
from gnnbench.approaches.mini_batch.batch import (
    BatchSizes,
    Form,
    even_batch,
    with_cache,
)
from gnnbench.approaches.mini_batch.caches import NONE, PLANNED, POLICIES, RowCache, Scores
from gnnbench.approaches.mini_batch.fetching import HOST, Store
from gnnbench.approaches.mini_batch.patterns import drawn_bytes
from gnnbench.approaches.mini_batch.role_writer import role_plan
from gnnbench.approaches.mini_batch.roles import Roles
from gnnbench.approaches.mini_batch.sampled_examples import (
    FEW,
    cached_examples,
    disaggregated_examples,
)
from gnnbench.approaches.mini_batch.writer import BatchKnobs
from gnnbench.data import sampling
from gnnbench.data.caching import capacity_of
from gnnbench.data.dealing import SeedSource
from gnnbench.data.expected import drawn_by_lot, drawn_frontier
from gnnbench.data.expected_hits import hits_of
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.data.weighted import WeightedSampler
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer, Space
from gnnbench.strict import bounds, choices


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledKnobs(BatchKnobs):
    """Knobs of `sampled`.

    Args:
        weights: none draws neighbours uniformly; degree draws them in proportion to their
            out-degree; edges in proportion to the weight of the edge, on a graph that has edge
            weights. Sums over drawn neighbours are weighted so that they stay unbiased.
        replacement: whether a neighbour can be drawn several times.
        placement: replicated keeps all features on every rank's device; partitioned keeps them on
            their owner, from which they are fetched by all-to-all; host keeps them in the host's
            memory, from which the rows of a batch are gathered and copied to the device.
        cache_policy: rows that a rank keeps on its device although they lie on the host or with
            other owners: those with most out-edges (degree), drawn most often beforehand
            (presampling), most likely to be drawn (inclusion), used last (lru), or used again
            soonest (planned).
        cache_share: rows of a rank's cache, as a share of all vertices.
        presample: epochs that are drawn beforehand, for the policy presampling.
        lookahead: batches that are drawn before their turn, so that the policy planned knows the
            rows they use.
        samplers: ranks that only draw batches and send them; the other ranks train. 0: every rank
            draws its own. Batches and results are those of as many ranks as train.
        queue: batches of a sampler that are drawn and not yet received, at most.

    The others are those of every approach that trains on batches.
    """

    weights: str = field(default="none", metadata=choices("none", "degree", "edges"))
    replacement: bool = False
    placement: str = field(
        default="replicated", metadata=choices("replicated", "partitioned", HOST)
    )
    cache_policy: str = field(default=NONE, metadata=choices(*POLICIES))
    cache_share: float = field(default=0.1, metadata=bounds(0, 1))
    presample: int = field(default=1, metadata=bounds(1, 64))
    lookahead: int = field(default=32, metadata=bounds(0, 1_000_000))
    samplers: int = field(default=0, metadata=bounds(0, 1_000_000))
    queue: int = field(default=2, metadata=bounds(1, 64))


class SeedBatches(MiniBatch):
    """Batches that grow from seeds: training vertices, each once an epoch."""

    def num_steps(self, data: GraphLike, run: RunSpec) -> int:
        return max(1, sampling.steps(data.num_train, run.batch.size))

    def share(self, profile: GraphProfile, run: RunSpec) -> int:
        """Seeds of a rank."""
        return max(1, min(run.batch.size, profile.num_train) // run.ranks)


class FanOuts(SeedBatches):
    """Batches drawn with a fan-out per layer."""

    def problems(self, run: RunSpec) -> list[str]:
        """One fan-out per layer."""
        fanouts = run.batch.fanouts_from_seeds
        lines = []
        if 0 in fanouts:
            lines.append(f"batch.fanouts_from_seeds: found {list(fanouts)}, and 0 draws nothing")
        if fanouts and len(fanouts) != run.model.layers:
            lines.append(
                f"batch.fanouts_from_seeds: found {len(fanouts)} fan-outs for the "
                f"{run.model.layers} layers of model {run.model.name}; give one per layer"
            )
        return lines


class Sampled(FanOuts):
    """Card and plan of `sampled`."""

    name = "sampled"
    title = "Neighbour sampling, data parallel"
    paper = "Hamilton, Ying and Leskovec, NeurIPS 2017; Zheng et al., DistDGL, IA3 2020"
    summary = "mini-batches of sampled neighbourhoods, gradients averaged over ranks"
    promise = Promise(
        kind="unbiased",
        text="With convolutions, the expected sum over a vertex's neighbours is the exact sum; "
        "the batches are the same for any number of ranks, whether they draw their own or some "
        "ranks sample for others.",
        limit_batch={"size": 1_000_000, "fanouts_from_seeds": (-1,)},
    )
    accepts = Accepts(attention=True, batch=True)
    look = Look(colour="#D55E00", marker="^")
    published: ClassVar[tuple[Published, ...]] = (
        Published(names=r"^(distdgl|dgl(?! mmap))\b", recipe="gnnbench.published.mini_batches:dgl"),
        Published(names=r"^pyg\b(?!\+| mmap)", recipe="gnnbench.published.mini_batches:pyg"),
        Published(names=r"^salient\b(?!\+)", recipe="gnnbench.published.mini_batches:salient"),
        Published(names=r"^quiver\b", recipe="gnnbench.published.mini_batches:quiver"),
        Published(names=r"^(gnnlab|sgnn)\b", recipe="gnnbench.published.gnnlab:gnnlab"),
        Published(
            names=r"^capsule \((?:dgl|pyg)\)", recipe="gnnbench.published.mini_batches:capsule"
        ),
    )
    knobs_type: ClassVar[type[Any]] = SampledKnobs
    runtime = "gnnbench_runtime.approaches.mini_batch.disaggregated:trainer_of"

    def examples(self) -> list[RunSpec]:
        return [
            example("sampled", 1, batch=FEW),
            example("sampled", batch=FEW, knobs={"placement": "partitioned", "prefetch": 2}),
            example("sampled", 3, batch=FEW, model={"kind": "sage", "norm": "layer"}),
            example("sampled", batch=FEW, model={"kind": "gat", "heads": 2, "dropout": 0.3}),
            example("sampled", batch=FEW, knobs={"weights": "degree"}, model={"dropout": 0.3}),
            example(
                "sampled",
                batch=FEW,
                model={"kind": "sage"},
                knobs={"weights": "degree", "replacement": True, "prefetch": 1},
            ),
            example("sampled", 1, batch=FEW, knobs={"replacement": True}),
            example("sampled", 1, batch=FEW, knobs={"placement": HOST}),
            example(
                "sampled",
                batch=FEW,
                options={"weighted": True},
                knobs={"weights": "edges", "samplers": 1, "replacement": True},
            ),
            *cached_examples(self.name),
            *disaggregated_examples(self.name),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        plain = replace(probe.run, approach=self.name, ranks=1, knobs={})
        if MODELS.get(probe.run.model.kind).attention:
            return [plain]
        return [plain, replace(plain, knobs={"weights": "degree"})]

    def draws(self, run: RunSpec) -> tuple[str, bool]:
        """By which weights neighbours are drawn, and whether with replacement.

        Approaches that estimate sizes of plain batches ask with runs of their own.
        """
        if run.approach != self.name:
            return "none", False
        knobs: SampledKnobs = self.knobs(run)
        return knobs.weights, knobs.replacement

    def form_of(self, run: RunSpec) -> Form:
        weights, _ = self.draws(run)
        return self.form if weights == "none" else Form(op="sample_weighted", edge_weights=True)

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        """A softmax counts a neighbour once; a rank must be left to train."""
        samplers = self.samplers(run)
        if samplers >= run.ranks:
            return (
                f"{self.name} needs a rank that trains: {samplers} of {run.ranks} ranks are "
                "samplers; use more ranks or fewer samplers (knobs.samplers)"
            )
        if MODELS.get(run.model.kind).attention and self.draws(run) != ("none", False):
            return (
                f"{self.name} draws neighbours of {run.model.kind} uniformly and once each: "
                "weights and repeats make sums unbiased, and a softmax is no sum"
            )
        if isinstance(data, Graph) and data.edge_weights is None and self.draws(run)[0] == "edges":
            return (
                f"graph {data.name} has no edge weights to draw by: read it with option weighted, "
                "or set knobs.weights to none or degree"
            )
        return super().skip_reason(run, data)

    def problems(self, run: RunSpec) -> list[str]:
        """Caches lie before features that are somewhere else."""
        knobs: SampledKnobs = self.knobs(run)
        lines = super().problems(run)
        if knobs.cache_policy != NONE and knobs.placement == "replicated":
            lines.append(
                f"knobs.cache_policy: found {knobs.cache_policy!r} with placement 'replicated', "
                "where every row is on the device; allowed with 'host' or 'partitioned'"
            )
        if knobs.samplers and knobs.cache_policy == PLANNED:
            lines.append(
                f"knobs.cache_policy: found {PLANNED!r} with {knobs.samplers} samplers, whose "
                "trainers do not know the next batches; allowed are the other policies"
            )
        return lines

    def variants(self, run: RunSpec) -> list[dict[str, Any]]:
        """Features on every rank, on their owners, or in the host's memory."""
        return [*super().variants(run), {"placement": HOST}]

    # -- samplers and trainers -------------------------------------------------------------------

    def samplers(self, run: RunSpec) -> int:
        """Ranks that only sample."""
        return int(getattr(self.knobs(run), "samplers", 0)) if run.approach == self.name else 0

    def trained(self, run: RunSpec) -> RunSpec:
        """The run of the ranks that train, as if there were no others."""
        samplers = self.samplers(run)
        if not samplers:
            return run
        knobs = {k: v for k, v in run.knobs.items() if k not in ("samplers", "queue")}
        return replace(run, ranks=run.ranks - samplers, knobs=knobs)

    def roles(self, run: RunSpec, structure: BatchStructure) -> Roles | None:
        """Who samples and who trains; None where every rank does both."""
        samplers = self.samplers(run)
        if not samplers:
            return None
        return Roles(
            trainers=run.ranks - samplers,
            samplers=samplers,
            queue=self.knobs(run).queue,
            steps=structure.num_steps,
        )

    def prepare(self, data: Graph, run: RunSpec, cache: Path | None = None) -> None:
        super().prepare(data, self.trained(run), cache)

    def structure(self, data: GraphLike, run: RunSpec, cache: Path | None = None) -> BatchStructure:
        """That of the ranks that train."""
        return super().structure(data, self.trained(run), cache)

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        roles = self.roles(run, structure)
        if roles is None:
            return super().plan(data, run, structure, layout)
        return role_plan(self, data, run, self.trained(run), structure, layout, roles)

    def source(
        self, graph: Graph, run: RunSpec, prepared: NDArray[Any] | None, *, threads: int = 1
    ) -> SeedSource:
        fanouts, seed = run.batch.fanouts(run.model.layers), run.training.seed
        weights, replacement = self.draws(run)
        topology = graph.indptr, graph.indices
        sampler = sampling.NeighbourSampler(*topology, fanouts, seed, threads)
        if weights != "none" or replacement:
            sampler = WeightedSampler(
                *topology,
                fanouts,
                seed,
                threads,
                # A vertex without out-edges is no neighbour of any, and is never drawn.
                weights=np.maximum(graph.out_degrees(), 1.0) if weights == "degree" else None,
                edge_weights=_edge_weights(graph) if weights == "edges" else None,
                replacement=replacement,
            )
        return SeedSource(sampler, graph.train_nodes(), run.batch.size, seed)

    def estimate(self, profile: GraphProfile, run: RunSpec, *, partitioned: bool) -> BatchSizes:
        """From degrees alone (sampling section 3, estimator 2)."""
        fanouts, scanned = run.batch.fanouts(run.model.layers), 0.0
        weights, replacement = self.draws(run)
        if weights != "none" or replacement:
            vertices, edges, scanned = drawn_frontier(
                *profile.histogram(),
                profile.num_train,
                fanouts,
                self.share(profile, run),
                by_degree=weights == "degree",
                scans=weights == "edges",
                replacement=replacement,
            )
        else:
            vertices, edges = profile.expected_frontier(fanouts, self.share(profile, run))
        batch = even_batch(
            run.ranks,
            vertices,
            edges,
            scanned=scanned,
            by_lot=drawn_by_lot(*profile.histogram(), fanouts, edges) if not scanned else 0.0,
            partitioned=partitioned,
        )
        if not self.capacity(profile, run):
            return batch
        knobs: SampledKnobs = self.knobs(run)
        # Of a rank's rows a share of 1 / ranks is its own, and never cached.
        others = (run.ranks - 1) / run.ranks if partitioned else 1.0
        rates = hits_of(
            profile,
            fanouts,
            self.share(profile, run),
            knobs.cache_policy,
            min(knobs.cache_share / others, 1.0),
            steps=self.num_steps(profile, run),
            lookahead=knobs.lookahead,
            presample=knobs.presample,
        )
        batch = with_cache(batch, rates, others, self.capacity(profile, run))
        waiting = self.lookahead(run) * drawn_bytes(batch.vertices, batch.edges)
        return replace(batch, waiting_bytes=waiting if self.lookahead(run) else None)

    def sampler_buffers(self, data: GraphLike, run: RunSpec) -> tuple[Buffer, ...]:
        """Weights of vertices, float64, or of edges, float32."""
        size = {"none": 0, "degree": 8 * data.num_nodes, "edges": 4 * data.num_edges}
        weights, _ = self.draws(run)
        return (Buffer("draw_weights", size[weights], Space.HOST),) if size[weights] else ()

    # -- where features lie ----------------------------------------------------------------------

    def lookahead(self, run: RunSpec) -> int:
        knobs: SampledKnobs = self.knobs(run)
        return knobs.lookahead if knobs.cache_policy == PLANNED and self._fetches(run) else 0

    def store(
        self, data: GraphLike, run: RunSpec, structure: BatchStructure, layout: Layout
    ) -> Store:
        knobs: SampledKnobs = self.knobs(run)
        # A mapped file of features is shared by the ranks of a host; on a CPU each rank's resident
        # set counts it.
        mapped = layout.device != "cpu" and run.training.element_bytes == 4
        return Store(
            num_rows=data.num_nodes,
            on_host=knobs.placement == HOST,
            owned_rows=structure.owned_rows,
            policy=knobs.cache_policy,
            capacity=self.capacity(data, run),
            sharers=layout.ranks_per_host if mapped else 1,
        )

    def caches(
        self,
        graph: Graph,
        run: RunSpec,
        structure: BatchStructure,
        ranks: Sequence[int],
        *,
        settled: bool = False,
    ) -> list[RowCache]:
        knobs: SampledKnobs = self.knobs(run)
        capacity = self.capacity(graph, run)
        if not capacity:
            return []
        scores = self.scores(graph, run)
        return [
            RowCache(
                knobs.cache_policy,
                graph.num_nodes,
                capacity,
                rank,
                structure.owner,
                scores,
                settled=settled,
            )
            for rank in ranks
        ]

    def capacity(self, data: GraphLike, run: RunSpec) -> int:
        """Rows of a rank's cache; 0 is none, as for approaches that only ask for sizes."""
        if run.approach != self.name:
            return 0
        knobs: SampledKnobs = self.knobs(run)
        if knobs.cache_policy == NONE or not self._fetches(run):
            return 0
        return capacity_of(knobs.cache_share, data.num_nodes)

    def scores(self, graph: Graph, run: RunSpec) -> Scores:
        """Scores of all rows, by the run's static policy; pre-sampling counts each rank's draws."""
        knobs: SampledKnobs = self.knobs(run)
        if knobs.cache_policy == "presampling":
            return partial(self._drawn_beforehand, graph, run, knobs.presample)
        found: NDArray[np.float64] = graph.out_degrees().astype(np.float64)
        if knobs.cache_policy == "inclusion":
            share = max(1, min(run.batch.size, graph.num_train) // run.ranks)
            # Late: its compiler is slow to import, and other policies do without.
            from gnnbench.data.frontier import vip_inclusion

            found = vip_inclusion(graph, run.batch.fanouts(run.model.layers), share)
        return lambda rank: found

    def _drawn_beforehand(
        self, graph: Graph, run: RunSpec, epochs: int, rank: int
    ) -> NDArray[np.float64]:
        """How often each vertex is an input in epochs that the run does not train on."""
        source, counts = self.source(graph, run, None), np.zeros(graph.num_nodes)
        for epoch in range(run.training.epochs, run.training.epochs + epochs):
            for step in range(source.steps):
                counts[source.draw(epoch, step, run.ranks, rank).batch.input_nodes] += 1
        return counts

    def _fetches(self, run: RunSpec) -> bool:
        """Whether features lie elsewhere than on the device."""
        placement = self.knobs(run).placement
        return placement == HOST or (placement == "partitioned" and run.ranks > 1)


def _edge_weights(graph: Graph) -> NDArray[np.float32]:
    """Weights of edges; equal ones where calibration plans an example on a graph without any.

    A run on such a graph is refused before (`Sampled.skip_reason`).
    """
    if graph.edge_weights is not None:
        return graph.edge_weights
    return np.ones(graph.num_edges, np.float32)


APPROACH = Sampled()
