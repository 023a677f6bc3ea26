"""Pieces of a page: tables, paragraphs and code, escaped, as HTML within Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from html import escape


def inline(text: object) -> str:
    """Escape a text; `words` between backticks become code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(str(text), quote=False))


def code(text: object) -> str:
    """A word as code; nothing for an empty one."""
    return f"<code>{escape(str(text), quote=False)}</code>" if str(text) else ""


def table(rows: Sequence[Mapping[str, str]], *, numbers: Sequence[str] = ()) -> str:
    """Write a table of cells that are HTML already; columns in `numbers` are aligned right."""
    if not rows:
        return ""
    heads = list(rows[0])
    lines = ["<table>", "<thead><tr>", *(_cell("th", head, head in numbers) for head in heads)]
    lines.append("</tr></thead>\n<tbody>")
    for row in rows:
        cells = (_cell("td", row[head], head in numbers) for head in heads)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def facts(pairs: Mapping[str, str]) -> str:
    """Write a table of fields and their values, without a head; empty values are left out."""
    lines = [
        f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>'
        for name, value in pairs.items()
        if value
    ]
    return "\n".join(['<table class="facts">', "<tbody>", *lines, "</tbody>", "</table>"])


def prose(text: str) -> str:
    """A docstring as paragraphs; indented blocks keep their line breaks."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(text).strip("\n"))
    return "\n\n".join(_block(block) for block in blocks if block.strip())


def link(text: str, target: str) -> str:
    """A link whose text is code."""
    return f'<a href="{escape(target)}">{code(text)}</a>'


def toml(value: object) -> str:
    """A default as a suite would write it; "required" and None stay words."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value == "required":
        return "required" if value else "none"
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def size(number: int) -> str:
    """Bytes as a whole number in groups of three."""
    return f"{number:,}"


def _cell(tag: str, content: str, right: bool) -> str:
    style = ' class="number"' if right else ""
    return f"<{tag}{style}>{content}</{tag}>"


def _block(block: str) -> str:
    lines = block.splitlines()
    section = re.fullmatch(rf"({'|'.join(_SECTIONS)}):", lines[0])
    if section and len(lines) > 1:
        return f"<p><strong>{section[1]}</strong></p>\n{facts(_entries(lines[1:]))}"
    if all(line.startswith("    ") for line in lines):
        return f"<pre><code>{escape(inspect.cleandoc(block), quote=False)}</code></pre>"
    return f"<p>{inline(' '.join(line.strip() for line in lines))}</p>"


_SECTIONS = ("Args", "Attributes", "Raises", "Returns")


def _entries(lines: Sequence[str]) -> dict[str, str]:
    """The entries `name: text` of a section of a docstring, continued by deeper lines."""
    entries: dict[str, str] = {}
    last = ""
    for line in lines:
        name, colon, text = line.strip().partition(": ")
        if line.startswith("    ") and not line.startswith("     ") and colon:
            last = name
            entries[last] = text
        elif last:
            entries[last] += f" {line.strip()}"
    return {name: inline(text) for name, text in entries.items()}
