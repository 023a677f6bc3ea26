"""Templates: code in text, escaping, and names that a template does not know."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from gnnbench_reports.blocks import Table
from gnnbench_reports.page import prose, templates
from gnnbench_reports.tables import Column, Word


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("run `gnnbench compare`.", "run <code>gnnbench compare</code>."),
        ("a lone ` stays", "a lone ` stays"),
        ("`one` and ` alone", "<code>one</code> and ` alone"),
        ("`<b>` & <i>", "<code>&lt;b&gt;</code> &amp; &lt;i&gt;"),
        ("5 % ± 1", "5&nbsp;%&nbsp;±&nbsp;1"),
    ],
)
def test_backticks_in_pairs_are_code_and_everything_is_escaped(text: str, markup: str) -> None:
    assert prose(text) == markup


def test_cells_are_escaped_coloured_and_dashed_when_empty() -> None:
    columns = [Column(heading="<h>"), Column(heading="n", number=True, meaning='"m"')]
    block = Table(columns=columns, rows=[(Word("no", "differ"), None), ("<x>", 3)], fold="All 2")
    text = templates().get_template("blocks.html.jinja").module.show(block)  # type: ignore[attr-defined]
    assert '<td><span class="differ">no</span></td>' in text
    assert '<td class="number">–</td>' in text
    assert "<td>&lt;x&gt;</td>" in text
    assert 'title="&#34;m&#34;"' in text
    assert "<summary>All 2</summary>" in text


def test_a_name_that_a_template_does_not_know_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="unheard"):
        templates().from_string("{{ unheard }}").render()
