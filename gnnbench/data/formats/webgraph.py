"""WebGraph's BVGraph: NAME.graph, a bit stream of arcs, with NAME.properties beside it.

The default codes are read: gamma for degrees, blocks and intervals, unary for references, zeta for
residuals. Offsets and labels are not needed: the stream is decoded from its first bit to its last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gnnbench import owner
from gnnbench.data.edge_list import Block, EdgeList
from gnnbench.data.formats.reading import only_file, reading, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench.errors import DataError

_CLASS = "BVGraph"
_ARCS_AT_ONCE = 1 << 18
_SLACK_BITS = 63
"""Bits that fill the last word of the stream: of a byte, or of eight."""


def read(path: Path, *, directed: bool = False, name: str | None = None) -> Graph:
    """Read a BVGraph by its .graph file or the folder of both files.

    `directed` keeps arcs as listed instead of both directions.
    """
    file = only_file(path, ["*.graph"], "a WebGraph")
    facts = _properties(file.with_suffix(".properties"))
    with reading(file, "a BVGraph"):
        indptr, targets = _lists(file, facts, lambda arcs: np.empty(arcs, np.int32))
    nodes = len(indptr) - 1
    sources = np.repeat(np.arange(nodes, dtype=np.int64), np.diff(indptr))
    return from_edges(name or stem(file), sources, targets, nodes, undirected=not directed)


def stream(path: Path, *, directed: bool = False, name: str | None = None) -> EdgeList:
    """Return the arcs to be read block by block; arguments as in `read`.

    They are decoded into a temporary file first, whose pages are the system's to take back.
    """
    file = only_file(path, ["*.graph"], "a WebGraph")
    facts = _properties(file.with_suffix(".properties"))
    with reading(file, "a BVGraph"):
        nodes = int(facts["nodes"])
    return EdgeList(
        name=name or stem(file),
        blocks=_blocks(file, facts),
        undirected=not directed,
        num_nodes=nodes,
    )


def _blocks(file: Path, facts: dict[str, str]) -> Iterator[Block]:
    """Yield the arcs, some nodes at a time."""
    with owner.scratch("webgraph-") as folder, reading(file, "a BVGraph"):

        def mapped(arcs: int) -> np.ndarray:
            return np.memmap(folder / "targets", np.int32, "w+", shape=max(arcs, 1))[:arcs]

        indptr, targets = _lists(file, facts, mapped)
        start, nodes = 0, len(indptr) - 1
        while start < nodes:
            stop = int(np.searchsorted(indptr, indptr[start] + _ARCS_AT_ONCE, side="right")) - 1
            stop = min(max(stop, start + 1), nodes)
            degrees = np.diff(indptr[start : stop + 1])
            sources = np.repeat(np.arange(start, stop, dtype=np.int64), degrees)
            yield sources, targets[indptr[start] : indptr[stop]].astype(np.int64)
            forget_mapped_pages([targets])
            start = stop


def _properties(path: Path) -> dict[str, str]:
    """The lines `key=value` of a file of Java properties."""
    with reading(path, "properties of a BVGraph"):
        lines = path.read_text(encoding="latin-1").splitlines()
    pairs = (line.partition("=") for line in lines if line.strip() and line[0] not in "#!")
    found = {key.strip().lower(): value.strip() for key, _, value in pairs}
    kind = found.get("graphclass", "")
    if _CLASS not in kind:
        raise DataError(path, f"graphclass: found {kind!r}, allowed {_CLASS}")
    if found.get("compressionflags"):
        codes = found["compressionflags"]
        raise DataError(path, f"compressionflags: found {codes!r}, allowed the default codes")
    if found.get("version", "0") != "0":
        raise DataError(path, f"version: found {found['version']!r}, allowed 0")
    return found


def _lists(
    file: Path, facts: dict[str, str], room: Callable[[int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The lists of all nodes, one behind the other: where each begins, and their targets.

    Args:
        file, facts: the stream and its properties.
        room: makes the array of the targets, int32, given their number.
    """
    # Late: the decoder is compiled.
    from gnnbench.data.formats import webgraph_bits as bits

    nodes, arcs = int(facts["nodes"]), int(facts["arcs"])
    window, interval, k = (
        int(facts.get(key, default))
        for key, default in (("windowsize", 7), ("minintervallength", 4), ("zetak", 3))
    )
    if window < 0 or interval < 0 or not 1 <= k <= 16:
        raise ValueError(f"windowsize {window}, minintervallength {interval}, zetak {k}")
    if not 0 <= nodes < 2**31 or arcs < 0:
        raise ValueError(f"{nodes} nodes and {arcs} arcs")
    data = np.fromfile(file, np.uint8)
    if nodes > 8 * len(data):  # a list takes a bit at least
        raise ValueError(f"{len(data)} bytes for {nodes} nodes")
    if arcs > 64 * 8 * max(len(data), 1) * max(min(window, 64), 1):
        raise ValueError(f"{len(data)} bytes for {arcs} arcs")
    indptr, targets = np.zeros(nodes + 1, np.int64), room(arcs)
    state = np.zeros(3, np.int64)
    ended = bits.decode(
        data,
        window,
        interval,
        k,
        indptr,
        np.asarray(targets),  # a kernel takes no memmap
        state,
    )
    problems = {
        bits.TRUNCATED: "the stream ends",
        bits.REFERENCE: "a list refers to what is not there",
        bits.SUCCESSOR: f"a successor outside 0..{nodes - 1}",
        bits.TOO_MANY: f"more arcs than the {arcs} of the properties",
    }
    if ended != bits.DONE:
        raise DataError(file, f"{problems[ended]}, in the list of node {state[2]} of {nodes}")
    if indptr[-1] != arcs:
        raise DataError(file, f"{indptr[-1]} arcs, {arcs} by the properties")
    left = 8 * len(data) - int(state[0])
    if left > _SLACK_BITS:
        raise DataError(
            file, f"{left} bits behind the list of the last node, allowed {_SLACK_BITS}"
        )
    return indptr, targets
