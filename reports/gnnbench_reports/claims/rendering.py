"""The page of claims, in Markdown and in HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gnnbench_reports.blocks import Block, Table, Text
from gnnbench_reports.claims.judging import VERDICTS, Judgement, bound, written
from gnnbench_reports.claims.quantities import QUANTITIES
from gnnbench_reports.claims.reading import Paper
from gnnbench_reports.page import SCRIPT, STYLE, templates
from gnnbench_reports.tables import Column, Word

_COLOURS = dict(zip(VERDICTS, ("ok", "skipped", "differ", ""), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A paper with its judgements, the commands that made them, and the machine."""

    paper: Paper
    judgements: Sequence[Judgement]
    commands: Sequence[str]
    machine: str = ""


def summary(judged: Sequence[Judged]) -> str:
    """How many claims hold, over all papers."""
    counts = Counter(one.verdict for paper in judged for one in paper.judgements)
    total = sum(counts.values())
    words = ", ".join(
        f"{counts[verdict]} {_plural(verdict, counts[verdict])}" for verdict in VERDICTS
    )
    return f"Of {total} claims of {len(judged)} paper{'s' if len(judged) != 1 else ''}, {words}."


def _plural(verdict: str, count: int) -> str:
    if count == 1:
        return verdict
    return {"holds": "hold", "holds in part": "hold in part", "does not hold": "do not hold"}.get(
        verdict, verdict
    )


def lines_of(judgement: Judgement) -> list[tuple[object, ...]]:
    """A line per inequality: side, what is compared, value, bound, whether it holds, grade."""
    return [
        (
            outcome.test.side,
            outcome.test.says,
            QUANTITIES[outcome.test.quantity].title,
            written(outcome),
            bound(outcome.test),
            outcome.word,
            outcome.grade,
        )
        for outcome in judgement.outcomes
    ]


HEADS = ("side", "compared", "quantity", "found", "claimed", "holds", "evidence")


def markdown(judged: Sequence[Judged]) -> str:
    """The page as Markdown."""
    lines = ["# Claims of papers, tested", "", summary(judged), "", _HOW, ""]
    for one in judged:
        lines += [f"## {one.paper.title}", "", f"{one.paper.reference}.", ""]
        lines += [f"Measured on {_plain(one.machine)}.", ""] if one.machine else []
        lines += ["```console", *(f"$ {command}" for command in one.commands), "```", ""]
        rows = [(j.claim.id, j.claim.sentence, f"**{j.verdict}**", j.why) for j in one.judgements]
        lines += [*_table(("claim", "what it says", "verdict", "why"), rows), ""]
        for judgement in one.judgements:
            lines += _details(judgement)
    return "\n".join(lines).rstrip() + "\n"


_HOW = (
    "A claim is a sentence in our words and inequalities over measured runs of small suites on "
    "this machine, and over predictions at the paper's scale. Measured values have the noise of "
    "their repeats as interval, predicted ones the 90 % interval of the simulator. A claim holds "
    "if every inequality holds over its whole interval, holds in part if some do, and cannot be "
    "judged if none can be decided. Evidence is the weakest source among the constants behind a "
    "prediction."
)


def _details(judgement: Judgement) -> list[str]:
    claim = judgement.claim
    lines = [f"### {claim.id}: {judgement.verdict}", "", _plain(claim.sentence), ""]
    if judgement.outcomes:
        lines += [*_table(HEADS, lines_of(judgement)), ""]
    if claim.published:
        lines += [f"- Published: {_plain(f'{p.says} ({p.source})')}" for p in claim.published]
    if claim.limits:
        lines.append(f"- Limits of this test: {_plain(claim.limits)}")
    if judgement.config_hash:
        lines.append(f"- Configurations: `{judgement.config_hash}`")
    return [*lines, ""]


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    def line(cells: Sequence[object]) -> str:
        return f"| {' | '.join(_cell(cell) for cell in cells)} |"

    return [line(heads), line(["---"] * len(heads)), *(line(row) for row in rows)]


def _cell(value: object) -> str:
    return _plain(str(value)).replace("|", "\\|") or "–"


def _plain(text: str) -> str:
    """One line in which nothing is markup, except that a verdict may be bold."""
    return re.sub(r"([<>`])", r"\\\1", " ".join(text.split()))


def html(judged: Sequence[Judged]) -> str:
    """The page as one HTML file that needs no other."""
    script = SCRIPT.read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    papers = [
        {
            "anchor": one.paper.name,
            "title": one.paper.title,
            "reference": one.paper.reference,
            "machine": one.machine,
            "commands": one.commands,
            "overview": _overview(one.judgements),
            "claims": [
                {
                    "anchor": f"{one.paper.name}-{j.claim.id}",
                    "judgement": j,
                    "colour": _COLOURS[j.verdict],
                    "blocks": _blocks(j),
                }
                for j in one.judgements
            ],
        }
        for one in judged
    ]
    return (
        templates()
        .get_template("claims.html.jinja")
        .render(
            summary=summary(judged),
            how=_HOW,
            papers=papers,
            style=Markup(STYLE.read_text(encoding="utf-8")),  # files of this package
            script=Markup(script),
            script_hash=base64.b64encode(digest).decode(),
        )
    )


def _overview(judgements: Sequence[Judgement]) -> Table:
    columns = (
        Column(heading="claim", word=True),
        Column(heading="what it says"),
        Column(heading="verdict", word=True),
        Column(heading="why"),
    )
    rows = [
        (j.claim.id, j.claim.sentence, Word(j.verdict, _COLOURS[j.verdict]), j.why)
        for j in judgements
    ]
    return Table(columns=columns, rows=rows)


def _blocks(judgement: Judgement) -> list[Block]:
    blocks: list[Block] = []
    if judgement.outcomes:
        columns = tuple(Column(heading=head, number=head in ("found", "claimed")) for head in HEADS)
        blocks.append(Table(columns=columns, rows=lines_of(judgement)))
    claim = judgement.claim
    blocks += [Text(f"Published: {one.says} ({one.source}).") for one in claim.published]
    if claim.limits:
        blocks.append(Text(f"Limits of this test: {claim.limits}"))
    return blocks
