"""Detect the kind of dataset that a text table holds, from file names and first rows."""

from __future__ import annotations

from pathlib import Path

from gnnbench.data.formats import temporal_csv
from gnnbench.data.formats.columns import Source, is_number, layout, sources, split_line
from gnnbench.data.formats.triples import SPLITS, facts_layout, splits_in
from gnnbench.errors import DataError

_HOW = "set kind = {kinds} for the dataset (--kind on the command line)"


def table_format(path: Path, kind: str, guess: str | None) -> str | None:
    """The format of tables of events or facts at `path`; else `guess`, a format of graphs.

    Args:
        path: a file, folder or archive.
        kind: "auto", "stream" or "triples".
        guess: the graph format that the file names suggest, or None.

    Raises:
        DataError: the table can be read as several kinds, and `kind` is "auto".
    """
    if guess not in (None, "snap"):
        return guess
    parts = splits_in(path) if path.is_dir() or len(sources(path)) > 1 else {}
    if parts and all(len(parts[split]) == 1 for split in SPLITS):
        return _facts(parts["train"][0], kind)
    files = [s for s in sources(path) if s.path == path or not s.name.startswith(".")]
    tables = [source for source in files if source.name.lower().endswith(".csv")]
    fitting = [source for source in tables if temporal_csv.fits(source)]
    if kind == "triples":
        return "triples" if path.is_file() else None
    if fitting or (kind == "stream" and tables):
        return "temporal_csv"
    if kind == "stream":
        return "temporal_text"
    return _one_table(files, path, guess) if len(files) == 1 else guess


def _facts(train: Source, kind: str) -> str | None:
    width = facts_layout(train).width
    found = {3: "triples", 4: "stream", 5: "stream"}.get(width)
    if found is None or kind not in ("auto", found):
        said = {"triples": "facts without times", "stream": "facts with times"}.get(found or "")
        raise DataError(
            train,
            f"rows have {width} fields ({said or 'not facts'}), which does not fit kind = {kind!r}",
        )
    return "triples" if found == "triples" else "quintuples"


def _one_table(files: list[Source], path: Path, guess: str | None) -> str | None:
    """A single table without a telling name: two columns are a graph, more need to be explained."""
    source = files[0]
    if path.is_file() and source.name.lower().endswith(".csv"):
        guess = "snap"  # of two columns; a table of events was found by its header before
    if guess is None and not source.member:
        return None
    try:
        found = layout(source)
    except DataError:
        return guess  # no rows, or no text at all: its reader says so
    if found.width < 3:
        return guess
    first = next(line for line in source.head()[found.skip :] if line.strip())
    fields = first.split("\t") if "\t" in first else split_line(first, found.delimiter)
    if len(fields) == 3 and not all(is_number(field) for field in fields):
        kinds = "'triples' (head relation tail)"
    else:
        kinds = "'stream' (source target time) or 'graph' (further columns are left out)"
    raise DataError(path, f"rows have {len(fields)} columns: {_HOW.format(kinds=kinds)}")
