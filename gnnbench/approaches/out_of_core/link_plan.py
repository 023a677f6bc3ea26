"""The plan of link prediction on embeddings, from the disk or in memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import Layout
from gnnbench.approaches.out_of_core.link_evaluation import link_evaluation
from gnnbench.approaches.out_of_core.links import (
    EDGE_BYTES,
    LinkStructure,
    relation_shapes,
    training_facts,
)
from gnnbench.approaches.out_of_core.loading import Loading, buffer_of, slots
from gnnbench.approaches.out_of_core.policies import partition_reads, swaps
from gnnbench.approaches.out_of_core.storage import expected_requests, padded
from gnnbench.approaches.out_of_core.visits import LoadSizes, changes, load_sizes, shared
from gnnbench.approaches.writing.chain import Chain
from gnnbench.data.triples import Triples
from gnnbench.disk_limit import DiskLimit
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Buffer, Lane, Phase, Space

ID_BYTES = work.ID_BYTES
DRAWN_FACTS = 5_000_000
"""Facts drawn at most to count the sizes of a plan's batches."""
LAST_STEP = "update/adagrad_rows"
_COMPUTED = {True: "update/adagrad", False: "update/copy"}
"""The step after which a batch's gradient is in the host's memory, on the CPU and on a device."""
Sizes = tuple[int, int, int]
"""Of a batch: positive edges, corrupted ends, distinct rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """Where batches are drawn, where rows are gathered and updated, where gradients return."""

    draw: Lane
    rows: Lane
    back: Lane


def lanes_of(staleness: int, *, on_cpu: bool) -> Lanes:
    """The lanes of a pipeline of `staleness` + 1 batches; without staleness one follows another."""
    if staleness:
        return Lanes(draw=Lane.HOST, rows=Lane.HOST.at(1), back=Lane.COPY.at(1))
    local = Lane.COMPUTE if on_cpu else Lane.HOST
    return Lanes(draw=local, rows=local, back=Lane.COPY)


def update_name(late: int) -> str:
    """The step that updates the rows of the batch `late` batches before the iteration's own."""
    return f"update/late_{late}" if late else LAST_STEP


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkVisit:
    """Sizes of a visit."""

    load: LoadSizes
    batches: list[Sizes]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkShape:
    """What sizes rest on besides the batches.

    Args:
        decoder: dot, distmult or complex.
        width: of a row.
        relations: dense parameters.
        element_bytes: of a number.
    """

    decoder: str
    width: int
    relations: int
    element_bytes: int

    @classmethod
    def of(cls, data: Any, run: RunSpec) -> LinkShape:
        """The shape of a run."""
        shapes = relation_shapes(run.model.decoder, data.num_relations, run.model.hidden)
        return cls(
            decoder=run.model.decoder,
            width=run.model.hidden,
            relations=sum(int(np.prod(shape)) for _, shape in shapes),
            element_bytes=run.training.element_bytes,
        )


def link_plan(
    data: Any,
    run: RunSpec,
    structure: LinkStructure,
    layout: Layout,
    *,
    on_disk: bool,
    ahead: bool,
    staleness: int = 0,
    copies: int = 1,
    limit: DiskLimit | None = None,
) -> Plan:
    """Write the steps of all epochs.

    Args:
        data: triples, or their profile.
        run: what is trained.
        structure: of the table.
        layout: of the rank.
        on_disk: whether the table lies on the disk; else all of it is in memory.
        ahead: whether the next visit is read while one is trained.
        staleness: updates that the rows of a batch lack.
        copies: of the table's file; two where it is committed in generations.
        limit: of the disk.
    """
    shape = LinkShape.of(data, run)
    if isinstance(data, Triples):
        epochs = _drawn(data, run, structure)
        counted = len(epochs) == run.training.epochs
        basis = "every batch drawn" if counted else f"batches of {len(epochs)} epochs drawn"
    else:
        epochs, counted = [_estimated(structure)], False
        basis = f"rows of a batch estimated for profile {data.name}"
    lengths = [sum(len(visit.batches) for visit in visits) for visits in epochs]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    chosen = [epoch % len(epochs) for epoch in range(run.training.epochs)]
    writer = LinkWriter(
        shape,
        structure,
        epochs,
        layout.device,
        on_disk=on_disk,
        ahead=ahead,
        staleness=staleness,
    )
    return Plan(
        approach=run.approach,
        world_size=1,
        iterations=LazyIterations(len(writer.firsts), writer.iteration),
        schedule=tuple(
            writer.numbers[at] for e in chosen for at in range(starts[e], starts[e + 1])
        ),
        periods=tuple(lengths[e] for e in chosen),
        resident=_resident(shape, structure, on_disk=on_disk, ahead=ahead, copies=copies),
        counted=counted,
        basis=basis,
        evaluation=LazyIterations(
            1, lambda _: link_evaluation(data, run, structure, on_disk=on_disk)
        ),
        disk=limit or DiskLimit(),
        notes={
            "policy": structure.policy.name,
            "partitions": structure.policy.partitions,
            "buffer": structure.policy.capacity,
            "partition_reads": partition_reads(structure.policy),
            "steps": lengths[0],
        },
    )


def _drawn(data: Triples, run: RunSpec, structure: LinkStructure) -> list[list[LinkVisit]]:
    """Draw epochs until a budget of facts is spent."""
    facts = training_facts(data)
    bucket = structure.bucket_of(facts)
    epochs: list[list[LinkVisit]] = []
    assert structure.buckets is not None
    for epoch in range(run.training.epochs):
        if epoch and (epoch + 1) * len(facts) > DRAWN_FACTS:
            break
        visits, first = [], 0
        for visit in structure.visits(epoch):
            assert visit.wanted is not None
            own = structure.shuffled(facts[visit.wanted.ravel()[bucket]], epoch)
            ids = structure.resident_ids(visit)
            steps = structure.steps(visit)
            batches = [
                structure.batch(own, ids, epoch, first + at, at).sizes for at in range(steps)
            ]
            load = load_sizes(visit, structure.rows, structure.buckets, edges=len(own))
            visits.append(LinkVisit(load=load, batches=batches))
            first += steps
        epochs.append(visits)
    return epochs


def _estimated(structure: LinkStructure) -> list[LinkVisit]:
    """Expected sizes of an epoch where buckets are even."""
    policy, rows = structure.policy, structure.rows
    states = policy.states(0)
    # Without counts every bucket holds as many facts as another, and so does every visit.
    facts = -(-structure.num_facts // len(states))
    found = []
    for resident, admitted, evicted in changes(states):
        count = rows.rows_in(resident)
        mean = structure.num_facts * EDGE_BYTES / policy.partitions**2
        share = 1.0 / len(states)
        requests, size = expected_requests(policy.partitions, share, policy.partitions, mean)
        load = LoadSizes(
            partitions=len(admitted),
            partition_bytes=rows.bytes_in(admitted),
            evicted=len(evicted),
            evicted_bytes=rows.bytes_in(evicted),
            requests=int(requests),
            edge_bytes=min(int(size), padded(structure.num_facts * EDGE_BYTES)),
            rows=count,
            edges=facts,
        )
        steps = -(-facts // structure.batch_size)
        b, n = min(structure.batch_size, facts), structure.negatives
        distinct = round(count * -np.expm1(-(2 * b + n) / max(count, 1)))
        found.append(LinkVisit(load=load, batches=[(b, n, max(distinct, 1))] * steps))
    return found


class LinkWriter:
    """Writes iterations: load where a visit begins, then draw, fetch, decode, update."""

    def __init__(
        self,
        shape: LinkShape,
        structure: LinkStructure,
        epochs: Sequence[list[LinkVisit]],
        device: str,
        *,
        on_disk: bool,
        ahead: bool,
        staleness: int = 0,
    ) -> None:
        self.shape, self.structure, self.epochs = shape, structure, epochs
        self.staleness, self.lanes = staleness, lanes_of(staleness, on_cpu=device == "cpu")
        self.on_disk, self.device = on_disk, device
        self.loading = Loading(prefetch=ahead, writes=True, last_step=LAST_STEP)
        self.table_rows = table_rows(structure, shape, on_disk=on_disk, ahead=ahead)
        self.places = [
            (epoch, visit, batch)
            for epoch, visits in enumerate(epochs)
            for visit, sizes in enumerate(visits)
            for batch, _ in enumerate(sizes.batches)
        ]
        self.firsts, self.numbers = shared([self._key(*place) for place in self.places])

    def _key(self, epoch: int, visit: int, batch: int) -> Hashable:
        """Equal for batches whose steps are equal: neither begins a visit nor ends it."""
        batches, k = self.epochs[epoch][visit].batches, self.staleness
        if batch == 0 or batch + 1 == len(batches):
            return epoch, visit, batch
        return (batches[batch], batches[max(batch - k, 0)], min(batch, k + 1))

    def iteration(self, number: int) -> Iteration:
        """One batch."""
        epoch, at, batch = self.places[self.firsts[number]]
        visits, chain = self.epochs[epoch], Chain()
        visit = visits[at]
        if batch == 0:
            following = visits[at + 1].load if at + 1 < len(visits) else None
            self._begin(chain, visit.load, following, first=at == 0)
        self._train(chain, visit.batches, batch)
        if self.on_disk and at + 1 == len(visits) and batch + 1 == len(visit.batches):
            self.loading.flush(chain, *_resident_at_the_end(visits))
        return Iteration([RankClass((0,), chain.done())])

    def _begin(
        self, chain: Chain, load: LoadSizes, following: LoadSizes | None, *, first: bool
    ) -> None:
        if self.on_disk:
            self.loading.begin(chain, load, first=first)
        facts = EDGE_BYTES * load.edges
        room = (
            Buffer("facts", 2 * facts, Space.HOST),
            Buffer("sort_keys", 3 * ID_BYTES * load.edges, Space.HOST),
            Buffer("residents", ID_BYTES * load.rows, Space.HOST),
        )
        after = self.loading.waits(first=first) if self.on_disk else ()
        if self.staleness:  # else the lane of the last update is that of this step
            after = (*after, After(LAST_STEP, 1))
        chain.step(
            "load/shuffle",
            work.shuffle(load.edges, 3),
            phase=Phase.LOAD,
            lane=self.lanes.draw,
            after=after,
            allocates=room,
            frees=("sort_keys",),
        )
        if self.on_disk:
            self.loading.ahead(chain, None if first else load, following)

    def _train(self, chain: Chain, batches: Sequence[Sizes], at: int) -> None:
        (b, n, u), shape, k = batches[at], self.shape, self.staleness
        d, s, flight, last = shape.width, shape.element_bytes, k + 1, at + 1 == len(batches)
        row, on_cpu = d * s, self.device == "cpu"
        drawn = work.draw_negatives(b, n, u)
        ids = ID_BYTES * (3 * b + n)
        batch = Buffer("batch", flight * (ids + 2 * ID_BYTES * u), Space.HOST)
        chain.step(
            "sample/negatives",
            drawn,
            phase=Phase.SAMPLE,
            lane=self.lanes.draw,
            after=(After(update_name(k), 1),) if k and at > k else (),
            allocates=(batch,),
        )
        gathered = work.gather(u, d, self.table_rows, s)
        x = Buffer("x", flight * u * row)
        staged = Buffer("staged_x", flight * u * row, Space.HOST)
        chain.step(
            "fetch/gather",
            gathered,
            phase=Phase.FETCH,
            lane=self.lanes.rows,
            allocates=(x if on_cpu else staged,),
        )
        if k:
            late = range(min(k, at), 0, -1) if last else range(k, k - (at >= k), -1)
            for by in late:
                self._update(chain, batches[at - by][2], by)
        if not on_cpu:
            copied, places = work.to_device(u * row + ids), Buffer("places", flight * ids)
            chain.step(
                "fetch/copy", copied, phase=Phase.FETCH, lane=Lane.COPY, allocates=(x, places)
            )
        ends = Buffer("ends", (5 * b + n) * row)
        scores = Buffer("scores", 4 * b * (n + 2) * s)
        scored = work.decode(shape.decoder, b, n, d, s)
        chain.step("forward/decoder", scored, phase=Phase.FORWARD, allocates=(ends, scores))
        grads = Buffer("end_gradients", (12 * b + n) * row)
        summed = Buffer("row_gradients", flight * u * row)
        back = work.decode_backward(shape.decoder, b, n, d, u, s)
        chain.step("backward/decoder", back, phase=Phase.BACKWARD, allocates=(grads, summed))
        chain.step("update/adagrad", work.adagrad(shape.relations, s), phase=Phase.UPDATE)
        if not on_cpu:
            returned = work.to_host(u * row)
            chain.step("update/copy", returned, phase=Phase.UPDATE, lane=self.lanes.back)
        if not k or last:
            self._update(chain, u, 0)

    def _update(self, chain: Chain, rows: int, late: int) -> None:
        """Update the rows of the batch `late` batches ago; a late one runs beside the decoder."""
        shape = self.shape
        done = work.adagrad_rows(rows, shape.width, self.table_rows, shape.element_bytes)
        size = 4 * rows * shape.width * shape.element_bytes
        chain.step(
            update_name(late),
            done,
            phase=Phase.UPDATE,
            lane=self.lanes.rows,
            after=(After(_COMPUTED[self.device == "cpu"], late),) if late else (),
            beside=late > 0,
            allocates=(Buffer("row_update", size, Space.HOST),),
        )


def _resident_at_the_end(visits: list[LinkVisit]) -> tuple[int, int]:
    """Partitions that were read and not evicted, and their bytes."""
    count = sum(visit.load.partitions - visit.load.evicted for visit in visits)
    size = sum(visit.load.partition_bytes - visit.load.evicted_bytes for visit in visits)
    return count, size


def table_rows(structure: LinkStructure, shape: LinkShape, *, on_disk: bool, ahead: bool) -> int:
    """Rows, of embeddings and of their state, of the table in memory."""
    if not on_disk:
        return 2 * structure.rows.num_rows
    per_slot = structure.rows.slot_bytes // (shape.width * shape.element_bytes)
    return buffer_slots(structure, ahead=ahead) * per_slot


def buffer_slots(structure: LinkStructure, *, ahead: bool) -> int:
    """Slots of the buffer; a swap brings more in than its policy says if visits are skipped."""
    policy = structure.policy
    times, _ = swaps(policy)
    most = min(policy.capacity, policy.partitions - policy.capacity) if times else 0
    return slots(policy.capacity, most, prefetch=ahead)


def _resident(
    shape: LinkShape, structure: LinkStructure, *, on_disk: bool, ahead: bool, copies: int
) -> tuple[Buffer, ...]:
    """Buffers that live throughout: the table or its buffer, places of entities, relations."""
    rows, p = structure.rows, structure.policy.partitions
    facts = EDGE_BYTES * structure.num_facts
    dense = Buffer("parameters", 3 * (shape.relations + 1) * shape.element_bytes)
    if not on_disk:
        table = Buffer("table", rows.num_rows * rows.row_bytes, Space.HOST)
        return table, Buffer("training_facts", facts, Space.HOST), dense
    return (
        *buffer_of(
            rows, buffer_slots(structure, ahead=ahead), facts + (copies - 1) * rows.file_bytes
        ),
        Buffer("positions", 8 * rows.num_rows, Space.HOST),
        Buffer("buckets", 2 * ID_BYTES * p * p, Space.HOST),
        dense,
    )
