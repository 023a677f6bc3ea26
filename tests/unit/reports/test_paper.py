"""The paper folder: tables, captions and an example that LaTeX compiles."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gnnbench_reports.blocks import Table
from gnnbench_reports.numbers import seconds
from gnnbench_reports.paper import escaped, latex, markdown
from gnnbench_reports.report import report
from gnnbench_reports.tables import Column, Links, Word

LATEX = shutil.which("pdflatex")


@pytest.fixture(scope="module")
def folder(make_fabricator: Any) -> Path:
    fabricator = make_fabricator("paper")
    fabricator.whole_suite(datasets=("cora",), models=("gcn",), predicted=(1, 2, 4), repeats=2)
    hostile = "50%_&#{}\\input{/etc/passwd}$x$~^漢"
    fabricator.run(fabricator.spec(dataset=hostile, ranks=1))
    return report(fabricator.results).parent / "paper"


def table() -> Table:
    columns = (
        Column(heading="approach"),
        Column(heading="time", number=True),
        Column(heading="interval", number=True),
        Column(heading="files", links=True),
    )
    rows = [
        (Word("p_1"), seconds(0.0261, 0.001), "20 … 31 ms", Links((("run 0", "x"),))),
        ("a|b", None, "–", Links(())),
    ]
    return Table(columns=columns, rows=rows)


def test_a_table_in_latex_sets_quantities_with_their_units_and_has_no_links() -> None:
    assert latex(table()).splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"approach & time & interval \\",
        r"\midrule",
        r"p\_1 & \qty{26.10}{\ms} & \qtyrange{20}{31}{\ms} \\",
        r"a|b & -- & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_wide_text_is_broken_into_lines_instead_of_shrinking_the_table() -> None:
    columns = (Column(heading="order"), Column(heading="n", number=True))
    long = Table(columns=columns, rows=[("a < " * 30, 3)])
    assert latex(long).splitlines()[0] == r"\begin{tabular}{p{62mm}r}"


def test_the_example_sets_figures_and_tables_in_one_column_or_across_both(folder: Path) -> None:
    text = (folder / "example.tex").read_text(encoding="utf-8")
    assert r"\documentclass[10pt,twocolumn]{article}" in text
    across, own = r"\begin{figure*}", r"\begin{figure}"
    assert f"{across}\n\\centering\n\\includegraphics[width=\\textwidth" in text
    assert f"{own}\n\\centering\n\\includegraphics[width=\\columnwidth" in text
    assert r"\caption{Skipped and failed}" in text


def test_a_table_in_markdown_escapes_what_would_end_a_cell() -> None:
    lines = markdown(table()).splitlines()
    assert lines[:2] == ["| approach | time | interval |", "| --- | ---: | ---: |"]
    assert lines[3] == r"| a\|b | – | – |"


def test_hostile_names_are_no_commands() -> None:
    assert escaped("\\input{x}%$") == r"\textbackslash{}input\{x\}\%\$"
    assert escaped("漢 µs") == r"? $\mu$s"


def test_every_file_of_the_example_is_there_and_its_groups_are_closed(folder: Path) -> None:
    text = (folder / "example.tex").read_text(encoding="utf-8")
    for name in re.findall(r"\\input\{(tables/[\w-]+)\}", text):
        assert (folder / f"{name}.tex").is_file() and (folder / f"{name}.md").is_file()
    for name in re.findall(r"\\includegraphics\[.*?\]\{\.\./(figures/[\w.-]+)\}", text):
        assert (folder.parent / name).is_file()
    for path in folder.rglob("*.tex"):
        found = path.read_text(encoding="utf-8")
        assert found.isascii(), path
        bare = re.sub(r"\\[{}]", "", found)
        assert bare.count("{") == bare.count("}"), path
        assert found.count(r"\begin{") == found.count(r"\end{"), path
        assert "/etc/passwd" not in found or r"\input{/etc" not in found, path
    assert (folder / "captions.tex").read_text().count("csname caption") >= 5


@pytest.mark.skipif(LATEX is None, reason="no pdflatex is installed")
def test_the_example_compiles(folder: Path) -> None:
    assert LATEX is not None
    done = subprocess.run(
        [LATEX, "-interaction=nonstopmode", "-halt-on-error", "example"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
