"""A plan whose batches come from files, and whose missing rows are read one by one.

Ginex writes every drawn batch to the disk and reads it again when it trains. The baseline "DGL on
disk" of DiskGNN's study trains on batches that an earlier run wrote. Both read each row that is not
in memory by a request of its own, of whole blocks; our plan merges rows of neighbouring blocks.

A batch takes 16 bytes per edge (two ids of 64 bits, or an id and the number of the edge) and 8 per
input vertex.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gnnbench import work
from gnnbench.approaches.out_of_core.storage import DISK_BLOCK
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.published.software import Software
from gnnbench.steps import After, Kind, Lane, Phase, Size, Step, Work, larger

FILES = "files"
EDGE_BYTES, VERTEX_BYTES = 16, 8
AHEAD = 8
"""Batches that Ginex' four threads read ahead, two each."""
_DRAWN, _INSPECTED, _PREPARED = "sample/superbatch", "sample/inspect", "sample/prepare"
_READ, _WRITTEN = "load/graph", "sample/traces"


def traced(plan: Plan, software: Software) -> Plan:
    """The plan of `belady` with batches that are read from files, and rows read one by one."""
    if not software.batches:
        return plan
    of_files = software.batches == FILES

    def rewritten(number: int) -> Iteration:
        return Iteration(
            [
                RankClass(of.ranks, tuple(_steps(of.steps, of_files=of_files)))
                for of in plan.iterations[number].classes
            ]
        )

    return replace(
        plan,
        iterations=LazyIterations(len(plan.iterations), rewritten),
        notes={**plan.notes, "batches": software.batches},
    )


def trace_bytes(steps: Sequence[Step]) -> Size:
    """Bytes of a batch on the disk, from the steps that train it."""
    edges: dict[int, Size] = {}
    for step in steps:
        if step.phase is Phase.FORWARD and step.kind in (Kind.SPMM, Kind.SDDMM):
            edges[step.layer] = larger(edges.get(step.layer, 0), step.work.nonzeros)
    total: Size = sum(edges.values())
    return EDGE_BYTES * total + VERTEX_BYTES * _inputs(steps)


def _inputs(steps: Sequence[Step]) -> Size:
    return next(step.work.rows for step in steps if step.name == "fetch/gather")


def _steps(steps: Sequence[Step], *, of_files: bool) -> Iterator[Step]:
    """Yield the steps of one iteration."""
    size, waits = trace_bytes(steps), dict[str, After]()
    update = next(step.name for step in steps if step.kind is Kind.OPTIMIZER)
    for number, step in enumerate(steps):
        after = (waits.pop("next"), *step.after) if "next" in waits else step.after
        if of_files and number == 0:
            after = (After(update, 1), *after)
        made = replace(step, after=after, work=_by_rows(step))
        if of_files and step.phase is Phase.SAMPLE:
            made = replace(made, work=work.host("nothing", rows=0, bytes=0))
        yield made
        if step.name == _PREPARED:
            begin = (After(_PREPARED),) if of_files else _ahead(steps, update)
            yield _on_disk(_READ, work.read(size), Lane.DISK.at(1), Phase.LOAD, begin)
            waits["next"] = After(_READ)
        if step.name == _DRAWN and not of_files:
            batches = _uses(steps) // _inputs(steps)
            written = work.write(batches * size, batches)
            yield _on_disk(_WRITTEN, written, Lane.DISK, Phase.SAMPLE, (After(_DRAWN),))
            waits["next"] = After(_WRITTEN)


def _ahead(steps: Sequence[Step], update: str) -> tuple[After, ...]:
    """What the read of a trace waits for: it is ahead of training, and behind its superbatch."""
    opens = any(step.name == _INSPECTED for step in steps)
    return (After(update, AHEAD), *((After(_INSPECTED),) if opens else ()))


def _uses(steps: Sequence[Step]) -> Size:
    """Rows that the batches of a superbatch use, repeats counted."""
    return next(step.work.rows for step in steps if step.name == _INSPECTED)


def _by_rows(step: Step) -> Work:
    """The work of a step, where a read of rows asks for one row at a time."""
    done = step.work
    if done.kind is not Kind.READ or not isinstance(done.source_rows, int) or not done.source_rows:
        return done
    each = -(-done.width // DISK_BLOCK) * DISK_BLOCK
    return work.read(done.source_rows * each, done.source_rows)


def _on_disk(name: str, done: Work, lane: Lane, phase: Phase, after: tuple[After, ...]) -> Step:
    """A read or write."""
    return Step(name=name, work=done, lane=lane, phase=phase, after=after)
