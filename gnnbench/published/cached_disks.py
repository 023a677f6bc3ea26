"""Recipes of systems whose threads read ahead behind caches of single rows: DiskGNN, GraphBolt.

DiskGNN samples an epoch before training and counts uses of rows in it. The most used rows fill a
cache on the device, the next ones a cache in the host's memory. Every batch has a file with the
other rows that it uses. Where a row says nothing of the caches they are those of the study's main
table, a tenth of all rows. Its ablation adds packing (P), a cache on the device (G), a cache in the
host's memory (C) and a cache on the disk (D) to reading all rows one by one.

GraphBolt draws its batches while it trains, and reads each missing row by a request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gnnbench.published.disk_epochs import Epoch, epoch_of, recent_misses, study_cache
from gnnbench.published.disk_places import disk_of
from gnnbench.published.disk_systems import (
    DIRECT_READERS,
    batch_of,
    workers_of,
)
from gnnbench.published.reason import NotModelled
from gnnbench.published.recipes import Recipe
from gnnbench.published.rows import PublishedRow
from gnnbench.published.software import Ahead, Software

DEVICE_SHARE = 0.5
"""Of the cached rows on the device, where a row states the size of both caches together."""
_ALL_AHEAD = 1_000_000


def diskgnn(row: PublishedRow) -> Recipe:
    """DiskGNN, and the steps of its ablation."""
    parts = _parts(row.system)
    if "D" in parts:
        raise NotModelled("software path not modelled", "rows that batches share on the disk")
    epoch = epoch_of(row)
    on_device, cached = _caches(row, epoch)
    if "G" not in parts:
        on_device, cached = 0.0, cached - on_device
    if "C" not in parts:
        cached = on_device
    missed = epoch.beyond(cached)
    _check_budget(row, missed / max(epoch.profile.num_nodes, 1))
    ahead = Ahead(
        device=1.0 - epoch.beyond(on_device) / epoch.requested,
        missed=missed / epoch.requested,
        apart="P" not in parts,
    )
    return _recipe(row, ahead, superbatch=_ALL_AHEAD)


def graphbolt(row: PublishedRow) -> Recipe:
    """GraphBolt's features on the disk, behind its caches of rows."""
    epoch = epoch_of(row)
    on_device, missed = recent_misses(row, epoch)
    ahead = Ahead(device=1.0 - on_device, missed=missed, apart=True, drawn=True)
    return _recipe(row, ahead, superbatch=1)


def _recipe(row: PublishedRow, ahead: Ahead, *, superbatch: int) -> Recipe:
    software = Software(workers=workers_of(row), depth=DIRECT_READERS, ahead=ahead, framework="dgl")
    return Recipe(
        software=software,
        knobs={"cache": 0.0, "superbatch": superbatch},
        batch=batch_of(row),
        native_hosts=True,
        disk=disk_of(row),
    )


def _parts(system: str) -> Sequence[str]:
    """What a step of the ablation has, such as "Naive+P+G"; all but D otherwise."""
    found = re.search(r"\bnaive((?:\+[a-z])*)", system.lower())
    return found[1].upper().split("+")[1:] if found else ("P", "G", "C")


def _caches(row: PublishedRow, epoch: Epoch) -> tuple[float, float]:
    """Rows of the cache on the device, and of both caches."""
    words = row.notes.lower()
    row_bytes = max(epoch.row_bytes, 1)
    both = re.search(r"(\d+(?:\.\d+)?) ?(?:gb cpu)? ?\+ ?(\d+(?:\.\d+)?) ?gb", words)
    if both:
        host, device = (1e9 * float(size) / row_bytes for size in both.groups())
        return device, host + device
    cached = study_cache(row, epoch)
    return DEVICE_SHARE * cached, cached


def _check_budget(row: PublishedRow, blowup: float) -> None:
    """Raise NotModelled where packed rows do not fit the stated space on the disk."""
    budget = re.search(r"disk-space budget (\d+(?:\.\d+)?)x", row.notes.lower())
    if budget and float(budget[1]) < blowup:
        raise NotModelled("software path not modelled", "rows that batches share on the disk")
