"""Execute notebooks and write them with their outputs: `execute.py NOTEBOOK.py ... --out DIR`.

Each notebook runs in this process and in an empty folder, cell by cell in one namespace, as a
kernel would run it. A cell's output is what it prints and the value of its last expression. The
first exception ends everything with exit code 1.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import os
import sys
import tempfile
import time
import traceback
import types
from pathlib import Path
from typing import Any

from percent import Cell, notebook, parse


def main() -> int:
    """Execute the notebooks that are named; by default all of the folder `notebooks`."""
    here = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=here / "build" / "notebooks")
    args = parser.parse_args()
    paths = args.notebooks or sorted((here / "notebooks").glob("*.py"))
    args.out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        begin = time.monotonic()
        cells = parse(path.read_text(encoding="utf-8"))
        if not executed(path, cells):
            return 1
        target = args.out / f"{path.stem}.ipynb"
        target.write_text(notebook(cells, executed=True), encoding="utf-8")
        print(f"{path.stem}: {time.monotonic() - begin:.1f} s", file=sys.stderr)
    return 0


def executed(path: Path, cells: list[Cell]) -> bool:
    """Run the cells in an empty folder and store their outputs; False if one raises."""
    module = types.ModuleType("__main__")
    before, main_module = Path.cwd(), sys.modules["__main__"]
    environment, search = dict(os.environ), list(sys.path)
    with tempfile.TemporaryDirectory(prefix="gnnbench-notebook-") as folder:
        os.chdir(folder)
        sys.modules["__main__"] = module
        try:
            for number, cell in enumerate(cells):
                if cell.kind == "code":
                    _run(cell, module.__dict__, f"{path.name}, cell {number}")
        except Exception:
            traceback.print_exc()
            return False
        finally:
            sys.modules["__main__"] = main_module
            sys.path[:] = search
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(before)
    return True


def _run(cell: Cell, space: dict[str, Any], where: str) -> None:
    tree = ast.parse(cell.source, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, where, "exec"), space)
        value = None
        if last is not None:
            value = eval(compile(ast.Expression(last.value), where, "eval"), space)
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        cell.outputs.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        data = {kind: text.splitlines(keepends=True) for kind, text in _shown(value).items()}
        cell.outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})


def _shown(value: Any) -> dict[str, str]:
    """A value as a notebook displays it, by type of content."""
    found = {"text/plain": repr(value)}
    for kind, method in (("image/svg+xml", "_repr_svg_"), ("text/html", "_repr_html_")):
        make = getattr(value, method, None)
        text = make() if make is not None else None
        if text:
            found[kind] = text
    return found


if __name__ == "__main__":
    sys.exit(main())
