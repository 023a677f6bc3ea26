"""Node-wise neighbour sampling, data parallel, with features replicated or partitioned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench import work
from gnnbench.approaches.base import Approach, GraphLike, Layout, Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.approaches.mini_batch.batch import (
    BatchSizes,
    Drawn,
    block_bytes,
    draw_run,
    profile_batch,
    turned_edges,
)
from gnnbench.approaches.whole_graph.partition import assign
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import LayerSizes, StackShape, stack_shape, total
from gnnbench.approaches.writing.stack import StackWriter, parameter_buffers
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Buffer, Ints, Lane, Phase, Size, Work
from gnnbench.strict import bounds, choices

ID_BYTES = work.ID_BYTES
DRAWN_EDGES = 3_000_000
"""Edges drawn at most to count the sizes of a plan's batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledKnobs:
    """Knobs of `sampled`.

    Args:
        placement: replicated keeps all features on every rank; partitioned keeps them on their
            owner, from which they are fetched by all-to-all.
        prefetch: batches that a thread prepares ahead; 0 is serial, and stage times add up.
        partitioner: how feature rows are assigned to owners, if partitioned.
        objective: what METIS minimises: communication volume (vol) or edge cut (cut).
        order: which product of a layer comes first.
    """

    placement: str = field(default="replicated", metadata=choices("replicated", "partitioned"))
    prefetch: int = field(default=0, metadata=bounds(0, 64))
    partitioner: str = field(default="metis", metadata=choices("metis", "hash", "chunk"))
    objective: str = field(default="vol", metadata=choices("vol", "cut"))
    order: str = field(
        default="aggregate_first",
        metadata=choices("min_width", "aggregate_first", "transform_first"),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledStructure:
    """What decides the batches.

    Args:
        num_steps: optimiser steps of an epoch.
        owner: int32 [N], the owner of every vertex when features are partitioned.
        owned_rows: int64 [P], vertices of each owner; None when features are replicated.
    """

    num_steps: int
    owner: NDArray[np.int32] | None = None
    owned_rows: Ints | None = None


class Sampled(Approach):
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
    knobs_type = SampledKnobs
    runtime = "gnnbench_runtime.approaches.mini_batch.sampled:SampledTrainer"

    def examples(self) -> list[RunSpec]:
        few = {"size": 16, "fanouts_from_seeds": (4, 3)}
        return [
            example("sampled", 1, batch=few),
            example("sampled", batch=few, knobs={"placement": "partitioned", "prefetch": 2}),
            example("sampled", 3, batch=few, model={"kind": "sage", "norm": "layer"}),
            example("sampled", batch=few, model={"kind": "gat", "heads": 2, "dropout": 0.3}),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        return [replace(probe.run, approach=self.name, ranks=1, knobs={})]

    def variants(self, run: RunSpec) -> list[dict[str, Any]]:
        return [{}] if run.ranks == 1 else [{}, {"placement": "partitioned"}]

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

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        if data is not None and data.num_train == 0:
            return "the graph has no training vertices to draw batches from"
        return None

    def prepare(self, data: Graph, run: RunSpec, cache: Path | None = None) -> None:
        knobs: SampledKnobs = self.knobs(run)
        if knobs.placement == "partitioned" and run.ranks > 1:
            assign(data, run, knobs.partitioner, knobs.objective, cache)

    def structure(
        self, data: GraphLike, run: RunSpec, cache: Path | None = None
    ) -> SampledStructure:
        knobs: SampledKnobs = self.knobs(run)
        num_steps = max(1, -(-data.num_train // run.batch.size))
        if knobs.placement == "replicated" or run.ranks == 1:
            return SampledStructure(num_steps=num_steps)
        if isinstance(data, GraphProfile):
            even = np.full(run.ranks, -(-data.num_nodes // run.ranks), np.int64)
            return SampledStructure(num_steps=num_steps, owned_rows=even)
        owner = assign(data, run, knobs.partitioner, knobs.objective, cache)
        rows = np.bincount(owner, minlength=run.ranks).astype(np.int64)
        return SampledStructure(num_steps=num_steps, owner=owner, owned_rows=rows)

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: SampledKnobs = self.knobs(run)
        shape, steps = stack_shape(data, run, knobs.order), structure.num_steps
        if isinstance(data, GraphProfile):
            batch = profile_batch(data, run, partitioned=structure.owned_rows is not None)
            drawn = Drawn(
                batches=[batch],
                schedule=(0,) * (steps * run.training.epochs),
                counted=False,
                basis=f"frontier estimated from degrees of profile {data.name}",
            )
        else:
            drawn = draw_run(data, run, steps, structure.owner, DRAWN_EDGES)
        # The first batch of an epoch is drawn after the last update of the epoch before. It is an
        # iteration of its own, so that its wait can say so, also where batches stand for others.
        wanted = [
            (index, place % steps == 0 and knobs.prefetch > 0)
            for place, index in enumerate(drawn.schedule)
        ]
        distinct = list(dict.fromkeys(wanted))
        numbers = {pair: number for number, pair in enumerate(distinct)}
        owned = structure.owned_rows
        batches = BatchWriter(shape, knobs, run.ranks, data.num_nodes, owned, layout.device)

        def iteration(number: int) -> Iteration:
            index, first = distinct[number]
            return batches.iteration(drawn.batches[index], first=first)

        return Plan(
            approach=run.approach,
            world_size=run.ranks,
            iterations=LazyIterations(len(distinct), iteration),
            schedule=tuple(numbers[pair] for pair in wanted),
            periods=(steps,) * run.training.epochs,
            resident=resident(shape, data, owned),
            counted=drawn.counted,
            basis=drawn.basis,
            notes={"order": shape.orders, "num_parameters": shape.num_parameters, "steps": steps},
        )


class BatchWriter:
    """Writes iterations: draw, fetch, forward, backward, all-reduce, update."""

    def __init__(
        self,
        shape: StackShape,
        knobs: SampledKnobs,
        ranks: int,
        num_nodes: int,
        owned_rows: Ints | None,
        device: str,
    ) -> None:
        self.shape, self.num_nodes, self.owned_rows = shape, num_nodes, owned_rows
        self.group, self.prefetch, self.device = tuple(range(ranks)), knobs.prefetch, device
        ahead = knobs.prefetch > 0
        self.local, self.remote = (
            (Lane.HOST, Lane.BACKGROUND) if ahead else (Lane.COMPUTE, Lane.COMM)
        )

    def iteration(self, sizes: BatchSizes, *, first: bool) -> Iteration:
        """One batch of all ranks; the `first` of an epoch waits for the epoch before."""
        chain = Chain()
        layers = self.prepare(chain, sizes, first=first)
        stack = StackWriter(self.shape, layers, None, chain)
        stack.forward()
        stack.loss(sizes.vertices[-1])
        stack.backward()
        stack.update(self.group)
        return Iteration([RankClass(self.group, chain.done())])

    def prepare(self, chain: Chain, sizes: BatchSizes, *, first: bool) -> list[LayerSizes]:
        """Draw a batch, build its blocks, fetch its input rows; return the sizes of its layers."""
        shape, n = self.shape, sizes.vertices
        s, width, layers = shape.element_bytes, shape.dims[0], sizes.layers()
        update = f"update/{shape.optimizer}"
        lag = 1 if first else self.prefetch + 1
        slots = self.prefetch + 1
        held = block_bytes(shape, layers) + ID_BYTES * n[0]
        self._step(
            chain,
            "sample/draw",
            work.draw_neighbours(n, sizes.edges),
            Phase.SAMPLE,
            allocates=(Buffer("blocks", slots * held),),
            after=(After(update, lag),) if self.prefetch else (),
        )
        prepared = work.prepare_blocks(n, turned_edges(shape, layers))
        self._step(chain, "sample/prepare", prepared, Phase.SAMPLE)
        if self.device != "cpu":
            chain.step("fetch/copy", work.to_device(held), phase=Phase.FETCH, lane=Lane.COPY)
        inputs = Buffer("x", slots * n[0] * width * s)
        if sizes.requests is not None:
            self._fetch(chain, sizes.requests, inputs)
        else:
            gathered = work.gather(n[0], width, self.num_nodes, s)
            self._step(chain, "fetch/gather", gathered, Phase.FETCH, allocates=(inputs,))
        return layers

    def _fetch(self, chain: Chain, requests: Ints, inputs: Buffer) -> None:
        """Fetch feature rows from their owners: counts, ids, rows, then back into order."""
        s, width = self.shape.element_bytes, self.shape.dims[0]
        wanted, given = requests.sum(axis=1), requests.sum(axis=0)
        others = requests.copy()
        np.fill_diagonal(others, 0)
        assert self.owned_rows is not None
        self._step(chain, "fetch/route", work.route(wanted), Phase.FETCH)
        ones = np.ones_like(others)
        np.fill_diagonal(ones, 0)
        self._exchange(chain, "fetch/counts", ones, ID_BYTES)
        self._exchange(chain, "fetch/ids", others, ID_BYTES)
        served = Buffer("served_rows", given * width * s)
        gathered = work.gather(given, width, self.owned_rows, s)
        self._step(chain, "fetch/gather", gathered, Phase.FETCH, allocates=(served,))
        self._exchange(chain, "fetch/rows", others.T, width * s)
        placed = work.gather(wanted, width, wanted, s)
        fetched = Buffer("fetched_rows", wanted * width * s)
        self._step(chain, "fetch/place", placed, Phase.FETCH, allocates=(fetched, inputs))

    def _exchange(self, chain: Chain, name: str, send: Ints, unit_bytes: int) -> None:
        done = work.all_to_all(send, total(send.T), unit_bytes)
        chain.step(name, done, phase=Phase.FETCH, lane=self.remote, group=self.group)

    def _step(self, chain: Chain, name: str, done: Work, phase: Phase, **place: Any) -> None:
        chain.step(name, done, phase=phase, lane=self.local, **place)


def resident(shape: StackShape, data: GraphLike, owned_rows: Ints | None) -> tuple[Buffer, ...]:
    """Buffers that live from before the first batch: features, topology, tables, parameters."""
    return sampled_data(shape, data, owned_rows) + parameter_buffers(shape)


def sampled_data(shape: StackShape, data: GraphLike, owned_rows: Ints | None) -> tuple[Buffer, ...]:
    """What a rank that samples holds of the data; features of `owned_rows`, or of all vertices."""
    s, n = shape.element_bytes, data.num_nodes
    rows: Size = n if owned_rows is None else owned_rows
    scales = {"symmetric": 2, "mean": 0, "softmax": 0}[shape.model.normalisation]
    held: dict[str, Size] = {
        "features": rows * shape.dims[0] * s,
        "topology": 8 * (n + 1) + 4 * data.num_edges,
        "labels": 8 * n,
        "sampler": 4 * n,
        "scales": scales * n * s,
        "train_nodes": 2 * ID_BYTES * data.num_train,
    }
    if owned_rows is not None:
        held["owners"] = 4 * n + ID_BYTES * n
    return tuple(Buffer(name, size) for name, size in held.items())


APPROACH = Sampled()
