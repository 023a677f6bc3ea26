"""From a suite's graph reference to a graph: find it, read or draw it, convert it once.

With a cache, what was read is kept in native form under `graphs/<name>-<hash>`, where the hash
covers the reference and the size and time of every source file. Later uses map it from there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.data.formats import native
from gnnbench.data.graph import Graph
from gnnbench.errors import SpecError, Unsupported, suggest
from gnnbench.spec import GraphRef

# Raised when a reader, a generator or the steps below change what they make.
CONVERSION = 1
DATA_VARIABLE = "GNNBENCH_DATA"


def data_roots(data: Path | None = None, suite_folder: Path | None = None) -> list[Path]:
    """Return where relative paths are looked up, in order.

    --data, then the variable GNNBENCH_DATA, the suite's folder, the current folder. Raises
    SpecError if `data` is no folder.
    """
    if data is not None and not data.is_dir():
        raise SpecError(f"--data {data}: no such folder")
    named = os.environ.get(DATA_VARIABLE)
    roots = [data, Path(named) if named else None, suite_folder, Path()]
    return [root for root in roots if root is not None]


def find(path: str, roots: Sequence[Path]) -> Path:
    """Return the existing file or folder that `path` names. Raises Unsupported if there is none."""
    for candidate in [root / path for root in roots] or [Path(path)]:
        if candidate.exists():
            return candidate
    looked = ", ".join(dict.fromkeys(str(root.resolve()) for root in roots))
    where = "" if Path(path).is_absolute() else f" (looked in {looked}): set --data DIR"
    raise Unsupported(f"graph file not found: {path}{where}")


def open_graph(ref: GraphRef, roots: Sequence[Path], cache: Path | None = None) -> Graph:
    """Return the graph that a reference asks for.

    Raises: Unsupported for a path that is not there or a profile (which has no nodes to train on),
    DataError for a malformed file, SpecError or UnknownName for wrong options.
    """
    if cache is None:
        return _make(ref, roots)
    return native.load(native_folder(ref, roots, cache))


def native_folder(ref: GraphRef, roots: Sequence[Path], cache: Path) -> Path:
    """Return the folder that holds the graph in native form, making it if needed.

    A native graph that is used as it is stays where it is.
    """
    source = find(ref.path, roots) if ref.path else None
    if source is not None and _is_ready(ref, source):
        return source
    folder = cache / "graphs" / f"{_safe(ref)}-{_digest(ref, source)}"
    if not (folder / "meta.json").exists():
        native.save(_make(ref, roots), folder)
    return folder


def reference_problems(ref: GraphRef) -> list[str]:
    """Return what is wrong with a reference itself: names and options that do not exist.

    No graph file is looked for, so that a suite can be checked where its data is not.
    """
    from gnnbench.data import formats, generators, profile

    known: Collection[str]
    if ref.profile:
        known = profile.list_profiles()
        there = ref.profile.endswith(".toml") or ref.profile in known
        line = f"profile: unknown profile {ref.profile!r}, {suggest(ref.profile, known)}"
        return [] if there else [line]
    if ref.generator:
        known = generators.GENERATORS
        if ref.generator not in known:
            return [f"generator: unknown {ref.generator!r}, {suggest(ref.generator, known)}"]
        wrong = generators.option_problems(ref.generator, ref.options)
        return [f"options.{line}" for line in wrong]
    if ref.format == "auto":
        return []
    known = ("auto", *formats.FORMATS)
    if ref.format not in known:
        return [f"format: unknown {ref.format!r}, {suggest(ref.format, known)}"]
    known = formats.options(ref.format) if ref.options else {}
    return [
        f"options.{key}: unknown option, {suggest(key, known)}"
        for key in ref.options
        if key not in known
    ]


def describe(graph: Graph, ref: GraphRef) -> dict[str, Any]:
    """Return the facts of a graph that a record keeps."""
    return {
        "name": ref.name or graph.name,
        "source": ref.path or ref.generator,
        "num_nodes": graph.num_nodes,
        "num_edges": graph.num_edges,
        "num_features": graph.num_features,
        "num_classes": graph.num_classes,
        "num_train": graph.num_train,
        "undirected": graph.undirected,
    }


def _make(ref: GraphRef, roots: Sequence[Path]) -> Graph:
    from gnnbench.data import formats, generators, splits

    if ref.profile:
        raise Unsupported(f"graph {ref.name!r} is a profile: it can be predicted, not trained on")
    if ref.generator:
        graph = generators.generate(ref.generator, **ref.options)
    else:
        graph = formats.read(ref.format, find(ref.path, roots), **ref.options)
    if ref.task:
        graph = _call(splits.synthetic_task, graph, ref.task, f"graphs.{ref.name}.task")
    if ref.split:
        graph = _call(splits.random_split, graph, ref.split, f"graphs.{ref.name}.split")
    if ref.features == "row":
        graph = with_row_normalised_features(graph)
    return dataclasses.replace(graph, name=ref.name or graph.name)


def with_row_normalised_features(graph: Graph) -> Graph:
    """Return the graph with each feature row divided by its sum; rows that sum to 0 stay."""
    if graph.features is None:
        raise SpecError(f"graph {graph.name!r}: features = 'row', but the graph has no features")
    sums = graph.features.sum(axis=1, keepdims=True, dtype=np.float64)
    scale = np.divide(1.0, sums, out=np.ones_like(sums), where=sums != 0)
    return dataclasses.replace(graph, features=(graph.features * scale).astype(np.float32))


def _call(function: Any, graph: Graph, options: dict[str, Any], where: str) -> Graph:
    known = list(inspect.signature(function).parameters)[1:]
    unknown = [key for key in options if key not in known]
    wrong = [f"{where}.{key}: unknown key, {suggest(key, known)}" for key in unknown]
    if wrong:
        raise SpecError(wrong)
    try:
        made: Graph = function(graph, **options)
    except TypeError as error:
        raise SpecError(f"{where}: {error}") from None
    return made


def _is_ready(ref: GraphRef, source: Path) -> bool:
    changed = ref.options or ref.task or ref.split or ref.features != "as_is"
    return ref.format in ("auto", "native") and (source / "meta.json").is_file() and not changed


def _digest(ref: GraphRef, source: Path | None) -> str:
    content = dataclasses.asdict(ref)
    content.pop("name")
    found = [] if source is None else sorted(source.rglob("*")) if source.is_dir() else [source]
    files = [path for path in found if path.is_file()]
    stamps = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    text = json.dumps([CONVERSION, content, stamps], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _safe(ref: GraphRef) -> str:
    name = ref.name or Path(ref.path).name or ref.generator
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
