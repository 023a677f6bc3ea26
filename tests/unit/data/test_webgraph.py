"""BVGraph and Graphs.jl files: what an encoder wrote is read back, and broken files say where."""

from __future__ import annotations

import gzip
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.data import formats
from gnnbench.data.external import convert
from gnnbench.data.formats import native, webgraph
from gnnbench.data.formats import webgraph_bits as bits
from gnnbench.errors import DataError

WINDOW, SHORTEST, K = 3, 2, 3


class Encoder:
    """The codes of the papers, as strings of bits."""

    def __init__(self) -> None:
        self.bits = ""

    def unary(self, n: int) -> None:
        self.bits += "0" * n + "1"

    def binary(self, n: int, width: int) -> None:
        self.bits += f"{n:b}".zfill(width) if width else ""

    def gamma(self, n: int) -> None:
        width = (n + 1).bit_length() - 1
        self.unary(width)
        self.binary(n + 1 - (1 << width), width)

    def zeta(self, n: int) -> None:
        h = ((n + 1).bit_length() - 1) // K
        self.unary(h)
        left = 1 << (h * K)
        offset, size = n + 1 - left, (1 << ((h + 1) * K)) - left
        width = size.bit_length()
        short = (1 << width) - size
        if offset < short:
            self.binary(offset, width - 1)
        else:
            self.binary(offset + short, width)

    def signed(self, n: int, code: str) -> None:
        getattr(self, code)(2 * n if n >= 0 else -2 * n - 1)

    def bytes(self) -> bytes:
        text = self.bits + "0" * (-len(self.bits) % 8)
        return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def encode(lists: list[list[int]], references: list[int]) -> bytes:
    """Encode lists, each by the one so many nodes before it."""
    out = Encoder()
    for node, (own, back) in enumerate(zip(lists, references, strict=True)):
        out.gamma(len(own))
        if not own:
            continue
        back = min(back, node, WINDOW)
        out.unary(back)
        rest = set(own)
        if back:
            base = lists[node - back]
            runs = [(same, len(list(run))) for same, run in groupby(u in rest for u in base)]
            if runs and not runs[0][0]:
                runs.insert(0, (True, 0))
            blocks = [length for _, length in runs][:-1]  # the last block is implied
            out.gamma(len(blocks))
            for i, length in enumerate(blocks):
                out.gamma(length - (i > 0))
            rest -= set(base)
        left = sorted(rest)
        if left:
            starts = [u for u in left if u - 1 not in rest]
            spans = [
                (u, next(v for v in range(u, u + len(left) + 1) if v not in rest)) for u in starts
            ]
            spans = [(u, v) for u, v in spans if v - u >= SHORTEST]
            out.gamma(len(spans))
            previous = node
            for i, (u, v) in enumerate(spans):
                if i == 0:
                    out.signed(u - previous, "gamma")
                else:
                    out.gamma(u - previous - 1)
                out.gamma(v - u - SHORTEST)
                previous = v
                left = [w for w in left if not u <= w < v]
        previous = node
        for i, u in enumerate(left):
            if i == 0:
                out.signed(u - previous, "zeta")
            else:
                out.zeta(u - previous - 1)
            previous = u
    return out.bytes()


@st.composite
def graphs(draw):
    n = draw(st.integers(1, 14))
    nodes = st.lists(st.integers(0, n - 1), unique=True, max_size=n).map(sorted)
    lists = draw(st.lists(nodes, min_size=n, max_size=n))
    return lists, draw(st.lists(st.integers(0, WINDOW), min_size=n, max_size=n))


def decoded(data: bytes, nodes: int, arcs: int) -> tuple[int, list[list[int]]]:
    indptr, targets = np.zeros(nodes + 1, np.int64), np.empty(arcs, np.int32)
    stream = np.frombuffer(data, np.uint8)
    state = np.zeros(3, np.int64)
    ended = bits.decode(stream, WINDOW, SHORTEST, K, indptr, targets, state)
    return ended, [targets[a:b].tolist() for a, b in pairwise(indptr)]


@given(graph=graphs())
def test_what_was_encoded_is_decoded(graph):
    lists, references = graph
    found = decoded(encode(lists, references), len(lists), sum(map(len, lists)))
    assert found == (bits.DONE, lists)


@given(graph=graphs(), data=st.binary(max_size=40))
def test_any_bytes_are_decoded_or_refused(graph, data):
    """No byte makes it read or write outside of its arrays: nodes stay in range."""
    ended, lists = decoded(data, len(graph[0]), 30)
    assert ended in range(5)
    if ended == bits.DONE:
        assert all(0 <= u < len(lists) for own in lists for u in own)


def write(folder: Path, lists: list[list[int]], **facts: object) -> Path:
    (folder / "tiny.graph").write_bytes(encode(lists, [0] * len(lists)))
    given = {
        "graphclass": "it.unimi.dsi.webgraph.BVGraph",
        "nodes": len(lists),
        "arcs": sum(map(len, lists)),
        "windowsize": WINDOW,
        "minintervallength": SHORTEST,
        "zetak": K,
        "compressionflags": "",
        **facts,
    }
    lines = ["#BVGraph properties", *(f"{key}={value}" for key, value in given.items())]
    (folder / "tiny.properties").write_text("\n".join(lines))
    return folder / "tiny.graph"


ARCS = [[1, 2], [], [0, 1, 2, 3], [3]]


def test_a_webgraph_is_read_with_its_properties(tmp_path):
    path = write(tmp_path, ARCS)
    assert formats.detect(path) == "webgraph"
    graph = formats.read("auto", path, directed=True)
    assert graph.name == "tiny"
    assert graph.num_edges == 5  # two self loops are dropped, and counted
    assert graph.notes["self_loops"] == 2
    assert graph.indices[graph.indptr[1] : graph.indptr[2]].tolist() == [0, 2]
    assert formats.read("webgraph", tmp_path).num_edges == 2 * 4


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"arcs": 8}, "7 arcs, 8 by the properties"),
        ({"arcs": 3}, "more arcs than the 3"),
        ({"nodes": 9}, "the stream ends, in the list of node"),
        ({"graphclass": "EFGraph"}, "found 'EFGraph', allowed BVGraph"),
        ({"compressionflags": "RESIDUALS_DELTA"}, "allowed the default codes"),
        ({"nodes": "many"}, "truncated or not a BVGraph"),
    ],
)
def test_a_broken_webgraph_says_what_is_wrong(tmp_path, facts, said):
    with pytest.raises(DataError, match=said):
        formats.read("webgraph", write(tmp_path, ARCS, **facts))


def test_bits_behind_the_last_list_are_refused(tmp_path):
    path = write(tmp_path, ARCS)
    path.write_bytes(path.read_bytes() + bytes(9))
    with pytest.raises(DataError, match="bits behind the list of the last node"):
        formats.read("webgraph", path)


def test_a_webgraph_without_properties_says_so(tmp_path):
    (tmp_path / "lone.graph").write_bytes(b"\x00")
    with pytest.raises(DataError, match="no such file"):
        formats.read("webgraph", tmp_path / "lone.graph")


TEXT = "4,3,u,first\n1,2\n2,3\n4,4\n3,2,d,second\n1,3\n3,1\n"


@pytest.mark.parametrize("packed", [False, True])
def test_a_graph_of_graphs_jl_is_read_by_name(tmp_path, packed):
    path = tmp_path / "two.jlg"
    path.write_bytes(gzip.compress(TEXT.encode()) if packed else TEXT.encode())
    assert formats.detect(path) == "graphs_jl"
    first = formats.read("graphs_jl", path, graph="first")
    assert (first.num_nodes, first.num_edges, first.notes["self_loops"]) == (4, 4, 1)
    second = formats.read("graphs_jl", path, graph="second", directed=True)
    assert (second.num_nodes, second.num_edges) == (3, 2)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (TEXT, {}, "allowed one of: 'first', 'second'"),
        ("4,3,u,g\n1,2\n", {}, "1 edges, 3 by the header"),
        ("4,1,u,g\n1,5\n", {}, r"must lie in 1\.\.4"),
        ("4,1,u,g\n1,2\n", {"directed": True}, "the file's graph is undirected"),
        ("4,1,x,g\n1,2\n", {}, "is not 'nodes,edges,u|d,name'"),
        ("4,1,u,g\n1,2,3\n", {}, "not 'source,target'"),
        ("", {}, "allowed one of: none"),
    ],
)
def test_a_broken_graphs_jl_file_says_what_is_wrong(tmp_path, text, options, said):
    path = tmp_path / "g.jlg"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        formats.read("graphs_jl", path, **options)


def test_a_webgraph_is_streamed_as_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(webgraph, "_ARCS_AT_ONCE", 2)
    lists = [[1, 2, 3], [], [0, 3], [2], [0, 1, 2, 3]]
    path = write(tmp_path, lists)
    found = native.load(convert(formats.stream("auto", path), tmp_path / "found", 1 << 30))
    read = formats.read("auto", path)
    assert np.array_equal(found.indptr, read.indptr)
    assert np.array_equal(found.indices, read.indices)
