"""Words, numbers and tables of answers about machines, in lines of 80 columns."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from gnnbench.units import digits

COLUMNS = 80
_GIB = 2**30


def wrapped(text: str) -> list[str]:
    """Lines of 80 columns, broken between words."""
    return textwrap.wrap(text, COLUMNS, break_long_words=False, break_on_hyphens=False)


def device_name(devices: str) -> str:
    """Such as "8 A100-80GB": the form factor is left out."""
    return re.sub(r"-(SXM|PCIe)\d*", "", devices)


def gib(size: float) -> str:
    """A size in GiB, or MiB or KiB where it is small; without its sign."""
    gib = abs(size) / _GIB
    if 0 < gib < 0.01 / 1024:
        return f"{digits(gib * 2**20)} KiB"
    return f"{digits(gib)} GiB" if gib >= 0.1 else f"{digits(gib * 1024)} MiB"


def gib_of_runs(size: float, low: float, high: float) -> str:
    """A size and its range in one unit, such as "8.1 GiB (7.6 to 9.0)"; alone where they agree."""
    scale = _GIB if size / _GIB >= 0.1 else _GIB / 1024
    number, unit = gib(size).split()
    ends = [digits(end / scale) for end in (low, high)]
    return (
        f"{number} {unit}" if ends == [number, number] else f"{number} {unit} ({' to '.join(ends)})"
    )


def percent(share: float) -> str:
    """A share with two digits."""
    if 0 <= share < 0.001:
        return "<0.1 %"
    return f"{digits(100 * share, 2)} %"


def money(value: float | None) -> str:
    """USD to the cent, or with two or three digits; "?" where it is not known."""
    if value is None:
        return "?"
    return f"{value:,.2f}" if 0.1 <= value < 100 else digits(value, 3 if value >= 100 else 2)


def kwh(joules: float) -> str:
    """Joules in kWh with two digits."""
    return digits(joules / 3.6e6, 2)


def count(value: float) -> str:
    """A number of things, whole where it is."""
    return f"{value:,.0f}" if float(value).is_integer() else digits(value)


def table(rows: Sequence[Mapping[str, str]], *, spare: Sequence[str] = ()) -> Iterator[str]:
    """Lines of a table; the first column is aligned to the left, numbers to the right.

    Where a line has more than 80 columns of text, columns move closer together, and then those of
    `spare` are left out, the first first.
    """
    if not rows:
        return
    heads = list(rows[0])
    gap, widths = _fitted(rows, heads)
    for head in [head for head in spare if head in heads]:
        if gap:
            break
        heads.remove(head)
        gap, widths = _fitted(rows, heads)
    left = [not any(ch.isdigit() for ch in rows[0][head][:1]) for head in heads]
    left[0] = True
    for line in (heads, *([row[head] for head in heads] for row in rows)):
        words = [
            word.ljust(width) if is_left else word.rjust(width)
            for word, width, is_left in zip(line, widths, left, strict=True)
        ]
        yield " ".ljust(gap or 2).join(words).rstrip()


def _fitted(rows: Sequence[Mapping[str, str]], heads: Sequence[str]) -> tuple[int, list[int]]:
    """Blanks between columns with which lines fit (0: none), and the widths of the columns."""
    widths = [max(len(head), *(len(row[head]) for row in rows)) for head in heads]
    gaps = (gap for gap in (2, 1) if sum(widths) + gap * (len(widths) - 1) <= COLUMNS)
    return next(gaps, 0), widths
