"""From a suite's reference to a dataset: find it, read or generate it, convert it once.

With a cache, a dataset is kept in native form under `datasets/<name>-<hash>`, where the hash covers
the reference and the size and time of every source file. Later uses map it from there. The digest
of the content identifies a dataset in all records.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from gnnbench.data import formats, generators, splits
from gnnbench.data.formats import native
from gnnbench.data.graph import Graph
from gnnbench.data.orders import reordered
from gnnbench.data.profile import GraphProfile, Profile, list_profiles, load_profile, overridden
from gnnbench.data.stream import EdgeStream, time_split
from gnnbench.data.triples import Triples
from gnnbench.data.triples import random_split as split_triples
from gnnbench.errors import DataError, SpecError, UnknownName, Unsupported, suggest
from gnnbench.spec import DatasetRef, RunSpec
from gnnbench.strict import bounds, convert

AnyDataset = Graph | EdgeStream | Triples

# Raised when a reader, a generator or the steps below change what they make.
CONVERSION = 2
DATA_VARIABLE = "GNNBENCH_DATA"
_RANGES = {
    **dict.fromkeys(("train", "val"), bounds(0, 1)),
    **dict.fromkeys(("num_features", "num_classes"), bounds(1)),
    **dict.fromkeys(("rounds", "noise", "seed"), bounds(0)),
}
"""Of the options of splits and synthetic tasks."""
_SPLITS: dict[str, Callable[..., Any]] = {
    "graph": splits.random_split,
    "stream": time_split,
    "triples": split_triples,
}


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


def open_graph_or_profile(
    source: str, format: str | None = None, options: Mapping[str, Any] | None = None
) -> Graph | GraphProfile:
    """Return the stored profile of this name or TOML file, else as `open_graph`.

    Raises:
        SpecError: a format or an option was given for a profile, which has neither.
    """
    if source not in list_profiles() and not source.endswith(".toml"):
        return open_graph(source, format, options)
    given = [f"--{name}" for name, value in (("format", format), ("option", options)) if value]
    if given:
        # Ignoring them would answer for another dataset than the user believes.
        raise SpecError(f"{', '.join(given)}: {source} is a stored profile, not a file")
    profile = load_profile(source)
    if not isinstance(profile, GraphProfile):
        raise SpecError(
            f"{source}: found a profile of kind {profile.kind!r}, expected one of a graph"
        )
    return profile


class Library:
    """The datasets of a session, each opened when it is first asked for.

    Args:
        roots: where relative paths are looked up, see `data_roots`.
        cache: folder for converted datasets; None converts nothing and keeps all in memory.
    """

    def __init__(self, roots: Sequence[Path], cache: Path | None = None) -> None:
        self._roots, self._cache = roots, cache
        self._open: dict[str, AnyDataset | Profile] = {}

    def open(self, ref: DatasetRef) -> Any:
        """The dataset (Graph, EdgeStream or Triples), or the profile of one.

        Raises:
            Unsupported: a path is not there.
            DataError: a file is malformed.
            SpecError, UnknownName: options or names are wrong.
        """
        # The digest is filled in later and must not open the same dataset twice.
        key = repr(dataclasses.replace(ref, digest=""))
        if key not in self._open:
            if ref.profile:
                self._open[key] = overridden(load_profile(ref.profile), ref.override)
            else:
                self._open[key] = self.dataset(ref)
        return self._open[key]

    def dataset(self, ref: DatasetRef) -> Any:
        """The dataset of a reference; raises Unsupported for a profile."""
        if self._cache is not None:
            return native.load(native_folder(ref, self._roots, self._cache))
        # In memory there is no file whose digest could be read, so that it is computed.
        data = _make(ref, self._roots)
        return dataclasses.replace(data, digest=content_digest(data))

    def identified(self, run: RunSpec) -> RunSpec:
        """The run with kind and content digest of its dataset, so that its id covers both.

        Raises:
            Unsupported: the run's task cannot be learnt from the dataset; the message says why.
        """
        data = self.open(run.dataset)
        found = dataclasses.replace(run.dataset, digest=data.digest, kind=data.kind)
        run = dataclasses.replace(run, dataset=found)
        reason = data.cannot_train(run.task_kind)
        if reason is not None:
            raise Unsupported(reason)
        return run


def content_digest(data: AnyDataset) -> str:
    """Identify the content of a dataset that is not saved in native form."""
    # The name and other plain fields belong to the content: they reach records and predictions.
    plain = " ".join(str(getattr(data, key)) for key in data.PLAIN)
    found = hashlib.sha256(plain.encode())
    for name, array in sorted(data.arrays().items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        # A strided view has the content of a contiguous array, not its bytes.
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:16]


def native_folder(ref: DatasetRef, roots: Sequence[Path], cache: Path) -> Path:
    """Return the folder that holds the dataset in native form, making it if needed.

    A native dataset that is used unchanged stays where it is.
    """
    source = find(ref.path, roots) if ref.path else None
    if source is not None and _is_ready(ref, source):
        # A native folder that was edited by hand must not be answered from its old digest.
        _verify(source)
        return source
    folder = cache / "datasets" / f"{_safe(ref)}-{_stamp(ref, source)}"
    if not _opens(folder):
        data = _make(ref, roots)
        shutil.rmtree(folder, ignore_errors=True)  # what is there cannot be read
        native.save(data, folder)
    return folder


def _opens(folder: Path) -> bool:
    """Whether a converted dataset is there and whole; a cache that was cut is made again."""
    if not (folder / "meta.json").exists():
        return False
    try:
        native.load(folder)
    except DataError:
        return False
    return True


def open_graph(
    source: str, format: str | None = None, options: Mapping[str, Any] | None = None
) -> Graph:
    """Return the graph of a generator, file or folder (see `open_source`)."""
    graph = open_source(source, format, options, kind="graph")
    assert isinstance(graph, Graph)
    return graph


def open_source(
    source: str,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    kind: str = "auto",
) -> AnyDataset:
    """Return the dataset of a generator, file or folder; options may be given as text.

    Raises: UnknownName, DataError, SpecError as the reader or generator does.
    """
    given = dict(options or {})
    path = Path(source)
    # A file wins only where the text looks like a path, so that a file called rmat cannot hide a
    # generator.
    named = path.suffix or len(path.parts) > 1 or source.startswith(".")
    if source in generators.GENERATORS and not named:
        if format is not None:
            raise SpecError(
                f"--format {format}: {source} is a generator; a file there is ./{source}"
            )
        data = generators.generate(source, **{key: _value(word) for key, word in given.items()})
        return _of_kind(data, kind)
    if path.exists():
        return formats.read(format or "auto", path, kind, **given)
    if named:
        raise DataError(path, "no such file or folder")
    raise UnknownName("dataset", source, [*generators.GENERATORS, *list_profiles()])


def _of_kind(data: AnyDataset, kind: str) -> AnyDataset:
    if kind not in ("auto", data.kind):
        raise SpecError(f"{data.name}: found kind = {kind!r}, the dataset is of kind {data.kind!r}")
    return data


def _value(word: Any) -> Any:
    """The number or truth value that a text says, else the text."""
    if not isinstance(word, str):
        return word
    # Whole numbers first: "3" as a float would be refused where a count is expected.
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(word.lower(), word)


def reference_problems(ref: DatasetRef) -> list[str]:
    """Return the problems of a reference: unknown names and options.

    No file is opened, so that a suite can be checked on a machine without its data.
    """
    # Only keys and names are checked: values of a profile's facts are checked when it is loaded.
    known: Collection[str]
    if ref.profile:
        known = list_profiles()
        there = ref.profile.endswith(".toml") or ref.profile in known
        line = f"profile: unknown profile {ref.profile!r}, {suggest(ref.profile, known)}"
        if ref.profile in known and ref.override:
            try:
                overridden(load_profile(ref.profile), ref.override)
            except SpecError as error:
                return list(error.problems)
        return [] if there else [line]
    lines = _option_problems(splits.synthetic_task, ref.synthetic, "synthetic")
    lines += _split_problems(ref)
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
    held = formats.KINDS.get(ref.format, "graph")
    if ref.format != "native" and ref.kind not in ("auto", held):
        lines.append(f"format: {ref.format} holds kind {held!r}, and kind = {ref.kind!r}")
    return lines + [f"options.{line}" for line in formats.option_problems(ref.format, ref.options)]


def _split_problems(ref: DatasetRef) -> list[str]:
    """Keys of `split` that no dataset of the kind takes; all kinds where it is not known yet."""
    if ref.kind in _SPLITS:
        return _option_problems(_SPLITS[ref.kind], ref.split, "split")
    trials = [_option_problems(split, ref.split, "split") for split in _SPLITS.values()]
    # Without the kind, the split that explains most of the keys is taken to be meant.
    return min(trials, key=len)


def _option_problems(
    function: Callable[..., Any], options: Mapping[str, Any], where: str
) -> list[str]:
    """Keys that a function of a dataset does not take, and keys that it needs."""
    if not options:
        return []
    # The first parameter is the dataset itself.
    taken = dict(list(inspect.signature(function).parameters.items())[1:])
    lines = [
        f"{where}.{key}: unknown key, {suggest(key, taken)}" for key in options if key not in taken
    ]
    hints = get_type_hints(function)
    for key in taken:
        if key in options:
            convert(options[key], hints[key], f"{where}.{key}", lines, _RANGES.get(key))
    if not lines and {"train", "val"} <= taken.keys():
        shares = [options.get(key, taken[key].default) for key in ("train", "val")]
        if sum(shares) > 1:
            lines.append(f"{where}: found train {shares[0]}, val {shares[1]}; allowed sum <= 1")
    return lines + [
        f"{where}.{name}: missing"
        for name, parameter in taken.items()
        if parameter.default is inspect.Parameter.empty and name not in options
    ]


def describe(data: AnyDataset, ref: DatasetRef) -> dict[str, Any]:
    """Return the facts of a dataset that a record keeps."""
    return {
        "name": ref.name or data.name,
        "kind": data.kind,
        "source": ref.path or ref.generator,
        "digest": data.digest,
        **data.facts(),
        **_homophily(data),
    }


_HOMOPHILY: dict[str, float | None] = {}
"""By digest: the runs of a session share their datasets."""


def _homophily(data: AnyDataset) -> dict[str, float]:
    """The share of edges that join nodes of one class, where nodes have classes."""
    if not isinstance(data, Graph):
        return {}
    if data.digest not in _HOMOPHILY or not data.digest:
        _HOMOPHILY[data.digest] = splits.edge_homophily(data)
    found = _HOMOPHILY[data.digest]
    return {} if found is None else {"homophily": round(found, 4)}


def _make(ref: DatasetRef, roots: Sequence[Path]) -> AnyDataset:
    if ref.profile:
        raise Unsupported(
            f"dataset {ref.name!r} is a profile, which can be predicted, not trained: "
            "give path or generator"
        )
    data: Any
    if ref.generator:
        data = _of_kind(generators.generate(ref.generator, **ref.options), ref.kind)
    else:
        data = formats.read(ref.format, find(ref.path, roots), ref.kind, **ref.options)
    where = f"datasets.{ref.name}"
    of_graphs = {
        "synthetic": ref.synthetic,
        "features": ref.features != "as_is",
        "order": ref.order != "given",
    }
    for key, given in of_graphs.items():
        if given and data.kind != "graph":
            raise SpecError(
                f"{where}.{key}: allowed for graphs only; this dataset is of kind {data.kind!r}"
            )
    # Labels before the split, which may be stratified by them; the order last, because all of the
    # others number vertices as the file does.
    if ref.synthetic:
        data = _call(splits.synthetic_task, data, ref.synthetic, f"{where}.synthetic")
    if ref.split:
        data = _call(_SPLITS[data.kind], data, ref.split, f"{where}.split")
    if ref.features == "row":
        data = with_row_normalised_features(data)
    if ref.order != "given":
        data = reordered(data, ref.order)
    named: AnyDataset = dataclasses.replace(data, name=ref.name or data.name)
    return named


def with_row_normalised_features(graph: Graph) -> Graph:
    """Return the graph with each feature row divided by its sum; rows that sum to 0 stay."""
    if graph.features is None:
        raise SpecError(f"graph {graph.name!r}: features = 'row', but the graph has no features")
    # In double precision: sums of long rows lose the last digits in single precision.
    sums = graph.features.sum(axis=1, keepdims=True, dtype=np.float64)
    scale = np.divide(1.0, sums, out=np.ones_like(sums), where=sums != 0)
    with np.errstate(over="ignore", invalid="ignore"):
        features = (graph.features * scale).astype(np.float32)
    wrong = ~np.isfinite(features).all(axis=1)
    if wrong.any():
        at = int(wrong.argmax())
        raise SpecError(
            f"graph {graph.name!r}: features = 'row': row {at} sums to "
            f"{float(sums[at, 0]):g}, and its quotients are not finite"
        )
    return dataclasses.replace(graph, features=features)


def _call(function: Any, data: Any, options: dict[str, Any], where: str) -> Any:
    wrong = _option_problems(function, options, where)
    if wrong:
        raise SpecError(wrong)
    try:
        return function(data, **options)
    except TypeError as error:
        raise SpecError(f"{where}: {error}") from None


def _is_ready(ref: DatasetRef, source: Path) -> bool:
    changed = ref.options or ref.synthetic or ref.split or ref.features != "as_is"
    changed = changed or ref.order != "given"
    return ref.format in ("auto", "native") and (source / "meta.json").is_file() and not changed


_VERIFIED: set[tuple[object, ...]] = set()


def _verify(folder: Path) -> None:
    """Check the arrays of a native dataset that may have been changed after its meta.json.

    The digest that identifies a dataset is read from meta.json, so an array that was overwritten in
    place must be an error. Raises DataError.
    """
    stamps = _stamps(folder)
    written = (folder / "meta.json").stat().st_ctime_ns
    later = any(at >= written for path, *_, at in stamps if not path.endswith("meta.json"))
    if (later or not native.untouched(folder)) and (*stamps,) not in _VERIFIED:
        native.load(folder, verify=True)
        _VERIFIED.add((*stamps,))


def _stamps(source: Path | None) -> list[tuple[str, int, int, int]]:
    """Path, size, and times of the last change of content and of status of every file."""
    found = [] if source is None else sorted(source.rglob("*")) if source.is_dir() else [source]
    stats = [(str(path), path.stat()) for path in found if path.is_file()]
    # A copy may keep the times of its original, but not the time at which it came.
    return [(path, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in stats]


def _kind(ref: DatasetRef, source: Path | None) -> str:
    """The kind that a reference holds, from names and first lines only."""
    if ref.kind != "auto":
        return ref.kind
    if source is None:
        return generators.kind(ref.generator)
    format = formats.detect(source) if ref.format == "auto" else ref.format
    return native.kind(source) if format == "native" else formats.KINDS.get(format, "graph")


def _stamp(ref: DatasetRef, source: Path | None) -> str:
    content = dataclasses.asdict(ref)
    content.pop("name")
    content.pop("digest")
    # A run knows the kind once its dataset was opened; that must not convert the dataset again.
    content["kind"] = _kind(ref, source)
    text = json.dumps([CONVERSION, content, _stamps(source)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _safe(ref: DatasetRef) -> str:
    name = ref.name or Path(ref.path).name or ref.generator
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
