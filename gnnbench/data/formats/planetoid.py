"""Planetoid pickles (Yang, Cohen, Salakhutdinov, ICML 2016): Cora, Citeseer, PubMed."""

from __future__ import annotations

import collections
import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.arrays import whole_numbers
from gnnbench.data.formats.labels import class_labels
from gnnbench.data.formats.reading import mask_of, reading
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError

NUM_VALIDATION = 500


def read(path: Path, *, name: str | None = None) -> Graph:
    """Read the folder with the eight `ind.<name>.*` files (or any one of them).

    The public split: the labelled rows of `x` train, the next 500 validate, `test.index` tests.
    Ids that `test.index` leaves out (Citeseer) are nodes without features (zeros) or label (-1).
    Labels are rows of one 1 (classes) or of several (multi-label).
    """
    folder, stem = _locate(path)
    parts = {part: _unpickle(folder / f"ind.{stem}.{part}") for part in ("allx", "tx", "graph")}
    hot = {part: _label_rows(folder / f"ind.{stem}.{part}") for part in ("y", "ally", "ty")}
    index = folder / f"ind.{stem}.test.index"
    notes: dict[str, object] = {}
    with reading(index, "a list of node ids"):
        test = np.loadtxt(index, np.int64, ndmin=1, encoding="utf-8-sig")
    with reading(folder / f"ind.{stem}.*", "a consistent set of Planetoid files"):
        known, unseen = _dense(parts["allx"]), _dense(parts["tx"])
        if len(unseen) != len(test) or len(known) != len(hot["ally"]):
            raise ValueError("features, labels and test.index differ in length")
        if len(unseen) != len(hot["ty"]) or hot["ty"].shape[1:] != hot["ally"].shape[1:]:
            raise ValueError("ty does not fit tx and ally")
        _check_test(test, len(known), index)
        src, dst = _edges(parts["graph"], folder / f"ind.{stem}.graph")
        num_nodes = max(len(known), int(test.max(initial=-1)) + 1, len(parts["graph"]))
        if num_nodes > 2 * max(len(known) + len(test), len(parts["graph"])):
            # Every node takes memory: a number with a digit too many would take all there is.
            raise DataError(index, f"node {test.max()} leaves most nodes without features: broken?")
        features = np.zeros((num_nodes, known.shape[1]), np.float32)
        features[: len(known)], features[test] = known, unseen
        rows = np.zeros((num_nodes, hot["ally"].shape[1]), hot["ally"].dtype)
        rows[: len(known)], rows[test] = hot["ally"], hot["ty"]
        labels, num_classes = class_labels(rows, folder / f"ind.{stem}.ally", notes)
        if len(src) and not 0 <= min(src.min(), dst.min()) <= max(src.max(), dst.max()) < num_nodes:
            raise DataError(
                folder / f"ind.{stem}.graph", f"node ids must lie in 0..{num_nodes - 1}"
            )
    num_train = len(hot["y"])
    graph = from_edges(
        name or stem,
        src,
        dst,
        num_nodes,
        features=features,
        labels=labels,
        num_classes=num_classes,
        train_mask=mask_of(np.arange(num_train), num_nodes),
        val_mask=mask_of(
            np.arange(num_train, min(num_train + NUM_VALIDATION, len(known))), num_nodes
        ),
        test_mask=mask_of(test, num_nodes),
        notes=notes,
    )
    # The lists hold each edge in both directions, so a repeat is a row beyond two per edge.
    loops = graph.notes["self_loops"]
    assert isinstance(loops, int)
    graph.notes["repeated_edges"] = len(src) - loops - graph.num_edges
    return graph


def _check_test(test: NDArray[np.int64], num_known: int, index: Path) -> None:
    """Raise DataError for ids that are there twice, or that are those of other rows."""
    if len(test) and test.min() < num_known:
        raise DataError(index, f"found node {test.min()}, expected ids from {num_known} (allx)")
    ordered = np.sort(test)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise DataError(index, f"node {twice[0]} is listed twice")


class _Sparse:
    """Stands in for scipy's matrices: unpickling fills its attributes and runs no scipy code."""


class _ByColumn(_Sparse):
    """Of columns: csc."""


class _Triplets(_Sparse):
    """Of coordinates: coo. `coords`, or `row` and `col` of earlier versions of scipy."""


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as protocol 2 writes them: as text of latin1, whatever the file asks for."""
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Empty bytes, as protocol 2 writes them."""
    return b""


class _Type:
    """Stands in for numpy's dtype, whose own code crashes on states that nobody would write."""

    def __init__(self, name: str, *_: object) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        written = f"{self.order}{self.name}"
        if not _PLAIN_TYPE.fullmatch(written):
            raise ValueError(f"an array of type {written}")
        return np.dtype(written)


class _Array(np.ndarray[Any, Any]):
    """An array that looks at its state before numpy does, for the same reason."""

    def __setstate__(self, state: Any) -> None:
        shape, kind, by_columns, content = state[-4:]
        count = math.prod(shape)
        if not all(isinstance(size, int) and size >= 0 for size in shape) or len(shape) > 8:
            raise ValueError(f"an array of shape {shape}")
        if isinstance(content, str):
            content = content.encode("latin1")
        dtype = kind.dtype
        if dtype.hasobject:
            whole = isinstance(content, list) and len(content) == count
        else:
            whole = isinstance(content, bytes) and len(content) == count * dtype.itemsize
        if not whole:
            raise ValueError(f"an array whose content does not fill its shape {shape}")
        whole_state: Any = (1, tuple(shape), dtype, bool(by_columns), content)
        super().__setstate__(whole_state)


class _AnArray:
    """In place of numpy's class of arrays, of which files may make none themselves."""


def _reconstruct(*_: object) -> _Array:
    """An array whose state follows."""
    return np.ndarray.__new__(_Array, (0,))


def _from_buffer(buffer: Any, kind: Any, shape: Any, order: str) -> NDArray[Any]:
    """An array as protocol 5 writes it."""
    return np.frombuffer(buffer, kind.dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: Any, content: bytes | str) -> Any:
    """A number of numpy, as keys and neighbours of a graph often are."""
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, kind.dtype)[0]


_PLAIN_TYPE = re.compile(r"[<>=|][biufSUO?]\d{0,6}")
_NUMPY: dict[str, Any] = {"_reconstruct": _reconstruct, "scalar": _scalar}
_SCIPY: dict[str, Any] = {"csr": _Sparse, "lil": _Sparse, "csc": _ByColumn, "coo": _Triplets}
_ADMITTED: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", k): v for core in ("core", "_core") for k, v in _NUMPY.items()},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _AnArray,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    **{(module, "bytes"): _no_bytes for module in ("builtins", "__builtin__")},
    **{
        (f"scipy.sparse.{private}{form}", f"{form}_{kind}"): stand_in
        for form, stand_in in _SCIPY.items()
        for private in ("", "_")
        for kind in ("matrix", "array")
    },
    ("collections", "defaultdict"): collections.defaultdict,
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{(module, "list"): list for module in ("builtins", "__builtin__")},
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Admits the handful of names these files use; any other global is refused, not imported."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


class _Refused(Exception):
    """A pickle names what is not admitted."""


def _unpickle(file: Path) -> Any:
    with reading(file, "a Planetoid pickle"):
        try:
            # Written by Python 2: byte strings decode as latin1.
            return _RestrictedUnpickler(io.BytesIO(file.read_bytes()), encoding="latin1").load()
        except _Refused as error:
            raise DataError(
                file,
                f"refused: the pickle names {error}; save features as a csr_matrix of scipy, "
                "labels as arrays of numpy, and the graph as a dict of lists of int",
            ) from None
        except MemoryError:
            raise ValueError("it asks for more memory than there is") from None
        except (pickle.UnpicklingError, AttributeError, AssertionError, SystemError) as error:
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


def _label_rows(file: Path) -> NDArray[Any]:
    """Rows of labels, [rows, classes]; class numbers in one column become rows of one 1."""
    rows = _unpickle(file)
    with reading(file, "a Planetoid pickle"):
        if isinstance(rows, _Sparse):
            rows = _dense(rows)
        if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in "biuf":
            raise DataError(
                file, "expected a one-hot label matrix: rows of a 1 for each class of a node"
            )
    return rows


def _dense(matrix: object) -> NDArray[np.float32]:
    if isinstance(matrix, np.ndarray):
        if matrix.ndim != 2:
            raise ValueError(f"features of shape {matrix.shape}, expected rows of them")
        return matrix.astype(np.float32)
    if not isinstance(matrix, _Sparse):
        raise ValueError(f"expected a feature matrix, found {type(matrix).__name__}")
    held = vars(matrix)
    shape = held.get("_shape") or held.get("shape")
    if shape is None or len(shape) != 2:
        raise ValueError("the feature matrix has no shape")
    dense = np.zeros((int(shape[0]), int(shape[1])), np.float32)
    if "rows" in held:
        for i, (columns, values) in enumerate(zip(held["rows"], held["data"], strict=True)):
            dense[i, columns] = values
        return dense
    if isinstance(matrix, _Triplets):
        ends = held["coords"] if "coords" in held else (held["row"], held["col"])
        rows, columns = (np.asarray(end) for end in ends)
    elif isinstance(matrix, _ByColumn):
        rows = _numbers(held, "indices")
        columns = np.repeat(np.arange(shape[1]), np.diff(_numbers(held, "indptr")))
    else:
        rows = np.repeat(np.arange(shape[0]), np.diff(_numbers(held, "indptr")))
        columns = _numbers(held, "indices")
    for ids, count in zip((rows, columns), shape, strict=True):
        if len(ids) and not 0 <= ids.min() <= ids.max() < count:
            raise ValueError(f"indices of the feature matrix must lie in 0..{count - 1}")
    np.add.at(dense, (rows, columns), np.asarray(held["data"], np.float32))
    return dense


def _numbers(held: dict[str, Any], name: str) -> NDArray[Any]:
    found = held.get(name)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu":
        raise ValueError(f"the feature matrix has no {name}")
    return found


def _edges(lists: Any, file: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not isinstance(lists, dict):
        raise ValueError(f"graph: expected a dict of lists, found {type(lists).__name__}")
    sizes = [len(neighbours) for neighbours in lists.values()]
    nodes = np.array(list(lists))
    flat = np.array([n for near in lists.values() for n in near])
    ends = [
        whole_numbers(ids, "ids", file) if len(ids) else np.zeros(0, np.int64)
        for ids in (nodes, flat)
    ]
    return np.repeat(ends[0], sizes), ends[1]
