"""Code shared by readers of edge streams: from a table whose columns have roles to a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.columns import (
    Growing,
    Layout,
    Numbering,
    Source,
    blocks,
    is_number,
    renumbered,
    split_line,
)
from gnnbench.data.stream import EdgeStream, from_events
from gnnbench.errors import DataError, SpecError, suggest

ROLES = ("source", "destination", "time", "label", "split", "feature", "-")
"""What a column of events can be; "-" is left out."""
_EXACT = 1 << 53  # float64 holds every whole number up to here
_LARGEST = np.iinfo(np.int32).max
_MOST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a table of events is read.

    Args:
        bipartite: sources and destinations are numbered separately, sources first.
        time_scale: factor on times before they are converted to integers.
        num_nodes: ids are kept and must be below it; None renumbers them in increasing order.
        name: of the stream.
        notes: initial notes.
    """

    bipartite: bool = False
    time_scale: int = 1
    num_nodes: int | None = None
    name: str | None = None
    notes: dict[str, object] = field(default_factory=dict)


def roles_of(columns: str) -> list[str]:
    """Parse an option such as "source,destination,time,-". Raises SpecError."""
    words = [word.strip() for word in columns.split(",")]
    for word in words:
        if word not in ROLES:
            raise SpecError(f"option 'columns': unknown {word!r}, {suggest(word, ROLES)}")
    for word in ROLES[:3]:
        if words.count(word) != 1:
            raise SpecError(f"option 'columns': expected {word} exactly once, found {columns!r}")
    return words


def read_events(source: Source, layout: Layout, roles: Sequence[str], how: Reading) -> EdgeStream:
    """Read a table of events in blocks. Raises DataError with the lines that do not fit."""
    if len(roles) != layout.width:
        given = ",".join(roles)
        raise DataError(source, f"rows have {layout.width} columns, and columns = {given!r}")
    if how.time_scale < 1:
        raise SpecError(f"option 'time_scale': found {how.time_scale}, allowed >= 1")
    types = _types(source, layout, roles)
    at = {role: roles.index(role) for role in ROLES[:5] if role in roles}
    order = list(types)
    features = [order.index(i) for i, role in enumerate(roles) if role == "feature"]
    held = {role: Growing(np.int64) for role in at}
    matrix = Growing(np.float32, len(features)) if features else None
    left = Numbering()
    right = Numbering() if how.bipartite else left
    for block in blocks(source, layout, types):
        for role, column in at.items():
            values = block[order.index(column)]
            if types[column] is str:
                values = (right if role == "destination" else left)(values)
            elif types[column] is np.float64:
                scale = how.time_scale if role == "time" else 1
                values = _whole(values, scale, role, source)
            held[role].append(values)
        if matrix is not None:
            matrix.append([block[i] for i in features])
    columns = {role: column.done() for role, column in held.items()}
    if types[at["time"]] is np.int64 and how.time_scale != 1:
        columns["time"] = _scaled(columns["time"], how.time_scale, source)
    notes = dict(how.notes)
    if how.time_scale != 1:
        notes["times"] = f"multiplied by {how.time_scale} and rounded"
    pair = [columns["source"], columns["destination"]]
    ends, num_nodes, num_sources = number_ends(pair, how, source, notes)
    labels = columns.get("label")
    num_classes = 0 if labels is None else int(labels.max(initial=-1)) + 1
    if num_classes > len(columns["time"]):
        raise DataError(source, f"label {num_classes - 1}: more classes than events")
    stream = from_events(
        how.name or source.stem,
        ends[0],
        ends[1],
        columns["time"],
        num_nodes=num_nodes,
        num_sources=num_sources,
        own_ends=_ends(columns.get("split"), source),
        edge_features=None if matrix is None else matrix.done(),
        labels=labels,
        num_classes=num_classes,
        notes=notes,
    )
    return stream


def _types(source: Source, layout: Layout, roles: Sequence[str]) -> dict[int, Any]:
    """Types of the wanted columns, decided on the first lines."""
    lines = [line for line in source.head()[layout.skip :] if line.strip()]
    rows = [split_line(line, layout.delimiter) for line in lines]
    types: dict[int, Any] = {}
    for column, role in enumerate(roles):
        words = [row[column].strip() for row in rows if len(row) == layout.width]
        whole = all(_is_whole(word) for word in words)
        if role == "feature":
            types[column] = np.float32
        elif role in ("source", "destination"):
            types[column] = _id_type(words)
        elif role != "-":
            types[column] = np.int64 if whole else np.float64
    ends = {roles.index("source"), roles.index("destination")}
    found = {types[column] for column in ends}
    if len(found) > 1:
        # Ids of both ends are of one type: names if one is, else numbers with a point.
        types |= dict.fromkeys(ends, str if str in found else np.float64)
    return types


def _id_type(words: Sequence[str]) -> Any:
    """Type of a column of ids: whole numbers, also as 1.0, or names."""
    if words and all(_is_whole(word) for word in words):
        # Ids that int64 cannot hold, as hashes of 64 bits are, become names.
        return str if any(int(word) > _MOST for word in words if len(word) > 18) else np.int64
    numbers = bool(words) and all(is_number(word) for word in words)
    return np.float64 if numbers else np.int64 if words and _is_whole(words[0]) else str


def _is_whole(word: str) -> bool:
    return word.lstrip("+-").isdecimal()


def _scaled(times: NDArray[np.int64], scale: int, source: Source) -> NDArray[np.int64]:
    """Times in a finer unit. Raises DataError where int64 cannot hold one."""
    if len(times) and int(np.abs(times).max()) * scale > np.iinfo(np.int64).max:
        raise DataError(source, f"times times {scale} are larger than int64 can hold")
    return times * scale


def _whole(values: NDArray[np.float64], scale: int, role: str, source: Source) -> NDArray[np.int64]:
    scaled = values * scale
    rounded = np.rint(scaled)
    wrong = ~(np.abs(rounded) < _EXACT)
    if wrong.any():
        value = float(values[wrong.argmax()])
        raise DataError(source, f"{role} {value:.17g} cannot be kept exactly as a whole number")
    if scale == 1 and (rounded != scaled).any():
        value = float(values[(rounded != scaled).argmax()])
        help = "; times are kept as int64: multiply them by option time_scale = 1000, for example"
        raise DataError(source, f"{role} {value!r} is a fraction{help if role == 'time' else ''}")
    return rounded.astype(np.int64)


def number_ends(
    ends: list[NDArray[np.int64]], how: Reading, source: Source, notes: dict[str, object]
) -> tuple[list[NDArray[np.int64]], int, int]:
    """Number sources and destinations as `how` says; what was changed goes to `notes`.

    Returns both, the number of nodes, and of sources where the stream is bipartite (else 0).
    """
    lowest = min((int(end.min()) for end in ends if len(end)), default=0)
    if lowest < 0:
        raise DataError(source, f"node ids must not be negative, found {lowest}")
    if how.num_nodes is not None and not how.bipartite:
        num_nodes, num_sources = how.num_nodes, 0
        highest = max((int(end.max()) for end in ends if len(end)), default=-1)
        if highest >= num_nodes:
            raise DataError(source, f"node {highest} is outside num_nodes = {num_nodes}")
    elif how.bipartite:
        (users,), num_sources, changed = renumbered(ends[:1])
        (items,), others, changed_too = renumbered(ends[1:])
        ends = [users, items + num_sources]
        num_nodes = num_sources + others
        for what, said in (("sources", changed), ("destinations", changed_too)):
            if said:
                notes[f"renumbered_{what}"] = said
    else:
        ends, num_nodes, said = renumbered(ends)
        num_sources = 0
        if said:
            notes["renumbered_from"] = said
    if num_nodes > _LARGEST:
        raise DataError(source, f"found {num_nodes} nodes, allowed at most {_LARGEST}")
    return ends, num_nodes, num_sources


def _ends(marks: NDArray[np.int64] | None, source: Source) -> tuple[int, int] | None:
    """Where training and validation end, from a column of 0, 1, 2 that must not fall."""
    if marks is None:
        return None
    if len(marks) and (marks.min() < 0 or marks.max() > 2 or np.any(np.diff(marks) < 0)):
        raise DataError(
            source,
            "split column: expected 0 (train), then 1 (val), then 2 (test), in order of the rows",
        )
    train_end, val_end = (int(np.searchsorted(marks, mark, side="right")) for mark in (0, 1))
    return train_end, val_end
