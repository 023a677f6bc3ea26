"""From a suite's reference to a dataset: find it, read or draw it, convert it once.

With a cache, what was read is kept in native form under `datasets/<name>-<hash>`, where the hash
covers the reference and the size and time of every source file. Later uses map it from there. The
digest of the content identifies a dataset wherever results are kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.data import formats, generators, splits
from gnnbench.data.formats import native
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile, list_profiles, load_profile, overridden
from gnnbench.errors import DataError, SpecError, UnknownName, Unsupported, suggest
from gnnbench.spec import DatasetRef, RunSpec

# Raised when a reader, a generator or the steps below change what they make.
CONVERSION = 2
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
    raise Unsupported(f"dataset not found: {path}{where}")


class Library:
    """The datasets of a session, each opened when it is first asked for.

    Args:
        roots: where relative paths are looked up, see `data_roots`.
        cache: folder for converted datasets; None converts nothing and keeps all in memory.
    """

    def __init__(self, roots: Sequence[Path], cache: Path | None = None) -> None:
        self._roots, self._cache = roots, cache
        self._open: dict[str, Graph | GraphProfile] = {}

    def open(self, ref: DatasetRef) -> Graph | GraphProfile:
        """The dataset, or the profile of one.

        Raises:
            Unsupported: a path is not there.
            DataError: a file is malformed.
            SpecError, UnknownName: options or names are wrong.
        """
        key = repr(dataclasses.replace(ref, digest=""))
        if key not in self._open:
            if ref.profile:
                self._open[key] = overridden(load_profile(ref.profile), ref.override)
            else:
                self._open[key] = self.graph(ref)
        return self._open[key]

    def graph(self, ref: DatasetRef) -> Graph:
        """The dataset that a reference asks for; a profile is Unsupported."""
        if self._cache is not None:
            return native.load(native_folder(ref, self._roots, self._cache))
        graph = _make(ref, self._roots)
        return dataclasses.replace(graph, digest=content_digest(graph))

    def identified(self, run: RunSpec) -> RunSpec:
        """The run with kind and content digest of its dataset, so that its id covers both."""
        data = self.open(run.dataset)
        found = dataclasses.replace(run.dataset, digest=data.digest, kind=data.kind)
        return dataclasses.replace(run, dataset=found)


def content_digest(graph: Graph) -> str:
    """Identify the content of a dataset that is not saved in native form."""
    found = hashlib.sha256(f"{graph.num_classes} {graph.undirected}".encode())
    for name, array in sorted(graph.arrays().items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:16]


def native_folder(ref: DatasetRef, roots: Sequence[Path], cache: Path) -> Path:
    """Return the folder that holds the dataset in native form, making it if needed.

    A native dataset that is used unchanged stays where it is.
    """
    source = find(ref.path, roots) if ref.path else None
    if source is not None and _is_ready(ref, source):
        return source
    folder = cache / "datasets" / f"{_safe(ref)}-{_stamp(ref, source)}"
    if not (folder / "meta.json").exists():
        native.save(_make(ref, roots), folder)
    return folder


def open_source(
    source: str, format: str | None = None, options: Mapping[str, Any] | None = None
) -> Graph:
    """Return the dataset of a generator, file or folder; options may be given as text.

    Raises: UnknownName, DataError, SpecError as the reader or generator does.
    """
    given = dict(options or {})
    path = Path(source)
    named = path.suffix or len(path.parts) > 1 or source.startswith(".")
    if source in generators.GENERATORS and not named:
        if format is not None:
            raise SpecError(
                f"--format {format}: {source} is a generator; a file there is ./{source}"
            )
        return generators.generate(source, **{key: _value(word) for key, word in given.items()})
    if path.exists():
        return formats.read(format or "auto", path, **given)
    if named:
        raise DataError(path, "no such file or folder")
    raise UnknownName("dataset", source, [*generators.GENERATORS, *list_profiles()])


def _value(word: Any) -> Any:
    """The number or truth value that a text says, else the text."""
    if not isinstance(word, str):
        return word
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(word.lower(), word)


def reference_problems(ref: DatasetRef) -> list[str]:
    """Return what is wrong with a reference itself: names and options that do not exist.

    No file is looked for, so that a suite can be checked where its data is not.
    """
    known: Collection[str]
    if ref.profile:
        known = list_profiles()
        there = ref.profile.endswith(".toml") or ref.profile in known
        line = f"profile: unknown profile {ref.profile!r}, {suggest(ref.profile, known)}"
        return [] if there else [line]
    lines = _option_problems(splits.synthetic_task, ref.synthetic, "synthetic")
    lines += _option_problems(splits.random_split, ref.split, "split")
    if ref.generator:
        known = generators.GENERATORS
        if ref.generator not in known:
            return [
                *lines,
                f"generator: unknown {ref.generator!r}, {suggest(ref.generator, known)}",
            ]
        wrong = generators.option_problems(ref.generator, ref.options)
        return lines + [f"options.{line}" for line in wrong]
    if ref.format == "auto":
        return lines
    known = ("auto", *formats.FORMATS)
    if ref.format not in known:
        return [*lines, f"format: unknown {ref.format!r}, {suggest(ref.format, known)}"]
    known = formats.options(ref.format) if ref.options else {}
    return lines + [
        f"options.{key}: unknown option, {suggest(key, known)}"
        for key in ref.options
        if key not in known
    ]


def _option_problems(
    function: Callable[..., Any], options: Mapping[str, Any], where: str
) -> list[str]:
    """Keys that a function of a graph does not take, and keys that it needs."""
    if not options:
        return []
    taken = dict(list(inspect.signature(function).parameters.items())[1:])
    lines = [
        f"{where}.{key}: unknown key, {suggest(key, taken)}" for key in options if key not in taken
    ]
    return lines + [
        f"{where}.{name}: missing"
        for name, parameter in taken.items()
        if parameter.default is inspect.Parameter.empty and name not in options
    ]


def describe(data: Graph, ref: DatasetRef) -> dict[str, Any]:
    """Return the facts of a dataset that a record keeps."""
    return {
        "name": ref.name or data.name,
        "kind": data.kind,
        "source": ref.path or ref.generator,
        "digest": data.digest,
        **data.facts(),
    }


def _make(ref: DatasetRef, roots: Sequence[Path]) -> Graph:
    if ref.profile:
        raise Unsupported(f"dataset {ref.name!r} is a profile: it can be predicted, not trained on")
    if ref.generator:
        graph = generators.generate(ref.generator, **ref.options)
    else:
        graph = formats.read(ref.format, find(ref.path, roots), **ref.options)
    where = f"datasets.{ref.name}"
    if ref.synthetic:
        graph = _call(splits.synthetic_task, graph, ref.synthetic, f"{where}.synthetic")
    if ref.split:
        graph = _call(splits.random_split, graph, ref.split, f"{where}.split")
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
    wrong = _option_problems(function, options, where)
    if wrong:
        raise SpecError(wrong)
    try:
        made: Graph = function(graph, **options)
    except TypeError as error:
        raise SpecError(f"{where}: {error}") from None
    return made


def _is_ready(ref: DatasetRef, source: Path) -> bool:
    changed = ref.options or ref.synthetic or ref.split or ref.features != "as_is"
    return ref.format in ("auto", "native") and (source / "meta.json").is_file() and not changed


def _stamp(ref: DatasetRef, source: Path | None) -> str:
    content = dataclasses.asdict(ref)
    content.pop("name")
    content.pop("digest")
    found = [] if source is None else sorted(source.rglob("*")) if source.is_dir() else [source]
    files = [path for path in found if path.is_file()]
    stamps = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    text = json.dumps([CONVERSION, content, stamps], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _safe(ref: DatasetRef) -> str:
    name = ref.name or Path(ref.path).name or ref.generator
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
