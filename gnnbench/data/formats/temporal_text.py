"""Timed edge lists: `source target time` per line, as SNAP and SocioPatterns write them."""

from __future__ import annotations

from pathlib import Path

from gnnbench.data.formats.columns import Source, layout, sources
from gnnbench.data.formats.events import Reading, read_events, roles_of
from gnnbench.data.stream import EdgeStream
from gnnbench.errors import DataError

COLUMNS = "source,destination,time"


def read(
    path: Path,
    *,
    columns: str = COLUMNS,
    bipartite: bool = False,
    time_scale: int = 1,
    num_nodes: int | None = None,
    delimiter: str | None = None,
    name: str | None = None,
) -> EdgeStream:
    """Read events from text (.gz, .xz, .bz2, or alone in a zip or tar); '#' and '%' are comments.

    `columns` names the columns in order: source, destination, time, label, split (0, 1, 2),
    feature, or - for one that is left out. Ids that leave gaps are renumbered in their order,
    unless `num_nodes` is given; ids that are names in the order in which they come. Fractional
    times are refused unless `time_scale` says what to multiply them by. Events out of order are
    sorted, and `notes` says how many.
    """
    source = only_source(path)
    found = layout(source, delimiter=delimiter)
    roles = roles_of(columns)
    if len(roles) != found.width and columns == COLUMNS:
        raise DataError(
            source,
            f"rows have {found.width} columns, expected {COLUMNS}: name them by option "
            "columns = 'source,destination,time,-', for example",
        )
    how = Reading(bipartite=bipartite, time_scale=time_scale, num_nodes=num_nodes, name=name)
    return read_events(source, found, roles, how)


def only_source(path: Path) -> Source:
    """The single text file that a path holds. Raises DataError if there are more or none."""
    found = sources(path)
    if len(found) == 1:
        return found[0]
    listed = ", ".join(repr(source.name) for source in found[:6]) or "none"
    raise DataError(path, f"expected one file of events, found {listed}: name the file itself")
