r"""What a paper's evaluation section needs: tables in LaTeX and Markdown, captions, an example.

paper/tables/NAME.tex, NAME.md    every table of the page: booktabs, numbers by siunitx
paper/captions.tex                \csname captionNAME\endcsname of every ../figures/NAME.pdf
paper/example.tex                 a document with all of them, which `pdflatex` compiles
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gnnbench.atomic import write_text
from gnnbench_reports.blocks import Drawing, Table
from gnnbench_reports.sections import Section

MOST_ROWS = 60
"""Longer tables are written as CSV only: no page holds them."""
_WIDE = 60
"""Texts of more characters are broken into lines."""
_NARROW = 4
"""Tables of at most so many columns are set in one column of the example."""
_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "–": "--",
    "µ": r"$\mu$",
    "…": r"\dots{}",
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "·": r"$\cdot$",
    "“": "``",
    "”": "''",
    "’": "'",
    "Ç": r"\c{C}",
    "ü": r"\"u",
    "↑": r"$\uparrow$",
}
_UNITS = {
    "s": r"\s",
    "ms": r"\ms",
    "µs": r"\us",
    "ns": r"\ns",
    "B": r"\byte",
    "KiB": r"\kibi\byte",
    "MiB": r"\mebi\byte",
    "GiB": r"\gibi\byte",
    "TiB": r"\tebi\byte",
    "%": r"\percent",
}
_RANGE = re.compile(rf"([0-9.]+) … ([0-9.]+) ({'|'.join(map(re.escape, _UNITS))})")
_QUANTITY = re.compile(rf"([+-]?[0-9][0-9.]*) ({'|'.join(map(re.escape, _UNITS))})")


def write_paper(
    sections: Sequence[Section], drawings: Sequence[Drawing], out: Path, title: str
) -> list[str]:
    """Write the folder `paper` into a report; return the names of its tables."""
    named = _named(sections)
    tables = {name: table for name, _, table in named}
    folder = out / "paper"
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_text(folder / "tables" / f"{name}.tex", latex(table))
        write_text(folder / "tables" / f"{name}.md", markdown(table))
    drawn = [drawing for drawing in drawings if drawing.files]
    captions = "".join(
        f"\\expandafter\\def\\csname caption{drawing.name}\\endcsname"
        f"{{{escaped(drawing.title)}. {escaped(drawing.caption.replace('`', ''))}}}\n"
        for drawing in drawn
    )
    write_text(folder / "captions.tex", captions)
    write_text(folder / "example.tex", _example(named, drawn, title))
    return list(tables)


def _named(sections: Sequence[Section]) -> list[tuple[str, str, Table]]:
    """The tables of the page that a paper could print: file name, caption and table."""
    found = []
    for section in sections:
        own = [block for block in section.blocks if isinstance(block, Table) and block.rows]
        for number, table in enumerate(own, 1):
            if len(table.rows) <= MOST_ROWS:
                name, heading = section.anchor, section.title
                if len(own) > 1:
                    name += f"-{number}"
                    heading += f" ({number} of {len(own)})"
                found.append((name, heading, table))
    return found


def latex(table: Table) -> str:
    """The table as a booktabs tabular; quantities are set by siunitx."""
    columns = [column for column in table.columns if not column.links]
    kept = [at for at, column in enumerate(table.columns) if not column.links]
    form = "".join(_form(table, at) for at in kept)
    lines = [
        f"\\begin{{tabular}}{{{form}}}",
        r"\toprule",
        " & ".join(escaped(column.heading) for column in columns) + r" \\",
        r"\midrule",
        *(" & ".join(_latex_cell(row[at]) for at in kept) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _form(table: Table, at: int) -> str:
    """How a column is set: to the right, to the left, or in lines of a paragraph if it is wide."""
    if table.columns[at].number:
        return "r"
    longest = max((len(_text(row[at])) for row in table.rows), default=0)
    return "l" if longest <= _WIDE else "p{62mm}"


def _latex_cell(value: object) -> str:
    text = _text(value)
    ends = _RANGE.fullmatch(text)
    if ends:
        return f"\\qtyrange{{{ends[1]}}}{{{ends[2]}}}{{{_UNITS[ends[3]]}}}"
    found = _QUANTITY.fullmatch(text)
    return f"\\qty{{{found[1]}}}{{{_UNITS[found[2]]}}}" if found else escaped(text)


def escaped(text: str) -> str:
    """Text without any command of LaTeX; a sign that its fonts may lack is a question mark."""
    signs = (_SIGNS.get(sign, sign) for sign in " ".join(text.split()))
    return "".join(sign if len(sign) > 1 or ord(sign) < 128 else "?" for sign in signs)


def markdown(table: Table) -> str:
    """The table as Markdown."""
    kept = [at for at, column in enumerate(table.columns) if not column.links]
    columns = [table.columns[at] for at in kept]
    rules = ["---:" if column.number else "---" for column in columns]
    heads = [column.heading for column in columns]
    rows = [[_text(row[at]) for at in kept] for row in table.rows]
    return "".join(f"| {' | '.join(map(_marked, line))} |\n" for line in (heads, rules, *rows))


def _marked(text: str) -> str:
    return re.sub(r"([|<>`])", r"\\\1", " ".join(text.split()))


def _text(value: object) -> str:
    return "–" if value is None or value == "" else str(value)


def _example(named: Sequence[tuple[str, str, Table]], drawn: Sequence[Drawing], title: str) -> str:
    body = "".join(_figure(drawing) for drawing in drawn)
    body += "".join(_table(name, heading, table) for name, heading, table in named)
    return (
        "% pdflatex example: figures at their own width and tables of this report.\n"
        "\\documentclass[10pt,twocolumn]{article}\n"
        "\\usepackage[T1]{fontenc}\n\\usepackage{graphicx}\n\\usepackage{booktabs}\n"
        "\\usepackage{siunitx}\n\\usepackage[margin=19mm,columnsep=8mm]{geometry}\n"
        "% Outlines instead of bitmaps, where the distribution has them.\n"
        "\\IfFileExists{lmodern.sty}{\\usepackage{lmodern}}{}\n"
        "\\DeclareSIUnit{\\ms}{\\milli\\second}\\DeclareSIUnit{\\us}{\\micro\\second}\n"
        "\\DeclareSIUnit{\\ns}{\\nano\\second}\\DeclareSIUnit{\\s}{\\second}\n"
        "% A table that is wider than its place is made smaller; no table is enlarged.\n"
        "\\newcommand{\\atmost}[2]{\\resizebox{\\ifdim\\width>#1 #1\\else\\width\\fi}{!}{#2}}\n"
        "\\extrafloats{100}\n\\input{captions}\n"
        f"\\title{{{escaped(title)}}}\n\\author{{}}\\date{{}}\n"
        "\\begin{document}\n\\maketitle\n\n"
        f"{body}\\end{{document}}\n"
    )


def _figure(drawing: Drawing) -> str:
    """A figure in a column or across both; one that is too tall for a page is made smaller."""
    star, width = ("", "columnwidth") if drawing.narrow else ("*", "textwidth")
    return (
        f"\\begin{{figure{star}}}\n\\centering\n"
        f"\\includegraphics[width=\\{width},height=0.78\\textheight,keepaspectratio]"
        f"{{../figures/{drawing.name}.pdf}}\n"
        f"\\caption{{\\csname caption{drawing.name}\\endcsname}}\n\\end{{figure{star}}}\n\n"
    )


def _table(name: str, heading: str, table: Table) -> str:
    narrow = sum(not column.links for column in table.columns) <= _NARROW
    star, width = ("", "columnwidth") if narrow else ("*", "textwidth")
    return (
        f"\\begin{{table{star}}}\n\\centering\n\\caption{{{escaped(heading)}}}\n\\small\n"
        f"\\atmost{{\\{width}}}{{\\input{{tables/{name}}}}}\n\\end{{table{star}}}\n\n"
    )
