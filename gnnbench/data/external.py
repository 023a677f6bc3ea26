"""From an edge list to a graph in native form, within a memory cap: an external sort.

Memory holds tables of the vertices and one piece of the edges. Everything else is on the disk:

1. *spool*: the edges are copied into a binary file, and the degrees are counted;
2. *deal*: each edge goes to its bin. A bin has the edges into a range of vertices that fits in
   memory, and the bins lie one behind the other in one file;
3. *sort*: each bin is sorted in memory, repeats leave, and the sources are appended to the graph.

The graph is the one that `from_edges` makes, array by array. Disk: 16 bytes per listed edge and 8
per stored one until the sort, then 8 + 4 per stored edge.

Source: semi-external graph algorithms (tables of V in memory, E on the disk): Abello, Buchsbaum and
Westbrook, "A Functional Approach to External Graph Algorithms", Algorithmica 2002.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench import owner
from gnnbench.data.array_file import ArrayFile
from gnnbench.data.draws import compiled
from gnnbench.data.edge_list import Block, EdgeList
from gnnbench.data.formats import native
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench.data.reuse import DIGITS, reuse_shares
from gnnbench.errors import DataError
from gnnbench.steps import Ints

Progress = Callable[[str, int, int], None]
"""Called with the pass, what is done of it in edges, and how many there are; 0: not known yet."""

VERTEX_BYTES = 40
"""Of the tables per vertex: degree, place, presence and sums; and those of the reuse count."""
SORT_BYTES = 32
"""Per edge of a bin while it is sorted."""
READER_BYTES = 32 * 2**20
"""Of the reader: a block of text and its columns."""
FEWEST_EDGES = 1 << 16
"""Edges of a bin, at least: smaller bins would be read and written in small requests."""
_SPOOLED_BYTES, _DEALT_BYTES = 16, 8


def ignored(stage: str, done: int, total: int) -> None:
    """Show no progress."""


def convert(edges: EdgeList, path: Path, memory_bytes: int, progress: Progress = ignored) -> Path:
    """Write the graph of an edge list to a folder in native form; return the folder.

    Args:
        edges: the list.
        path: the folder; a dataset that is there is replaced.
        memory_bytes: that may be used beyond what the process uses already.
        progress: see `Progress`.

    Raises:
        DataError: an id is out of range, or the tables of the vertices need more memory.
    """
    with (
        native.replacing(path) as folder,
        owner.scratch(".edges.", path.parent) as scratch,
    ):
        spooled = _spool(edges, scratch / "listed", memory_bytes, progress)
        tables = _tables(edges, spooled, memory_bytes)
        _deal(edges, spooled, tables, scratch, progress)
        (scratch / "listed").unlink()
        stored = _sort(tables, scratch / "bins", folder, progress)
        listed = spooled.listed - spooled.loops
        kept = stored // 2 if edges.undirected else stored
        notes: dict[str, object] = {"self_loops": spooled.loops, "repeated_edges": listed - kept}
        if tables.renumbered_from:
            notes["renumbered_from"] = tables.renumbered_from
        del spooled, tables
        native.seal(
            folder,
            "graph",
            name=edges.name,
            plain={"num_classes": 0, "undirected": edges.undirected},
            notes={**notes, **edges.notes},
            reuse=_reuse(folder, stored, memory_bytes),
        )
    return path


# -- first pass ----------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True, eq=False)
class _Spooled:
    """What the first pass has counted: edges listed, self loops, and per id degree and presence."""

    listed: int
    loops: int
    degree: Ints
    there: NDArray[np.bool_]


def _spool(edges: EdgeList, path: Path, memory_bytes: int, progress: Progress) -> _Spooled:
    degree, there = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    listed, loops, used = 0, 0, edges.num_nodes or 0
    with path.open("wb") as file:
        for sources, targets in edges.blocks:
            if not len(sources):
                continue
            lowest = min(int(sources.min()), int(targets.min()))
            largest = max(int(sources.max()), int(targets.max()))
            _check_ids(edges, lowest, largest, memory_bytes)
            used = max(used, largest + 1)
            if used > len(degree):
                # In steps of a quarter, not by doubling: half of the table would be spare room.
                size = max(used, len(degree) + len(degree) // 4)
                degree.resize(size, refcheck=False)
                there.resize(size, refcheck=False)
            loops += _count(sources, targets, edges.undirected, degree, there)
            np.stack([sources, targets], axis=1).tofile(file)
            listed += len(sources)
            progress("read", listed, 0)
    if not used and edges.num_nodes is None:
        raise DataError(edges.name, "no edges; a graph of isolated nodes needs option num_nodes")
    degree.resize(used, refcheck=False)
    there.resize(used, refcheck=False)
    return _Spooled(listed=listed, loops=loops, degree=degree, there=there)


def _check_ids(edges: EdgeList, lowest: int, largest: int, memory_bytes: int) -> None:
    if lowest < 0:
        raise DataError(edges.name, f"node ids must not be negative, found {lowest}")
    if edges.num_nodes is not None and largest >= edges.num_nodes:
        raise DataError(edges.name, f"edge endpoints must lie in 0..{edges.num_nodes - 1}")
    least = READER_BYTES + VERTEX_BYTES * (largest + 1) + SORT_BYTES * FEWEST_EDGES
    if least > memory_bytes:
        raise DataError(
            edges.name,
            f"memory: found {memory_bytes / 1e6:.0f} MB, and tables of ids up to {largest} need "
            f"{least / 1e6:.0f} MB: allow as much",
        )
    if largest >= 2**31 - 1:
        raise DataError(edges.name, f"found node id {largest}, allowed below {2**31 - 1}")


@compiled
def _count(sources: Any, targets: Any, both: Any, degree: Any, there: Any) -> int:
    """Count degrees and mark ids; return the number of self loops, which count for no degree."""
    loops = 0
    for edge in range(len(sources)):
        source, target = sources[edge], targets[edge]
        there[source] = True
        there[target] = True
        if source == target:
            loops += 1
            continue
        degree[target] += 1
        if both:
            degree[source] += 1
    return loops


# -- second pass ---------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True, eq=False)
class _Tables:
    """Vertices and bins.

    Args:
        num_nodes: N.
        place: new number of every id, int32; None: ids stay.
        renumbered_from: a note, "" if ids stay.
        degree: stored edges into every vertex, repeats counted, int64 [N].
        starts: first vertex of every bin, and N behind the last, int64 [bins + 1].
        offsets: edges before every bin, int64 [bins + 1].
        at_once: edges that are dealt at once.
    """

    num_nodes: int
    place: NDArray[np.int32] | None
    renumbered_from: str
    degree: Ints
    starts: Ints
    offsets: Ints
    at_once: int


def _tables(edges: EdgeList, spooled: _Spooled, memory_bytes: int) -> _Tables:
    degree, there, place, said = spooled.degree, spooled.there, None, ""
    if edges.num_nodes is None and not there.all():
        ids = np.flatnonzero(there)
        said = f"ids {ids[0]}..{ids[-1]}, order kept" if len(ids) else ""
        degree = degree[ids]
        del ids
        place = np.cumsum(there, dtype=np.int32)
        place -= 1
    n = len(degree)
    room = memory_bytes - READER_BYTES - VERTEX_BYTES * n
    per_bin = max(room // SORT_BYTES, FEWEST_EDGES)
    before = np.zeros(n + 1, np.int64)
    np.cumsum(degree, out=before[1:])
    starts = [0]
    while starts[-1] < n:
        start = starts[-1]
        stop = int(np.searchsorted(before, before[start] + per_bin, side="right")) - 1
        starts.append(min(max(stop, start + 1), n))
    return _Tables(
        num_nodes=n,
        place=place,
        renumbered_from=said,
        degree=degree,
        starts=np.array(starts, np.int64),
        offsets=before[starts],
        at_once=max(int(per_bin) // 4, FEWEST_EDGES // 4),
    )


def _deal(
    edges: EdgeList, spooled: _Spooled, tables: _Tables, scratch: Path, progress: Progress
) -> None:
    """Put every edge into its bin, in both directions if the graph is undirected."""
    cursor, done = tables.offsets[:-1].copy(), 0
    bins = os.open(scratch / "bins", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for sources, targets in _pieces(scratch / "listed", tables.at_once):
            done += len(sources)
            if tables.place is not None:
                sources = tables.place[sources].astype(np.int64)
                targets = tables.place[targets].astype(np.int64)
            apart = sources != targets
            sources, targets = sources[apart], targets[apart]
            if edges.undirected:
                sources, targets = (
                    np.concatenate([sources, targets]),
                    np.concatenate([targets, sources]),
                )
            number = np.searchsorted(tables.starts, targets, side="right") - 1
            order = np.argsort(number, kind="stable")
            pairs = np.empty((len(order), 2), np.int32)
            pairs[:, 0], pairs[:, 1] = targets[order], sources[order]
            number = number[order]
            first = np.flatnonzero(np.diff(number, prepend=-1))
            counts = np.diff(np.append(first, len(number)))
            found = number[first]
            for bin, begin, count in zip(
                found.tolist(), first.tolist(), counts.tolist(), strict=True
            ):
                _write(bins, pairs[begin : begin + count], _DEALT_BYTES * int(cursor[bin]))
            cursor[found] += counts
            progress("deal", done, spooled.listed)
    finally:
        os.close(bins)


def _pieces(path: Path, at_once: int) -> Iterator[Block]:
    with path.open("rb") as file:
        while len(pairs := np.fromfile(file, np.int64, 2 * at_once)):
            yield pairs[0::2], pairs[1::2]


def _write(file: int, pairs: NDArray[np.int32], offset: int) -> None:
    view, done = pairs.reshape(-1).view(np.uint8).data, 0
    while done < len(view):
        done += os.pwrite(file, view[done:], offset + done)


# -- third pass ----------------------------------------------------------------------------------


def _sort(tables: _Tables, bins: Path, folder: Path, progress: Progress) -> int:
    """Write indptr and indices; return the number of stored edges."""
    n, degree = tables.num_nodes, tables.degree
    ranges = zip(tables.starts[:-1].tolist(), tables.starts[1:].tolist(), strict=True)
    with ArrayFile(folder / "indices.npy", np.int32) as indices:
        for bin, (start, stop) in enumerate(ranges):
            first, end = tables.offsets[bin : bin + 2].tolist()
            pairs = np.fromfile(bins, np.int32, 2 * (end - first), offset=_DEALT_BYTES * first)
            key = pairs[0::2].astype(np.int64)
            key -= start
            key *= n
            key += pairs[1::2]
            del pairs
            key.sort()
            fresh = np.ones(len(key), np.bool_)
            np.not_equal(key[1:], key[:-1], out=fresh[1:])
            key = key[fresh]
            degree[start:stop] = np.bincount(key // n, minlength=stop - start)
            key %= n
            indices.append(key.astype(np.int32))
            progress("sort", end, int(tables.offsets[-1]))
        stored = indices.rows
    with ArrayFile(folder / "indptr.npy", np.int64) as indptr:
        indptr.append(np.zeros(1, np.int64))
        np.cumsum(degree, out=degree)
        indptr.append(degree)
    return stored


def _reuse(folder: Path, edges: int, memory_bytes: int) -> list[float] | None:
    """Shares of reads by reuse distance, of the graph whose arrays lie in a folder.

    None if its sources do not fit in memory: the pass over them is at random, and is left to who
    asks for the shares.
    """
    if 4 * edges > memory_bytes - READER_BYTES:
        return None
    indptr = np.load(folder / "indptr.npy", allow_pickle=False)
    mapped = (folder / "indices.npy").stat().st_size > 128
    indices = np.load(folder / "indices.npy", "r" if mapped else None, allow_pickle=False)
    found: list[float] = reuse_shares(indptr, indices)[0].round(DIGITS).tolist()
    forget_mapped_pages([indices])
    return found
