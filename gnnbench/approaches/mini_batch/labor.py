"""Layer-neighbour sampling (LABOR): neighbour sampling with random numbers that vertices share.

Source: Balin and Çatalyürek, NeurIPS 2023; see `gnnbench.data.labor`. In expectation a batch has as
many edges as with `sampled`, and fewer vertices. Its closed forms are those of `sampled`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from gnnbench.approaches.base import Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise
from gnnbench.approaches.mini_batch.batch import BatchSizes, Form, even_batch
from gnnbench.approaches.mini_batch.sampled import FanOuts
from gnnbench.approaches.mini_batch.sampled_examples import FEW
from gnnbench.approaches.mini_batch.writer import BatchKnobs
from gnnbench.data.dealing import SeedSource
from gnnbench.data.expected import labor_frontier
from gnnbench.data.graph import Graph
from gnnbench.data.labor import DRAFT_SLACK, LaborSampler
from gnnbench.data.profile import GraphProfile
from gnnbench.spec import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LaborKnobs(BatchKnobs):
    """Knobs of `labor`.

    Args:
        layer_dependency: whether all layers share each vertex's random number, so that they draw
            more of the same vertices.

    The others are those of every approach that trains on batches.
    """

    layer_dependency: bool = False


class Labor(FanOuts):
    """Card and source of `labor`."""

    name = "labor"
    title = "Layer-neighbour sampling (LABOR)"
    paper = "Balin and Çatalyürek, Layer-Neighbor Sampling, NeurIPS 2023"
    summary = "sampled neighbourhoods that share random numbers, so that they overlap"
    promise = Promise(
        kind="unbiased",
        text="With convolutions, the sum over a vertex's neighbours has the exact sum as its mean; "
        "the batches are the same for any number of ranks.",
        limit_batch={"size": 1_000_000, "fanouts_from_seeds": (-1,)},
    )
    accepts = Accepts(attention=True, batch=True)
    look = Look(colour="#D55E00", marker="v")
    knobs_type = LaborKnobs
    form = Form(op="sample_labor", drafted=1 + 1 / DRAFT_SLACK)

    def examples(self) -> list[RunSpec]:
        return [
            example("labor", 3, batch=FEW),
            example("labor", 2, batch=FEW, model={"kind": "sage"}, knobs={"prefetch": 1}),
            example("labor", 1, batch=FEW, knobs={"layer_dependency": True}),
            example("labor", batch=FEW, model={"kind": "gat", "heads": 2, "dropout": 0.3}),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        return [replace(probe.run, approach=self.name, ranks=1, knobs={})]

    def source(
        self, graph: Graph, run: RunSpec, prepared: NDArray[Any] | None, *, threads: int = 1
    ) -> SeedSource:
        knobs: LaborKnobs = self.knobs(run)
        fanouts, seed = run.batch.fanouts(run.model.layers), run.training.seed
        sampler = LaborSampler(
            graph.indptr,
            graph.indices,
            fanouts,
            seed,
            threads,
            layer_dependency=knobs.layer_dependency,
        )
        return SeedSource(sampler, graph.train_nodes(), run.batch.size, seed)

    def estimate(self, profile: GraphProfile, run: RunSpec, *, partitioned: bool) -> BatchSizes:
        """From degrees alone (sampling section 3, estimator 3)."""
        found = labor_frontier(
            *profile.histogram(),
            profile.num_train,
            run.batch.fanouts(run.model.layers),
            self.share(profile, run),
            layer_dependency=self.knobs(run).layer_dependency,
        )
        vertices, edges, scanned = found
        return even_batch(run.ranks, vertices, edges, scanned=scanned, partitioned=partitioned)


APPROACH = Labor()
