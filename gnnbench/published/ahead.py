"""A plan whose rows come from static caches and from the disk, by threads that work ahead.

DiskGNN    sampled before training: an earlier run wrote three files for every batch, its blocks,
           the places of its rows, and the rows that no cache holds, one after the other. The rows
           that are used most are cached, the first of them on the device and the others in pinned
           memory of the host. Four threads work at the same time, with queues of two batches: one
           reads blocks, one reads places and rows, one copies rows to the device, and one trains
           (Liu-rj/DiskGNN: examples/train_multi_thread.py, batched_packing.py, src/load.cc). The
           ablation of its study reads the missing rows one by one from the table of all rows.
GraphBolt  draws batches in memory and reads each missing row by a request (DiskBasedFeature).

Not modelled: rows that several batches of DiskGNN share on the disk (its disk cache).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from gnnbench import work
from gnnbench.approaches.out_of_core.storage import DISK_BLOCK
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.published.released import scaled
from gnnbench.published.software import Ahead, Software
from gnnbench.published.traces import trace_bytes
from gnnbench.steps import LATEST, After, Kind, Lane, Phase, Size, Step, Work

COLD_BYTES, HOT_BYTES = 24, 16
"""Places of an input row in the files of a batch: three numbers of 64 bits for a row that is read
from the disk, two for one that is cached."""
BATCHES_AHEAD = 4
"""Batches from reading to training: two in a queue, and one at each of its ends."""
_DRAWN, _PREPARED = "sample/superbatch", "sample/prepare"
_GATHER, _ROWS = "fetch/gather", "fetch/rows"


def worked_ahead(plan: Plan, software: Software) -> Plan:
    """The plan of `belady`, without a cache of its own, as threads that work ahead take it."""
    ahead = software.ahead
    if ahead is None:
        return plan

    def rewritten(number: int) -> Iteration:
        classes = plan.iterations[number].classes
        return Iteration([RankClass(of.ranks, tuple(_steps(of.steps, ahead))) for of in classes])

    return replace(
        plan,
        iterations=LazyIterations(len(plan.iterations), rewritten),
        notes={**plan.notes, "batches": "drawn" if ahead.drawn else "packed"},
    )


def _steps(steps: Sequence[Step], ahead: Ahead) -> Iterator[Step]:
    """Yield the steps of one batch. No cache is filled or changed: both caches are static."""
    gathered = next(step.work for step in steps if step.name == _GATHER)
    batch_bytes = _one(next(step.work.bytes for step in steps if step.name == _ROWS))
    rows, width = _one(gathered.rows), _one(gathered.width)
    row_bytes = batch_bytes // max(rows, 1)
    missed = round(ahead.missed * rows)
    update = next(step.name for step in steps if step.kind is Kind.OPTIMIZER)
    early = After(update, BATCHES_AHEAD)
    for step in steps:
        if step.name == _DRAWN and ahead.drawn:
            yield replace(step, lane=Lane.HOST.at(1), after=(early,))
        elif step.name == _PREPARED:
            done = step.work if ahead.drawn else work.host("nothing", rows=0, bytes=0)
            yield replace(step, work=done, lane=Lane.HOST.at(1), after=(early,))
            if not ahead.drawn:
                yield _blocks(steps)
        elif step.name == "fetch/copy":
            yield replace(step, after=(After(_PREPARED if ahead.drawn else "load/graph"),))
        elif step.name == "fetch/misses":
            # The thread that reads also puts the rows of the batch before in their places.
            waits = (After(_PREPARED), early, After(_GATHER, LATEST))
            yield replace(step, work=_read(ahead, rows, missed, row_bytes), after=waits)
        elif step.name == _GATHER:
            yield replace(step, work=scaled(gathered, missed / max(rows, 1)))
        elif step.name == _ROWS:
            moved = work.to_device(round((1.0 - ahead.device) * batch_bytes))
            yield replace(step, work=moved, after=(After(_GATHER),))
            yield _placed(rows, width, row_bytes)
        elif step.phase not in (Phase.SAMPLE, Phase.LOAD) and step.name != "fetch/cache":
            yield step


def _one(size: Size) -> int:
    """A size of the only rank."""
    return int(np.max(size))


def _blocks(steps: Sequence[Step]) -> Step:
    """Read the blocks of a batch."""
    return Step(
        name="load/graph",
        work=work.read(trace_bytes(steps)),
        lane=Lane.DISK.at(1),
        phase=Phase.LOAD,
        after=(After(_PREPARED),),
    )


def _read(ahead: Ahead, rows: int, missed: int, row_bytes: int) -> Work:
    """Read the rows that no cache holds, and the places of a batch's rows if they are in a file."""
    places = 0 if ahead.drawn else COLD_BYTES * missed + HOT_BYTES * (rows - missed)
    if not ahead.apart:
        return work.read(missed * row_bytes + places, 2)
    each = -(-row_bytes // DISK_BLOCK) * DISK_BLOCK
    return work.read(missed * each + places, missed + 1)


def _placed(rows: int, width: int, row_bytes: int) -> Step:
    """Put the rows that came, and those of the device's cache, in the order of the batch."""
    placed = work.gather(rows, width, rows, row_bytes // max(width, 1))
    return Step(name="fetch/place", work=placed, phase=Phase.FETCH, after=(After(_ROWS),))
