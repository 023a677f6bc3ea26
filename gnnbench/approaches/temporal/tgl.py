"""TGL: data-parallel training on a temporal CSR, with node memory that is read one step late.

The graph is static: a temporal CSR of the stream is built once, before the first batch, and is
never inserted into. Sampling is strictly in the past, so no batch sees a later event. A period is a
pass over the training events in the order of their times. Each batch is dealt to the ranks in even,
contiguous shares; gradients are summed over ranks. Memory and mailbox are one state that all ranks
share; every rank writes the whole batch, in the order of (time, event).

Schedule of a pass of N batches, s = `staleness`, R(x) reads the input of batch x (neighbours,
features, memory), T(x) trains on it and W(x) writes the memory of its ends:

    s = 0    R(0) T(0) W(0) R(1) T(1) W(1) ...
    s = 1    R(0); R(1) while T(0) runs, then W(0); R(2) while T(1) runs, then W(1); ...

With s = 1 batch x is computed from the memory that batches 0 ... x - 2 left, while a thread reads
batch x + 1. W(x) waits for the end of R(x + 1), so the version that a batch reads does not depend
on the speed of any thread or rank. A write replaces memory, message and times of a node as they
follow from what its batch had read: where batches x - 1 and x both touch a node, the message of
x - 1 is lost, as in the published system. Losses, parameters and memory equal those of a serial
loop over the schedule (temporal reference, invariants M3 and M4).

Closed forms, per optimiser step (P ranks, theta parameters, d memory width, b events of the largest
share, s bytes per element):

    gradients    all-reduce of (theta + 1) s bytes
    memory       all-gather of 2 b d s bytes per rank, for models with memory
    features     with a cache, bytes of a row per distinct miss

Deviations from the published system: ranks are processes that each hold a copy of T-CSR, features,
memory and mailbox, instead of threads on one copy in host memory; the writes of ranks have a
defined order; the feature caches of `continuous` are an option here, the published system has none;
sampling is without replacement and sees the first edge of a vertex; a message holds the memories of
both ends, and edge features are looked up by event.

Source: Zhou, Zheng, Nisa, Ioannidis, Song, Karypis, "TGL: A General Framework for Temporal GNN
Training on Billion-Scale Graphs", VLDB 2022; temporal reference sections 4, 7 and 10.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gnnbench import work
from gnnbench.approaches.base import Layout, Probe
from gnnbench.approaches.card import Look, Promise
from gnnbench.approaches.temporal.caching import CacheKnobs, CacheTrace, Caching
from gnnbench.approaches.temporal.continuous import (
    Continuous,
    model_problems,
    protocol_of,
    tiny_flow,
)
from gnnbench.approaches.temporal.inputs import InputWriter
from gnnbench.approaches.temporal.schedule import Piece, Protocol
from gnnbench.approaches.temporal.structure import Sampling, Store, StreamStructure
from gnnbench.approaches.temporal.writing import StreamWriter
from gnnbench.approaches.writing.chain import Chain
from gnnbench.data.stream import EdgeStream
from gnnbench.data.temporal_csr import TemporalCsr, csr_bytes
from gnnbench.data.temporal_sampling import STRATEGIES
from gnnbench.iterations import Iteration, RankClass
from gnnbench.models.temporal import TemporalShape, temporal_model
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Buffer, Lane, Phase, Size, Space, Work
from gnnbench.strict import bounds, choices

MEMORY, FLUSH = "memory", "flush"
"""Places of writes: of the batch before, and of the last batch of a pass by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TglKnobs(CacheKnobs):
    """Knobs of `tgl`, those of feature caches among them; the published system has no caches.

    staleness: steps by which the memory that a batch reads is late: 1 reads the next batch while
    this one trains, as published; 0 reads each batch after the memory of the one before was
    written. sampling: of neighbours; "model" takes the model's own. window: how old a neighbour
    may be, in units of the stream's times; 0 is unlimited. chunks: parts of a batch; with more than
    one, each pass begins with a batch of a random number of them (random chunk scheduling).
    """

    staleness: int = field(default=1, metadata=bounds(0, 1))
    sampling: str = field(default="model", metadata=choices("model", *STRATEGIES))
    window: int = field(default=0, metadata=bounds(0))
    chunks: int = field(default=1, metadata=bounds(1, 1024))


class StaticStructure(StreamStructure):
    """Schedule and sampling on a temporal CSR of the whole stream."""

    def _csr(self, stop: int) -> TemporalCsr:
        stream = self.stream
        ends = stream.sources[:stop], stream.destinations[:stop]
        return TemporalCsr(stream.num_nodes, *ends, stream.times[:stop])

    def empty_store(self, rank: int) -> Store:
        """A graph without edges."""
        return self._csr(0)

    def ingestion(self, first: int, stop: int) -> Work:
        """Work of building the graph of all events before `stop`."""
        return work.build_temporal_csr(stop, self.stream.num_nodes)

    def ingest(self, store: Store, piece: Piece, rank: int) -> Store:
        """Build the graph of all events that are known with a piece."""
        return self._csr(piece.ingest[1])

    @cached_property
    def store_bytes(self) -> list[Size]:
        """Bytes of the graph in each period, by its formula."""
        size = csr_bytes(self.stream.num_nodes, 2 * self.protocol.events)
        return [size] * self.protocol.num_periods


class Tgl(Continuous):
    """Card and plan of `tgl`."""

    name = "tgl"
    title = "TGL, stale memory"
    paper = "Zhou et al., TGL: A General Framework for Temporal GNN Training, VLDB 2022"
    summary = "batches of a static temporal graph on all ranks; node memory is read one step late"
    promise = Promise(
        kind="own",
        text="Losses, parameters and memory equal those of one rank that reads the memory of a "
        "batch before the memory of the batch before it is written.",
        reference="continuous",
        limit={"staleness": 0, "chunks": 1},
    )
    look = Look(colour="#882255", marker="D")
    knobs_type = TglKnobs
    runtime = "gnnbench_runtime.approaches.temporal.tgl:TglTrainer"

    def examples(self) -> list[RunSpec]:
        few: dict[str, Any] = {"size": 50, "fanouts_from_seeds": (4, 3)}
        one: dict[str, Any] = {"size": 64, "fanouts_from_seeds": (5,), "negatives": 2}
        tgn = {"kind": "tgn", "layers": 1, "heads": 2}
        two, rows = {"epochs": 2}, {"num_features": 3, "bipartite": True}
        caches = {"node_cache": 0.3, "edge_cache": 0.05}

        def flow(ranks: int, model: dict[str, Any], batch: dict[str, Any], **more: Any) -> RunSpec:
            return tiny_flow(self.name, ranks, model=model, batch=batch, training=two, **more)

        return [
            flow(1, {**tgn, "dropout": 0.1}, one, knobs={"chunks": 4}),
            flow(2, tgn, one, options=rows, knobs=caches),
            flow(3, tgn, {**one, "size": 450}, task={"protocol": "tgb", "negatives": 6}),
            flow(2, tgn, one, options=rows, knobs={**caches, "staleness": 0}),
            flow(
                2,
                {"kind": "tgat", "heads": 2},
                few,
                options=rows,
                knobs={**caches, "cache_policy": "static", "chunks": 2},
            ),
            flow(2, {"kind": "graphmixer", "layers": 1}, one),
            flow(2, {"kind": "temporal-sage"}, few, options=rows),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """Passes over the streams that continuous learning is probed with."""
        own = self.knob_names()
        return [
            replace(
                run,
                approach=self.name,
                knobs={
                    **{name: value for name, value in run.knobs.items() if name in own},
                    "staleness": probe.number % 2,
                },
                training=replace(run.training, increments=0, epochs=probe.run.training.epochs),
            )
            for run in super().probes(probe)
        ]

    def problems(self, run: RunSpec) -> list[str]:
        """Fan-outs, and what is not built."""
        return model_problems(run)

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        """The graph is built once: nothing arrives later."""
        if run.training.increments:
            return (
                f"{self.name} trains on a graph that is built once and cannot grow; set "
                "training.increments = 0"
            )
        return super().skip_reason(run, data)

    def num_periods(self, run: RunSpec) -> int:
        """Passes over the training events."""
        return run.training.epochs

    def protocol(self, data: EdgeStream, run: RunSpec) -> Protocol:
        """How the run goes through a stream."""
        return protocol_of(data, run, offline=0.0, chunks=self.knobs(run).chunks)

    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> StaticStructure:
        knobs: TglKnobs = self.knobs(run)
        model = temporal_model(run)
        sampling = Sampling(
            fanouts_from_seeds=run.batch.fanouts(run.model.layers),
            strategy=model.strategy if knobs.sampling == "model" else knobs.sampling,
            window=knobs.window,
            first=1,
            block=1,
            negatives=(run.batch.negatives, run.task.negatives),
            fixed=run.task.protocol == "tgb",
        )
        protocol = self.protocol(data, run)
        return StaticStructure(stream=data, protocol=protocol, sampling=sampling, cache=cache)

    def caching(self, run: RunSpec) -> Caching:
        """Those of `continuous`, asked for messages of the memory that a batch reads."""
        return replace(super().caching(run), late=self.knobs(run).staleness)

    def writer(
        self,
        run: RunSpec,
        shape: TemporalShape,
        structure: StreamStructure,
        trace: CacheTrace,
        layout: Layout,
    ) -> StreamWriter:
        """The writer of the run's iterations."""
        if not self.knobs(run).staleness:
            return StreamWriter(shape, structure, trace, layout.device)
        return _StaleWriter(shape, structure, trace, layout.device)


class _StaleWriter(StreamWriter):
    """Writes iteration x as R(x), W(x - 1), T(x); the last one of a pass ends with W of itself.

    R(x) runs on the host's lane. W(x - 1) follows it in the same iteration, which is the wait of a
    write for the read that must not see it.
    """

    def __init__(
        self, shape: TemporalShape, structure: StreamStructure, trace: CacheTrace, device: str
    ) -> None:
        super().__init__(shape, structure, trace, device)
        # The batch that trains, and the one that is read.
        self.input = InputWriter(shape, structure, trace, device, lane=Lane.HOST, alive=2)

    def iteration(self, period: int, number: int) -> Iteration:
        """One iteration of all ranks."""
        pieces = self.structure.pieces[period]
        piece, chain = pieces[number], Chain()
        if piece.kind != "train":
            return super().iteration(period, number)
        waits = self._waits(period, number)
        first, stop = piece.ingest
        if stop > first:
            held = Buffer("store", self.structure.store_bytes[period], Space.HOST, exact=True)
            done = self.structure.ingestion(first, stop)
            chain.step("ingest", done, phase=Phase.LOAD, after=waits, allocates=(held,))
            waits = ()
        sizes = self.input.write(chain, (period, number), False, waits)
        if self.shape.memory and number:
            self._write(chain, pieces[number - 1], MEMORY)
        self._learn(chain, piece, sizes)
        if self.shape.memory and number == len(pieces) - 1:
            self._write(chain, piece, FLUSH)
        return Iteration([RankClass(self.group, chain.done())])

    def _waits(self, period: int, number: int) -> tuple[After, ...]:
        """What the read of a batch waits for.

        The first of a pass: the end of the pass before. The second: the first, on the same lane.
        Any other, x: W(x - 2), which is in the iteration before; without memory T(x - 2).
        """
        if number == 0:
            return (After(self._last(self._before(period, number)), 1),)
        if number == 1:
            return ()
        if self.shape.memory:
            return (After(f"{MEMORY}/write", 1),)
        return (After(f"update/{self.shape.optimizer}", 2),)

    def _last(self, piece: Piece) -> str:
        """The name of the last step of a pass."""
        if piece.kind == "train" and self.shape.memory:
            return f"{FLUSH}/write"
        return super()._last(piece)


APPROACH = Tgl()
