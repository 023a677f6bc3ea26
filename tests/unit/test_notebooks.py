"""The notebooks: two equal forms, without outputs, and their cells run and show what they say."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
FOLDER = REPO / "notebooks"
NAMES = ("add_an_approach", "compare_approaches", "predict_before_buying", "reproduce_a_figure")
EVERY_NOTEBOOK = pytest.mark.parametrize("name", NAMES)
TRAINS = {"add_an_approach", "compare_approaches", "reproduce_a_figure"}
ROOTS = (REPO, *(REPO / root for root in ("runtime", "simulator", "reports")))


def notebook(name: str) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return loaded


def cells(document: dict[str, object]) -> list[tuple[str, str]]:
    """Kind and source of every cell."""
    held = document["cells"]
    assert isinstance(held, list)
    return [(cell["cell_type"], "".join(cell["source"])) for cell in held]


def test_there_are_four_notebooks_in_both_forms() -> None:
    for suffix in ("py", "ipynb"):
        assert sorted(path.stem for path in FOLDER.glob(f"*.{suffix}")) == list(NAMES)


@EVERY_NOTEBOOK
def test_a_notebook_is_of_format_4_with_an_id_per_cell(name: str) -> None:
    document = notebook(name)
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in document["cells"]]  # type: ignore[index, attr-defined]
    assert len(ids) == len(set(ids))


@EVERY_NOTEBOOK
def test_a_notebook_is_stored_without_outputs(name: str) -> None:
    for cell in notebook(name)["cells"]:  # type: ignore[attr-defined]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@EVERY_NOTEBOOK
def test_both_forms_of_a_notebook_are_equal_by_jupytext(name: str) -> None:
    jupytext = pytest.importorskip("jupytext", reason="jupytext is not installed: make check")
    source = jupytext.reads((FOLDER / f"{name}.py").read_text(encoding="utf-8"), fmt="py:percent")
    assert cells(source) == cells(notebook(name))
    assert notebook(name)["metadata"]["jupytext"]["formats"] == "ipynb,py:percent"  # type: ignore[index]


# What must be among the outputs, because the text of the notebook rests on it.
SHOWN = {
    "add_an_approach": ("0 broken", "breadth-first", "True"),
    "compare_approaches": ("halo copies per node", "sampled-p2", "True"),
    "predict_before_buying": ("Machines, each with its best approach", "64 parts"),
    "reproduce_a_figure": ("times the bytes on 64 workers as on 8", "True"),
}


@pytest.mark.slow
@pytest.mark.timeout(600)  # of four programs that train; a busy machine is no failure
@EVERY_NOTEBOOK
def test_the_cells_of_a_notebook_run_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    if name in TRAINS and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: pip install 'gnnbench[runtime]'")
    known = os.environ.get("PYTHONPATH", "")
    program = REPO / "scripts" / "manual" / "execute.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", program, FOLDER / f"{name}.py", "--out", tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, ROOTS), known])},
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs = (tmp_path / f"{name}.ipynb").read_text(encoding="utf-8")
    for words in SHOWN[name]:
        assert words in outputs
    assert "failed" not in outputs
    assert "image/svg+xml" in outputs
