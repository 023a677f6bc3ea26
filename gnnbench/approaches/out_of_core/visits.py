"""Visits: what is read, and what is worked on, while a state of the buffer lasts.

Both worlds ask for them: the trainer reads the blocks, the plan counts them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.out_of_core.policies import Policy, States
from gnnbench.approaches.out_of_core.storage import Buckets, Rows
from gnnbench.steps import Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Visit:
    """One state of the buffer that has work to do.

    Args:
        resident: partitions, rising.
        admitted: those of them that were not resident in the visit before.
        evicted: those of the visit before that are not resident any more.
        wanted: buckets whose edges are read, bool [p, p]; None on a profile.
        items: what is worked on: ids of seeds, or nothing where that follows from the buckets.
    """

    resident: Ints
    admitted: Ints
    evicted: Ints
    wanted: NDArray[np.bool_] | None
    items: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSizes:
    """What one visit moves.

    Args:
        partitions, partition_bytes: read.
        evicted, evicted_bytes: written back.
        requests, edge_bytes: reads of the edge file.
        rows: resident.
        edges: resident, or of the visit.
    """

    partitions: int
    partition_bytes: int
    evicted: int
    evicted_bytes: int
    requests: int
    edge_bytes: int
    rows: int
    edges: int


def changes(states: States) -> list[tuple[Ints, Ints, Ints]]:
    """Resident, admitted and evicted partitions of consecutive states; the first fills a buffer."""
    found, before = [], np.empty(0, np.int64)
    for state in states:
        admitted = np.setdiff1d(state, before, assume_unique=True)
        evicted = np.setdiff1d(before, state, assume_unique=True)
        found.append((np.asarray(state, np.int64), admitted, evicted))
        before = state
    return found


def with_work(states: States, busy: NDArray[np.bool_]) -> tuple[States, list[int]]:
    """The states in which something is done, and their numbers; the others are skipped."""
    numbers = [number for number, _ in enumerate(states) if busy[number]]
    return [states[number] for number in numbers], numbers


def shared(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Places whose keys are equal share one iteration, so that a plan has as few as it can.

    Returns:
        The first place of each distinct key, in order; and per place the number of its key.
    """
    numbers: dict[Hashable, int] = {}
    firsts: list[int] = []
    for place, key in enumerate(keys):
        if key not in numbers:
            numbers[key] = len(firsts)
            firsts.append(place)
    return firsts, [numbers[key] for key in keys]


def load_sizes(visit: Visit, rows: Rows, buckets: Buckets, *, edges: int) -> LoadSizes:
    """What a visit moves, counted."""
    assert visit.wanted is not None
    spans = buckets.spans(buckets.runs(visit.wanted))
    return LoadSizes(
        partitions=len(visit.admitted),
        partition_bytes=rows.bytes_in(visit.admitted),
        evicted=len(visit.evicted),
        evicted_bytes=rows.bytes_in(visit.evicted),
        requests=len(spans),
        edge_bytes=int((spans[:, 1] - spans[:, 0]).sum()),
        rows=rows.rows_in(visit.resident),
        edges=edges,
    )


def policy_of(knobs: Any, name: str, seed: int, training: int = 0) -> Policy:
    """The policy of a run; a buffer of 0 holds all partitions, 0 logical ones are 2 p / c."""
    p = knobs.partitions
    c = knobs.buffer or p
    return Policy(
        name=name,
        partitions=p,
        capacity=c,
        logical=knobs.logical or max(1, 2 * p // c if c < p else 1),
        training=training,
        seed=seed,
    )
