"""The page of claims, in Markdown and in HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from gnnbench_reports import numbers
from gnnbench_reports.blocks import Block, Table, Text
from gnnbench_reports.claims import evidence
from gnnbench_reports.claims.judging import VERDICTS, Judgement, bound, written
from gnnbench_reports.claims.quantities import QUANTITIES
from gnnbench_reports.claims.reading import Paper
from gnnbench_reports.page import SCRIPT, STYLE, templates
from gnnbench_reports.tables import Column, Links, Word

_COLOURS = dict(zip(VERDICTS, ("ok", "skipped", "differ", ""), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A paper with its judgements and what they rest on.

    Attributes:
        commands: that made them.
        machine: on which runs were measured, when, and with which version; "" if none were.
        simulated: the clusters of the predictions, a sentence each.
        warnings: reasons to distrust the measured times.
        cited: the configurations of each claim, by its id.
        root: folder of the page and of the results that it links; None: it links to none.
        published: whether ledgers are summed there, see `publishing`.
    """

    paper: Paper
    judgements: Sequence[Judgement]
    commands: Sequence[str]
    machine: str = ""
    simulated: Sequence[str] = ()
    warnings: Sequence[str] = ()
    cited: Mapping[str, Sequence[evidence.Cited]] = field(default_factory=dict)
    root: Path | None = None
    published: bool = False

    @property
    def provenance(self) -> list[str]:
        """Where runs were measured, and for which clusters they were predicted."""
        return [*([f"Measured on {self.machine}."] if self.machine else []), *self.simulated]

    def configurations(self, judgement: Judgement) -> Table | None:
        """The configurations that a verdict rests on, with links to their files."""
        found = self.cited.get(judgement.claim.id, ())
        if not found:
            return None
        rows = [self._line(one) for one in found]
        runs = sum(len(one.runs()) for one in found)
        noun = f"{len(found)} configuration{'s' if len(found) > 1 else ''}"
        fold = f"Evidence: {noun}" + (f", {runs} run{'s' if runs > 1 else ''}" if runs else "")
        return Table(columns=evidence.COLUMNS, rows=rows, fold=fold)

    def _line(self, one: evidence.Cited) -> tuple[object, ...]:
        row, measured = one.row, one.side == "measured"
        time = row.measured_period_s if measured else row.predicted_period_s
        files: object = ""
        if self.root is not None:
            files = evidence.links(one, self.root, published=self.published)
        return (
            one.side,
            row.dataset,
            row.model,
            row.label,
            row.ranks,
            len(one.runs()) or "–",
            numbers.seconds(time, row.uncertainty if measured else None),
            files or Links(()),
        )


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
            bound(outcome),
            outcome.word,
            outcome.grade,
        )
        for outcome in judgement.outcomes
    ]


HEADS = ("side", "compared", "quantity", "found", "claimed", "holds", "constants")


def markdown(judged: Sequence[Judged]) -> str:
    """The page as Markdown."""
    lines = ["# Claims of papers, tested", "", summary(judged), "", _HOW, ""]
    if len(judged) > 1:
        lines += [*_table([column.heading for column in _COUNTED], _counts(judged)), ""]
    for one in judged:
        lines += [f"## {one.paper.title}", "", f"{one.paper.reference}.", ""]
        for sentence in one.provenance:
            lines += [_plain(sentence), ""]
        lines += ["```console", *(f"$ {command}" for command in one.commands), "```", ""]
        rows = [(j.claim.id, j.claim.sentence, f"**{j.verdict}**", j.why) for j in one.judgements]
        lines += [*_table(("claim", "what it says", "verdict", "why"), rows), ""]
        for judgement in one.judgements:
            lines += _details(one, judgement)
    return "\n".join(lines).rstrip() + "\n"


_HOW = (
    "A claim is a sentence in our words and inequalities over measured runs of small suites on one "
    "machine, and over predictions at the paper's scale. Brackets hold intervals: of measured "
    "times the noise of their repeats, of metrics 90 % over seeds (Student's t; differences are "
    "taken seed by seed), of predictions the simulator's 90 % interval (in a ratio of two "
    "predictions for one graph and machine, errors that both share cancel). Values without "
    "brackets were counted, or are of one seed. A claim holds if every inequality holds over its "
    "whole interval, holds in part if some do, and cannot be judged if none can be decided. The "
    "column constants has the weakest source among the constants behind a prediction."
)

_COUNTED = (
    Column(heading="paper"),
    Column(heading="holds", number=True),
    Column(heading="in part", number=True),
    Column(heading="does not hold", number=True),
    Column(heading="cannot be judged", number=True),
)


def _counts(judged: Sequence[Judged]) -> list[tuple[object, ...]]:
    """A line per paper: how many claims have each verdict."""
    return [
        (
            one.paper.title,
            *(sum(j.verdict == verdict for j in one.judgements) for verdict in VERDICTS),
        )
        for one in judged
    ]


def _details(one: Judged, judgement: Judgement) -> list[str]:
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
    table = one.configurations(judgement)
    if table is not None:
        heads = [column.heading for column in table.columns]
        lines += ["", f"{table.fold}:", "", *_table(heads, table.rows)]
    return [*lines, ""]


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    def line(cells: Sequence[object]) -> str:
        return f"| {' | '.join(_cell(cell) for cell in cells)} |"

    return [line(heads), line(["---"] * len(heads)), *(line(row) for row in rows)]


def _cell(value: object) -> str:
    if isinstance(value, Links):
        return " ".join(f"[{_plain(word)}]({address})" for word, address in value.items) or "–"
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
            "provenance": one.provenance,
            "warnings": one.warnings,
            "commands": one.commands,
            "overview": _overview(one.judgements),
            "claims": [
                {
                    "anchor": f"{one.paper.name}-{j.claim.id}",
                    "judgement": j,
                    "colour": _COLOURS[j.verdict],
                    "blocks": _blocks(one, j),
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
            counts=Table(columns=_COUNTED, rows=_counts(judged)) if len(judged) > 1 else None,
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


def _blocks(one: Judged, judgement: Judgement) -> list[Block]:
    blocks: list[Block] = []
    if judgement.outcomes:
        columns = tuple(Column(heading=head, number=head in ("found", "claimed")) for head in HEADS)
        blocks.append(Table(columns=columns, rows=lines_of(judgement)))
    claim = judgement.claim
    blocks += [Text(f"Published: {p.says} ({p.source}).") for p in claim.published]
    if claim.limits:
        blocks.append(Text(f"Limits of this test: {claim.limits}"))
    table = one.configurations(judgement)
    return blocks if table is None else [*blocks, table]
