"""Link prediction on embeddings: which facts in which state of the buffer, and their batches.

A visit trains on the edge buckets that the policy assigns to its state, so that every fact is seen
once in an epoch. Corrupted ends are drawn among the entities in the buffer and shared by a batch.

The order of a visit's facts is keyed by the facts themselves: it does not depend on where they lie
on the disk, so that a buffer of all partitions trains on the very batches of memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.out_of_core.policies import Policy
from gnnbench.approaches.out_of_core.storage import Buckets, Rows, bucket_counts
from gnnbench.approaches.out_of_core.visits import Visit, changes, policy_of, with_work
from gnnbench.data import keys
from gnnbench.data.triples import Triples
from gnnbench.spec import RunSpec
from gnnbench.steps import Ints

EDGE_BYTES = 12
"""Of a fact on the disk: head, relation and tail of 32 bits."""
_PLACES, _SHUFFLE, _NEGATIVES, _ROWS = 200, 201, 202, 203

Facts = NDArray[np.int32]
"""Heads, relations and tails, int32 [E, 3]."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkBatch:
    """One batch.

    Args:
        ids: distinct entities, rising, int64 [u].
        heads, tails: places in `ids`, int64 [b].
        negatives: places in `ids`, int64 [n].
        relations: int64 [b].
    """

    ids: Ints
    heads: Ints
    tails: Ints
    negatives: Ints
    relations: Ints

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Positive edges b, corrupted ends n, distinct rows u."""
        return len(self.heads), len(self.negatives), len(self.ids)


@dataclass(frozen=True, slots=False, kw_only=True, eq=False)
class LinkStructure:
    """Where everything lies, and the policy.

    Args:
        policy: of the buffer.
        rows: the table of embeddings, with their Adagrad state.
        position: of every entity in the table, int32 [V]; None on a profile.
        buckets: of the training facts; None on a profile.
        batch_size, negatives: of a batch.
        num_facts: training facts.
    """

    policy: Policy
    rows: Rows
    position: NDArray[np.int32] | None
    buckets: Buckets | None
    batch_size: int
    negatives: int
    num_facts: int

    @cached_property
    def partition_of(self) -> NDArray[np.int32]:
        """The partition of every entity."""
        assert self.position is not None
        return self.position // np.int32(self.rows.per_partition)

    def bucket_of(self, facts: Facts) -> Ints:
        """The number i p + j of each fact's bucket."""
        part = self.partition_of
        found: Ints = part[facts[:, 0]].astype(np.int64) * self.rows.partitions + part[facts[:, 2]]
        return found

    def visits(self, epoch: int) -> list[Visit]:
        """The visits of an epoch; `items` is the number of facts."""
        assert self.buckets is not None
        states, counts = self.policy.states(epoch), self.buckets.counts
        state_of = self.policy.states_of_buckets(epoch, states)
        load = np.bincount(state_of.ravel(), counts.ravel(), len(states))
        kept, numbers = with_work(states, load > 0)
        return [
            Visit(
                resident=resident,
                admitted=admitted,
                evicted=evicted,
                wanted=state_of == number,
                items=int(load[number]),
            )
            for number, (resident, admitted, evicted) in zip(numbers, changes(kept), strict=True)
        ]

    def steps(self, visit: Visit) -> int:
        """Batches of a visit."""
        return -(-int(visit.items) // self.batch_size)

    def resident_ids(self, visit: Visit) -> Ints:
        """Ids of the resident entities, rising."""
        there = np.zeros(self.policy.partitions, bool)
        there[visit.resident] = True
        return np.flatnonzero(there[self.partition_of])

    def batch(self, facts: Facts, resident: Ints, epoch: int, step: int, at: int) -> LinkBatch:
        """A batch of a visit.

        Args:
            facts: of the visit, in order.
            resident: ids of the entities in the buffer, rising.
            epoch: its number.
            step: number of the batch in the epoch, which keys its draws.
            at: number of the batch in the visit.
        """
        own = facts[at * self.batch_size : (at + 1) * self.batch_size]
        rng = keys.generator(self.policy.seed, epoch, _NEGATIVES, step)
        drawn = resident[rng.integers(0, len(resident), self.negatives)]
        every = np.concatenate([own[:, 0], own[:, 2], drawn]).astype(np.int64)
        ids, places = np.unique(every, return_inverse=True)
        b = len(own)
        return LinkBatch(
            ids=ids,
            heads=places[:b],
            tails=places[b : 2 * b],
            negatives=places[2 * b :],
            relations=own[:, 1].astype(np.int64),
        )

    def shuffled(self, facts: Facts, epoch: int) -> Facts:
        """The facts in the order in which an epoch trains on them."""
        key = keys.fold(self.policy.seed, epoch, _SHUFFLE)
        mixed = keys.extend_array(key, facts[:, 0].astype(np.int64))
        for column in (1, 2):
            counters = facts[:, column].astype(np.uint64)
            mixed = keys.mix64_array((mixed ^ counters) + np.uint64(keys.GOLDEN))
        return facts[np.argsort(mixed, kind="stable")]


def entity_rows(data: Any, run: RunSpec, partitions: int) -> Rows:
    """The table of embeddings: a row has its Adagrad state beside it."""
    width = 2 * run.model.hidden * run.training.element_bytes
    return Rows(num_rows=data.num_entities, partitions=partitions, row_bytes=width)


def link_structure(data: Any, run: RunSpec, knobs: Any) -> LinkStructure:
    """Place entities at random, and facts in the buckets of their ends."""
    rows, seed = entity_rows(data, run, knobs.partitions), run.training.seed
    name = "comet" if knobs.policy == "auto" else knobs.policy
    position = buckets = None
    if isinstance(data, Triples):
        order = keys.generator(seed, _PLACES).permutation(rows.num_rows)
        position = np.empty(rows.num_rows, np.int32)
        position[order] = np.arange(rows.num_rows, dtype=np.int32)
        part = position // np.int32(rows.per_partition)
        own = training_facts(data)
        counts = bucket_counts(part[own[:, 0]], part[own[:, 2]], rows.partitions)
        buckets = Buckets(counts=counts, edge_bytes=EDGE_BYTES)
    return LinkStructure(
        policy=policy_of(knobs, name, seed),
        rows=rows,
        position=position,
        buckets=buckets,
        batch_size=run.batch.size,
        negatives=run.batch.negatives,
        num_facts=num_facts(data),
    )


def num_facts(data: Any) -> int:
    """Training facts of triples, or of their profile."""
    return int(data.train_end if isinstance(data, Triples) else data.num_train)


def training_facts(data: Triples) -> Facts:
    """The facts to train on."""
    part = data.part("train")
    columns = data.heads[part], data.relations[part], data.tails[part]
    return np.stack([np.asarray(column, np.int32) for column in columns], axis=1)


def initial_rows(seed: int, ids: Ints, width: int) -> NDArray[np.float64]:
    """Embeddings before training, uniform in +-0.05 / sqrt(width), keyed by (seed, id, column).

    Small, because Adagrad's first steps are as long as the learning rate.
    """
    places = ids[:, None] * width + np.arange(width, dtype=np.int64)
    bits = keys.extend_array(keys.fold(seed, _ROWS), places)
    unit = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.asarray((2.0 * unit - 1.0) * 0.05 / math.sqrt(width))


def relation_shapes(decoder: str, num_relations: int, width: int) -> list[tuple[str, Any]]:
    """The dense parameters: a row per relation, but for the dot product, which has none."""
    return [] if decoder == "dot" else [("relations", (num_relations, width))]


def link_problem(name: str, run: RunSpec) -> str | None:
    """Why embeddings cannot be trained so, or None."""
    training, model = run.training, run.model
    if training.optimizer != "adagrad":
        return (
            f"{name} trains embeddings by sparse Adagrad, not {training.optimizer}: set "
            'training.optimizer = "adagrad"'
        )
    if training.weight_decay:
        return f"{name} has no weight decay for embeddings, found {training.weight_decay}"
    if model.decoder == "complex" and model.hidden % 2:
        return f"a complex row has a real and an imaginary half: hidden is {model.hidden}, not even"
    return None
