"""gnnbench's own format: a folder of mmap-able .npy files and a meta.json that vouches for them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.data.formats.reading import reading
from gnnbench.data.graph import Graph
from gnnbench.errors import DataError

SCHEMA_VERSION = 2
KIND = "gnnbench-graph"
ARRAYS = Graph.ARRAYS


def save(graph: Graph, path: str | Path) -> Path:
    """Write the graph to the folder `path`, replacing a graph that is there.

    The folder appears complete or not at all: files go to a temporary sibling that is renamed.
    Raises DataError if `path` exists and is not a graph of this format.
    """
    path = Path(path)
    if path.exists() and not (path / "meta.json").is_file():
        raise DataError(path, "exists and is not a gnnbench graph: choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        files = {}
        for name in ARRAYS:
            array = getattr(graph, name)
            if array is not None:
                np.save(temporary / f"{name}.npy", np.asarray(array), allow_pickle=False)
                files[name] = {"sha256": sha256(temporary / f"{name}.npy")}
        meta = {
            "kind": KIND,
            "schema": SCHEMA_VERSION,
            "name": graph.name,
            "num_classes": graph.num_classes,
            "undirected": graph.undirected,
            "notes": graph.notes,
            "arrays": files,
        }
        meta["digest"] = _digest(meta)
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1, default=_plain) + "\n")
        temporary.chmod(0o755)
        _replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return path


def load(path: str | Path, mmap: bool = True, verify: bool = False) -> Graph:
    """Open a saved graph; `mmap` leaves the arrays on disk, `verify` checks every sha256.

    Raises DataError for a folder that is not such a graph, is truncated or was changed.
    """
    path = Path(path)
    meta = _meta(path)
    arrays: dict[str, Any] = {}
    for name, entry in meta["arrays"].items():
        file = path / f"{name}.npy"
        if name not in ARRAYS:
            raise DataError(path / "meta.json", f"unknown array {name!r}")
        with reading(file, "a .npy array"):
            if verify and sha256(file) != entry["sha256"]:
                raise DataError(file, "content differs from the sha256 in meta.json: write it anew")
            arrays[name] = _open(file, mmap)
    if not {"indptr", "indices"} <= arrays.keys():
        raise DataError(path / "meta.json", "lists no indptr and indices")
    indptr, indices = arrays["indptr"], arrays["indices"]
    if not len(indptr) or indptr[-1] != len(indices):
        raise DataError(path, "indptr and indices do not belong together")
    return Graph(
        name=meta["name"],
        num_classes=meta["num_classes"],
        undirected=meta["undirected"],
        notes=meta["notes"],
        digest=_digest(meta),
        **arrays,
    )


def read(path: Path, *, mmap: bool = True, verify: bool = False, name: str | None = None) -> Graph:
    """Read a saved graph (see `load`); `name` renames it."""
    graph = load(path, mmap, verify)
    if name is not None:
        import dataclasses

        graph = dataclasses.replace(graph, name=name)
    return graph


def digest(path: Path) -> str:
    """The digest of a saved graph's content, without opening its arrays."""
    return _digest(_meta(path))


def _digest(meta: dict[str, Any]) -> str:
    """What identifies the content: the arrays, and what says how to read them. Not the name."""
    held = {key: meta[key] for key in ("schema", "num_classes", "undirected", "arrays")}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """Return the hex digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open(file: Path, mmap: bool) -> np.ndarray[Any, Any]:
    # An empty array cannot be mapped.
    empty = file.stat().st_size < 129 and np.load(file, allow_pickle=False).size == 0
    mapped = mmap and not empty
    array: np.ndarray[Any, Any] = np.load(
        file, mmap_mode="r" if mapped else None, allow_pickle=False
    )
    return array


def _meta(path: Path) -> dict[str, Any]:
    file = path / "meta.json"
    with reading(file, "the meta.json of a gnnbench graph"):
        meta = json.loads(file.read_text())
    if not isinstance(meta, dict) or meta.get("kind") != KIND:
        raise DataError(file, f"not a gnnbench graph (kind {KIND!r} missing)")
    if meta.get("schema") != SCHEMA_VERSION:
        found = meta.get("schema")
        raise DataError(file, f"schema {found!r}, this version reads {SCHEMA_VERSION}")
    kinds = {
        "name": str,
        "num_classes": int,
        "undirected": bool,
        "notes": dict,
        "arrays": dict,
        "digest": str,
    }
    for key, kind in kinds.items():
        if not isinstance(meta.get(key), kind):
            raise DataError(file, f"{key} must be a {kind.__name__}, found {meta.get(key)!r}")
    return meta


def _replace(temporary: Path, path: Path) -> None:
    """Put `temporary` in the place of `path`; a folder cannot be renamed onto a full one."""
    if not path.exists():
        os.replace(temporary, path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    os.replace(path, old / "graph")
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
