"""Knowledge graphs in plain text: train, valid and test files of `head relation tail`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.columns import (
    BLANKS,
    Growing,
    Layout,
    Numbering,
    Source,
    blocks,
    is_archive,
    layout,
    sources,
    split_line,
)
from gnnbench.data.formats.reading import stem
from gnnbench.data.triples import Triples, packed_names
from gnnbench.errors import DataError, SpecError, suggest

SPLITS = ("train", "val", "test")
_STEMS = {"train": "train", "valid": "val", "val": "val", "dev": "val", "test": "test"}
_IDS = ("names", "integers")
_HEADS = {
    **dict.fromkeys(("head", "head_id", "subject", "subj", "source", "from"), "h"),
    **dict.fromkeys(("relation", "relation_id", "rel", "predicate", "edge_type"), "r"),
    **dict.fromkeys(("tail", "tail_id", "object", "obj", "target", "to"), "t"),
}
"""Names of columns in headers."""


def read(
    path: Path,
    *,
    order: str | None = None,
    ids: str = "names",
    delimiter: str | None = None,
    name: str | None = None,
) -> Triples:
    """Read train, valid and test (.txt, .tsv, .csv; compressed or not) of a folder or archive.

    A single file is read too and has no split. Fields are parted by tabs, in csv by commas, else by
    blanks. `order` says where head, relation and tail stand: hrt, or htr as in OpenKE, whose files
    (train2id.txt) are read so by default. A header names the columns instead. With
    ids = "names" entities and relations are numbered in the order in which they first come,
    training first; with "integers" the numbers in the files are the ids. `notes` counts the facts
    of validation and test with an entity or relation that training lacks; they stay.
    """
    if order is not None and sorted(order) != ["h", "r", "t"]:
        raise SpecError(f"option 'order': found {order!r}, allowed a word of h, r and t")
    if ids not in _IDS:
        raise SpecError(f"option 'ids': found {ids!r}, {suggest(ids, _IDS)}")
    own = path.is_dir() or is_archive(path)
    parts = split_sources(path) if own else {"train": Source(path)}
    columns = [Growing(np.int32) for _ in range(3)]
    entities, relations = Numbering(), Numbering()
    numbering = {"h": entities, "r": relations, "t": entities} if ids == "names" else {}
    ends = []
    notes: dict[str, object] = {}
    if order is None and any("2id" in part.name for part in parts.values()):
        order, notes["order"] = "htr", "head, tail, relation, as OpenKE writes *2id files"
    for split in SPLITS:
        if split in parts:
            _append(parts[split], columns, order, numbering, delimiter, notes)
        ends.append(len(columns[0]))
    heads, kinds, tails = (column.done() for column in columns)
    counts = len(entities), len(relations)
    if ids == "integers":
        largest = max(int(heads.max(initial=-1)), int(tails.max(initial=-1)))
        counts = largest + 1, int(kinds.max(initial=-1)) + 1
        if max(counts) > 100 * len(heads) + 1_000_000:
            raise DataError(
                path,
                f"ids reach {max(counts) - 1} for {len(heads)} facts: read them with ids = names",
            )
    return Triples(
        name=name or stem(path),
        heads=heads,
        relations=kinds,
        tails=tails,
        num_entities=counts[0],
        num_relations=counts[1],
        train_end=ends[0],
        val_end=ends[1],
        entity_names=packed_names(entities.names()) if numbering else None,
        relation_names=packed_names(relations.names()) if numbering else None,
        own_split=own,
        notes=notes | _unseen(heads, kinds, tails, (*ends[:2], len(heads)), counts),
    )


def split_sources(path: Path) -> dict[str, Source]:
    """The files of the three splits. Raises DataError when one is missing or there twice."""
    found = splits_in(path)
    lacking = [split for split in SPLITS if len(found[split]) != 1]
    if lacking:
        listed = ", ".join(repr(source.name) for source in sources(path)[:6]) or "none"
        raise DataError(
            path, f"expected one file each of train, valid and test (.txt, .tsv), found {listed}"
        )
    return {split: files[0] for split, files in found.items()}


def splits_in(path: Path) -> dict[str, list[Source]]:
    """The files of a folder or archive that are named after a split: train.txt, valid2id.txt ..."""
    found: dict[str, list[Source]] = {split: [] for split in SPLITS}
    for source in sources(path):
        word, _, suffix = source.name.partition(".")
        split = _STEMS.get(word.removesuffix("2id").lower())
        if split and suffix in ("txt", "tsv", "csv", "del", ""):
            found[split].append(source)
    return found


def facts_layout(source: Source, delimiter: str | None = None) -> Layout:
    """How facts are laid out: fields parted by tabs, else by blanks, and no comments.

    A first line that is a number alone, as OpenKE writes the count of facts, is left out.
    """
    lines = source.head()[:2]
    if delimiter is None:
        tabs = bool(lines) and "\t" in lines[-1]
        delimiter = "\t" if tabs else "," if source.name.endswith(".csv") else BLANKS
    found = layout(source, delimiter=delimiter, comments=False)
    if len(lines) == 2 and lines[0].strip().isdecimal():
        width = len(split_line(lines[1], delimiter))
        found = dataclasses.replace(found, skip=found.skip + 1, width=width)
    return found


def _append(
    source: Source,
    columns: list[Growing],
    order: str | None,
    numbering: dict[str, Numbering],
    delimiter: str | None,
    notes: dict[str, object],
) -> None:
    found = facts_layout(source, delimiter)
    stated = _stated_count(source, found)
    named = _order_of_header(source, found)
    if named:
        notes["header"] = f"left out: {source.head()[found.skip][:40]}"
        found = dataclasses.replace(found, skip=found.skip + 1)
    order = order or named or "hrt"
    before = len(columns[0])
    if found.width != 3:
        timed = ": facts with times are read as kind = 'stream'" if found.width in (4, 5) else ""
        raise DataError(source, f"rows have {found.width} fields, expected 3{timed}")
    kind = str if numbering else np.int64
    for block in blocks(source, found, dict.fromkeys(range(3), kind)):
        for column, letter in zip(columns, "hrt", strict=True):
            values = block[order.index(letter)]
            values = numbering[letter](values) if numbering else _in_range(values, source)
            column.append(values)
    if stated not in (None, len(columns[0]) - before):
        raise DataError(
            source,
            f"{stated} facts by the first line, found {len(columns[0]) - before}: truncated?",
        )


def _stated_count(source: Source, found: Layout) -> int | None:
    """The number of facts that stands alone in the first line, as OpenKE writes it."""
    first = source.head()[0].strip() if found.skip else ""
    return int(first) if first.isdecimal() else None


def _order_of_header(source: Source, found: Layout) -> str:
    """The order by a first row that names the columns, such as "htr"; "" if it is a fact."""
    fields = split_line(source.head()[found.skip], found.delimiter)
    order = "".join(_HEADS.get(field.strip().lower(), "-") for field in fields)
    return order if sorted(order) == ["h", "r", "t"] else ""


def _in_range(values: NDArray[np.int64], source: Source) -> NDArray[np.int64]:
    if len(values) and not 0 <= values.min() <= values.max() < np.iinfo(np.int32).max:
        found = values.min() if values.min() < 0 else values.max()
        raise DataError(source, f"id {found}, allowed 0..{np.iinfo(np.int32).max - 1}")
    return values


def _unseen(
    heads: NDArray[np.int32],
    kinds: NDArray[np.int32],
    tails: NDArray[np.int32],
    ends: tuple[int, ...],
    counts: tuple[int, int],
) -> dict[str, object]:
    entities, relations = np.zeros(counts[0], np.bool_), np.zeros(counts[1], np.bool_)
    for ids in (heads, tails):
        entities[ids[: ends[0]]] = True
    relations[kinds[: ends[0]]] = True
    known = entities[heads] & entities[tails] & relations[kinds]
    trained = _trained(heads, kinds, tails, ends[0], counts)
    notes: dict[str, object] = {}
    for split, start, stop in (("val", ends[0], ends[1]), ("test", ends[1], ends[2])):
        unseen = int(np.count_nonzero(~known[start:stop]))
        if unseen:
            notes[f"unseen_in_{split}"] = (
                f"{unseen} facts with an entity or relation that training lacks, kept"
            )
        shared = int(np.count_nonzero(trained[start - ends[0] : stop - ends[0]]))
        if shared:
            notes[f"shared_with_{split}"] = f"{shared} facts are in training too, kept"
    return notes


def _trained(
    heads: NDArray[np.int32],
    kinds: NDArray[np.int32],
    tails: NDArray[np.int32],
    end: int,
    counts: tuple[int, int],
) -> NDArray[np.bool_]:
    """Which facts behind the first `end` are among these too."""
    if counts[0] ** 2 * counts[1] >= 1 << 63:
        return np.zeros(len(heads) - end, np.bool_)  # numbers of facts would not fit in int64
    facts = (heads.astype(np.int64) * counts[1] + kinds) * counts[0] + tails
    held = np.unique(facts[end:])
    if not len(held):
        return np.zeros(0, np.bool_)
    place = np.minimum(np.searchsorted(held, facts[:end]), len(held) - 1)
    there = np.zeros(len(held), np.bool_)
    there[place[held[place] == facts[:end]]] = True
    found: NDArray[np.bool_] = there[np.searchsorted(held, facts[end:])]
    return found
