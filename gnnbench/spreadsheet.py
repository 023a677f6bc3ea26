"""Text in tables that people open in a spreadsheet: no cell is computed as a formula."""

from __future__ import annotations

from typing import Any

_MARKS = "=+-@\t\r\n"


def guarded(value: Any) -> Any:
    """A cell with an apostrophe before text that a spreadsheet would compute; else as it is."""
    if not isinstance(value, str) or len(value) < 2 or value[0] not in _MARKS:
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def unguarded(text: str) -> str:
    """The text of a guarded cell."""
    return text[1:] if text[:1] == "'" and text[1:2] and text[1] in _MARKS else text


def guarded_frame(frame: Any) -> Any:
    """A copy of a pandas DataFrame whose text is guarded; numbers and nulls stay."""
    found = frame.copy(deep=False)
    for column in found.columns:
        if found[column].dtype.kind not in "biufcmM":
            found[column] = found[column].map(guarded, na_action="ignore")
    return found
