"""Ledgers as a Chrome trace, for Perfetto or chrome://tracing, of measured and predicted runs.

One process per world and rank, one thread per lane, complete ("X") events only: events of a lane
never overlap, as the format demands (simulation 13). A counter shows the bytes that a rank is
sending.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gnnbench.atomic import write_text
from gnnbench.ledger import Row
from gnnbench.steps import COMMUNICATION, Engine, Lane

MAX_EVENTS = 200_000
"""About 40 MB of JSON; what comes later in time is left out."""

_ENGINES = {engine: 1000 * place for place, engine in enumerate(Engine, start=1)}
"""First thread number of each engine, so that viewers show the lanes of an engine together."""
_COMMUNICATION = frozenset(kind.value for kind in COMMUNICATION)

Worlds = Mapping[str, Mapping[int, Sequence[Row]]]


def write_trace(path: Path, worlds: Worlds, *, max_events: int = MAX_EVENTS) -> int:
    """Write ledgers as a trace.

    Args:
        path: the file to write, replaced as a whole.
        worlds: per world ("measured", "predicted"), rows of some ranks.
        max_events: cap on the events; whole periods from the start of each ledger are kept.

    Returns:
        How many rows were left out.
    """
    total = sum(len(rows) for ranks in worlds.values() for rows in ranks.values())
    ledgers = max(sum(len(ranks) for ranks in worlds.values()), 1)
    share = max(max_events // (2 * ledgers), 1)
    events: list[dict[str, Any]] = []
    written = 0
    for number, (world, ranks) in enumerate(sorted(worlds.items())):
        for rank, rows in sorted(ranks.items()):
            kept = _first_periods(rows, share)
            written += len(kept)
            pid = 100_000 * number + rank
            events += _names(pid, f"{world} rank {rank}", {row.lane for row in kept})
            events += _spans(pid, kept)
            events += _counters(pid, kept)
    content = {"traceEvents": events, "displayTimeUnit": "ms"}
    write_text(path, json.dumps(content, separators=(",", ":"), allow_nan=False))
    return total - written


def _first_periods(rows: Sequence[Row], most: int) -> list[Row]:
    """As many whole periods from the start as fit; of a single larger period, its start."""
    ordered = sorted(rows, key=lambda row: row.start_s)
    if len(ordered) <= most:
        return ordered
    counts: dict[int, int] = {}
    for row in ordered:
        counts[row.period] = counts.get(row.period, 0) + 1
    kept: set[int] = set()
    room = most
    for period in sorted(counts):
        if counts[period] > room:
            break
        kept.add(period)
        room -= counts[period]
    if not kept:
        return ordered[:most]
    return [row for row in ordered if row.period in kept]


def _names(pid: int, name: str, lanes: set[str]) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}
    for lane in sorted(lanes):
        tid = _thread(lane)
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": lane}}


def _thread(lane: str) -> int:
    """The thread number of a lane: "disk:2" comes after "disk"."""
    parsed = Lane.parse(lane)
    return _ENGINES[parsed.engine] + parsed.number


def _spans(pid: int, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {
            "ph": "X",
            "pid": pid,
            "tid": _thread(row.lane),
            "name": row.name,
            "cat": row.phase,
            "ts": round(row.start_s * 1e6, 3),
            "dur": round(max(row.duration_s, 0.0) * 1e6, 3),
            "args": {
                "op": row.op,
                "period": row.period,
                "iteration": row.iteration,
                "bytes": row.bytes,
                "flops": row.flops,
            },
        }


def _counters(pid: int, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Bytes that a rank is sending, as a step function of time."""
    changes: list[tuple[float, int]] = []
    for row in rows:
        if row.kind in _COMMUNICATION and row.bytes:
            changes.append((row.start_s, row.bytes))
            changes.append((row.start_s + row.duration_s, -row.bytes))
    level = 0
    for at, change in sorted(changes):
        level += change
        ts = round(at * 1e6, 3)
        yield {"ph": "C", "pid": pid, "name": "bytes under way", "ts": ts, "args": {"bytes": level}}
