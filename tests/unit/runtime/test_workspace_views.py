"""When a buffer of a batch grows, nothing holds a view of the old one: both never live at once."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from torch import Tensor

from gnnbench.approaches.base import example
from gnnbench.data.source import Library
from gnnbench_runtime.conformance.perform import make_trainer
from gnnbench_runtime.models.workspace import Workspace


@pytest.mark.parametrize("knobs", [{}, {"prefetch": 2}, {"placement": "host"}])
def test_a_buffer_that_grows_is_freed_first(
    knobs: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown: list[str] = []
    alive: list[str] = []
    get = Workspace.get

    def watched(self: Workspace, name: str, rows: int, width: int) -> Tensor:
        old = self._flat.get(name)
        if old is None or old.numel() >= rows * width:
            del old
            return get(self, name, rows, width)
        freed: list[bool] = []
        weakref.finalize(old.untyped_storage(), freed.append, True)
        del old
        found = get(self, name, rows, width)
        grown.append(name)
        if not freed:
            alive.append(name)
        return found

    monkeypatch.setattr(Workspace, "get", watched)
    batch = {"size": 64, "fanouts_from_seeds": (4, 3)}
    run = example("sampled", 1, batch=batch, knobs=knobs, options={"num_nodes": 2000})
    trainer, _, _ = make_trainer(0, 1, run, Library([]).open(run.dataset), tmp_path)
    for period in range(2):
        trainer.train_period(period)
    trainer.close()
    assert grown
    assert not alive
