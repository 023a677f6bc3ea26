"""Node-wise neighbour sampling, data parallel; features replicated, partitioned or on the host.

Computation graph `per_layer` (sampling section 2): in every hop each destination is sampled again,
seeds included. Each rank takes an even slice of the global batch.

Closed forms, per batch and rank (P ranks, theta parameters, s bytes per element, f features):

    gradients              floor(2 (P - 1) S / P) with S = (theta + 1) s, the ring all-reduce
    replicated features    nothing
    partitioned features   8 (P - 1) of counts; 8 per input row that another rank owns; f s per
                           input row of another rank that this one owns
    host features          f s per input row, from the host to the device

A cache on the device takes the rows that it holds out of the last two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import GraphLike, Layout, Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.approaches.mini_batch.base import BatchStructure, MiniBatch
from gnnbench.approaches.mini_batch.batch import (
    BatchSizes,
    Form,
    drawn_bytes,
    even_batch,
    with_cache,
)
from gnnbench.approaches.mini_batch.caches import LRU, NONE, PLANNED, POLICIES, RowCache, Scores
from gnnbench.approaches.mini_batch.fetching import HOST, Store
from gnnbench.approaches.mini_batch.writer import BatchKnobs
from gnnbench.data import sampling
from gnnbench.data.caching import capacity_of
from gnnbench.data.dealing import SeedSource
from gnnbench.data.expected import drawn_frontier
from gnnbench.data.expected_hits import hits_of
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.data.weighted import WeightedSampler
from gnnbench.models.names import MODELS
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer, Space
from gnnbench.strict import bounds, choices

FEW = {"size": 16, "fanouts_from_seeds": (4, 3)}
"""The batches of examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledKnobs(BatchKnobs):
    """Knobs of `sampled`.

    Args:
        weights: none draws neighbours uniformly; degree draws them in proportion to their
            out-degree. Sums over drawn neighbours are weighted so that they stay unbiased.
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

    The others are those of every approach that trains on batches.
    """

    weights: str = field(default="none", metadata=choices("none", "degree"))
    replacement: bool = False
    placement: str = field(
        default="replicated", metadata=choices("replicated", "partitioned", HOST)
    )
    cache_policy: str = field(default=NONE, metadata=choices(*POLICIES))
    cache_share: float = field(default=0.1, metadata=bounds(0, 1))
    presample: int = field(default=1, metadata=bounds(1, 64))
    lookahead: int = field(default=32, metadata=bounds(0, 1_000_000))


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
        "the batches are the same for any number of ranks.",
        limit_batch={"size": 1_000_000, "fanouts_from_seeds": (-1,)},
    )
    accepts = Accepts(attention=True, batch=True)
    look = Look(colour="#D55E00", marker="^")
    published: ClassVar[tuple[Published, ...]] = (
        Published(names=r"^(distdgl|dgl)\b", recipe="gnnbench.published.mini_batches:dgl"),
        Published(names=r"^quiver\b", recipe="gnnbench.published.mini_batches:quiver"),
        Published(names=r"^(gnnlab|sgnn)\b", recipe="gnnbench.published.mini_batches:gnnlab"),
    )
    knobs_type: ClassVar[type[Any]] = SampledKnobs

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
            *_cached_examples(),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        plain = replace(probe.run, approach=self.name, ranks=1, knobs={})
        if MODELS.get(probe.run.model.kind).attention:
            return [plain]
        return [plain, replace(plain, knobs={"weights": "degree"})]

    def draws(self, run: RunSpec) -> tuple[bool, bool]:
        """Whether neighbours are drawn by degree, and whether with replacement.

        Approaches that estimate sizes of plain batches ask with runs of their own.
        """
        if run.approach != self.name:
            return False, False
        knobs: SampledKnobs = self.knobs(run)
        return knobs.weights == "degree", knobs.replacement

    def form_of(self, run: RunSpec) -> Form:
        by_degree, _ = self.draws(run)
        return Form(op="sample_weighted", edge_weights=True) if by_degree else self.form

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        """A softmax counts a neighbour once."""
        if MODELS.get(run.model.kind).attention and self.draws(run) != (False, False):
            return (
                f"{self.name} draws neighbours of {run.model.kind} uniformly and once each: "
                "weights and repeats make sums unbiased, and a softmax is no sum"
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
        return lines

    def source(
        self, graph: Graph, run: RunSpec, prepared: NDArray[Any] | None, *, threads: int = 1
    ) -> SeedSource:
        fanouts, seed = run.batch.fanouts(run.model.layers), run.training.seed
        by_degree, replacement = self.draws(run)
        topology = graph.indptr, graph.indices
        sampler = sampling.NeighbourSampler(*topology, fanouts, seed, threads)
        if by_degree or replacement:
            sampler = WeightedSampler(
                *topology,
                fanouts,
                seed,
                threads,
                # A vertex without out-edges is no neighbour of any, and is never drawn.
                weights=np.maximum(graph.out_degrees(), 1.0) if by_degree else None,
                replacement=replacement,
            )
        return SeedSource(sampler, graph.train_nodes(), run.batch.size, seed)

    def estimate(self, profile: GraphProfile, run: RunSpec, *, partitioned: bool) -> BatchSizes:
        """From degrees alone (sampling section 3, estimator 2)."""
        fanouts, scanned = run.batch.fanouts(run.model.layers), 0.0
        by_degree, replacement = self.draws(run)
        if by_degree or replacement:
            vertices, edges, scanned = drawn_frontier(
                *profile.histogram(),
                profile.num_train,
                fanouts,
                self.share(profile, run),
                by_degree=by_degree,
                replacement=replacement,
            )
        else:
            vertices, edges = profile.expected_frontier(fanouts, self.share(profile, run))
        batch = even_batch(run.ranks, vertices, edges, scanned=scanned, partitioned=partitioned)
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
        """Weights of vertices, float64."""
        if not self.draws(run)[0]:
            return ()
        return (Buffer("draw_weights", 8 * data.num_nodes, Space.HOST),)

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


def _cached_examples() -> list[RunSpec]:
    """A cache of every policy, before features of the host and of other owners."""
    before_owners = {"placement": "partitioned", "cache_share": 0.2}
    before_host = {"placement": HOST, "cache_share": 0.2}
    return [
        example("sampled", batch=FEW, knobs={**before_owners, "cache_policy": "degree"}),
        example("sampled", 1, batch=FEW, knobs={**before_host, "cache_policy": "presampling"}),
        example(
            "sampled",
            3,
            batch=FEW,
            knobs={**before_owners, "cache_policy": "inclusion", "prefetch": 1},
        ),
        example("sampled", batch=FEW, knobs={**before_host, "cache_policy": LRU}),
        example(
            "sampled",
            batch=FEW,
            model={"kind": "sage"},
            knobs={
                **before_host,
                "cache_policy": PLANNED,
                "lookahead": 2,
                "prefetch": 1,
                "weights": "degree",
            },
        ),
        example("sampled", 3, batch=FEW, knobs={**before_owners, "cache_policy": PLANNED}),
    ]


APPROACH = Sampled()
