"""Ranks as processes, and a third party's approach that can be told to misbehave."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gnnbench.approaches.names import APPROACHES
from gnnbench.data.generators import generate
from gnnbench.results import Results, RunRecord
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec

HERE = Path(__file__).resolve().parent
THIRD_PARTY = HERE / "third_party"
sys.path.insert(0, str(HERE))  # tests import what starts a Slurm


@pytest.fixture(scope="session")
def start_ranks() -> Callable[..., None]:
    """Return what runs a script of this folder as every rank."""
    return _start_ranks


def _start_ranks(script: str, world_size: int, folder: Path, *more: str) -> None:
    """Run a script as every rank; its arguments are rank, world size, folder and `more`."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), str(rank), str(world_size), str(folder), *more],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * world_size, "\n".join(errors)


def _forget() -> None:
    importlib.invalidate_caches()
    APPROACHES.forget()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the toy approach, here and in child processes, as its entry point does."""
    path = os.pathsep.join([str(THIRD_PARTY), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.syspath_prepend(str(THIRD_PARTY))
    _forget()
    yield
    _forget()


@pytest.fixture
def native_graph(tmp_path: Path) -> Path:
    """Return a folder with a small graph in native form."""
    from gnnbench.data.formats import native

    graph = generate(
        "planted_partition", num_nodes=60, mean_degree=4, num_classes=2, num_features=4
    )
    return native.save(graph, tmp_path / "graph")


@pytest.fixture
def train(native_graph: Path, results: Results) -> Callable[..., RunRecord]:
    """Return what launches a run on the small graph, by default on the CPU."""
    from gnnbench.data.formats import native
    from gnnbench_runtime.launch import launch

    def run(spec: RunSpec, device: str = "cpu") -> RunRecord:
        return launch(spec, native.load(native_graph), native_graph, results, device=device)

    return run


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


@pytest.fixture
def toy_run(toy: None, native_graph: Path) -> Callable[..., RunSpec]:
    """Return a maker of toy runs: ranks, knobs, and any training setting."""

    def make(ranks: int = 1, *, repeat: int = 0, training: Any = None, **knobs: Any) -> RunSpec:
        return RunSpec(
            suite="tests",
            dataset=DatasetRef(name="small", path=str(native_graph)),
            model=ModelSpec(name="gcn"),
            training=TrainingSpec(**{"epochs": 3, "timeout_s": 60.0, **(training or {})}),
            approach="toy",
            ranks=ranks,
            repeat=repeat,
            knobs=knobs,
        )

    return make
