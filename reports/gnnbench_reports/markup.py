"""Write HTML safely: every text that comes from outside is escaped here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Html:
    """Markup that is already safe; any other value given to this module is text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A table column: heading, whether it holds numbers, and what the heading means."""

    heading: str
    number: bool = False
    meaning: str = ""
    word: bool = False


def text(value: object) -> str:
    """Return safe markup of a value; None is a dash."""
    if isinstance(value, Html):
        return value.text
    if value is None or value == "":
        return "–"
    # A number stays on the line of its percent sign and of its error.
    return escape(str(value), quote=True).replace(" %", "&nbsp;%").replace(" ± ", "&nbsp;±&nbsp;")


def element(tag: str, *children: object, **attributes: str) -> Html:
    """Return `<tag attributes>children</tag>`; `class_` stands for class."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value, quote=True)}"'
        for name, value in attributes.items()
        if value
    )
    return Html(f"<{tag}{named}>{''.join(text(child) for child in children)}</{tag}>")


def joined(parts: Iterable[Html], separator: str = "\n") -> Html:
    """Join markup."""
    return Html(separator.join(part.text for part in parts))


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> Html:
    """Return a table that scrolls sideways rather than break the page."""
    heads = [
        element("th", c.heading, class_="number" if c.number else "", title=c.meaning, scope="col")
        for c in columns
    ]
    body = [
        element(
            "tr",
            *(
                element("td", cell, class_="number" if c.number else "word" if c.word else "")
                for c, cell in zip(columns, row, strict=True)
            ),
        )
        for row in rows
    ]
    head = element("thead", element("tr", *heads))
    return element("div", element("table", head, element("tbody", joined(body))), class_="wide")


def link(path: str, label: str) -> Html:
    """Link to a file beside the page."""
    return element("a", label, href=quote(path))


def word(status: str, shown: str = "") -> Html:
    """A status word in its colour; an unknown one stays plain."""
    return element("span", shown or status, class_=status if status.isalpha() else "")


def inline_svg(content: bytes) -> tuple[Html, float]:
    """Return a drawing of ours without what only a file needs, and its width in points."""
    svg = content.decode("utf-8")
    width = re.search(r'viewBox="0 0 ([0-9.]+) ', svg)
    return Html(svg[svg.index("<svg") :]), float(width[1]) if width else 0.0
