"""Writes batches that some ranks draw and send, and others receive and train on.

Steps of a batch, t its trainer:

sampler   sample/credit/t, sample/draw/t, sample/pack/t, sample/sizes/t, sample/blocks/t
trainer   sample/sizes, sample/blocks, sample/credit, then as of every sampler

An epoch ends with a broadcast of its loss, which only trainers know. Samplers hold the topology and
the tables of the sampler; trainers hold all else. The runtime performs the steps in
`gnnbench_runtime.approaches.mini_batch.disaggregated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import GraphLike, Layout
from gnnbench.approaches.mini_batch.base import BatchStructure, MiniBatch
from gnnbench.approaches.mini_batch.batch import BatchSizes, Drawn
from gnnbench.approaches.mini_batch.patterns import drawn_bytes
from gnnbench.approaches.mini_batch.roles import CREDITS, Roles
from gnnbench.approaches.mini_batch.writer import BatchWriter, ledger_buffer
from gnnbench.approaches.writing.chain import Chain
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Buffer, Groups, Ints, Lane, Phase, Size, Space, Step

OF_SAMPLERS = frozenset({"topology", "sampler", "train_nodes", "draw_weights"})
"""Resident buffers that only ranks that sample hold; the others are those of trainers."""

LOSS = "sync/loss"


@dataclass(frozen=True, slots=True)
class Turn:
    """What an iteration's steps depend on besides its sizes.

    Args:
        step: of the epoch; of later steps that are alike, the earliest.
        first: whether the first step waits for the epoch before.
        last: whether the epoch ends with it.
    """

    step: int
    first: bool
    last: bool


def turn_of(roles: Roles, step: int, prefetch: int) -> Turn:
    """The turn of a step: once all draws wait for credits, samplers take turns in a cycle."""
    last = step == roles.steps - 1
    cycle = roles.samplers // np.gcd(roles.trainers, roles.samplers)
    settled = -(-roles.queue * roles.samplers // roles.trainers)
    alike = step if last or step < settled else settled + (step - settled) % int(cycle)
    return Turn(alike, step == 0 and prefetch > 0, last)


class RoleWriter:
    """Writes iterations of samplers and trainers.

    Args:
        batches: writes the steps of the trainers, which are its ranks.
        roles: of all ranks.
    """

    def __init__(self, batches: BatchWriter, roles: Roles) -> None:
        self.batches, self.roles = batches, roles
        self.form, self.shape = batches.form, batches.shape
        self.on_cpu = batches.device == "cpu"
        self.everyone = tuple(range(roles.world_size))

    def turns(self, drawn: Drawn) -> list[tuple[int, Turn]]:
        """Batch and turn of every place of the schedule."""
        steps, prefetch = self.roles.steps, self.batches.prefetch
        return [
            (index, turn_of(self.roles, place % steps, prefetch))
            for place, index in enumerate(drawn.schedule)
        ]

    def iteration(self, sizes: BatchSizes, turn: Turn) -> Iteration:
        """One global batch; `sizes` are those of the trainers' parts."""
        trainers, samplers = self.roles.groups
        classes = [RankClass(trainers, self._trainers(sizes, turn))]
        classes += [RankClass((rank,), self._sampler(sizes, turn, rank)) for rank in samplers]
        return Iteration(classes)

    # -- trainers --------------------------------------------------------------------------------

    def _trainers(self, sizes: BatchSizes, turn: Turn) -> tuple[Step, ...]:
        chain, batches, roles = Chain(), self.batches, self.roles
        numbers = [roles.number(turn.step, trainer) for trainer in range(roles.trainers)]
        pairs = tuple((rank, roles.sampler_of(b)) for rank, b in enumerate(numbers))
        group = Groups(pairs, np.arange(roles.trainers))
        from_sampler: dict[str, Any] = {
            "phase": Phase.SAMPLE,
            "lane": Lane.BACKGROUND,
            "group": group,
        }
        message = self._message(sizes)
        announced = work.recv(work.header_numbers(len(sizes.edges)), work.ID_BYTES)
        chain.step(
            "sample/sizes",
            announced,
            allocates=(*batches.room(sizes), *self._received(sizes, message)),
            # Receiving is on a lane of its own, where program order does not wait for training.
            after=(batches.slot_is_free(first=turn.first),),
            **from_sampler,
        )
        chain.step("sample/blocks", work.recv(message, 1), **from_sampler)
        chain.step(
            "sample/credit",
            work.send(1, work.ID_BYTES),
            phase=Phase.SAMPLE,
            lane=CREDITS,
            beside=True,
            group=group,
        )
        if not self.on_cpu:
            chain.step("sample/to_host", work.to_host(message), phase=Phase.SAMPLE, lane=Lane.COPY)
        batches.train(chain, sizes, batches.build(chain, sizes))
        if turn.last:
            self._loss(chain, np.arange(roles.trainers) == 0)
        return chain.done()

    def _received(self, sizes: BatchSizes, message: Size) -> tuple[Buffer, ...]:
        """The message, as far as the blocks that are trained on are not views of it."""
        if not self.on_cpu:
            return Buffer("message", message), Buffer("message_on_host", message, Space.HOST)
        kept: Size = work.ID_BYTES * sizes.vertices[0]
        if not self.shape.model.attention:  # with attention, blocks get self loops in new arrays
            for rows, edges in zip(sizes.vertices[1:], sizes.edges, strict=True):
                kept = kept + work.ID_BYTES * (rows + 1) + work.INDEX_BYTES * edges
        return (Buffer("message", (self.batches.prefetch + 1) * (message - kept)),)

    # -- samplers --------------------------------------------------------------------------------

    def _sampler(self, sizes: BatchSizes, turn: Turn, rank: int) -> tuple[Step, ...]:
        chain, roles = Chain(), self.roles
        for number in roles.drawn_by(rank, turn.step):
            self._send(chain, sizes, turn, rank, number)
        if turn.last:
            chain.last = None
            for number in roles.unclaimed(rank):
                self._credit(chain, f"sample/unclaimed/{number}", rank, number)
            self._loss(chain, False)
        return chain.done()

    def _send(self, chain: Chain, sizes: BatchSizes, turn: Turn, rank: int, number: int) -> None:
        """Draw a batch, pack it and send it to its trainer."""
        roles, phase = self.roles, Phase.SAMPLE
        trainer = roles.trainer_of(number)
        n = [int(size[trainer]) for size in sizes.vertices]
        e = [int(size[trainer]) for size in sizes.edges]
        scanned = 0 if sizes.scanned is None else int(sizes.scanned[trainer])
        by_lot = 0 if sizes.by_lot is None else int(sizes.by_lot[trainer])
        chain.last = None  # a batch is drawn while the one before is sent
        earlier = roles.awaited(number)
        if earlier is not None:
            self._credit(chain, f"sample/credit/{trainer}", rank, earlier)
        begins = earlier is None and number < roles.samplers
        chain.step(
            f"sample/draw/{trainer}",
            work.draw_neighbours(n, e, scanned, self.form.op, by_lot=by_lot, tables=sizes.tables),
            phase=phase,
            lane=Lane.HOST,
            after=(After(LOSS, turn.step + 1),) if begins else (),  # of the epoch before
            allocates=self._drawn(n, e),
        )
        size = int(work.message_bytes(n, e, weighted=self.form.edge_weights))
        space = Space.HOST if self.on_cpu else Space.DEVICE
        chain.step(
            f"sample/pack/{trainer}",
            work.pack_blocks(n, e),
            phase=phase,
            lane=Lane.HOST,
            allocates=(Buffer("messages", roles.queue * size, space),),
        )
        header = work.header_numbers(len(e))
        if not self.on_cpu:
            copied = work.to_device(size + work.ID_BYTES * header)
            chain.step(f"sample/to_device/{trainer}", copied, phase=phase, lane=Lane.COPY)
        place: dict[str, Any] = {"phase": phase, "lane": Lane.BACKGROUND, "group": (trainer, rank)}
        chain.step(f"sample/sizes/{trainer}", work.send(header, work.ID_BYTES), **place)
        chain.step(f"sample/blocks/{trainer}", work.send(size, 1), **place)

    def _credit(self, chain: Chain, name: str, rank: int, number: int) -> None:
        """Receive the credit of a batch."""
        pair = (self.roles.trainer_of(number), rank)
        done = work.recv(1, work.ID_BYTES)
        chain.step(name, done, phase=Phase.SAMPLE, lane=CREDITS, group=pair)

    def _drawn(self, vertices: Sequence[int], edges: Sequence[int]) -> tuple[Buffer, ...]:
        """Drawn blocks, and the list of vertices that have been found."""
        rows = [np.array([n], np.int64) for n in vertices]
        columns = [np.array([e], np.int64) for e in edges]
        size = int(drawn_bytes(rows, columns)[0]) + work.ID_BYTES * vertices[0]
        if self.form.edge_weights:
            size += 8 * (sum(edges) + sum(vertices[1:]))
        return (Buffer("drawn", size, Space.HOST),)

    # -- both ------------------------------------------------------------------------------------

    def _loss(self, chain: Chain, is_root: bool | Ints) -> None:
        """Trainer 0 says what the loss of the epoch was."""
        done = work.broadcast(
            1, self.shape.element_bytes, self.roles.world_size, root=0, is_root=is_root
        )
        chain.step(LOSS, done, phase=Phase.SYNC, lane=Lane.COMM, group=self.everyone)

    def _message(self, sizes: BatchSizes) -> Size:
        return work.message_bytes(sizes.vertices, sizes.edges, weighted=self.form.edge_weights)

    def resident(self, buffers: Sequence[Buffer]) -> tuple[Buffer, ...]:
        """Buffers of all ranks, of those that trainers or samplers hold throughout."""
        samples = np.arange(self.roles.world_size) >= self.roles.trainers
        found = []
        for buffer in buffers:
            size = np.zeros(self.roles.world_size, np.int64)
            mine = samples if buffer.name in OF_SAMPLERS else ~samples
            size[mine] = buffer.bytes
            found.append(buffer._replace(bytes=size))
        return tuple(found)


def role_plan(
    card: MiniBatch,
    data: GraphLike,
    run: RunSpec,
    trained: RunSpec,
    structure: BatchStructure,
    layout: Layout,
    roles: Roles,
) -> Plan:
    """The plan of a run in which some ranks sample for the others.

    Args:
        card: of the approach.
        data: the graph or its profile.
        run: of all ranks.
        trained: the run of the ranks that train.
        structure: of `trained`.
        layout: of all ranks.
        roles: of all ranks.
    """
    shape, drawn = card.shape(data, trained), card.drawn(data, trained, structure)
    writer = RoleWriter(card.writer(data, trained, structure, layout), roles)
    turns = writer.turns(drawn)
    distinct = list(dict.fromkeys(turns))
    numbers = {pair: number for number, pair in enumerate(distinct)}

    def iteration(number: int) -> Iteration:
        index, turn = distinct[number]
        return writer.iteration(drawn.batches[index], turn)

    held = card.resident(data, trained, structure, layout) + card.sampler_buffers(data, trained)
    evaluation = card.evaluation(data, trained, structure, layout)
    # Ranks that only sample have no rows on their device.
    in_place = np.array([roles.trains(rank) for rank in range(run.ranks)]) & evaluation.in_place
    steps = roles.steps
    return Plan(
        approach=run.approach,
        world_size=run.ranks,
        iterations=LazyIterations(len(distinct), iteration),
        schedule=tuple(numbers[pair] for pair in turns),
        periods=(steps,) * run.training.epochs,
        resident=(*writer.resident(held), ledger_buffer(steps * len(iteration(0)[0]))),
        evaluation=replace(evaluation, run=run, in_place=in_place).iterations(),
        counted=drawn.counted,
        basis=drawn.basis,
        notes={
            "order": shape.orders,
            "num_parameters": shape.num_parameters,
            "steps": steps,
            "trainers": roles.trainers,
            "samplers": roles.samplers,
            **drawn.cache_notes(steps),
        },
    )
