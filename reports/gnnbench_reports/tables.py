"""Tables as data: columns, and cells that are text, numbers or judged words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A table column.

    Args:
        heading: the field's term.
        number: whether it is aligned right.
        meaning: what the numbers are; the page shows it when one points at the heading.
        word: whether its cells stay on one line.
        page_only: whether a terminal's table leaves it out.
        links: whether its cells are `Links`.
    """

    heading: str
    number: bool = False
    meaning: str = ""
    word: bool = False
    page_only: bool = False
    links: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """A word that the page colours, such as "ok" or "failed"."""

    text: str
    colour: str = ""

    @property
    def css_class(self) -> str:
        """The class of the style sheet; "" for text that is no plain word."""
        name = self.colour or self.text
        return name if name.isalpha() else ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Links:
    """A cell with links to the files that a line rests on: pairs of a word and an address."""

    items: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return ", ".join(word for word, _ in self.items)
