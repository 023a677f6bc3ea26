"""Node-wise neighbour sampling, data parallel, with features replicated or partitioned.

Computation graph `per_layer` (sampling section 2): in every hop each destination is sampled again,
seeds included. Each rank takes an even slice of the global batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from gnnbench.approaches.base import GraphLike, Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.approaches.mini_batch.base import MiniBatch
from gnnbench.approaches.mini_batch.batch import BatchSizes, even_batch
from gnnbench.approaches.mini_batch.writer import BatchKnobs
from gnnbench.data import sampling
from gnnbench.data.dealing import SeedSource
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.spec import RunSpec

FEW = {"size": 16, "fanouts_from_seeds": (4, 3)}
"""The batches of examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledKnobs(BatchKnobs):
    """Knobs of `sampled`: those of every approach that trains on batches."""


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
    published = (
        Published(names=r"^(distdgl|dgl)\b", recipe="gnnbench.published.mini_batches:dgl"),
        Published(names=r"^quiver\b", recipe="gnnbench.published.mini_batches:quiver"),
        Published(names=r"^(gnnlab|sgnn)\b", recipe="gnnbench.published.mini_batches:gnnlab"),
    )
    knobs_type = SampledKnobs

    def examples(self) -> list[RunSpec]:
        return [
            example("sampled", 1, batch=FEW),
            example("sampled", batch=FEW, knobs={"placement": "partitioned", "prefetch": 2}),
            example("sampled", 3, batch=FEW, model={"kind": "sage", "norm": "layer"}),
            example("sampled", batch=FEW, model={"kind": "gat", "heads": 2, "dropout": 0.3}),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        return [replace(probe.run, approach=self.name, ranks=1, knobs={})]

    def variants(self, run: RunSpec) -> list[dict[str, Any]]:
        return [{}] if run.ranks == 1 else [{}, {"placement": "partitioned"}]

    def source(
        self, graph: Graph, run: RunSpec, prepared: NDArray[Any] | None, *, threads: int = 1
    ) -> SeedSource:
        fanouts, seed = run.batch.fanouts(run.model.layers), run.training.seed
        sampler = sampling.NeighbourSampler(graph.indptr, graph.indices, fanouts, seed, threads)
        return SeedSource(sampler, graph.train_nodes(), run.batch.size, seed)

    def estimate(self, profile: GraphProfile, run: RunSpec, *, partitioned: bool) -> BatchSizes:
        """From degrees alone (sampling section 3, estimator 2)."""
        fanouts = run.batch.fanouts(run.model.layers)
        vertices, edges = profile.expected_frontier(fanouts, self.share(profile, run))
        return even_batch(run.ranks, vertices, edges, partitioned=partitioned)


APPROACH = Sampled()
