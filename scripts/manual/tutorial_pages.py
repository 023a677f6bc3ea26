"""Pages of the tutorials, written from the notebooks, with the outputs of their last execution.

`make docs` executes the notebooks first. Without an execution the pages have the code alone and say
so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from page import inline
from percent import Cell, parse, read_notebook

ROOT = Path(__file__).resolve().parents[2]
ORDER = ("compare_approaches", "predict_before_buying", "reproduce_a_figure", "add_an_approach")
_NOT_EXECUTED = """\
!!! note

    This page was built without outputs. `make docs` executes the notebooks first.
"""


def pages(executed: Path) -> dict[str, str | bytes]:
    """One page per notebook, its figures, and an index, by path.

    Args:
        executed: folder with the executed notebooks.
    """
    made: dict[str, str | bytes] = {}
    rows = []
    for name in ORDER:
        source = ROOT / "notebooks" / f"{name}.py"
        done = executed / f"{name}.ipynb"
        cells = parse(source.read_text(encoding="utf-8"))
        is_done = done.is_file() and done.stat().st_mtime >= source.stat().st_mtime
        if is_done:
            cells = read_notebook(done.read_text(encoding="utf-8"))
        figures: dict[str, bytes] = {}
        text = "\n".join(_lines(name, cells, figures, is_done))
        made[f"tutorials/{name}.md"] = text
        made |= {f"tutorials/{file}": content for file, content in figures.items()}
        rows.append(f"- [{_title(cells)}]({name}.md): {_first(cells)}")
    made["tutorials/index.md"] = "\n".join(
        ["# Tutorials", "", "Each tutorial is a notebook of the folder `notebooks`.", "", *rows, ""]
    )
    return made


def _lines(name: str, cells: list[Cell], figures: dict[str, bytes], is_done: bool) -> Iterator[str]:
    for number, cell in enumerate(cells):
        if cell.kind == "markdown":
            yield from (cell.source, "")
            if number == 0:
                yield from (f"Notebook: `notebooks/{name}.ipynb`.", "")
                if not is_done:
                    yield from (_NOT_EXECUTED, "")
            continue
        yield from ("```python", cell.source, "```", "")
        for place, output in enumerate(cell.outputs):
            yield from _output(output, f"{name}-{number}-{place}.svg", figures)


def _output(output: dict[str, Any], file: str, figures: dict[str, bytes]) -> Iterator[str]:
    if output["output_type"] == "stream":
        yield from ("```{ .text .output }", "".join(output["text"]).rstrip("\n"), "```", "")
        return
    data = {kind: "".join(lines) for kind, lines in output["data"].items()}
    if "image/svg+xml" in data:
        figures[file] = data["image/svg+xml"].encode()
        image = f'<img src="{file}" alt="Figure of this tutorial">'
        yield from (f'<div class="figure">{image}</div>', "")
    elif "text/html" in data:
        table = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL)
        table = "\n".join(line.strip() for line in table.splitlines() if line.strip())
        yield from (f'<div class="output">{table}</div>', "")
    else:
        yield from ("```{ .text .output }", data["text/plain"], "```", "")


def _title(cells: list[Cell]) -> str:
    return cells[0].source.splitlines()[0].removeprefix("# ").strip()


def _first(cells: list[Cell]) -> str:
    """The first sentence below the title."""
    body = " ".join(cells[0].source.splitlines()[1:]).strip()
    return inline(re.split(r"(?<=[.?!]) ", body)[0])
