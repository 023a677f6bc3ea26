"""Events in csv with a header: JODIE's interactions, TGL's edges.csv, TGN's and TGB's tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gnnbench.data.formats.columns import Layout, Source, layout, sources, split_line
from gnnbench.data.formats.events import Reading, read_events, roles_of
from gnnbench.data.stream import EdgeStream
from gnnbench.errors import DataError

_NAMES = {
    "source": ("source", "src", "u", "user", "user_id", "from"),
    "destination": ("destination", "dst", "i", "item", "item_id", "to", "target"),
    "time": ("time", "timestamp", "ts", "t", "unixtime"),
    "label": ("label", "state_label", "y_true"),
    "split": ("ext_roll",),
    "feature": ("feature", "weight", "w", "rating", "amount", "value"),
    # Positions of rows, and TGL's marks for its own graph generator.
    "-": ("", "idx", "eid", "int_roll"),
}
_ROLE = {name: role for role, names in _NAMES.items() for name in names}
_REST = "comma_separated_list_of_features"
_KINDS_APART = ("user", "user_id")


def read(
    path: Path,
    *,
    columns: str | None = None,
    bipartite: bool | None = None,
    time_scale: int = 1,
    num_nodes: int | None = None,
    name: str | None = None,
) -> EdgeStream:
    """Read a csv of events: columns by the names in the header, further ones of JODIE as features.

    Users and items are numbered apart (`bipartite`), each from 0, items after users; columns named
    src and dst share their numbers. A column ext_roll (0, 1, 2) is the split. `columns` names the
    columns by position instead: source, destination, time, label, split, feature, - (left out).
    `time_scale` multiplies fractional times; `num_nodes` keeps ids as they are.
    """
    source = table(path)
    header = _header(source)
    found = body(source)
    roles = roles_of(columns) if columns else _roles(header, found.width, source)
    if bipartite is None:
        bipartite = any(word in header for word in _KINDS_APART)
    how = Reading(bipartite=bipartite, time_scale=time_scale, num_nodes=num_nodes, name=name)
    return read_events(source, found, roles, how)


def table(path: Path) -> Source:
    """The csv of a path: the file, or edges.csv or the only csv of a folder or archive."""
    found = [
        s
        for s in sources(path)
        if s.name.lower().endswith(".csv") or (s.path == path and not s.member)
    ]
    named = [source for source in found if source.name == "edges.csv"]
    if len(named or found) != 1:
        listed = ", ".join(repr(source.name) for source in found[:6]) or "none"
        raise DataError(path, f"expected one csv of events, found {listed}: name the file itself")
    return (named or found)[0]


def fits(source: Source) -> bool:
    """Whether the header names a source, a destination and a time."""
    roles = {_ROLE.get(word) for word in _header(source)}
    return {"source", "destination", "time"} <= roles


def _header(source: Source) -> list[str]:
    lines = source.head()
    return [word.strip().strip('"').lower() for word in lines[0].split(",")] if lines else []


def body(source: Source) -> Layout:
    """The layout of the rows below the header."""
    lines = source.head()
    if len(lines) < 2:
        raise DataError(source, "found no data rows below the header")
    found = layout(source, delimiter=",", comments=False)
    width = len(split_line(lines[1], ","))
    return dataclasses.replace(found, skip=found.skip + 1, width=width)


def _roles(header: list[str], width: int, source: Source) -> list[str]:
    if header and header[-1] == _REST:
        header = [*header[:-1], *(["feature"] * (width - len(header) + 1))]
    roles = [_role(word) for word in header]
    unknown = [word for word, role in zip(header, roles, strict=True) if role is None]
    lacking = [role for role in ("source", "destination", "time") if roles.count(role) != 1]
    if unknown or lacking or len(roles) != width:
        problem = f"columns not understood: {', '.join(unknown)}" if unknown else ""
        problem = problem or f"no single column of {' and '.join(lacking)}" if lacking else problem
        problem = problem or f"{len(roles)} names in the header for rows of {width} fields"
        raise DataError(
            source,
            f"{problem}: name all by option columns = 'source,destination,time,feature,-'",
        )
    return [role for role in roles if role]


def _role(word: str) -> str | None:
    if word.rstrip("0123456789") in ("f", "feat", "feature"):
        return "feature"
    return _ROLE.get(word)
