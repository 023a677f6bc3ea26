"""The graph object: topology by destination (CSC), features, labels, split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.dataset import label_problems, non_finite, out_of_range, present
from gnnbench.errors import DataError
from gnnbench.reuse import Reuse

Array = NDArray[np.generic]
_MOST_NODES = np.iinfo(np.int32).max
_LARGE = 1 << 26  # nodes whose tables are half a gigabyte


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """A directed graph stored by destination; an undirected one stores both directions.

    Shapes: N nodes, E stored edges. `indptr` int64 [N+1]; `indices` int32 [E], the in-neighbours
    (sources) of each node, sorted and distinct per node, no self loops (models add their own);
    `features` float32 [N, D]; `labels` int64 [N], -1 where unlabelled, or float32 [N, C] for
    multi-label tasks; masks bool [N]; `edge_weights` float32 [E], positive, in the order of
    `indices`: samplers may draw by them, models do not multiply by them. Arrays may be mapped and
    must not be written to. `digest` identifies the content once it is saved in native form.
    `reuse` are shares of the reads of one product by reuse distance, as saved (see
    `gnnbench.reuse`); empty: not counted yet.
    """

    kind: ClassVar[str] = "graph"
    ARRAYS: ClassVar[tuple[str, ...]] = (
        "indptr",
        "indices",
        "features",
        "labels",
        "train_mask",
        "val_mask",
        "test_mask",
        "edge_weights",
    )
    PLAIN: ClassVar[Mapping[str, type]] = MappingProxyType({"num_classes": int, "undirected": bool})

    name: str
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    features: NDArray[np.float32] | None = None
    labels: Array | None = None
    num_classes: int = 0
    train_mask: NDArray[np.bool_] | None = None
    val_mask: NDArray[np.bool_] | None = None
    test_mask: NDArray[np.bool_] | None = None
    edge_weights: NDArray[np.float32] | None = None
    undirected: bool = True
    notes: dict[str, object] = field(default_factory=dict)
    digest: str = ""
    reuse: tuple[float, ...] = ()

    @property
    def num_nodes(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        """Stored directed edges, self loops excluded."""
        return len(self.indices)

    @property
    def num_features(self) -> int:
        return 0 if self.features is None else int(self.features.shape[1])

    @property
    def num_train(self) -> int:
        return 0 if self.train_mask is None else int(np.count_nonzero(self.train_mask))

    def in_degrees(self) -> NDArray[np.int64]:
        return np.diff(self.indptr)

    def out_degrees(self) -> NDArray[np.int64]:
        if self.undirected:
            return self.in_degrees()
        return np.bincount(self.indices, minlength=self.num_nodes).astype(np.int64)

    def train_nodes(self) -> NDArray[np.int64]:
        if self.train_mask is None:
            raise DataError(self.name, "the graph has no training split")
        return np.flatnonzero(self.train_mask).astype(np.int64)

    def arrays(self) -> dict[str, Any]:
        """The arrays by name; absent ones are left out."""
        return present(self, self.ARRAYS)

    def facts(self) -> dict[str, Any]:
        """The sizes that plans and records store."""
        return {
            "num_nodes": self.num_nodes,
            "num_edges": self.num_edges,
            "num_features": self.num_features,
            "num_classes": self.num_classes,
            "num_train": self.num_train,
            "undirected": self.undirected,
            "reuse": self.reuse_of_rows().shares.tolist(),
        }

    def reuse_of_rows(self) -> Reuse:
        """How far apart reads of a vertex's row lie in a product over all edges, in this order.

        Cost: a pass over the edges, unless it was saved with the graph.
        """
        if self.reuse:
            return Reuse.of(self.reuse)
        from gnnbench.data.reuse import counted_reuse

        return counted_reuse(self.indptr, self.indices)

    def miniature(self, num_nodes: int) -> Graph:
        """The graph of the first nodes, of the same widths and types, with a split of its own.

        Its arrays are read-only, as mapped ones are: to numba that is another type.
        """
        n = min(num_nodes, self.num_nodes)
        indptr = np.asarray(self.indptr[: n + 1])
        sources = np.asarray(self.indices[: indptr[-1]])
        inside = sources < n
        kept = np.zeros(len(sources) + 1, np.int64)
        np.cumsum(inside, out=kept[1:])
        third = np.arange(n) % 3
        arrays: dict[str, Any] = {
            "indptr": kept[indptr],
            "indices": sources[inside],
            "features": None if self.features is None else np.array(self.features[:n]),
            "labels": None if self.labels is None else _known(np.array(self.labels[:n])),
            "train_mask": third == 0,
            "val_mask": third == 1,
            "test_mask": third == 2,
        }
        if self.edge_weights is not None:
            arrays["edge_weights"] = np.asarray(self.edge_weights[: indptr[-1]])[inside]
        for array in arrays.values():
            if array is not None:
                array.flags.writeable = False
        return dataclasses.replace(self, digest="", reuse=(), **arrays)

    def problems(self) -> list[str]:
        """Return every violated invariant, one line each.

        Cost: a pass over the edges and the features.
        """
        n, e = self.num_nodes, self.num_edges
        if n < 0 or self.indptr[0] != 0 or self.indptr[-1] != e or np.any(np.diff(self.indptr) < 0):
            return ["indptr must rise from 0 to the number of edges"]
        found = [*out_of_range("indices", self.indices, 0, n)]
        for name in ("features", "train_mask", "val_mask", "test_mask"):
            array = getattr(self, name)
            dims = 2 if name == "features" else 1
            if array is not None and array.ndim != dims:
                found.append(f"{name}: found {array.ndim} dimensions, expected {dims}")
            elif array is not None and len(array) != n:
                found.append(f"{name} has {len(array)} rows for {n} nodes")
        found += non_finite("features", self.features)
        found += self._wrong_weights()
        found += label_problems(self.labels, self.num_classes, n)
        return found or self._overlaps()

    def _wrong_weights(self) -> list[str]:
        weights = self.edge_weights
        if weights is None:
            return []
        if len(weights) != self.num_edges:
            return [f"edge_weights has {len(weights)} entries for {self.num_edges} edges"]
        wrong = int(np.count_nonzero(~((weights > 0) & np.isfinite(weights))))
        return [f"edge_weights: {wrong} are not positive and finite"] if wrong else []

    def _overlaps(self) -> list[str]:
        pairs = (("train", "val"), ("train", "test"), ("val", "test"))
        found = []
        for one, other in pairs:
            first, second = getattr(self, f"{one}_mask"), getattr(self, f"{other}_mask")
            if first is not None and second is not None:
                both = int(np.count_nonzero(np.logical_and(first, second)))
                if both:
                    found.append(f"split: {both} nodes are in both {one} and {other}")
        return found

    def check(self) -> None:
        """Raise DataError with every violated invariant of the arrays."""
        found = self.problems()
        if found:
            raise DataError(self.name, found)

    def cannot_train(self, task: str) -> str | None:
        """Reason why no approach can learn a task from the graph, with the remedy; or None."""
        lacking = [
            what
            for what, array in (("features", self.features), ("labels", self.labels))
            if array is None and (what == "features" or task == "node_classification")
        ]
        if lacking:
            return (
                f"graph {self.name} has no {' and no '.join(lacking)}: set "
                "synthetic = { num_features = ..., num_classes = ... }"
            )
        if self.features is not None and not self.features.shape[1]:
            return (
                f"graph {self.name} has features of 0 columns: set "
                "synthetic = { num_features = ..., num_classes = ..., replace = true }"
            )
        if task != "node_classification":
            return None
        if self.train_mask is None:
            return f"graph {self.name} has no split: set split = {{ train = 0.6, val = 0.2 }}"
        if not self.num_train:
            return (
                f"graph {self.name}: the training split is empty: set "
                "split = { train = 0.6, val = 0.2, replace = true }"
            )
        labels = self.labels
        assert labels is not None
        if labels.ndim == 1 and labels.dtype.kind != "f":
            unknown = int(np.count_nonzero(np.asarray(labels, np.int64)[self.train_mask] < 0))
            if unknown:
                return (
                    f"graph {self.name}: {unknown} of {self.num_train} training nodes have no label"
                )
        return None


def _known(labels: NDArray[Any]) -> NDArray[Any]:
    """Class labels; unlabelled nodes (-1) get class 0, because in a miniature every node trains."""
    return labels if labels.ndim > 1 or labels.dtype.kind == "f" else np.maximum(labels, 0)


def from_edges(
    name: str,
    src: Array,
    dst: Array,
    num_nodes: int,
    *,
    undirected: bool = True,
    edge_weights: Array | None = None,
    **fields: Any,
) -> Graph:
    """Build a graph from an edge list: symmetrise if undirected, drop self loops and repeats.

    What was dropped is counted in `notes` (self_loops, repeated_edges), as rows of the input. Of
    the weights of a repeated edge the largest is kept, whichever direction lists it.
    """
    src64, dst64 = np.asarray(src, np.int64), np.asarray(dst, np.int64)
    if len(src64) != len(dst64):
        raise DataError(name, f"{len(src64)} sources for {len(dst64)} destinations")
    if edge_weights is not None and len(edge_weights) != len(src64):
        raise DataError(name, f"{len(edge_weights)} edge weights for {len(src64)} edges")
    _check_size(name, num_nodes, len(src64))
    ends = (src64, dst64)
    if len(src64) and (min(e.min() for e in ends) < 0 or max(e.max() for e in ends) >= num_nodes):
        raise DataError(name, f"edge endpoints must lie in 0..{num_nodes - 1}")
    keep = src64 != dst64
    loops = int(len(keep) - np.count_nonzero(keep))
    src64, dst64 = src64[keep], dst64[keep]
    listed = len(src64)
    key = dst64 * num_nodes + src64
    if undirected:
        key = np.concatenate([key, src64 * num_nodes + dst64])
    weights = None
    if edge_weights is not None:
        weights = _largest(key, np.asarray(edge_weights, np.float32)[keep])
    # numpy's unique hashes integers, which is fifty times slower here than a sort.
    key.sort()
    key = key[np.diff(key, prepend=-1) != 0]
    repeated = listed - (len(key) // 2 if undirected else len(key))
    indptr = np.zeros(num_nodes + 1, np.int64)
    if num_nodes:
        np.cumsum(np.bincount(key // num_nodes, minlength=num_nodes), out=indptr[1:])
    notes: dict[str, object] = {"self_loops": loops, "repeated_edges": repeated}
    notes.update(fields.pop("notes", {}) or {})
    return Graph(
        name=name,
        indptr=indptr,
        indices=(key % max(num_nodes, 1)).astype(np.int32),
        undirected=undirected,
        notes=notes,
        edge_weights=weights,
        **fields,
    )


def _check_size(name: str, num_nodes: int, num_edges: int) -> None:
    """Raise DataError for a number of nodes that cannot be meant, before tables are made for it."""
    if num_nodes > _MOST_NODES:
        raise DataError(name, f"found {num_nodes} nodes, allowed at most {_MOST_NODES}")
    if num_nodes > max(_LARGE, 1000 * num_edges):
        raise DataError(
            name,
            f"found {num_nodes} nodes for {num_edges} edges: a broken header, or ids to be "
            "numbered from 0",
        )


def _largest(key: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest weight of each distinct key, keys rising; weights repeat if keys are longer."""
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    if not len(starts):
        return np.zeros(0, np.float32)
    each = weights[order % len(weights)]
    found: NDArray[np.float32] = np.maximum.reduceat(each, starts)
    return found
