"""Layer-wise importance sampling (LADIES): a bounded number of vertices per layer.

Source: Zou et al., NeurIPS 2019; see `gnnbench.data.ladies` for what deviates. Vertices of a layer
are at most those of the layer above and k more, so memory is linear in depth. All ranks draw the
layers of the whole batch alike, from its candidates and their norms. Each rank looks for them among
the in-edges of its share of the layer above, and lists are gathered: per hop and rank

    (P - 1) (8 + 16 max over ranks of candidates)  bytes

Or every rank looks at all in-edges, which needs no communication (`candidates = "replicated"`).
Norms are integers, so the batch does not depend on how rows are shared. A single rank that draws
with replacement, for a model without scales of sources, needs no candidates: it draws edges, and
looks at the in-edges once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from gnnbench.approaches.base import GraphLike, Layout, Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise
from gnnbench.approaches.mini_batch.base import BatchStructure
from gnnbench.approaches.mini_batch.batch import BatchSizes, Form, even_batch, near_sizes
from gnnbench.approaches.mini_batch.layer_writer import LayerWriter
from gnnbench.approaches.mini_batch.sampled import SeedBatches
from gnnbench.approaches.mini_batch.sampled_examples import FEW
from gnnbench.approaches.mini_batch.writer import BatchKnobs
from gnnbench.data.expected import ladies_frontier
from gnnbench.data.graph import Graph
from gnnbench.data.ladies import LadiesSampler, LayerSource
from gnnbench.data.profile import GraphProfile
from gnnbench.models.names import MODELS
from gnnbench.models.scales import vertex_scales
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer
from gnnbench.strict import bounds, choices


@dataclass(frozen=True, slots=True, kw_only=True)
class LadiesKnobs(BatchKnobs):
    """Knobs of `ladies`.

    Args:
        layer_vertices: number k of vertices drawn per layer of a global batch.
        draws: replacement, or poisson: each vertex at most once with a chance of its own, k of them
            in expectation.
        candidates: gathered, each rank looks at its share of the edges into a layer; or replicated,
            every rank looks at all of them.

    The others are those of every approach that trains on batches.
    """

    layer_vertices: int = field(default=512, metadata=bounds(1, 2**31 - 1))
    draws: str = field(default="replacement", metadata=choices("replacement", "poisson"))
    candidates: str = field(default="gathered", metadata=choices("gathered", "replicated"))


class Ladies(SeedBatches):
    """Card and source of `ladies`."""

    name = "ladies"
    title = "Layer-wise importance sampling (LADIES)"
    paper = "Zou et al., Layer-Dependent Importance Sampling, NeurIPS 2019"
    summary = "mini-batches whose layers have a bounded number of vertices drawn by importance"
    promise = Promise(
        kind="unbiased",
        text="The sum over a vertex's neighbours has the exact sum as its mean; the batches are "
        "the same for any number of ranks.",
        limit={"draws": "poisson", "layer_vertices": 1_000_000_000},
        limit_batch={"size": 1_000_000},
    )
    accepts = Accepts(
        batch=True,
        no_attention="weights of drawn vertices make sums unbiased, and a softmax is no sum",
    )
    look = Look(colour="#D55E00", marker="P")
    knobs_type = LadiesKnobs
    form = Form(op="sample_ladies", column_weights=True, drafted=2.0)
    runtime = "gnnbench_runtime.approaches.mini_batch.ladies:LadiesTrainer"

    def examples(self) -> list[RunSpec]:
        return [
            example("ladies", 3, batch=FEW, knobs={"layer_vertices": 20}),
            example("ladies", 1, batch=FEW, knobs={"layer_vertices": 20, "draws": "poisson"}),
            example("ladies", batch=FEW, knobs={"layer_vertices": 20, "candidates": "replicated"}),
            example(
                "ladies",
                batch=FEW,
                model={"kind": "sage"},
                knobs={"layer_vertices": 12, "placement": "partitioned", "prefetch": 1},
            ),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """Layers of one to four times the batch, drawn by one rank, and by all of several."""
        vertices = probe.run.batch.size * 2 ** (probe.number % 3)
        knobs = {"layer_vertices": vertices}
        return [
            replace(probe.run, approach=self.name, ranks=ranks, knobs=knobs)
            for ranks in sorted({1, probe.ranks})
        ]

    def variants(self, run: RunSpec) -> list[dict[str, Any]]:
        """Where features are, and who looks for candidates."""
        alone = [] if run.ranks == 1 else [{"candidates": "replicated"}]
        return [*super().variants(run), *alone]

    def writer(
        self, data: GraphLike, run: RunSpec, structure: BatchStructure, layout: Layout
    ) -> LayerWriter:
        shape, knobs = self.shape(data, run), self.knobs(run)
        store = self.store(data, run, structure, layout)
        return LayerWriter(shape, self.form, knobs, run.ranks, store, layout.device)

    def source(
        self, graph: Graph, run: RunSpec, prepared: NDArray[Any] | None, *, threads: int = 1
    ) -> LayerSource:
        knobs: LadiesKnobs = self.knobs(run)
        seed = run.training.seed
        sampler = LadiesSampler(
            graph.indptr,
            graph.indices,
            vertex_scales(graph, MODELS.get(run.model.kind)),
            vertices=knobs.layer_vertices,
            layers=run.model.layers,
            seed=seed,
            threads=threads,
            poisson=knobs.draws == "poisson",
        )
        gathers = knobs.candidates == "gathered"
        return LayerSource(sampler, graph.train_nodes(), run.batch.size, seed, gathers=gathers)

    def estimate(self, profile: GraphProfile, run: RunSpec, *, partitioned: bool) -> BatchSizes:
        """From degrees alone: what is drawn is spread over the layer's neighbourhood."""
        knobs: LadiesKnobs = self.knobs(run)
        symmetric = MODELS.get(run.model.kind).normalisation == "symmetric"
        vertices, edges, scanned, near = ladies_frontier(
            *profile.histogram(),
            profile.num_train,
            knobs.layer_vertices,
            run.model.layers,
            batch=min(run.batch.size, max(profile.num_train, 1)),
            ranks=run.ranks,
            symmetric=symmetric,
            poisson=knobs.draws == "poisson",
        )
        if run.ranks == 1 and not symmetric and knobs.draws == "replacement":
            # Edges are drawn first; then the rows are looked at once, to restrict blocks.
            return even_batch(1, vertices, edges, scanned=scanned, partitioned=partitioned)
        if knobs.candidates == "replicated" or run.ranks == 1:
            scanned += run.ranks * sum(hop[2] for hop in near)
            return even_batch(run.ranks, vertices, edges, scanned=scanned, partitioned=partitioned)
        batch = even_batch(run.ranks, vertices, edges, scanned=scanned, partitioned=partitioned)
        looked = [[(round(r), round(c), round(e)) for r, c, e in near]] * run.ranks
        return replace(batch, near=near_sizes(looked))

    def sampler_buffers(self, data: GraphLike, run: RunSpec) -> tuple[Buffer, ...]:
        """Per vertex: squared scales, a sum of norms, a place among the drawn, and a bit."""
        symmetric = MODELS.get(run.model.kind).normalisation == "symmetric"
        each = 8 * (2 if symmetric else 1) + 8 + 4
        return (Buffer("layer_tables", each * data.num_nodes + -(-data.num_nodes // 8)),)


APPROACH = Ladies()
