"""Suites by name: those that come with the package, and any TOML file."""

from __future__ import annotations

from pathlib import Path

from gnnbench.errors import SpecError, UnknownName
from gnnbench.spec import Suite, load_suite

_FOLDER = Path(__file__).parent / "catalogue" / "suites"


def suite_files() -> dict[str, Path]:
    """Return the built-in suites: name to file."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find_suite(name: str) -> Suite:
    """Return a built-in suite by name, or the suite of a file.

    A text with a slash or the ending .toml is a file. Raises UnknownName or SpecError.
    """
    known = suite_files()
    if name in known:
        return load_suite(known[name])
    path = Path(name)
    if path.is_file():
        return load_suite(path)
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise SpecError(
            f"{name}: no such suite file; built-in suites: {', '.join(known) or 'none'}"
        )
    raise UnknownName("suite", name, known)
