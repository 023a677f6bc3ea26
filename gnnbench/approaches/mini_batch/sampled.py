"""Node-wise neighbour sampling, data parallel, with features replicated or partitioned.

Computation graph `per_layer` (sampling section 2): in every hop each destination is sampled again,
seeds included. Each rank takes an even slice of the global batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import GraphLike, Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.approaches.mini_batch.base import MiniBatch
from gnnbench.approaches.mini_batch.batch import BatchSizes, Form, even_batch
from gnnbench.approaches.mini_batch.writer import BatchKnobs
from gnnbench.data import sampling
from gnnbench.data.dealing import SeedSource
from gnnbench.data.expected import drawn_frontier
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.data.weighted import WeightedSampler
from gnnbench.models.names import MODELS
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer
from gnnbench.strict import choices

FEW = {"size": 16, "fanouts_from_seeds": (4, 3)}
"""The batches of examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledKnobs(BatchKnobs):
    """Knobs of `sampled`.

    Args:
        weights: none draws neighbours uniformly; degree draws them in proportion to their
            out-degree. Sums over drawn neighbours are weighted so that they stay unbiased.
        replacement: whether a neighbour can be drawn several times.

    The others are those of every approach that trains on batches.
    """

    weights: str = field(default="none", metadata=choices("none", "degree"))
    replacement: bool = False


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
        Published(names=r"^(distdgl|dgl|quiver)\b", recipe="gnnbench.published.recipes:mini_batch"),
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
        fanouts, by_degree = run.batch.fanouts(run.model.layers), self.draws(run)[0]
        if self.draws(run) == (False, False):
            vertices, edges = profile.expected_frontier(fanouts, self.share(profile, run))
            return even_batch(run.ranks, vertices, edges, partitioned=partitioned)
        vertices, edges, scanned = drawn_frontier(
            *profile.histogram(),
            profile.num_train,
            fanouts,
            self.share(profile, run),
            by_degree=by_degree,
            replacement=self.draws(run)[1],
        )
        return even_batch(run.ranks, vertices, edges, scanned=scanned, partitioned=partitioned)

    def sampler_buffers(self, data: GraphLike, run: RunSpec) -> tuple[Buffer, ...]:
        """Weights of vertices, float64."""
        return (Buffer("draw_weights", 8 * data.num_nodes),) if self.draws(run)[0] else ()


APPROACH = Sampled()
