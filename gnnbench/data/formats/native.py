"""gnnbench's native format: a folder of memory-mappable .npy files and a meta.json with digests."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench import owner
from gnnbench.data.formats.reading import reading
from gnnbench.data.graph import Graph
from gnnbench.data.stream import EdgeStream
from gnnbench.data.triples import Triples
from gnnbench.errors import DataError

SCHEMA_VERSION = 2
TYPES: dict[str, type[Graph] | type[EdgeStream] | type[Triples]] = {
    f"gnnbench-{cls.kind}": cls for cls in (Graph, EdgeStream, Triples)
}
# What a folder needs to be opened at all, whatever its meta.json lists.
_REQUIRED = {
    "graph": ("indptr", "indices"),
    "stream": ("sources", "destinations", "times"),
    "triples": ("heads", "relations", "tails"),
}


def save(data: Graph | EdgeStream | Triples, path: str | Path) -> Path:
    """Write the dataset to the folder `path`, replacing a dataset that is there.

    The folder appears complete or not at all: files go to a temporary sibling that is renamed.
    Raises DataError if `path` exists and is not a dataset of this format.
    """
    path = Path(path)
    with replacing(path) as folder:
        for name, array in data.arrays().items():
            np.save(folder / f"{name}.npy", np.asarray(array), allow_pickle=False)
        plain = {key: getattr(data, key) for key in data.PLAIN}
        reuse = data.reuse_of_rows().shares.tolist() if isinstance(data, Graph) else None
        seal(folder, data.kind, name=data.name, plain=plain, notes=data.notes, reuse=reuse)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `path` when the block has ended well.

    Raises DataError if `path` exists and is not a dataset of this format.
    """
    if path.exists() and not (path / "meta.json").is_file():
        raise DataError(path, "exists and is not a gnnbench dataset: choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with owner.scratch(f".{path.name}.new.", path.parent) as temporary:
        yield temporary
        temporary.chmod(0o755)
        _replace(temporary, path)


def seal(
    folder: Path,
    kind: str,
    *,
    name: str,
    plain: Mapping[str, Any],
    notes: Mapping[str, object],
    reuse: Sequence[float] | None = None,
) -> None:
    """Write meta.json for the arrays that lie in a folder as .npy files.

    Args:
        folder: holds the arrays, each under its name.
        kind: of the dataset: "graph", "stream" or "triples".
        name: of the dataset.
        plain: its other content, by the names in `PLAIN` of its type.
        notes: what the reader noted.
        reuse: of a graph, shares of reads by reuse distance; None: not counted.
    """
    there = {name: folder / f"{name}.npy" for name in TYPES[f"gnnbench-{kind}"].ARRAYS}
    meta: dict[str, Any] = {
        "kind": f"gnnbench-{kind}",
        "schema": SCHEMA_VERSION,
        "name": name,
        **plain,
        "notes": dict(notes),
        "arrays": {
            array: {"sha256": sha256(file)} for array, file in there.items() if file.exists()
        },
    }
    # Beside the digest, not in it: they only say whether an array was touched since.
    meta["written_ns"] = {
        array: file.stat().st_mtime_ns for array, file in there.items() if file.exists()
    }
    if reuse is not None:
        meta["reuse"] = list(reuse)
    meta["digest"] = _digest(meta)
    (folder / "meta.json").write_text(json.dumps(meta, indent=1, default=_plain) + "\n")


def load(path: str | Path, mmap: bool = True, verify: bool = False) -> Any:
    """Open a saved Graph, EdgeStream or Triples.

    Args:
        path: its folder.
        mmap: leave the arrays on disk.
        verify: compare every array with its sha256.

    Raises:
        DataError: the folder is no dataset of this format, is truncated or was changed.
    """
    path = Path(path)
    meta = _meta(path)
    cls = TYPES[meta["kind"]]
    arrays: dict[str, Any] = {}
    for name, entry in meta["arrays"].items():
        file = path / f"{name}.npy"
        if name not in cls.ARRAYS:
            raise DataError(path / "meta.json", f"unknown array {name!r}")
        with reading(file, "a .npy array"):
            if verify and sha256(file) != entry["sha256"]:
                raise DataError(
                    file, "content differs from the sha256 in meta.json: convert the dataset again"
                )
            arrays[name] = _open(file, mmap)
    missing = [name for name in _REQUIRED[cls.kind] if name not in arrays]
    if missing:
        raise DataError(path / "meta.json", f"expected arrays {' and '.join(missing)}, found none")
    if cls is Graph:
        indptr, indices = arrays["indptr"], arrays["indices"]
        if not len(indptr) or indptr[-1] != len(indices):
            last = int(indptr[-1]) if len(indptr) else "nothing"
            raise DataError(path, f"indptr ends with {last}, expected {len(indices)} (indices)")
    plain = {key: meta[key] for key in cls.PLAIN}
    if "reuse" in meta:
        plain["reuse"] = tuple(meta["reuse"])
    return cls(name=meta["name"], notes=meta["notes"], digest=_digest(meta), **plain, **arrays)


def read(path: Path, *, mmap: bool = True, verify: bool = False, name: str | None = None) -> Any:
    """Read a saved dataset (see `load`); `name` renames it."""
    data = load(path, mmap, verify)
    return data if name is None else dataclasses.replace(data, name=name)


def kind(path: Path) -> str:
    """The kind of a saved dataset, without opening its arrays."""
    return TYPES[_meta(path)["kind"]].kind


def digest(path: Path) -> str:
    """The digest of a saved dataset's content, without opening its arrays."""
    return _digest(_meta(path))


def untouched(path: Path) -> bool:
    """Whether every array has the time of change that it had when meta.json was written.

    False too where meta.json does not tell. No clock is compared with another.
    """
    written = _meta(path).get("written_ns")
    if not isinstance(written, dict):
        return False
    try:
        return all((path / f"{a}.npy").stat().st_mtime_ns == at for a, at in written.items())
    except OSError:
        return False


def _digest(meta: dict[str, Any]) -> str:
    """Digest of the content: arrays and how to read them; the name is not part of it."""
    held = {key: meta[key] for key in ("schema", *TYPES[meta["kind"]].PLAIN, "arrays")}
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
    with reading(file, "the meta.json of a gnnbench dataset"):
        meta = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(meta, dict) or meta.get("kind") not in TYPES:
        found = meta.get("kind") if isinstance(meta, dict) else meta
        raise DataError(file, f"not a gnnbench dataset: kind {found!r}, allowed {list(TYPES)}")
    if meta.get("schema") != SCHEMA_VERSION:
        found = meta.get("schema")
        raise DataError(file, f"schema {found!r}, this version reads {SCHEMA_VERSION}")
    kinds = {"name": str, "notes": dict, "arrays": dict, "digest": str}
    wrong = [
        f"{key} must be a {kind.__name__}, found {meta.get(key)!r}"
        for key, kind in {**kinds, **TYPES[meta["kind"]].PLAIN}.items()
        if not isinstance(meta.get(key), kind)
    ]
    if wrong:
        raise DataError(file, wrong)
    return meta


def _replace(temporary: Path, path: Path) -> None:
    """Put `temporary` in the place of `path`; a folder cannot be renamed onto a full one."""
    if not path.exists():
        os.replace(temporary, path)
        return
    with owner.scratch(f".{path.name}.old.", path.parent) as old:
        os.replace(path, old / "dataset")
        os.replace(temporary, path)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
