"""Readers against networkx, scipy and pandas on random files of every format.

A file has the liberties of its format: comments, blank lines, repeats, self loops, other line ends,
compression, gaps between ids. GNNBENCH_READER_FILES is the number of files of each format.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pandas
import pytest
import scipy.io
import scipy.sparse

from gnnbench.data import formats
from gnnbench.data.graph import Graph
from gnnbench.data.stream import EdgeStream
from gnnbench.data.triples import Triples, unpacked_names

FILES = int(os.environ.get("GNNBENCH_READER_FILES", "5"))
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
Arcs = list[tuple[int, int]]


def arcs_of(chance: random.Random, nodes: int) -> Arcs:
    """Random arcs with repeats and self loops; every node has one at least."""
    some = [
        (chance.randrange(nodes), chance.randrange(nodes)) for _ in range(chance.randint(1, 30))
    ]
    return some + [(n, chance.randrange(nodes)) for n in range(nodes)]


def lines(chance: random.Random, rows: list[str], comment: str = "") -> str:
    """Rows with blank lines, comments and line ends of any kind."""
    found = []
    for row in rows:
        if chance.random() < 0.1:
            found.append("")
        if comment and chance.random() < 0.1:
            found.append(f"{comment} a remark: 7 8")
        found.append(row)
    end = chance.choice(("\n", "\r\n", "\r"))
    return end.join(found) + (end if chance.random() < 0.7 else "")


def keep(path: Path, text: str, chance: random.Random, mark: bool = True) -> Path:
    """Write text, perhaps compressed, perhaps with a byte order mark."""
    suffix = chance.choice(tuple(PACKERS))
    path = path.with_name(path.name + suffix)
    bom = b"\xef\xbb\xbf" if mark and chance.random() < 0.2 else b""
    path.write_bytes(PACKERS[suffix](bom + text.encode()))
    return path


def same(graph: Graph, other: nx.Graph, number: dict[int, int] | None = None) -> None:
    """Assert that the graph has the edges of one of networkx, without its self loops."""
    number = number or {node: node for node in other}
    found = {
        (int(source), target)
        for target in range(graph.num_nodes)
        for source in graph.indices[graph.indptr[target] : graph.indptr[target + 1]]
    }
    wanted = {(number[a], number[b]) for a, b in other.edges() if a != b}
    if not other.is_directed():
        wanted |= {(b, a) for a, b in wanted}
    assert found == wanted
    loops = sum(a == b for a, b in other.edges())
    assert (graph.notes["self_loops"] > 0) == (loops > 0)


def snap(folder: Path, chance: random.Random) -> None:
    nodes = chance.randint(1, 9)
    highest = chance.choice((nodes, 2**40, 2**64))
    drawn = range(nodes) if highest == nodes else (chance.randrange(highest) for _ in range(nodes))
    ids = sorted(drawn)
    arcs = [(ids[a], ids[b]) for a, b in arcs_of(chance, nodes)]
    comma = chance.random() < 0.5
    gap = "," if comma else chance.choice((" ", "\t", "  "))
    comment = chance.choice("#%")
    rows = [f"{a}{gap}{b}" for a, b in arcs]
    if chance.random() < 0.3:
        rows.insert(0, f"from{gap}to")
    header = rows[0].startswith("from")
    text = lines(chance, rows, "" if comma else comment)
    file = keep(folder / chance.choice(("g.txt", "g.csv", "g.edges")), text, chance)
    plain = text.replace("\r\n", "\n").replace("\r", "\n").splitlines()
    plain = [line for line in plain if line.strip() and line[0] != comment][header:]
    directed = chance.random() < 0.5
    kind = nx.DiGraph if directed else nx.Graph
    other = nx.parse_edgelist(
        plain, comments=comment, delimiter="," if comma else None, nodetype=int, create_using=kind
    )
    graph = formats.read("snap", file, directed=directed)
    same(graph, other, {node: at for at, node in enumerate(sorted(other))})
    assert ("header" in graph.notes) == header


def matrix_market(folder: Path, chance: random.Random) -> None:
    nodes = chance.randint(1, 9)
    src, dst = np.array(arcs_of(chance, nodes)).T
    field = chance.choice(("pattern", "real", "integer"))
    matrix = scipy.sparse.coo_array((np.ones(len(src)), (src, dst)), shape=(nodes, nodes)).tocsr()
    matrix.data = matrix.data.astype(int) if field == "integer" else matrix.data
    path = folder / "g.mtx"
    scipy.io.mmwrite(path, matrix, field=field, comment=" one\n two", symmetry="general")
    other = nx.from_scipy_sparse_array(scipy.io.mmread(path), create_using=nx.DiGraph)
    text = path.read_text()
    path.unlink()
    file = keep(path, text, chance, mark=False)
    same(formats.read("auto", file, directed=True), other)


def metis(folder: Path, chance: random.Random) -> None:
    nodes = chance.randint(1, 9)
    other = nx.gnm_random_graph(nodes, chance.randint(0, 12), seed=chance.randrange(10**6))
    sizes, weights, edges = (chance.random() < 0.3 for _ in range(3))
    ncon = chance.randint(1, 3)
    rows = []
    for node in range(nodes):
        words = ["7"] * (sizes + (ncon if weights else 0))
        for near in other[node]:
            words += [str(near + 1)] + (["5"] if edges else [])
        rows.append(" ".join(words))
    code = f"{sizes:d}{weights:d}{edges:d}"
    head = f"{nodes} {other.number_of_edges()}"
    if "1" in code:
        head += f" {code}" + (f" {ncon}" if weights else "")
    text = "% c\n" + "\n".join([head, *rows]) + "\n"
    graph = formats.read("auto", keep(folder / "g.graph", text, chance, mark=False))
    same(graph, other)
    assert ("left_out" in graph.notes) == ("1" in code)


def npz_csr(folder: Path, chance: random.Random) -> None:
    nodes = chance.randint(1, 9)
    src, dst = np.array(arcs_of(chance, nodes)).T
    matrix = scipy.sparse.csr_array((np.ones(len(src)), (src, dst)), shape=(nodes, nodes))
    matrix.sum_duplicates()
    scipy.sparse.save_npz(folder / "g.npz", matrix, compressed=chance.random() < 0.5)
    other = scipy.sparse.load_npz(folder / "g.npz")
    graph = formats.read("auto", folder / "g.npz", directed=True)
    same(graph, nx.from_scipy_sparse_array(other, create_using=nx.DiGraph))


def npz_dense(folder: Path, chance: random.Random) -> None:
    nodes, splits = chance.randint(2, 9), chance.randint(1, 3)
    arcs = np.array(arcs_of(chance, nodes), chance.choice((np.int64, np.uint32, np.float64)))
    parts = np.random.default_rng(chance.randrange(10**6)).integers(0, 3, (splits, nodes))
    masks = {name: parts == at for at, name in enumerate(("train", "val", "test"))}
    classes = [chance.randrange(nodes) for _ in range(nodes)]
    form = chance.choice(("numbers", "hot", "floats", "words"))
    labels = {
        "numbers": np.array(classes),
        "hot": np.eye(nodes, dtype=int)[classes],
        "floats": np.array(classes, np.float32)[:, None],
        "words": np.array([f"c{one}" for one in classes]),
    }[form]
    turned = len(arcs) > 2 and chance.random() < 0.5
    across = splits not in (1, nodes) and chance.random() < 0.5
    np.savez(
        folder / "g.npz",
        **{"edge_index" if turned else "edges": arcs.T if turned else arcs},
        node_features=np.arange(nodes * 2).reshape(nodes, 2),
        node_labels=labels,
        **{f"{k}_masks": m.T if across else m for k, m in masks.items()},
    )
    wanted = chance.randrange(splits)
    graph = formats.read("auto", folder / "g.npz", split=wanted)
    same(graph, nx.Graph([(int(a), int(b)) for a, b in arcs]))
    if form == "words":
        classes = pandas.factorize(labels, sort=True)[0].tolist()
    assert graph.labels.tolist() == classes
    for name, mask in masks.items():
        assert np.array_equal(getattr(graph, f"{name}_mask"), mask[wanted])
    assert graph.features[:, 0].tolist() == list(range(0, 2 * nodes, 2))


def planetoid(folder: Path, chance: random.Random) -> None:
    nodes = chance.randint(3, 9)
    known = chance.randint(2, nodes - 1)
    arcs = arcs_of(chance, nodes)
    near: dict[int, list[int]] = {node: [] for node in range(nodes)}
    for a, b in arcs:
        near[a].append(b)
        near[b].append(a)
    rows = np.random.default_rng(chance.randrange(10**6)).integers(0, 2, (nodes, 4)).astype(float)
    classes = [chance.randrange(3) for _ in range(nodes)]
    hot = np.eye(3, dtype=chance.choice((np.int32, np.float64)))[classes]
    test = list(range(known, nodes))
    chance.shuffle(test)
    form = getattr(scipy.sparse, chance.choice(("csr", "csc", "lil", "coo")) + "_matrix")
    parts = {
        "x": form(rows[:1]),
        "y": hot[:1],
        "allx": form(rows[:known]),
        "ally": hot[:known],
        "tx": form(rows[test]),
        "ty": hot[test],
        "graph": {node: chance.choice((list, set, np.array))(near[node]) for node in near},
    }
    for part, content in parts.items():
        raw = pickle.dumps(content, protocol=chance.choice((2, 4, 5)))
        (folder / f"ind.toy.{part}").write_bytes(raw)
    (folder / "ind.toy.test.index").write_text("".join(f"{node}\n" for node in test))
    graph = formats.read("auto", folder)
    same(graph, nx.Graph(arcs))
    assert np.array_equal(graph.features, rows)
    assert graph.labels.tolist() == classes


def musae(folder: Path, chance: random.Random) -> None:
    nodes = chance.randint(2, 9)
    arcs = arcs_of(chance, nodes)
    end = chance.choice(("\n", "\r\n", "\r"))
    rows = ["id_1,id_2", *(f"{a},{b}" for a, b in arcs)]
    keep(folder / "toy_edges.csv", end.join(rows) + end, chance)
    words = [chance.choice(("red", "blue", "", "10", "9")) for _ in range(nodes)]
    table = ["id,kind", *(f"{n},{w}" for n, w in enumerate(words))]
    (folder / "toy_target.csv").write_text("\n".join(table) + "\n")
    lists = {str(n): chance.sample(range(5), chance.randint(0, 4)) for n in range(nodes)}
    keep(folder / "toy_features.json", json.dumps(lists), chance)
    graph = formats.read("auto", folder, num_features=5)
    same(graph, nx.Graph(arcs))
    numbers = all(word.isdecimal() for word in words if word)
    ordered = sorted({word for word in words if word}, key=int if numbers else str)
    assert graph.labels.tolist() == [ordered.index(w) if w else -1 for w in words]
    wanted = [[float(i in lists[str(n)]) for i in range(5)] for n in range(nodes)]
    assert graph.features.tolist() == wanted


def facebook100(folder: Path, chance: random.Random) -> None:
    nodes = chance.randint(2, 9)
    src, dst = np.array(arcs_of(chance, nodes)).T
    matrix = scipy.sparse.csc_array((np.ones(len(src)), (src, dst)), shape=(nodes, nodes))
    info = np.random.default_rng(chance.randrange(10**6)).integers(0, 3, (nodes, 7))
    content = {"A": matrix, "local_info": info.astype(chance.choice((float, int)))}
    scipy.io.savemat(folder / "Toy1.mat", content, do_compression=chance.random() < 0.5)
    graph = formats.read("auto", folder / "Toy1.mat")
    same(graph, nx.Graph(list(zip(src.tolist(), dst.tolist(), strict=True))))
    assert (graph.labels < 0).tolist() == (info[:, 1] == 0).tolist()


def ogb(folder: Path, chance: random.Random) -> None:
    nodes = chance.randint(3, 9)
    arcs = arcs_of(chance, nodes)
    end = chance.choice(("\n", "\r\n", "\r"))
    rows = np.random.default_rng(chance.randrange(10**6)).normal(size=(nodes, 3)).round(4)
    labels = [chance.choice(("0", "1.0", "2", "nan")) for _ in range(nodes)]
    tables = {
        "raw/edge": [f"{a},{b}" for a, b in arcs],
        "raw/num-node-list": [str(nodes)],
        "raw/num-edge-list": [str(len(arcs))],
        "raw/node-feat": [",".join(map(str, row)) for row in rows.tolist()],
        "raw/node-label": labels,
        **{f"split/time/{p}": [str(at)] for at, p in enumerate(("train", "valid", "test"))},
    }
    for name, found in tables.items():
        path = folder / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        keep(path, end.join(found) + end, chance)
    graph = formats.read("auto", folder)
    same(graph, nx.Graph(arcs))
    assert np.allclose(graph.features, rows)
    assert graph.labels.tolist() == [-1 if w == "nan" else int(float(w)) for w in labels]


def graphs_jl(folder: Path, chance: random.Random) -> None:
    nodes = chance.randint(1, 9)
    kind = chance.choice("ud")
    make = nx.Graph if kind == "u" else nx.DiGraph
    other = make(arcs_of(chance, nodes))
    rows = [f"{a + 1},{b + 1}" for a, b in other.edges()]
    text = "\n".join([f"{nodes},{len(rows)},{kind},toy", *rows]) + "\n"
    (folder / "g.jlg").write_bytes(
        gzip.compress(text.encode()) if chance.random() < 0.5 else text.encode()
    )
    same(formats.read("auto", folder / "g.jlg", directed=kind == "d"), other)


def triples(folder: Path, chance: random.Random) -> None:
    suffix, gap = chance.choice(((".txt", "\t"), (".tsv", "\t"), (".csv", ",")))
    names = ["a", "Bé", "c d", "NA", "null", "x'y", "7"]
    tables = {}
    for split in ("train", "valid", "test"):
        rows = [
            (chance.choice(names), chance.choice(("r", "is")), chance.choice(names))
            for _ in range(chance.randint(1, 6))
        ]
        text = chance.choice(("\n", "\r\n")).join(gap.join(row) for row in rows)
        keep(folder / f"{split}{suffix}", text + "\n", chance)
        tables[split] = rows
    data = formats.read("auto", folder, kind="triples")
    assert isinstance(data, Triples)
    entities, relations = unpacked_names(data.entity_names), unpacked_names(data.relation_names)
    found = [
        (entities[h], relations[r], entities[t])
        for h, r, t in zip(data.heads, data.relations, data.tails, strict=True)
    ]
    assert found == [row for rows in tables.values() for row in rows]
    assert (data.train_end, data.val_end) == (
        len(tables["train"]),
        len(tables["train"]) + len(tables["valid"]),
    )


def temporal(folder: Path, chance: random.Random) -> None:
    count = chance.randint(3, 20)
    table = pandas.DataFrame(
        {
            "src": [chance.randrange(5) for _ in range(count)],
            "dst": [chance.randrange(5) for _ in range(count)],
            "time": [chance.randrange(10) for _ in range(count)],
            "feat0": [chance.random() for _ in range(count)],
        }
    )
    form = chance.choice(("csv", "floats", "text"))
    if form == "text":
        rows = table[["src", "dst", "time"]].to_csv(sep=" ", header=False, index=False)
        file = keep(folder / "e.txt", "% c\n" + rows.replace("\n", "\r\n"), chance, mark=False)
    else:
        plain = table.astype({"src": float, "time": float}) if form == "floats" else table
        file = keep(folder / "e.csv", plain.to_csv(index=False), chance)
    data = formats.read("auto", file, kind="stream", num_nodes=5)
    assert isinstance(data, EdgeStream)
    wanted = table.sort_values("time", kind="stable")
    for array, column in ((data.sources, "src"), (data.destinations, "dst"), (data.times, "time")):
        assert array.tolist() == wanted[column].tolist()
    if form != "text":
        assert np.allclose(data.edge_features[:, 0], wanted["feat0"])


def quintuples(folder: Path, chance: random.Random) -> None:
    rows: list[list[int]] = []
    last = 0
    for split in ("train", "valid", "test"):
        own = []
        for _ in range(chance.randint(1, 6)):
            own.append([chance.randrange(5), chance.randrange(3), chance.randrange(5), last])
            last += chance.randrange(3)
        gap, more = chance.choice("\t "), chance.choice(([], [0]))
        text = "\n".join(gap.join(map(str, row + more)) for row in own)
        keep(folder / f"{split}.txt", text + "\n", chance)
        rows += own
    data = formats.read("quintuples", folder, num_nodes=5)
    found = zip(data.sources, data.labels, data.destinations, data.times, strict=True)
    assert [list(map(int, row)) for row in found] == rows


@pytest.mark.parametrize(
    "write",
    [
        *(snap, matrix_market, metis, npz_csr, npz_dense, planetoid, musae, facebook100, ogb),
        *(graphs_jl, triples, temporal, quintuples),
    ],
    ids=lambda write: write.__name__,
)
def test_a_reader_agrees_with_an_independent_one(
    write: Callable[[Path, random.Random], None], tmp_path: Path
) -> None:
    for number in range(FILES):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, random.Random(f"{write.__name__} {number}"))
