"""WebGraph's BVGraph: NAME.graph, a bit stream of arcs, with NAME.properties beside it.

The default codes are read: gamma for degrees, blocks and intervals, unary for references, zeta for
residuals. Offsets and labels are not needed: the stream is decoded from its first bit to its last.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gnnbench.data.formats.reading import only_file, reading, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError

_CLASS = "BVGraph"
_SLACK_BITS = 63
"""Bits that fill the last word of the stream: of a byte, or of eight."""


def read(path: Path, *, directed: bool = False, name: str | None = None) -> Graph:
    """Read a BVGraph by its .graph file or the folder of both files.

    `directed` keeps arcs as listed instead of both directions.
    """
    file = only_file(path, ["*.graph"], "a WebGraph")
    facts = _properties(file.with_suffix(".properties"))
    with reading(file, "a BVGraph"):
        sources, targets, nodes = _arcs(file, facts)
    return from_edges(name or stem(file), sources, targets, nodes, undirected=not directed)


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


def _arcs(file: Path, facts: dict[str, str]) -> tuple[np.ndarray, np.ndarray, int]:
    """Sources and targets of all arcs, and the number of nodes."""
    # Late: the decoder is compiled.
    from gnnbench.data.formats import webgraph_bits as bits

    nodes, arcs = int(facts["nodes"]), int(facts["arcs"])
    if not 0 <= nodes < 2**31 or arcs < 0:
        raise ValueError(f"{nodes} nodes and {arcs} arcs")
    data = np.fromfile(file, np.uint8)
    if arcs > 64 * 8 * max(len(data), 1) * max(int(facts.get("windowsize", 7)), 1):
        raise ValueError(f"{len(data)} bytes for {arcs} arcs")
    indptr, targets = np.zeros(nodes + 1, np.int64), np.empty(arcs, np.int32)
    state = np.zeros(3, np.int64)
    ended = bits.decode(
        data,
        int(facts.get("windowsize", 7)),
        int(facts.get("minintervallength", 4)),
        int(facts.get("zetak", 3)),
        indptr,
        targets,
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
    return np.repeat(np.arange(nodes, dtype=np.int64), np.diff(indptr)), targets, nodes
