"""GNNFlow: a temporal model learns from a stream continuously, data parallel over ranks.

Each batch of events is dealt to the ranks in even shares, and gradients are summed. Predicting an
increment before it is learnt from is part of the period. Every rank stores all edges, or those of
its own vertices: then the queries of every hop travel to the owners of their vertices and replies
come back.

Closed forms, per optimiser step (P ranks, theta parameters, s bytes):

    gradients    all-reduce of (theta + 1) s bytes
    scores       once per increment: all-gather of s bytes per pair of the rank with the most
    queries      16 bytes per query of a vertex that another rank owns, 8 (P - 1) for the counts
    replies      20 f bytes per such query, f the fan-out of the hop
    features     with a cache, bytes of a row per distinct miss

Results depend on the number of ranks through rounding only: gradients are summed in another order.
Predicted events are cut into chunks that do not depend on it, so that equal parameters give equal
scores. Training amplifies rounding where a model has trainable time encodings (`tgat`, `tgn`) and
ages are long: phases are frequency times age. On streams of 1,500 events, 25 steps of Adam with lr
0.001 moved single parameters by up to 0.03 and MRR by up to 0.06, on two ranks and likewise on one
rank whose first parameters were changed by one unit in the last place; with a mean gap of 60 s in
float64, too. The promise therefore holds to 1e-9 in float64 where ages are short, as in the
examples. Compare such models over several seeds.

Deviations from the published system: sampling runs on the host; the loss is the mean over positives
plus the mean over negatives; an increment is trained on as a whole; features are not
partitioned; old events that are learnt from again use a memory of their own.

Source: Zhong, Sheng, Zhang, Cai, Wu, "GNNFlow: A Distributed Framework for Continuous Temporal GNN
Learning on Dynamic Graphs", 2023; temporal reference sections 3, 5, 6, 8, 9, 10 and 11.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from gnnbench.approaches.base import Approach, Layout, Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise
from gnnbench.approaches.temporal.caching import CacheKnobs, CacheTrace, Caching
from gnnbench.approaches.temporal.evaluating import stream_evaluation
from gnnbench.approaches.temporal.schedule import Protocol
from gnnbench.approaches.temporal.structure import Sampling, StreamStructure
from gnnbench.approaches.temporal.writing import StreamWriter, resident
from gnnbench.data.drawn_stream import too_large
from gnnbench.data.stream import EdgeStream
from gnnbench.data.stream_profile import StreamProfile
from gnnbench.data.temporal_partition import PARTITIONERS
from gnnbench.data.temporal_sampling import STRATEGIES
from gnnbench.iterations import Iteration, LazyIterations
from gnnbench.models.names import MODELS
from gnnbench.models.temporal import TemporalShape, temporal_model
from gnnbench.models.temporal_layers import LAYERS
from gnnbench.plan import Plan
from gnnbench.spec import BatchSpec, DatasetRef, ModelSpec, RunSpec
from gnnbench.strict import bounds, choices

MODEL_KINDS = ("tgn", "tgat", "graphmixer", "temporal-sage", "temporal-gat")
TGB_BATCH = 200
"""Events between two updates of graph and memory in an evaluation by the benchmark's protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousKnobs(CacheKnobs):
    """Knobs of `continuous`, those of its feature caches among them.

    offline: share of the stream that is learnt before the increments. sampling: of neighbours;
    "model" takes the model's own. window: how old a neighbour may be, in units of the stream's
    times; 0 is unlimited. replay: old events that an increment learns again, as a share of all old
    ones. retrain_every: increments between two trainings. fresh_optimizer: the optimizer starts
    anew in every increment, as published. expire_after: age at which edges leave the store; 0 is
    never. first_block, block: slots of a vertex's first block and of its largest, powers of two.
    store: "replicated" on every rank, or "partitioned" by the owners of vertices. partitioner: of
    a partitioned store: decides the owner of each vertex when it first occurs.
    """

    offline: float = field(default=0.3, metadata=bounds(0, 0.95))
    sampling: str = field(default="model", metadata=choices("model", *STRATEGIES))
    window: int = field(default=0, metadata=bounds(0))
    replay: float = field(default=0.0, metadata=bounds(0, 1))
    retrain_every: int = field(default=1, metadata=bounds(1, 1_000_000))
    fresh_optimizer: bool = True
    expire_after: int = field(default=0, metadata=bounds(0))
    first_block: int = field(default=4, metadata=bounds(1, 1 << 20))
    block: int = field(default=256, metadata=bounds(1, 1 << 20))
    store: str = field(default="replicated", metadata=choices("replicated", "partitioned"))
    partitioner: str = field(default="hash", metadata=choices(*PARTITIONERS))


class Continuous(Approach):
    """Card and plan of `continuous`."""

    name = "continuous"
    title = "GNNFlow, continuous learning"
    paper = "Zhong et al., GNNFlow: Continuous Temporal GNN Learning on Dynamic Graphs, 2023"
    summary = "increments of a stream are predicted, ingested and learnt from, one after the other"
    promise = Promise(
        kind="exact",
        text="Losses, parameters and metrics equal those of one rank on the same batches.",
        reference="continuous",
    )
    accepts = Accepts(
        datasets=frozenset({"stream"}),
        tasks=frozenset({"temporal_link_prediction"}),
        attention=True,
        norm=False,
        no_norm="layers of temporal attention are normalised already",
        batch=True,
        models=frozenset(MODEL_KINDS),
    )
    look = Look(colour="#882255", marker="h")
    knobs_type: ClassVar[type[Any]] = ContinuousKnobs
    runtime = "gnnbench_runtime.approaches.temporal.continuous:ContinuousTrainer"

    def examples(self) -> list[RunSpec]:
        few: dict[str, Any] = {"size": 50, "fanouts_from_seeds": (4, 3)}
        one: dict[str, Any] = {"size": 64, "fanouts_from_seeds": (5,), "negatives": 2}
        tgat, narrow = {"kind": "tgat", "heads": 2}, {"kind": "tgat", "layers": 1}
        tgn = {**narrow, "kind": "tgn", "heads": 2}
        drift = {"expire_after": 300, "replay": 0.2, "retrain_every": 2, "sampling": "recent"}
        rows = {"num_features": 3, "bipartite": True}
        brief = {"increments": 2, "epochs": 1}
        apart = {"store": "partitioned"}
        caches = {"node_cache": 0.3, "edge_cache": 0.05}
        static = {**caches, "cache_policy": "static"}
        fifo = {**caches, "cache_policy": "fifo", "cache_restore": False, "cache_reuse": False}

        def flow(ranks: int, model: dict[str, Any], batch: dict[str, Any], **more: Any) -> RunSpec:
            return tiny_flow("continuous", ranks, model=model, batch=batch, **more)

        short = {"increments": 4, "epochs": 1, "speedup": 1e6}
        return [
            flow(1, {**tgat, "dropout": 0.1}, few, training={"increments": 3}),
            flow(2, tgat, few, options=rows),
            flow(2, narrow, one, knobs=drift, options={"num_edges": 400}, training=short),
            flow(
                3,
                narrow,
                one,
                options={"num_edge_features": 0},
                knobs={"offline": 0.0, "window": 200},
                training={"increments": 3},
            ),
            flow(2, {**tgn, "dropout": 0.2}, one, training={"increments": 2, "epochs": 2}),
            flow(3, {**narrow, "kind": "tgn"}, one, options=rows),
            flow(2, tgn, one, knobs={**caches, "replay": 0.2}, options=rows, training=brief),
            flow(2, tgat, few, knobs={**apart, **static}, options=rows, training=brief),
            flow(
                2,
                {"kind": "temporal-sage"},
                few,
                knobs={**fifo, **apart, "partitioner": "ldg"},
                options=rows,
                training=brief,
            ),
            flow(
                3,
                {"kind": "temporal-gat", "heads": 2, "dropout": 0.1},
                few,
                knobs={**apart, "partitioner": "degree"},
                task={"protocol": "tgb", "negatives": 6},
                training=brief,
            ),
            flow(
                2,
                {"kind": "graphmixer", "layers": 1},
                one,
                knobs={**caches, "cache_policy": "lru"},
                task={"protocol": "tgb", "negatives": 50},
                training={"epochs": 2},
            ),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """A small stream, as many increments as the probe has epochs, with its widths and batch.

        Several ranks also offer to train it together, on a store that is partitioned among them:
        only there do queries travel and are served.
        """
        base, number = probe.run, probe.number
        # A query of two hops asks for a hundred rows: a step stays below some 1e9 flops.
        size = min(base.batch.size, 256)
        features = int(base.dataset.options.get("num_features", 16))
        stream = {
            "num_nodes": 200 + 2 * size,
            "num_edges": 12 * size,
            "num_edge_features": min(features, 64),
            "num_features": min(features, 64) if number % 2 else 0,
            "seed": number,
        }
        kind = MODEL_KINDS[number % len(MODEL_KINDS)]
        layers = 1 if kind == "graphmixer" else 1 + number % 2
        hidden = max(8, min(base.model.hidden, 64))
        heads = 2 if MODELS.get(kind).attention else 1
        caches = {"node_cache": 0.2, "edge_cache": 0.2} if number % 2 else {}
        alone = replace(
            base,
            dataset=DatasetRef(
                name=f"stream-{number}", generator="synthetic_stream", options=stream
            ),
            model=ModelSpec(name=kind, kind=kind, layers=layers, hidden=hidden, heads=heads),
            batch=BatchSpec(size=size, fanouts_from_seeds=(10, 5)[:layers]),
            training=replace(
                base.training, optimizer="adam", epochs=1, increments=base.training.epochs
            ),
            approach=self.name,
            ranks=1,
            knobs=caches,
        )
        if probe.ranks == 1:
            return [alone]
        apart = {"store": "partitioned", "partitioner": PARTITIONERS[number % len(PARTITIONERS)]}
        return [alone, replace(alone, ranks=probe.ranks, knobs=apart)]

    def problems(self, run: RunSpec) -> list[str]:
        """Fan-outs, blocks, and what is not built."""
        knobs: ContinuousKnobs = self.knobs(run)
        lines = model_problems(run)
        for name in ("first_block", "block"):
            size = getattr(knobs, name)
            if size & (size - 1):
                lines.append(f"{name}: found {size}, allowed powers of two")
        if knobs.block < knobs.first_block:
            lines.append(f"block: found {knobs.block}, allowed {knobs.first_block} and more")
        return lines

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        """Too many events to draw, too few for an increment, or a model without features."""
        reason = refused(self.name, run, data, lambda: self.protocol(data, run))
        if reason or data is None:
            return reason
        if not (data.num_features or data.num_edge_features or _is_timed(run)):
            return (
                f"{run.model.kind} sees features only, and stream {data.name} has none; use a "
                "model that sees times"
            )
        return None

    def num_periods(self, run: RunSpec) -> int:
        """Increments, and the offline phase where there is one; without increments, epochs."""
        training = run.training
        offline = self.knobs(run).offline > 0
        return training.increments + offline if training.increments else training.epochs

    def protocol(self, data: EdgeStream, run: RunSpec) -> Protocol:
        """How the run goes through a stream."""
        knobs: ContinuousKnobs = self.knobs(run)
        return protocol_of(
            data,
            run,
            offline=knobs.offline,
            replay=knobs.replay,
            retrain_every=knobs.retrain_every,
            expire_after=knobs.expire_after,
        )

    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> StreamStructure:
        knobs: ContinuousKnobs = self.knobs(run)
        model = temporal_model(run)
        sampling = Sampling(
            fanouts_from_seeds=run.batch.fanouts(run.model.layers),
            strategy=model.strategy if knobs.sampling == "model" else knobs.sampling,
            window=knobs.window,
            first=knobs.first_block,
            block=knobs.block,
            negatives=(run.batch.negatives, run.task.negatives),
            fixed=run.task.protocol == "tgb",
            partitioner=knobs.partitioner if knobs.store == "partitioned" else "",
        )
        protocol = self.protocol(data, run)
        return StreamStructure(stream=data, protocol=protocol, sampling=sampling, cache=cache)

    def caching(self, run: RunSpec) -> Caching:
        """Sizes and rules of the run's feature caches."""
        knobs: CacheKnobs = self.knobs(run)
        return Caching(
            nodes=knobs.node_cache,
            edges=knobs.edge_cache,
            policy=knobs.cache_policy,
            reuse=knobs.cache_reuse,
            restore=knobs.cache_restore,
            memory=temporal_model(run).memory,
        )

    def plan(self, data: Any, run: RunSpec, structure: StreamStructure, layout: Layout) -> Plan:
        shape = TemporalShape.of(data, run)
        trace = CacheTrace(structure, self.caching(run))
        writer = self.writer(run, shape, structure, trace, layout)
        held = resident(shape, data, trace)
        lengths = [len(pieces) for pieces in structure.pieces]
        places = [(period, at) for period, count in enumerate(lengths) for at in range(count)]

        def iteration(number: int) -> Iteration:
            return writer.iteration(*places[number])

        releases = [structure.schedule.release_s(period) for period, _ in places]
        return Plan(
            approach=run.approach,
            world_size=run.ranks,
            iterations=LazyIterations(len(places), iteration),
            schedule=range(len(places)),
            periods=tuple(lengths),
            period="increment" if run.training.increments else "epoch",
            releases=releases if any(releases) else (),
            arrivals=structure.schedule.arrivals() if any(releases) else (),
            resident=held,
            evaluation=stream_evaluation(
                shape,
                structure,
                held={b.name: b.bytes for b in held if b.name in ("memory", "clock")},
                cached=trace.kinds,
                on_host=layout.device == "cpu",
            ),
            counted=structure.counted,
            basis=structure.basis,
            notes={
                "num_parameters": shape.num_parameters,
                "offline_events": structure.protocol.offline_end,
                "sampling": structure.sampling.strategy,
                **trace.hit_rates(),
            },
        )

    def writer(
        self,
        run: RunSpec,
        shape: TemporalShape,
        structure: StreamStructure,
        trace: CacheTrace,
        layout: Layout,
    ) -> StreamWriter:
        """The writer of the run's iterations."""
        return StreamWriter(shape, structure, trace, layout.device)


def model_problems(run: RunSpec) -> list[str]:
    """Problems of a run's model and fan-outs on a stream."""
    fanouts, lines = run.batch.fanouts_from_seeds, []
    if any(fanout < 1 for fanout in fanouts):
        lines.append(f"batch.fanouts_from_seeds: found {list(fanouts)}, allowed at least 1")
    if fanouts and len(fanouts) != run.model.layers:
        lines.append(
            f"batch.fanouts_from_seeds: found {len(fanouts)} fan-outs for the "
            f"{run.model.layers} layers of model {run.model.name}; give one per layer"
        )
    if run.model.input_dropout:
        lines.append("input_dropout: temporal models have none; leave it at 0, use dropout")
    if run.model.kind == "graphmixer" and run.model.layers != 1:
        lines.append(
            f"layers: found {run.model.layers}, graphmixer looks at one hop; set layers = 1"
        )
    return lines


def protocol_of(data: EdgeStream, run: RunSpec, **fields: Any) -> Protocol:
    """How a run goes through a stream; `fields` are those that approaches decide."""
    training, batch = run.training, run.batch
    # As many queries in an evaluation batch as in a training batch of one rank; the chunks are
    # the same for any number of ranks.
    evaluation = batch.size * (2 + batch.negatives) // (2 + run.task.negatives)
    if run.task.protocol == "tgb" and not training.increments:
        evaluation = min(evaluation, TGB_BATCH)
    return Protocol(
        events=data.num_edges,
        train_end=data.train_end,
        epochs=training.epochs,
        increments=training.increments,
        batch=batch.size,
        evaluation_batch=max(evaluation, 1),
        streamed_batch=TGB_BATCH if run.task.protocol == "tgb" else 0,
        speedup=training.speedup,
        ranks=run.ranks,
        seed=training.seed,
        **fields,
    )


def refused(name: str, run: RunSpec, data: Any, protocol: Callable[[], Protocol]) -> str | None:
    """Why an approach cannot run on a stream or its profile: it has too many events, or too few."""
    if data is None:
        return None
    if isinstance(data, StreamProfile) and (reason := too_large(data)):
        return f"{name}: {reason}"
    rest = data.num_edges - protocol().offline_end
    if run.training.increments > rest:
        return f"{run.training.increments} increments of {rest} events"
    return None


def _is_timed(run: RunSpec) -> bool:
    """Whether the model sees times, or keeps a memory."""
    model = temporal_model(run)
    return LAYERS[model.layer].timed or model.memory


def tiny_flow(name: str, ranks: int, **fields: Any) -> RunSpec:
    """An example on a stream of 600 events.

    Phases are frequency times age: long ages and steps would make rounding errors grow.
    """
    fields["options"] = {"mean_gap": 2.0, **fields.get("options", {})}
    fields["training"] = {"lr": 0.001, **fields.get("training", {})}
    fields["task"] = {"negatives": 4, **fields.get("task", {})}
    return example(name, ranks, kind="stream", **fields)


APPROACH = Continuous()
