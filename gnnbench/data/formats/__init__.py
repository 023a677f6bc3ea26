"""Graph file formats: a registry of readers, one module each, imported when used.

    graph = read("planetoid", path)            # one format, its own options
    graph = read("auto", path)                 # guess by the look of the file or folder

Every reader is `read(path, **options) -> Graph`; the options of a format are the keyword
arguments of its `read` and can be given as text ("true", "3").
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gnnbench.data.graph import Graph
from gnnbench.errors import DataError, SpecError, UnknownName

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
}

_SNAP_SUFFIXES = (".txt", ".tsv", ".el", ".edges", ".edgelist")


def reader(format: str) -> Callable[..., Graph]:
    """Return the `read` function of a format. Raises UnknownName."""
    if format not in FORMATS:
        raise UnknownName("graph format", format, FORMATS)
    function: Callable[..., Graph] = importlib.import_module(FORMATS[format]).read
    return function


def options(format: str) -> dict[str, str]:
    """Return the options of a format as name -> type in words, e.g. {'split': 'int'}."""
    parameters = list(inspect.signature(reader(format)).parameters.values())[1:]
    return {parameter.name: str(parameter.annotation) for parameter in parameters}


def read(format: str, path: str | Path, **given: Any) -> Graph:
    """Read a graph file or folder; format 'auto' guesses.

    Raises: UnknownName for a format or option that does not exist, SpecError for an option's value
    of the wrong type, DataError for a file that is not what it should be.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(path, "no such file or folder")
    if format == "auto":
        format = detect(path)
    function, known = reader(format), options(format)
    for name in given:
        if name not in known:
            raise UnknownName(f"option of graph format {format!r}:", name, known)
    values = {name: _coerce(format, name, known[name], value) for name, value in given.items()}
    graph = function(path, **values)
    graph.check()
    return graph


def detect(path: str | Path) -> str:
    """Guess the format of a file or folder by its names (and, for npz, its keys).

    Raises DataError when nothing fits.
    """
    path = Path(path)
    found = _detect_folder(path) if path.is_dir() else _detect_file(path)
    if found is None:
        raise DataError(path, f"no known graph format; name one of: {', '.join(FORMATS)}")
    return found


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
    name = path.name
    for suffix in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(suffix)
    if name.startswith("ind."):
        return "planetoid"
    if name.endswith(".npz"):
        return _detect_npz(path)
    if name.endswith(".mat"):
        return "facebook100"
    if name.endswith((".graph", ".metis")) and not path.with_suffix(".properties").exists():
        return "metis"  # a .properties beside a .graph marks WebGraph's BVGraph
    return "snap" if name.endswith(_SNAP_SUFFIXES) else None


def _detect_npz(path: Path) -> str | None:
    import zipfile

    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        keys = {name.removesuffix(".npy") for name in archive.namelist()}
    if {"adj_indptr", "adj_indices"} <= keys:
        return "npz_csr"
    return "npz_dense" if "edges" in keys else None


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
    raise SpecError(f"option {name!r} of graph format {format!r}: found {value!r}, allowed {kind}")
