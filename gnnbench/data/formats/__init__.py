"""File formats of datasets: a registry of readers, one module each, imported when used.

    data = read("planetoid", path)                 # one format, its own options
    data = read("auto", path)                      # guess by the look of the file or folder
    data = read("auto", path, kind="stream")       # a table that could be a graph or a stream

Every reader is `read(path, **options)` and returns a Graph, an EdgeStream or Triples; the options
of a format are the keyword arguments of its `read` and can be given as text ("true", "3").
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gnnbench.data.edge_list import EdgeList
from gnnbench.data.formats.columns import is_archive, sources
from gnnbench.data.formats.misnamed import refuse_misnamed
from gnnbench.data.formats.reading import reading
from gnnbench.data.graph import Graph
from gnnbench.data.stream import EdgeStream
from gnnbench.data.triples import Triples
from gnnbench.errors import DataError, SpecError, UnknownName, suggest

FORMATS: dict[str, str] = {
    "native": "gnnbench.data.formats.native",
    "planetoid": "gnnbench.data.formats.planetoid",
    "npz_csr": "gnnbench.data.formats.npz_csr",
    "npz_dense": "gnnbench.data.formats.npz_dense",
    "musae": "gnnbench.data.formats.musae",
    "facebook100": "gnnbench.data.formats.facebook100",
    "ogb": "gnnbench.data.formats.ogb",
    "snap": "gnnbench.data.formats.snap",
    "metis": "gnnbench.data.formats.metis",
    "matrix_market": "gnnbench.data.formats.matrix_market",
    "webgraph": "gnnbench.data.formats.webgraph",
    "graphs_jl": "gnnbench.data.formats.graphs_jl",
    "temporal_text": "gnnbench.data.formats.temporal_text",
    "temporal_csv": "gnnbench.data.formats.temporal_csv",
    "quintuples": "gnnbench.data.formats.quintuples",
    "triples": "gnnbench.data.formats.triples",
}
KINDS = {
    "temporal_text": "stream",
    "temporal_csv": "stream",
    "quintuples": "stream",
    "triples": "triples",
}
"""What the formats hold that do not hold graphs; `native` holds any kind."""


def reader(format: str) -> Callable[..., Graph | EdgeStream | Triples]:
    """Return the `read` function of a format. Raises UnknownName."""
    if format not in FORMATS:
        raise UnknownName("dataset format", format, FORMATS)
    function: Callable[..., Graph | EdgeStream | Triples] = importlib.import_module(
        FORMATS[format]
    ).read
    return function


STREAMED = ("snap", "matrix_market", "webgraph")
"""Formats with a `stream` beside their `read`: files larger than memory are read in blocks."""
_FOREIGN = {
    (".gml", ".graphml", ".gexf", ".net", ".adjlist"): ": read it with networkx and write an edge "
    "list (networkx.write_edgelist)",
    (
        ".pt",
        ".pth",
        ".pkl",
        ".pickle",
        ".bin",
        ".dgl",
    ): ": a file of another library, whose loading "
    "may run code: save its arrays with numpy.savez as edge_index, x, y, train_mask ...",
    (
        ".zst",
        ".lzma",
        ".z",
        ".lz4",
        ".7z",
        ".rar",
        ".zip",
        ".tar",
    ): ": unpack it first, then name the file or folder",
    (".npy",): ": a single array: save it with numpy.savez as edges",
    (".parquet", ".feather", ".h5", ".hdf5", ".json", ".xlsx"): ": export the edges as csv",
}
"""Suffixes of what is not read, and what helps."""
SNAP_SUFFIXES = (".txt", ".tsv", ".el", ".edges", ".edgelist")


def options(format: str) -> dict[str, str]:
    """Return the options of a format as name -> type in words, e.g. {'split': 'int'}."""
    parameters = list(inspect.signature(reader(format)).parameters.values())[1:]
    return {parameter.name: str(parameter.annotation) for parameter in parameters}


def read(
    format: str, path: str | Path, kind: str = "auto", **given: Any
) -> Graph | EdgeStream | Triples:
    """Read a file or folder; format "auto" guesses, and kind "auto" takes what the format holds.

    Raises: UnknownName for a format or option that does not exist, SpecError for an option's value
    of the wrong type, DataError for a file that is not what it should be (every problem in a line).
    """
    path = Path(path)
    format = _format(format, path, kind)
    data = reader(format)(path, **_values(format, given))
    if kind not in ("auto", data.kind):
        raise DataError(path, f"format {format} holds {_a(data.kind)}, found kind = {kind!r}")
    problems = data.problems()
    if problems:
        raise DataError(path, problems)
    return data


def stream(format: str, path: str | Path, **given: Any) -> EdgeList:
    """Return the edge list of a file that is read block by block; arguments as in `read`.

    Raises: as `read` does; DataError for a format whose reader holds the whole file.
    """
    path = Path(path)
    format = _format(format, path, "graph")
    function = getattr(importlib.import_module(FORMATS[format]), "stream", None)
    if function is None:
        known = ", ".join(STREAMED)
        raise DataError(
            path, f"format {format} is read as a whole; formats that are read in blocks: {known}"
        )
    for option in given:
        if option not in inspect.signature(function).parameters and option in options(format):
            raise SpecError(
                f"option {option!r}: found for a file that is read in blocks; leave it out"
            )
    found: EdgeList = function(path, **_values(format, given))
    return found


def _format(format: str, path: Path, kind: str) -> str:
    """The format of a file that is there. Raises DataError, UnknownName."""
    if not path.exists():
        raise DataError(path, "no such file or folder")
    if format == "auto":
        return detect(path, kind)
    if format not in FORMATS:
        raise UnknownName("dataset format", format, FORMATS)
    return format


def _values(format: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a format in their types. Raises UnknownName, SpecError."""
    known = options(format)
    for name in given:
        if name not in known:
            raise UnknownName(f"option of dataset format {format!r}:", name, known)
    return {name: _coerce(format, name, known[name], value) for name, value in given.items()}


def option_problems(format: str, given: Mapping[str, Any]) -> list[str]:
    """Return which options of a format are unknown or of a wrong type; no file is opened."""
    known = options(format) if given else {}
    problems = [
        f"{name}: unknown option, {suggest(name, known)}" for name in given if name not in known
    ]
    for name in given:
        if name in known:
            try:
                _coerce(format, name, known[name], given[name])
            except SpecError:
                problems.append(f"{name}: found {given[name]!r}, allowed {known[name]}")
    return problems


def detect(path: str | Path, kind: str = "auto") -> str:
    """Guess the format of a file or folder by names, keys and first lines.

    Raises DataError when nothing fits, or when a table of numbers can be read as several kinds.
    """
    path = Path(path)
    found = None
    if kind in ("auto", "graph"):
        found = _detect_folder(path) if path.is_dir() else _detect_file(path)
    if found == "native" or (path.is_dir() and (path / "meta.json").exists()):
        return "native"
    if kind == "graph" and found is None and path.is_file() and path.suffix.lower() == ".csv":
        return "snap"
    if kind == "graph" and found is not None:
        return found
    if kind != "graph":
        from gnnbench.data.formats.detection import table_format

        found = table_format(path, kind, found)
    if found is None:
        known = [name for name in FORMATS if kind in ("auto", KINDS.get(name, "graph"))]
        what = "dataset" if kind == "auto" else kind
        help = next((h for ends, h in _FOREIGN.items() if path.name.lower().endswith(ends)), "")
        raise DataError(path, f"no known {what} format{help}; name one of: {', '.join(known)}")
    return found


def _a(kind: str) -> str:
    return "triples" if kind == "triples" else f"a {kind}"


def _detect_folder(path: Path) -> str | None:
    if (path / "meta.json").exists():
        return "native"
    if any(path.glob("ind.*.graph")):
        return "planetoid"
    if any(path.glob("raw/edge.csv*")):
        return "ogb"
    if any(path.glob("*_edges.csv*")):
        return "musae"
    guesses = {guess for file in path.iterdir() if file.is_file() and (guess := _detect_file(file))}
    return guesses.pop() if len(guesses) == 1 else None


def _detect_file(path: Path) -> str | None:
    name = path.name if path.name.startswith("ind.") else path.name.lower()
    for suffix in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(suffix)
    if name.startswith("ind."):
        return "planetoid"
    if is_archive(path):
        return _detect_archive(path)
    if name.endswith(".npz"):
        return _detect_npz(path)
    if name.endswith(".mat"):
        return "facebook100"
    if name.endswith(".mtx"):
        return "matrix_market"
    if name.endswith((".jlg", ".lg")):
        return "graphs_jl"
    if name.endswith((".graph", ".metis")):
        # A .properties beside a .graph marks WebGraph's BVGraph.
        return "webgraph" if path.with_suffix(".properties").exists() else "metis"
    return "snap" if name.endswith(SNAP_SUFFIXES) else None


def _detect_archive(path: Path) -> str | None:
    """A graph in an archive: one edge list alone, or a matrix beside other files."""
    try:
        suffixes = [Path(source.name).suffix for source in sources(path)]
    except DataError:
        return None  # the reader says what is wrong with it
    if suffixes.count(".mtx") == 1:
        return "matrix_market"
    return "snap" if len(suffixes) == 1 and suffixes[0] in SNAP_SUFFIXES else None


def _detect_npz(path: Path) -> str | None:
    import zipfile

    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            refuse_misnamed(path, stream.read(64))
        return None
    with reading(path, "a .npz archive"), zipfile.ZipFile(path) as archive:
        keys = {name.removesuffix(".npy") for name in archive.namelist()}
    if {"adj_indptr", "adj_indices"} <= keys or {"indptr", "indices", "shape"} <= keys:
        return "npz_csr"
    if {"format", "shape", "data"} <= keys:  # scipy's other forms: the reader names them
        return "npz_csr"
    if not keys.isdisjoint(("edges", "edge_index")):
        return "npz_dense"
    found = ", ".join(sorted(keys)[:8]) or "none"
    raise DataError(
        path,
        f"arrays of no known format: {found}; expected adj_indptr and adj_indices (npz_csr), or "
        "edges (npz_dense)",
    )


def _coerce(format: str, name: str, kind: str, value: Any) -> Any:
    """Turn an option given as text into its type, or check the type it has."""
    allowed = [part.strip() for part in kind.split("|")]
    if value is None and "None" in allowed:
        return None
    wanted = next((part for part in allowed if part != "None"), "str")
    try:
        if wanted == "bool":
            truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            return truth[str(value).lower()]
        if wanted == "int" and not isinstance(value, (bool, float)):
            return int(value)
        if wanted == "str" and isinstance(value, str):
            return value
    except (KeyError, ValueError, TypeError):
        pass
    raise SpecError(
        f"option {name!r} of dataset format {format!r}: found {value!r}, allowed {kind}"
    )
