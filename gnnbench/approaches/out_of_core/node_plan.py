"""The plan of node classification from the disk."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import GraphLike, Layout
from gnnbench.approaches.mini_batch.batch import (
    DRAWN_EDGES,
    BatchSizes,
    sizes_of,
)
from gnnbench.approaches.out_of_core.batch_steps import BatchSteps
from gnnbench.approaches.out_of_core.evaluating import layerwise_evaluation
from gnnbench.approaches.out_of_core.loading import Loading, buffer_of, slots
from gnnbench.approaches.out_of_core.nodes import (
    EDGE_BYTES,
    NodeStructure,
    buffer_graph,
    buffer_profile,
    drawn_work,
    expected_batch,
    resident_edges,
    resident_share,
    sampler_of,
)
from gnnbench.approaches.out_of_core.policies import partition_reads, swaps
from gnnbench.approaches.out_of_core.storage import expected_requests, padded
from gnnbench.approaches.out_of_core.visits import (
    LoadSizes,
    Visit,
    changes,
    load_sizes,
    shared,
)
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.approaches.writing.stack import parameter_buffers
from gnnbench.data.dealing import undivided
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.iterations import Iteration, LazyIterations
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Buffer, Lane, Phase, Space

ID_BYTES = work.ID_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitSizes:
    """Sizes of a visit: what it loads, and its batches."""

    load: LoadSizes
    batches: list[BatchSizes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where an iteration lies: epoch, visit within the epoch, batch within the visit."""

    epoch: int
    visit: int
    batch: int


def node_plan(
    data: GraphLike, run: RunSpec, structure: NodeStructure, layout: Layout, knobs: Any
) -> Plan:
    """Write the steps of all epochs; `knobs` are those of the approach."""
    shape = stack_shape(data, run, "aggregate_first")
    if isinstance(data, GraphProfile):
        epochs = [_estimated(data, run, structure, knobs)]
        counted, basis = False, f"frontier estimated from degrees of profile {data.name}"
    else:
        epochs, whole = _drawn(data, run, structure, knobs)
        counted = whole and len(epochs) == run.training.epochs
        basis = "every batch drawn on the real graph" if counted else "some batches drawn"
    steps = [
        Step(epoch=number, visit=at, batch=batch)
        for number, visits in enumerate(epochs)
        for at, visit in enumerate(visits)
        for batch, _ in enumerate(visit.batches)
    ]
    lengths = [sum(len(visit.batches) for visit in visits) for visits in epochs]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    chosen = [epoch % len(epochs) for epoch in range(run.training.epochs)]
    writer = _Writer(shape, structure, epochs, layout.device, knobs)
    firsts, numbers = shared([_key(epochs, step, knobs.staleness + 1) for step in steps])
    return Plan(
        approach=run.approach,
        world_size=1,
        iterations=LazyIterations(len(firsts), lambda at: writer.iteration(steps[firsts[at]])),
        schedule=tuple(numbers[at] for e in chosen for at in range(starts[e], starts[e + 1])),
        periods=tuple(lengths[e] for e in chosen),
        resident=_resident(shape, data, structure, prefetch=bool(knobs.read_ahead)),
        counted=counted,
        basis=basis,
        evaluation=LazyIterations(1, lambda _: layerwise_evaluation(data, run)),
        disk=knobs.disk,
        notes={
            "policy": structure.policy.name,
            "partitions": structure.policy.partitions,
            "buffer": structure.policy.capacity,
            "partition_reads": partition_reads(structure.policy),
            "num_parameters": shape.num_parameters,
            "steps": lengths[0],
        },
    )


def _key(epochs: list[list[VisitSizes]], step: Step, flight: int) -> Hashable:
    """Equal for batches whose steps are equal: of the same sizes, and none begins a visit."""
    if step.batch == 0:
        return step.epoch, step.visit
    batch = epochs[step.epoch][step.visit].batches[step.batch]
    return id(batch), min(step.batch, flight), True


# -- sizes ---------------------------------------------------------------------------------------


def _drawn(
    graph: Graph, run: RunSpec, structure: NodeStructure, knobs: Any
) -> tuple[list[list[VisitSizes]], bool]:
    """Draw epochs until a budget of edges is spent; whether every batch of them was drawn."""
    epochs: list[list[VisitSizes]] = []
    spent, whole = 0, True
    for epoch in range(run.training.epochs):
        visits, first = [], 0
        for visit in structure.visits(epoch):
            sizes, complete = _visit_sizes(graph, run, structure, knobs, visit, (epoch, first))
            visits.append(sizes)
            whole &= complete
            first += len(sizes.batches)
            spent += sum(batch.cost for batch in sizes.batches)
        epochs.append(visits)
        if spent + spent / (epoch + 1) > DRAWN_EDGES:
            break
    return epochs, whole


def _visit_sizes(
    graph: Graph,
    run: RunSpec,
    structure: NodeStructure,
    knobs: Any,
    visit: Visit,
    at: tuple[int, int],
) -> tuple[VisitSizes, bool]:
    """Sizes of a visit whose first batch is number `at[1]` of epoch `at[0]`."""
    ids = structure.resident_ids(visit)
    held = buffer_graph(*resident_edges(graph, ids), ids, graph)
    sampler = sampler_of(held, run, knobs)
    seeds, size = np.searchsorted(ids, visit.items), run.batch.size

    def draw(step: int) -> BatchSizes:
        own = seeds[step * size : (step + 1) * size]
        drawn = sampler.sample(own, at[0], at[1] + step)
        return sizes_of([undivided(drawn, structure.num_train)])

    steps = structure.steps(visit)
    batches, complete = _spread(steps, draw)
    assert structure.buckets is not None
    load = load_sizes(visit, structure.rows, structure.buckets, edges=held.num_edges)
    return VisitSizes(load=load, batches=batches), complete


def _spread(steps: int, draw: Callable[[int], BatchSizes]) -> tuple[list[BatchSizes], bool]:
    """Draw all batches, or evenly spread ones whose sizes the others take."""
    first = draw(0)
    most = max(3, DRAWN_EDGES // max(first.cost, 1))
    if steps <= most:
        return [first, *(draw(step) for step in range(1, steps))], True
    picks = np.unique(np.linspace(0, steps - 1, most).astype(int))
    drawn = {int(pick): draw(int(pick)) for pick in picks}
    nearest = picks[np.searchsorted(picks, np.arange(steps), side="right") - 1]
    return [drawn[int(pick)] for pick in nearest], False


def _estimated(
    profile: GraphProfile, run: RunSpec, structure: NodeStructure, knobs: Any
) -> list[VisitSizes]:
    """Expected sizes of an epoch, from degrees and closed forms alone."""
    policy, rows = structure.policy, structure.rows
    p, states = policy.partitions, policy.states(0)
    per_visit = -(-structure.num_train // len(states))
    steps = max(1, -(-per_visit // structure.batch_size))
    fanouts = run.batch.fanouts(run.model.layers)
    reached = profile.reached_share(fanouts, run.batch.size)
    visits = []
    for resident, admitted, evicted in changes(states):
        count = rows.rows_in(resident)
        held = buffer_profile(profile, count / max(profile.num_nodes, 1))
        c, new = len(resident), len(admitted)
        mean = profile.num_edges * EDGE_BYTES / p**2
        requests, size = expected_requests(new, c / p, p, mean)
        if c > new:
            more = expected_requests(c - new, new / p, p, mean)
            requests, size = requests + more[0], size + more[1]
        load = LoadSizes(
            partitions=new,
            partition_bytes=rows.bytes_in(admitted),
            evicted=len(evicted),
            evicted_bytes=rows.bytes_in(evicted),
            requests=int(requests),
            edge_bytes=min(int(size), padded(profile.num_edges * EDGE_BYTES)),
            rows=count,
            edges=held.num_edges,
        )
        pinned = policy.name == "sequential"
        near = buffer_profile(profile, resident_share(profile, count, reached, pinned=pinned))
        batch = expected_batch(near, run, knobs, reached)
        visits.append(VisitSizes(load=load, batches=[batch] * steps))
    return visits


def batch_lane(batches_ahead: int, *, on_cpu: bool) -> Lane:
    """Where batches are drawn and gathered: beside training if some are prepared ahead."""
    return Lane.COMPUTE if on_cpu and not batches_ahead else Lane.HOST


# -- steps ---------------------------------------------------------------------------------------


class _Writer:
    """Writes iterations: load where a visit begins, then draw, fetch, train."""

    def __init__(
        self,
        shape: StackShape,
        structure: NodeStructure,
        epochs: list[list[VisitSizes]],
        device: str,
        knobs: Any,
    ) -> None:
        self.structure, self.epochs = structure, epochs
        self.knobs, self.batches_ahead = knobs, knobs.staleness
        self.update, prefetch = f"update/{shape.optimizer}", bool(knobs.read_ahead)
        self.loading = Loading(prefetch=prefetch, writes=False, last_step=self.update)
        self.buffer_rows = _slots(structure, prefetch) * (
            structure.rows.slot_bytes // structure.rows.row_bytes
        )
        lane = batch_lane(self.batches_ahead, on_cpu=device == "cpu")
        self.batch = BatchSteps(
            shape=shape, device=device, lane=lane, flight=self.batches_ahead + 1
        )

    def iteration(self, step: Step) -> Iteration:
        """One batch."""
        chain, visits = Chain(), self.epochs[step.epoch]
        visit = visits[step.visit]
        if step.batch == 0:
            following = visits[step.visit + 1].load if step.visit + 1 < len(visits) else None
            self._begin(chain, visit.load, following, first=step.visit == 0)
        sizes = visit.batches[step.batch]
        self._fetch(chain, sizes, step.batch)
        return self.batch.train(chain, sizes)

    def _begin(
        self, chain: Chain, load: LoadSizes, following: LoadSizes | None, *, first: bool
    ) -> None:
        self.loading.begin(chain, load, first=first)
        # The slots that are filled were left by the visit before, which has been trained on.
        trained = () if first else (After(self.update, 1),)
        self.loading.ahead(chain, None if first else load, following, trained)
        room = (
            Buffer("edges", EDGE_BYTES * load.edges, Space.HOST),
            Buffer("topology", 8 * (load.rows + 1) + 4 * load.edges, Space.HOST),
            # The buckets of before, and what was read, until both are put together.
            Buffer("exchanged", 2 * EDGE_BYTES * load.edges, Space.HOST),
            Buffer("numbers", (3 * ID_BYTES + 4) * load.rows, Space.HOST),
        )
        # Batches ahead run on a lane of their own: the visit before must have been trained on.
        drained = (After(self.update, 1),) if self.batches_ahead else ()
        chain.step(
            "load/graph",
            work.enter_buffer(load.rows, load.edges),
            phase=Phase.LOAD,
            lane=self.batch.lane,
            after=(*self.loading.waits(first=first), *drained),
            allocates=room,
            frees=("exchanged",),
        )

    def _fetch(self, chain: Chain, sizes: BatchSizes, at: int) -> None:
        write = self.batch
        # A batch takes the slot of the one that was trained on `flight` batches ago.
        late = bool(self.batches_ahead) and at >= write.flight
        waits = (After(self.update, write.flight),) if late else ()
        write.prepare(chain, sizes, drawn_work(self.knobs, sizes.vertices, sizes.edges), waits)
        write.gather(chain, sizes, self.buffer_rows)
        write.copy(chain, sizes)


def _slots(structure: NodeStructure, prefetch: bool) -> int:
    most = swaps(structure.policy)[1] if swaps(structure.policy)[0] else 0
    # Visits without work are skipped, so that a swap may bring more partitions in than one.
    policy = structure.policy
    if most and policy.name == "dispersed":
        most = policy.partitions - policy.capacity
    return slots(policy.capacity, min(most, policy.capacity), prefetch=prefetch)


buffer_slots = _slots


def _resident(
    shape: StackShape, data: Any, structure: NodeStructure, *, prefetch: bool
) -> tuple[Buffer, ...]:
    """Buffers that live throughout: the buffer, tables of vertices, parameters."""
    n, p = data.num_nodes, structure.policy.partitions
    tables = {
        "positions": 2 * 4 * n,
        "partitions": 4 * n,
        "labels": ID_BYTES * n,
        "train_nodes": 2 * ID_BYTES * structure.num_train,
        "sampler": 4 * n,
        "buckets": 2 * ID_BYTES * p * p,
    }
    files = EDGE_BYTES * data.num_edges
    return (
        *buffer_of(structure.rows, _slots(structure, prefetch), files),
        *(Buffer(name, size, Space.HOST) for name, size in tables.items()),
        *parameter_buffers(shape),
    )
