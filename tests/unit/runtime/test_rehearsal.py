"""The width at which a model is rehearsed."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.approaches.base import example
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.source import Library
from gnnbench_runtime.rehearsal import narrowed


@pytest.mark.parametrize(
    ("approach", "model", "knobs", "width"),
    [
        ("single", {"hidden": 32768}, {}, 2048),
        ("single", {"hidden": 100}, {}, 100),
        # An odd width cannot be halved.
        ("single", {"hidden": 4095}, {}, 4095),
        ("single", {"hidden": 8192, "kind": "gat", "heads": 4096}, {}, 4096),
        # Parts must divide the hidden width.
        ("gist", {"hidden": 12288}, {"parts": 4096}, 12288),
        ("gist", {"hidden": 32768}, {"parts": 16}, 2048),
    ],
)
def test_an_ultra_wide_model_is_rehearsed_as_narrow_as_the_approach_runs(
    approach: str, model: dict, knobs: dict, width: int
) -> None:
    run = example(approach, 1, model=model, knobs=knobs)
    data = Library([]).open(run.dataset)
    found = narrowed(APPROACHES.get(approach), run, data)
    assert found.model.hidden == width
    assert found.knobs == run.knobs
