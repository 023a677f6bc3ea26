"""A small valid file or folder of every format that is read, written without gnnbench's readers."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse

RING = [(0, 1), (1, 2), (2, 3), (3, 0)]


def _edges() -> np.ndarray:
    return np.array(RING)


def _matrix() -> scipy.sparse.csr_array:
    src, dst = _edges().T
    return scipy.sparse.csr_array((np.ones(4), (src, dst)), shape=(4, 4))


def snap(folder: Path) -> None:
    (folder / "g.txt").write_text("# c\n0 1\n1 2\n2 3\n3 0\n")


def csv(folder: Path) -> None:
    (folder / "g.csv").write_text("source,target\n0,1\n1,2\n2,3\n3,0\n")


def metis(folder: Path) -> None:
    (folder / "g.graph").write_text("4 4 001\n2 1 4 1\n1 1 3 1\n2 1 4 1\n3 1 1 1\n")


def matrix_market(folder: Path) -> None:
    head = "%%MatrixMarket matrix coordinate real general\n% c\n4 4 4\n"
    (folder / "g.mtx").write_text(head + "".join(f"{a + 1} {b + 1} 1.5\n" for a, b in RING))


def graphs_jl(folder: Path) -> None:
    (folder / "g.jlg").write_text("4,4,u,g\n" + "".join(f"{a + 1},{b + 1}\n" for a, b in RING))


def npz_csr(folder: Path) -> None:
    ring = _matrix()
    parts = {f"adj_{k}": getattr(ring, k) for k in ("indptr", "indices", "data", "shape")}
    np.savez(folder / "g.npz", **parts, attr_matrix=np.ones((4, 2)), labels=np.arange(4) % 2)


def npz_dense(folder: Path) -> None:
    train = np.array([[True, True, False, False]])
    np.savez(
        folder / "g.npz",
        edges=_edges(),
        node_features=np.ones((4, 2)),
        node_labels=np.arange(4) % 2,
        train_masks=train,
        val_masks=~train,
        test_masks=train & False,
    )


def planetoid(folder: Path) -> None:
    rows, hot = np.eye(4, 3, dtype=np.float32), np.eye(2, dtype=np.int32)
    parts = {
        "x": rows[:2],
        "y": hot,
        "allx": scipy.sparse.csr_matrix(rows[:3]),
        "ally": hot[[0, 1, 1]],
        "tx": rows[3:],
        "ty": hot[[0]],
        "graph": {0: [1, 3], 1: [0, 2], 2: [1, 3], 3: [2, 0]},
    }
    for part, content in parts.items():
        (folder / f"ind.toy.{part}").write_bytes(pickle.dumps(content, protocol=4))
    (folder / "ind.toy.test.index").write_text("3\n")


def musae(folder: Path) -> None:
    (folder / "toy_edges.csv").write_text("id_1,id_2\n0,1\n1,2\n2,3\n3,0\n")
    (folder / "toy_target.csv").write_text("id,kind\n0,a\n1,b\n2,a\n3,b\n")
    (folder / "toy_features.json").write_text(json.dumps({str(i): [i % 2, 2] for i in range(4)}))


def facebook100(folder: Path) -> None:
    info = np.array([[1, 1 + i % 2, 5, 0, 0, 9, 1] for i in range(4)])
    scipy.io.savemat(
        folder / "Toy1.mat", {"A": scipy.sparse.csc_array(_matrix()), "local_info": info}
    )


def ogb(folder: Path) -> None:
    tables = {
        "raw/edge": "0,1\n1,2\n2,3\n3,0\n",
        "raw/num-node-list": "4\n",
        "raw/num-edge-list": "4\n",
        "raw/node-feat": "1,2\n3,4\n5,6\n7,8\n",
        "raw/node-label": "0\n1\n0\n1\n",
        "split/time/train": "0\n1\n",
        "split/time/valid": "2\n",
        "split/time/test": "3\n",
    }
    for name, text in tables.items():
        file = folder / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def ogb_packed(folder: Path) -> None:
    ogb(folder)
    file = folder / "raw" / "edge.csv"
    (folder / "raw" / "edge.csv.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()


def webgraph(folder: Path) -> None:
    # Lists of 1, 2, 3 and 0 for nodes 0..3: degree 1 (gamma 010), reference 0 (unary 1), no
    # interval (gamma 1), then the successor as a signed gap from the node by zeta of 3.
    bits = "".join("010" + "1" + "1" + gap for gap in ("1011", "1011", "1011", "1110"))
    stream = bytes(int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8))
    (folder / "g.graph").write_bytes(stream)
    (folder / "g.properties").write_text("graphclass=BVGraph\nnodes=4\narcs=4\nwindowsize=7\n")


def triples(folder: Path) -> None:
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("a\tlikes\tb\nb\tlikes\tc\n")


def quintuples(folder: Path) -> None:
    for at, split in enumerate(("train", "valid", "test")):
        rows = [f"0\t1\t2\t{24 * at + t}\t0" for t in range(3)]
        (folder / f"{split}.txt").write_text("\n".join(rows) + "\n")


def temporal_text(folder: Path) -> None:
    (folder / "events.txt").write_text("".join(f"{i % 4} {(i + 1) % 4} {i}\n" for i in range(20)))


def temporal_csv(folder: Path) -> None:
    rows = [f"{i % 4},{(i + 1) % 4},{i},0,0.5" for i in range(20)]
    (folder / "e.csv").write_text("user_id,item_id,timestamp,state_label,f0\n" + "\n".join(rows))


WRITERS: dict[str, tuple[Callable[[Path], None], str]] = {
    name: (writer, kind)
    for kind, writers in {
        "graph": (
            *(snap, csv, metis, matrix_market, graphs_jl, npz_csr, npz_dense, planetoid, musae),
            *(facebook100, ogb, ogb_packed, webgraph),
        ),
        "stream": (quintuples, temporal_text, temporal_csv),
        "triples": (triples,),
    }.items()
    for name, writer in ((writer.__name__, writer) for writer in writers)
}
"""By name: what writes a sample into an empty folder, and the kind of dataset that it is."""


def write_samples(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write every sample into a folder of its own; return folder and kind by name."""
    found = {}
    for name, (writer, kind) in WRITERS.items():
        place = folder / name
        place.mkdir(parents=True)
        writer(place)
        found[name] = place, kind
    return found
