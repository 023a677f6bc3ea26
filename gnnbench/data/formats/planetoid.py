"""Planetoid pickles (Yang, Cohen, Salakhutdinov, ICML 2016): Cora, Citeseer, PubMed."""

from __future__ import annotations

import collections
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.reading import mask_of, reading
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError

NUM_VALIDATION = 500


def read(path: Path, *, name: str | None = None) -> Graph:
    """Read the folder with the eight `ind.<name>.*` files (or any one of them).

    The public split: the labelled rows of `x` train, the next 500 validate, `test.index` tests.
    Ids that `test.index` leaves out (Citeseer) are nodes without features (zeros) or label (-1).
    """
    folder, stem = _locate(path)
    parts = {part: _unpickle(folder / f"ind.{stem}.{part}") for part in ("allx", "tx", "graph")}
    hot = {part: _one_hot(folder / f"ind.{stem}.{part}") for part in ("y", "ally", "ty")}
    index = folder / f"ind.{stem}.test.index"
    with reading(index, "a list of node ids"):
        test = np.loadtxt(index, np.int64, ndmin=1)
    with reading(folder / f"ind.{stem}.*", "a consistent set of Planetoid files"):
        known, unseen = _dense(parts["allx"]), _dense(parts["tx"])
        num_nodes = max(len(known), int(test.max()) + 1, len(parts["graph"]))
        if len(unseen) != len(test) or len(known) != len(hot["ally"]):
            raise ValueError("features, labels and test.index differ in length")
        features = np.zeros((num_nodes, known.shape[1]), np.float32)
        features[: len(known)], features[test] = known, unseen
        labels = np.full(num_nodes, -1, np.int64)
        labels[: len(known)] = _classes(hot["ally"])
        labels[test] = _classes(hot["ty"])
        src, dst = _edges(parts["graph"])
    num_train = len(hot["y"])
    graph = from_edges(
        name or stem,
        src,
        dst,
        num_nodes,
        features=features,
        labels=labels,
        num_classes=hot["ally"].shape[1],
        train_mask=mask_of(np.arange(num_train), num_nodes),
        val_mask=mask_of(
            np.arange(num_train, min(num_train + NUM_VALIDATION, len(known))), num_nodes
        ),
        test_mask=mask_of(test, num_nodes),
    )
    # The lists hold each edge in both directions, so a repeat is a row beyond two per edge.
    loops = graph.notes["self_loops"]
    assert isinstance(loops, int)
    graph.notes["repeated_edges"] = len(src) - loops - graph.num_edges
    return graph


class _Sparse:
    """Stands in for scipy's matrices: unpickling fills its attributes and runs no scipy code."""

    data: NDArray[np.float32]
    indices: NDArray[np.int32]
    indptr: NDArray[np.int32]
    rows: NDArray[Any]  # of a lil_matrix: the columns of each row


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as protocol 2 writes them: as text of latin1, whatever the file asks for."""
    return text.encode("latin1")


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    """An array as protocol 5 writes it."""
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")


_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("scipy.sparse.csr", "csr_matrix"): _Sparse,
    ("scipy.sparse._csr", "csr_matrix"): _Sparse,
    ("scipy.sparse._csr", "csr_array"): _Sparse,
    ("scipy.sparse.lil", "lil_matrix"): _Sparse,
    ("scipy.sparse._lil", "lil_matrix"): _Sparse,
    ("scipy.sparse._lil", "lil_array"): _Sparse,
    ("collections", "defaultdict"): collections.defaultdict,
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Admits the handful of names these files use; any other global is refused, not imported."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused: the file names {module}.{name}") from None


def _unpickle(file: Path) -> Any:
    with reading(file, "a Planetoid pickle"):
        try:
            # Written by Python 2: byte strings decode as latin1.
            return _RestrictedUnpickler(io.BytesIO(file.read_bytes()), encoding="latin1").load()
        except (pickle.UnpicklingError, AttributeError, AssertionError) as error:
            raise ValueError(str(error)) from error


def _locate(path: Path) -> tuple[Path, str]:
    if path.is_dir():
        names = (file.name for file in path.glob("ind.*.graph"))
        stems = sorted(name.removeprefix("ind.").removesuffix(".graph") for name in names)
        if len(stems) != 1:
            raise DataError(path, f"expected one file ind.<name>.graph, found {len(stems)}")
        return path, stems[0]
    # The name may hold dots, as that of NELL does: ind.nell.0.001.graph.
    stem, _, part = path.name.removesuffix(".index").removeprefix("ind.").rpartition(".")
    if not path.name.startswith("ind.") or not stem or not part:
        raise DataError(path, "not a Planetoid file: expected ind.<name>.<part>")
    return path.parent, stem


def _one_hot(file: Path) -> NDArray[np.int64]:
    rows = _unpickle(file)
    if not isinstance(rows, np.ndarray) or rows.ndim != 2:
        raise DataError(file, "expected a one-hot label matrix")
    return rows


def _classes(one_hot: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), -1).astype(np.int64)


def _dense(matrix: object) -> NDArray[np.float32]:
    if isinstance(matrix, np.ndarray):
        return matrix.astype(np.float32)
    if not isinstance(matrix, _Sparse):
        raise ValueError(f"expected a feature matrix, found {type(matrix).__name__}")
    shape = vars(matrix).get("_shape") or vars(matrix).get("shape")
    if shape is None:
        raise ValueError("the feature matrix has no shape")
    dense = np.zeros(shape, np.float32)
    if "rows" in vars(matrix):
        for i, (columns, values) in enumerate(zip(matrix.rows, matrix.data, strict=True)):
            dense[i, columns] = values
        return dense
    rows = np.repeat(np.arange(shape[0]), np.diff(matrix.indptr))
    dense[rows, matrix.indices] = matrix.data
    return dense


def _edges(lists: dict[int, list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    sizes = [len(neighbours) for neighbours in lists.values()]
    src = np.repeat(np.fromiter(lists, np.int64, len(lists)), sizes)
    dst = np.fromiter((n for near in lists.values() for n in near), np.int64, sum(sizes))
    return src, dst
