"""Timed facts as RE-Net writes them: `head relation tail time [0]` in train, valid and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gnnbench.data.formats.columns import Growing, Source, blocks, layout
from gnnbench.data.formats.events import Reading, number_ends
from gnnbench.data.formats.reading import stem
from gnnbench.data.formats.triples import split_sources
from gnnbench.data.stream import EdgeStream, from_events
from gnnbench.errors import DataError

_SPLITS = ("train", "val", "test")


def read(path: Path, *, num_nodes: int | None = None, name: str | None = None) -> EdgeStream:
    """Read facts with times (4 or 5 whole numbers a row) as a stream; the label is the relation.

    The split is by files, and must be by time. Ids that leave gaps are renumbered in their
    order, unless `num_nodes` is given. What follows the time is left out.
    """
    parts = split_sources(path)
    held = [Growing(np.int64) for _ in range(4)]
    ends, last = [], None
    for split in _SPLITS:
        times = held[3]
        before = len(times)
        _append(parts[split], held)
        here = times.view()[before:]
        if last is not None and len(here) and here.min() < last:
            raise DataError(
                parts[split], f"time {here.min()} lies before {last}, which an earlier split holds"
            )
        if len(here):
            last = int(here.max())
            order = before + np.argsort(here, kind="stable")
            for column in held:
                column.view()[before:] = column.view()[order]
        ends.append(len(times))
    heads, relations, tails, times_done = (column.done() for column in held)
    notes: dict[str, object] = {"labels": "relations"}
    how = Reading(num_nodes=num_nodes)
    (sources, destinations), count, _ = number_ends([heads, tails], how, parts["train"], notes)
    return from_events(
        name or stem(path),
        sources,
        destinations,
        times_done,
        num_nodes=count,
        own_ends=(ends[0], ends[1]),
        labels=relations,
        num_classes=int(relations.max(initial=-1)) + 1,
        notes=notes,
    )


def _append(source: Source, held: list[Growing]) -> None:
    found = layout(source)
    if found.width not in (4, 5):
        raise DataError(
            source, f"rows have {found.width} columns, expected head relation tail time"
        )
    for block in blocks(source, found, dict.fromkeys(range(4), np.int64)):
        for column, values in zip(held, block, strict=True):
            column.append(values)
