"""The report page: one HTML file that needs no other, made from Jinja templates.

Every value is escaped by the templates (autoescape); a name that a template does not know is an
error.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from gnnbench_reports import sections
from gnnbench_reports.answer import answers
from gnnbench_reports.blocks import Drawing
from gnnbench_reports.finding import Finding
from gnnbench_reports.noise import warnings
from gnnbench_reports.study import Study
from gnnbench_reports.verdict import verdict

STYLE = Path(__file__).parent / "styles" / "page.css"
SCRIPT = Path(__file__).parent / "styles" / "page.js"


def page(
    study: Study,
    drawings: Sequence[Drawing],
    files: Mapping[str, str],
    found: Mapping[str, Finding],
    out: Path | None = None,
    made: Sequence[sections.Section] | None = None,
) -> str:
    """Return the page.

    Args:
        study: what was compared.
        drawings: the figures, in any order; the page knows the section of each.
        files: further files in the page's folder, path to description.
        found: the study's findings, by name.
        out: folder that the page lies in, from which it links to records; None: it links to none.
        made: the sections, where the caller has them already.
    """
    script = SCRIPT.read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    by_name = {drawing.name: drawing for drawing in drawings}
    return (
        templates()
        .get_template("page.html.jinja")
        .render(
            title=sections.title(study),
            subtitle=sections.subtitle(study),
            warnings=warnings(study.rows),
            answers=answers(study),
            verdict=verdict(study.summary, study.rows, found),
            hints=sections.hints(study),
            sections=sections.sections(study, by_name, found, out) if made is None else made,
            files=files,
            drawn=[drawing for drawing in drawings if drawing.files],
            style=Markup(STYLE.read_text(encoding="utf-8")),  # a file of this package
            script=Markup(script),  # likewise
            script_hash=base64.b64encode(digest).decode(),
        )
    )


@cache
def templates() -> Environment:
    """The templates of this package and their filters."""
    environment = Environment(
        loader=PackageLoader("gnnbench_reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"prose": prose, "cell": cell, "path": quote, "svg": svg}
    return environment


def prose(text: str) -> Markup:
    """Text with code between pairs of backticks; a lone backtick stays as it is."""
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 else _whole(part)
        for at, part in enumerate(parts)
    )


def cell(value: object) -> Markup:
    """A table cell's text; None and "" are a dash."""
    return Markup("–") if value is None or value == "" else _whole(str(value))


def _whole(text: str) -> Markup:
    """Escaped text in which a number stays on one line with its percent sign and its error."""
    spaced = str(escape(text)).replace(" %", "&nbsp;%").replace(" ± ", "&nbsp;±&nbsp;")
    return Markup(spaced)  # escaped above


def svg(content: bytes) -> Markup:
    """A drawing of this package as an element: without the XML declaration of a file."""
    text = content.decode("utf-8")
    return Markup(text[text.index("<svg") :])  # matplotlib escapes its texts
