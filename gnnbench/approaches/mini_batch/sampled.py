"""Node-wise neighbour sampling, data parallel, with features replicated or partitioned.

Computation graph `per_layer` (sampling section 2): in every hop each destination is re-sampled,
seeds included. Each rank takes an even slice of the global batch; the union of the ranks' blocks is
the block one rank would draw, because draws are keyed by (seed, epoch, step, hop, vertex, slot).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import Approach, GraphLike, Layout
from gnnbench.approaches.whole_graph.partition import assign
from gnnbench.approaches.whole_graph.rows import stack_shape
from gnnbench.approaches.writing.stack import Chain, LayerSizes, StackShape, StackSteps
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.plan import After, Kind, Lane, Phase, Plan, RankSteps, Step
from gnnbench.spec import RunSpec
from gnnbench.strict import bounds, choices

ID_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledKnobs:
    """Knobs of `sampled`.

    batch_size: seeds of one optimizer step over all ranks. fanouts_from_seeds: neighbours drawn
    per hop, seeds first, -1 for all. placement: features on every rank, or with their owner and
    fetched by all-to-all. prefetch: batches prepared ahead by a thread; 0 is the serial mode, in
    which stage times add up. partitioner: who owns features when partitioned.
    """

    batch_size: int = field(default=1024, metadata=bounds(1))
    fanouts_from_seeds: tuple[int, ...] = field(default=(15, 10), metadata=bounds(-1))
    placement: str = field(default="replicated", metadata=choices("replicated", "partitioned"))
    prefetch: int = field(default=0, metadata=bounds(0, 64))
    partitioner: str = field(default="metis", metadata=choices("metis", "hash", "chunk"))
    objective: str = field(default="vol", metadata=choices("vol", "cut"))
    order: str = field(
        default="aggregate_first",
        metadata=choices("min_width", "aggregate_first", "transform_first"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSizes:
    """One rank's batch: vertices n_0 ... n_L, edges e_1 ... e_L, and feature rows by owner.

    `requests[j]` are the input vertices owned by rank j; `served[j]` the rows rank j asks of this
    one. Both are empty when features are replicated.
    """

    vertices: tuple[int, ...]
    edges: tuple[int, ...]
    requests: tuple[int, ...] = ()
    served: tuple[int, ...] = ()
    rank: int = 0
    owned_rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledStructure:
    """What decides the batches. `owner` int32 [N] when features are partitioned."""

    num_steps: int
    owner: NDArray[np.int32] | None = None
    owned_rows: tuple[int, ...] = ()


class Sampled(Approach):
    """Card and plan of `sampled`.

    `dry_run_edges` bounds the edges drawn to count batch sizes for a plan: whole epochs while they
    fit, else evenly spread steps of the first epoch (and the plan says so).
    """

    name = "sampled"
    title = "Neighbour sampling, data parallel"
    paper = "Hamilton, Ying and Leskovec, NeurIPS 2017; Zheng et al., DistDGL, IA3 2020"
    summary = "mini-batches of sampled neighbourhoods, gradients averaged over ranks"
    exact = False
    attention = True
    runtime = "gnnbench_runtime.approaches.mini_batch.sampled:SampledTrainer"
    knobs_type = SampledKnobs
    dry_run_edges = 3_000_000

    def problems(self, run: RunSpec) -> list[str]:
        """One fan-out per layer."""
        fanouts = self.knobs(run).fanouts_from_seeds
        bad = [f for f in fanouts if f == 0]
        lines = [f"fanouts_from_seeds: found {list(fanouts)}, 0 draws nothing"] if bad else []
        if len(fanouts) != run.model.layers:
            lines.append(
                f"fanouts_from_seeds: found {len(fanouts)} fan-outs for the {run.model.layers} "
                f"layers of model {run.model.name}; give one per layer"
            )
        return lines

    def skip_reason(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
        if graph is not None and graph.num_train == 0:
            return "the graph has no training vertices to draw batches from"
        return None

    def prepare(self, graph: Graph, run: RunSpec, cache: Path | None = None) -> None:
        knobs: SampledKnobs = self.knobs(run)
        if knobs.placement == "partitioned" and run.ranks > 1:
            assign(graph, run, knobs.partitioner, knobs.objective, cache)

    def structure(
        self, graph: GraphLike, run: RunSpec, cache: Path | None = None
    ) -> SampledStructure:
        knobs: SampledKnobs = self.knobs(run)
        num_steps = max(1, -(-graph.num_train // knobs.batch_size))
        if knobs.placement == "replicated" or run.ranks == 1:
            return SampledStructure(num_steps=num_steps)
        if isinstance(graph, GraphProfile):
            even = -(-graph.num_nodes // run.ranks)
            return SampledStructure(num_steps=num_steps, owned_rows=(even,) * run.ranks)
        owner = assign(graph, run, knobs.partitioner, knobs.objective, cache)
        rows = np.bincount(owner, minlength=run.ranks)
        return SampledStructure(
            num_steps=num_steps, owner=owner, owned_rows=tuple(int(r) for r in rows)
        )

    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: SampledKnobs = self.knobs(run)
        shape = stack_shape(graph, run, knobs.order)
        steps = structure.num_steps
        if isinstance(graph, GraphProfile):
            batches, schedule = [profile_batch(graph, run, knobs)], (0,) * steps
            basis = f"frontier estimated from degrees of profile {graph.name}"
        else:
            batches, schedule, basis = self._dry_run(graph, run, knobs, structure)
        # The first batch of an epoch is drawn after the last update of the epoch before; it is an
        # iteration of its own so that its wait can say so, also where batches stand for others.
        wanted = [
            (index, place % steps == 0 and knobs.prefetch > 0)
            for place, index in enumerate(schedule)
        ]
        numbers = {pair: number for number, pair in enumerate(dict.fromkeys(wanted))}
        iterations = tuple(
            tuple(
                batch_steps(shape, sizes, graph.num_nodes, knobs, run.ranks, first=first)
                for sizes in batches[index]
            )
            for index, first in numbers
        )
        return Plan(
            approach=run.approach,
            world_size=run.ranks,
            iterations=iterations,
            schedule=tuple(numbers[pair] for pair in wanted),
            iterations_per_epoch=steps,
            resident=tuple(
                resident(shape, graph, knobs, structure, rank) for rank in range(run.ranks)
            ),
            exact=basis == EXACT,
            basis=basis,
            notes={"order": shape.orders, "num_parameters": shape.num_parameters, "steps": steps},
        )

    def _dry_run(
        self, graph: Graph, run: RunSpec, knobs: SampledKnobs, structure: SampledStructure
    ) -> tuple[list[list[BatchSizes]], tuple[int, ...], str]:
        """Draw batches until the edge budget is spent; at least three steps are drawn."""
        from gnnbench.data.sampling import NeighbourSampler, epoch_seeds

        sampler = NeighbourSampler(
            graph.indptr, graph.indices, knobs.fanouts_from_seeds, run.training.seed
        )
        steps, train = structure.num_steps, graph.train_nodes()

        def draw(epoch: int, step: int, seeds: NDArray[np.int64]) -> list[BatchSizes]:
            return draw_batch(sampler, seeds, knobs, run.ranks, structure.owner, epoch, step)

        batches: list[list[BatchSizes]] = []
        drawn = 0
        for epoch in range(run.training.epochs):
            order = epoch_seeds(train, run.training.seed, epoch)
            for step in range(steps):
                batches.append(draw(epoch, step, order))
                drawn += sum(sum(b.edges) for b in batches[-1])
                if epoch == 0 and step == 2 and drawn * steps > 3 * self.dry_run_edges:
                    affordable = max(3, int(3 * self.dry_run_edges / max(drawn, 1)))
                    picks = np.unique(np.linspace(0, steps - 1, affordable).astype(int)).tolist()
                    if len(picks) < steps:
                        few = [draw(0, pick, order) for pick in picks]
                        nearest = np.searchsorted(picks, np.arange(steps), side="right") - 1
                        basis = f"{len(picks)} of {steps} steps of the first epoch dry-run"
                        return few, tuple(int(i) for i in nearest), basis
            if drawn + drawn / (epoch + 1) > self.dry_run_edges:
                break
        return batches, tuple(range(len(batches))), EXACT


EXACT = "every batch drawn on the real graph"


def draw_batch(
    sampler: Any,
    order: NDArray[np.int64],
    knobs: SampledKnobs,
    world_size: int,
    owner: NDArray[np.int32] | None,
    epoch: int,
    step: int,
) -> list[BatchSizes]:
    """Sizes of every rank's share of one global batch."""
    from gnnbench.data.sampling import split_seeds

    seeds = order[step * knobs.batch_size : (step + 1) * knobs.batch_size]
    drawn: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = []
    for rank in range(world_size):
        batch = sampler.sample(split_seeds(seeds, world_size, rank), epoch, step)
        vertices = (*(block.num_src for block in batch.blocks), batch.blocks[-1].num_dst)
        edges = tuple(len(block.indices) for block in batch.blocks)
        requests: tuple[int, ...] = ()
        if owner is not None:
            counts = np.bincount(owner[batch.input_nodes], minlength=world_size)
            requests = tuple(int(c) for c in counts)
        drawn.append((vertices, edges, requests))
    asked = np.array([d[2] for d in drawn], np.int64)
    owned = np.zeros(0, np.int64) if owner is None else np.bincount(owner, minlength=world_size)
    return [
        BatchSizes(
            vertices=vertices,
            edges=edges,
            requests=requests,
            served=tuple(int(c) for c in asked[:, rank]) if requests else (),
            rank=rank,
            owned_rows=int(owned[rank]) if requests else 0,
        )
        for rank, (vertices, edges, requests) in enumerate(drawn)
    ]


def profile_batch(graph: GraphProfile, run: RunSpec, knobs: SampledKnobs) -> list[BatchSizes]:
    """Expected sizes of a rank's batch from the degrees alone (sampling section 3, estimator 2)."""
    share = max(1, min(knobs.batch_size, graph.num_train) // run.ranks)
    vertices, edges = graph.expected_frontier(knobs.fanouts_from_seeds, share)
    n, e = tuple(round(v) for v in vertices), tuple(round(v) for v in edges)
    spread: tuple[int, ...] = ()
    if knobs.placement == "partitioned" and run.ranks > 1:
        spread = (-(-n[0] // run.ranks),) * run.ranks
    owned = -(-graph.num_nodes // run.ranks)
    return [
        BatchSizes(vertices=n, edges=e, requests=spread, served=spread, rank=rank, owned_rows=owned)
        for rank in range(run.ranks)
    ]


def needs_transpose(shape: StackShape, layer: int) -> bool:
    """Whether the backward pass aggregates along the reversed block of this layer."""
    return layer > 1 or shape.orders[0] == "transform_first"


def batch_steps(
    shape: StackShape,
    sizes: BatchSizes,
    num_nodes: int,
    knobs: SampledKnobs,
    world_size: int,
    *,
    first: bool,
) -> RankSteps:
    """One iteration of one rank: draw, fetch, forward, backward, all-reduce, Adam."""
    chain = Chain()
    ahead = knobs.prefetch > 0
    local, remote = (Lane.HOST, Lane.BACKGROUND) if ahead else (Lane.COMPUTE, Lane.COMM)
    lag = 1 if first else knobs.prefetch + 1
    wait = (After("update/adam", lag=lag),) if ahead else ()
    s, width = shape.element_bytes, shape.dims[0]
    n, e = sizes.vertices, sizes.edges
    layers = [LayerSizes(rows=n[i + 1], source_rows=n[i], nonzeros=e[i]) for i in range(len(e))]
    block_bytes = sum(8 * (layer.rows + 1) + 4 * layer.nonzeros for layer in layers)
    turned = [x for i, x in enumerate(layers, start=1) if needs_transpose(shape, i)]
    block_bytes += sum(8 * (x.source_rows + 1) + 4 * x.nonzeros for x in turned)
    if shape.model.attention:  # self loops both ways, and per entry its place and its dropout's key
        per_entry = 16 if shape.dropout > 0 else 8
        block_bytes += sum(8 * x.rows + per_entry * (x.nonzeros + x.rows) for x in layers)
    slots = knobs.prefetch + 1
    chain.add(
        Step(
            name="sample/draw", kind=Kind.SAMPLE, op="sample", lane=local, phase=Phase.SAMPLE,
            rows=sum(n[1:]), nonzeros=sum(e), source_rows=n[0],
            bytes=sum(e) * 8 + sum(n) * 16,
            allocates=(("blocks", slots * (block_bytes + ID_BYTES * n[0])),),
        ),
        after=wait,
    )  # fmt: skip
    chain.add(
        Step(
            name="sample/prepare", kind=Kind.SAMPLE, op="prepare_blocks", lane=local,
            phase=Phase.SAMPLE, rows=sum(n), nonzeros=sum(x.nonzeros for x in turned),
            source_rows=n[0], bytes=sum(x.nonzeros for x in turned) * 8 + sum(n) * 16,
        )
    )  # fmt: skip
    inputs = ("x", slots * n[0] * width * s)
    group = tuple(range(world_size))
    if sizes.requests:
        _fetch(chain, sizes, group, width, s, local, remote, inputs)
    else:
        _gather(chain, "fetch/gather", n[0], num_nodes, width, s, local, (inputs,))
    stack = StackSteps(shape, layers, None, chain)
    stack.forward()
    stack.loss(n[-1])
    stack.backward()
    stack.update(group)
    return chain.done()


def _gather(
    chain: Chain,
    name: str,
    rows: int,
    source_rows: int,
    width: int,
    element_bytes: int,
    lane: Lane,
    allocates: tuple[tuple[str, int], ...] = (),
) -> None:
    chain.add(
        Step(
            name=name, kind=Kind.GATHER, op="gather", lane=lane, phase=Phase.FETCH, rows=rows,
            width=width, source_rows=source_rows,
            bytes=rows * (ID_BYTES + 2 * width * element_bytes), allocates=allocates,
        )
    )  # fmt: skip


def _fetch(
    chain: Chain,
    sizes: BatchSizes,
    group: tuple[int, ...],
    width: int,
    element_bytes: int,
    local: Lane,
    remote: Lane,
    inputs: tuple[str, int],
) -> None:
    """Fetch feature rows from their owners: counts, ids, rows, then back into order."""
    asked, served, world = sizes.requests, sizes.served, len(group)
    n0, given = sum(asked), sum(served)
    rank = sizes.rank
    chain.add(
        Step(
            name="fetch/route", kind=Kind.SAMPLE, op="route", lane=local, phase=Phase.FETCH,
            rows=n0, source_rows=n0, bytes=3 * ID_BYTES * n0,
        )
    )  # fmt: skip

    def exchange(name: str, send: tuple[int, ...], receive: tuple[int, ...], unit: int) -> None:
        to_others = tuple(0 if peer == rank else count * unit for peer, count in enumerate(send))
        from_others = sum(receive) - receive[rank]
        chain.add(
            Step(
                name=name, kind=Kind.ALL_TO_ALL, op="all_to_all", lane=remote, phase=Phase.FETCH,
                rows=sum(send), bytes=sum(to_others), send_bytes=to_others, group=group,
                buffer_bytes=max(sum(to_others), from_others * unit),
            )
        )  # fmt: skip

    ones = (1,) * world
    exchange("fetch/counts", ones, ones, ID_BYTES)
    exchange("fetch/ids", asked, served, ID_BYTES)
    row_bytes = width * element_bytes
    _gather(
        chain, "fetch/gather", given, sizes.owned_rows, width, element_bytes, local,
        (("served_rows", given * row_bytes),),
    )  # fmt: skip
    exchange("fetch/rows", served, asked, row_bytes)
    _gather(
        chain, "fetch/place", n0, n0, width, element_bytes, local,
        (("fetched_rows", n0 * row_bytes), inputs),
    )  # fmt: skip


def resident(
    shape: StackShape,
    graph: GraphLike,
    knobs: SampledKnobs,
    structure: SampledStructure,
    rank: int,
) -> dict[str, int]:
    """Bytes that live from before the first batch: features, topology, tables, parameters."""
    s, n = shape.element_bytes, graph.num_nodes
    rows = structure.owned_rows[rank] if structure.owned_rows else n
    scales = {"symmetric": 2, "mean": 0, "softmax": 0}[shape.model.normalisation]
    held = {
        "features": rows * shape.dims[0] * s,
        "topology": 8 * (n + 1) + 4 * graph.num_edges,
        "labels": 8 * n,
        "sampler": 4 * n,
        "scales": scales * n * s,
        "train_nodes": 2 * ID_BYTES * graph.num_train,
        "parameters": 4 * shape.num_parameters * s,
    }
    if structure.owned_rows:
        held["owners"] = 4 * n + ID_BYTES * n
    return held


APPROACH = Sampled()
