"""Labels of all readers in one form: from numbers, text, one-hot rows and missing values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.errors import DataError

MISSING = ("", "nan", "na", "n/a", "<na>", "null", "none")
"""Words for a label that is not known, in lower case; those of pandas."""
Notes = dict[str, object]
_MANY_CLASSES = 1000


def class_labels(raw: NDArray[Any], file: Path, notes: Notes) -> tuple[NDArray[Any], int]:
    """Return labels as Graph holds them, and the number of classes, from what a file holds.

    A column of whole numbers is classes, and -1 or nan is unlabelled. A column of other text is
    classes in the order of the sorted names (see `text_labels`). Rows with a single 1 each are
    one-hot and become classes (rows of zeros: -1). Other rows of 0 and 1 are multi-label, float32.

    Args:
        raw: [N] or [N, C].
        file: for messages.
        notes: what was made of text, and odd numbers of classes, is written here.

    Raises:
        DataError: fractions, which would be cut; numbers other than 0 and 1 in rows; classes that
            are no classes, because there are more than nodes.
    """
    if raw.dtype.kind not in "iufbUS":
        raise DataError(file, f"labels of type {raw.dtype}: save them as numbers or as text")
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim not in (1, 2):
        raise DataError(file, f"labels of shape {raw.shape}, expected one or two dimensions")
    if raw.ndim == 2:
        return _rows(raw, file)
    if raw.dtype.kind in "US":
        return text_labels(_text(raw, file), file, notes)
    if raw.dtype.kind == "u" and len(raw) and raw.max() == np.iinfo(raw.dtype).max:
        at, most = int(raw.argmax()), int(raw.max())
        if most >= max(len(raw), _MANY_CLASSES) or len(np.unique(raw)) <= most // 2:
            raise DataError(
                file,
                f"label {most} of node {at} is the largest {raw.dtype}, as -1 becomes in that "
                "type: save labels as int64, unlabelled nodes as -1",
            )
    labels = _whole(raw, file)
    num_classes = int(labels.max(initial=-1)) + 1
    if num_classes > max(len(labels), _MANY_CLASSES):
        at = int(labels.argmax())
        raise DataError(
            file,
            f"label {num_classes - 1} of node {at}: more classes than the {len(labels)} nodes; "
            "number classes from 0",
        )
    return labels, num_classes


def _text(raw: NDArray[Any], file: Path) -> NDArray[np.str_]:
    """Text of labels; bytes are UTF-8. Raises DataError for other bytes."""
    try:
        return np.char.decode(raw, "utf-8") if raw.dtype.kind == "S" else raw.astype(str)
    except UnicodeDecodeError as error:
        raise DataError(file, f"labels are bytes that are not UTF-8: {error.object!r}") from None


def text_labels(values: NDArray[np.str_], file: Path, notes: Notes) -> tuple[NDArray[Any], int]:
    """Number the distinct words from 0 in sorted order; words of `MISSING` become -1.

    Words that are whole numbers throughout are sorted as numbers, "1.0" as 1: 2 comes before 10.
    `notes` has the classes where they are words, and tells of as many classes as a quantity has.

    Raises:
        DataError: words that are numbers with fractions: a quantity, not classes.
    """
    stripped = np.char.strip(values)
    known = ~np.isin(np.char.lower(stripped), MISSING)
    words = stripped[known]
    numbers = _numbers(words)
    labels = np.full(len(values), -1, np.int64)
    if numbers is not None:
        found = _whole(numbers, file)
        # As in arrays of numbers, -1 is no class; a file of -1 and 1 alone has two of them.
        if found.min() == -1 and len(np.unique(found)) > 2:
            known[known] = found != -1
            found = found[found != -1]
        labels[known], num_classes = dense_codes(found)
    else:
        labels[known], num_classes = dense_codes(words)
        names = np.unique(words)
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        notes["classes"] = ", ".join(names[:8].tolist()) + more
    if not known.all():
        notes["unlabelled"] = f"{int(np.count_nonzero(~known))} nodes without a label"
    if numbers is not None and num_classes > max(50, len(words) // 10):
        notes["labels"] = (
            f"{num_classes} distinct numbers for {len(words)} nodes, each taken for a class: "
            "a quantity?"
        )
    return labels, num_classes


def dense_codes(values: NDArray[Any]) -> tuple[NDArray[np.int64], int]:
    """Number distinct values from 0 in sorted order; return codes and how many there are."""
    distinct, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64).reshape(-1), len(distinct)


def _numbers(words: NDArray[np.str_]) -> NDArray[Any] | None:
    """The words as numbers; None if one is no number, or there is none."""
    if not len(words):
        return None
    for kind in (np.int64, np.float64):
        try:
            return words.astype(kind)
        except (ValueError, OverflowError):
            continue
    return None


def _whole(values: NDArray[Any], file: Path) -> NDArray[np.int64]:
    """Class numbers as int64; nan is -1. Raises DataError for fractions and infinity."""
    if values.dtype.kind != "f":
        if values.dtype.kind == "u" and len(values) and values.max() > np.iinfo(np.int64).max:
            at = int(values.argmax())
            raise DataError(file, f"label {values[at]} of node {at} is more than int64 can hold")
        return values.astype(np.int64)
    exact = values.astype(np.float64)
    known = ~np.isnan(exact)
    wrong = known & ~((exact == np.rint(exact)) & (np.abs(exact) < 2**53))
    if wrong.any():
        at = int(wrong.argmax())
        what = "a fraction" if np.isfinite(exact[at]) else "not finite"
        raise DataError(file, f"label {exact[at]:g} of node {at} is no class: {what}")
    return np.where(known, exact, -1).astype(np.int64)


def _rows(raw: NDArray[Any], file: Path) -> tuple[NDArray[Any], int]:
    """Labels of rows: one-hot, or several classes a node."""
    try:
        values = raw.astype(np.float64)
    except ValueError:
        raise DataError(
            file, f"labels of shape {raw.shape} are text: give one column of classes"
        ) from None
    if not np.isin(values[~np.isnan(values)], (0, 1)).all():
        raise DataError(file, f"labels of shape {raw.shape} that are not 0 and 1 only")
    rows = np.nan_to_num(values)
    if rows.sum(axis=1).max(initial=0) <= 1:
        hot = np.where(rows.any(axis=1), rows.argmax(axis=1), -1)
        return hot.astype(np.int64), raw.shape[1]
    return values.astype(np.float32), raw.shape[1]
