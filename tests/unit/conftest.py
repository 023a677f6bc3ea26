"""A graph small enough to count by hand, and runs of it written in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.names import APPROACHES
from gnnbench.data.graph import Graph, from_edges
from gnnbench.spec import BatchSpec, DatasetRef, ModelSpec, RunSpec, TrainingSpec

sys.path.insert(0, str(Path(__file__).parent))  # tests import what writes sample files


@pytest.fixture
def path_graph() -> Graph:
    """0 - 1 - 2 - 3 - 4: five vertices, three features, two classes, vertices 0 and 3 train."""
    return from_edges(
        "path",
        np.array([0, 1, 2, 3]),
        np.array([1, 2, 3, 4]),
        5,
        features=np.arange(15, dtype=np.float32).reshape(5, 3),
        labels=np.array([0, 1, 0, 1, 0]),
        num_classes=2,
        train_mask=np.array([True, False, False, True, False]),
        val_mask=np.array([False, True, False, False, False]),
        test_mask=np.array([False, False, True, False, True]),
    )


@pytest.fixture
def make_run() -> Callable[..., RunSpec]:
    """Return a maker of runs whose knobs are checked as a suite's are."""

    def make(
        approach: str = "single",
        ranks: int = 1,
        *,
        model: dict[str, Any] | None = None,
        batch: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        **knobs: Any,
    ) -> RunSpec:
        problems: list[str] = []
        changed = APPROACHES.get(approach).parse_knobs(knobs, "knobs", problems)
        assert changed is not None, problems
        return RunSpec(
            suite="test",
            dataset=DatasetRef(name="g", generator="uniform"),
            model=ModelSpec(name="m", **{"hidden": 4, **(model or {})}),
            batch=BatchSpec(**(batch or {})),
            training=TrainingSpec(**{"epochs": 2, **(training or {})}),
            approach=approach,
            ranks=ranks,
            knobs=changed,
        )

    return make
