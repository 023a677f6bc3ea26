"""The report page: one HTML file that needs nothing else, the most important number first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gnnbench_reports import sections
from gnnbench_reports.finding import Finding
from gnnbench_reports.markup import Html, element, inline_svg, joined, link
from gnnbench_reports.study import Study
from gnnbench_reports.verdict import sentences

STYLE = Path(__file__).parent / "styles" / "page.css"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure ready for the page; `svg` is None when there was nothing to draw."""

    name: str
    title: str
    caption: str
    svg: bytes | None
    files: tuple[str, ...] = ()


def page(
    study: Study,
    drawings: Sequence[Drawing],
    files: Mapping[str, str],
    found: Mapping[str, Finding],
) -> str:
    """Return the page.

    Args:
        study: what was compared.
        drawings: the figures, in any order; the page knows where each belongs.
        files: further files beside the page, path to description.
        found: the study's findings, by name.
    """
    drawn = {drawing.name: drawing for drawing in drawings}
    said = sentences(study.summary, study.rows)
    said += [line for one in found.values() for line in one.verdict]
    parts: list[tuple[str, str, Html]] = []
    for anchor, title, blocks in sections.SECTIONS:
        content = [
            made
            for block in blocks
            if (
                made := _figure(drawn[block])
                if block in drawn
                else sections.block(block, study, found)
            )
        ]
        if content:
            parts.append((anchor, title, joined(content)))
    if files:
        parts.append(("files", "Files", _files(files, drawings)))
    body = [
        element("h1", sections.title(study)),
        element("p", sections.subtitle(study), class_="soft"),
        element(
            "div",
            *(element("p", line) for line in said),
            class_="verdict",
        ),
        sections.next_step(study),
        element(
            "nav",
            joined([element("a", title, href=f"#{anchor}") for anchor, title, _ in parts], " "),
        ),
        *(
            element("section", element("h2", title), content, id=anchor)
            for anchor, title, content in parts
        ),
    ]
    return _document(sections.title(study), joined(body))


def _document(title: str, body: Html) -> str:
    head = joined(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            # Nothing may be fetched or run, whatever a record says.
            Html(
                '<meta http-equiv="Content-Security-Policy" '
                "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
            ),
            element("title", title),
            element("style", Html("\n" + STYLE.read_text(encoding="utf-8"))),
        ]
    )
    markup = element("html", element("head", head), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{markup.text}\n"


def _figure(drawing: Drawing) -> Html | None:
    if drawing.svg is None:
        return None
    links = joined([link(path, path.rsplit(".", 1)[-1].upper()) for path in drawing.files], " ")
    svg, width_pt = inline_svg(drawing.svg)
    kind = "sheet column" if width_pt < 300 else "sheet"
    return element(
        "figure",
        element("figcaption", element("b", drawing.title + ". "), drawing.caption, " ", links),
        element("div", svg, class_=kind, role="img", aria_label=drawing.title),
    )


def _files(files: Mapping[str, str], drawings: Sequence[Drawing]) -> Html:
    items = [element("li", link(path, path), " ", what) for path, what in files.items()]
    items += [
        element(
            "li", joined([link(path, path) for path in drawing.files], ", "), " ", drawing.title
        )
        for drawing in drawings
        if drawing.files
    ]
    return element("ul", *items)
