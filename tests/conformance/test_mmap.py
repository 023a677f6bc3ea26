"""Page faults of `mmap` as the kernel counts them: those of the page model."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.source import Library
from gnnbench.steps import Kind, Phase
from gnnbench_runtime.calibration.disk_sweep import file_system
from gnnbench_runtime.conformance.perform import make_trainer
from gnnbench_runtime.mapped import PAGE, MappedFile
from gnnbench_runtime.recorder import Recorder


@pytest.mark.parametrize("cache", [0.0, 0.3, 1.0])
def test_the_kernel_faults_the_pages_of_the_plan(cache: float, tmp_path: Path) -> None:
    if file_system(tmp_path) in ("tmpfs", "ramfs"):
        pytest.skip("the temporary folder lies in memory, where nothing is read from a disk")
    run = example(
        "mmap",
        1,
        batch={"size": 32, "fanouts_from_seeds": (4, 3)},
        knobs={"cache": cache},
        options={"num_nodes": 1500, "num_features": 150},
    )
    data, card = Library([]).open(run.dataset), APPROACHES.get("mmap")
    layout = Layout(world_size=1, ranks_per_host=1)
    plan = card.plan(data, run, card.structure(data, run), layout)
    trainer, recorder, _ = make_trainer(0, 1, run, data, tmp_path)
    for period in range(run.training.epochs):
        recorder.period_begin(period)
        trainer.train_period(period)
        moved = recorder.period_end()
        planned = plan.moved_bytes(period).get((Kind.READ, Phase.FETCH), 0)
        assert moved.get("read/fetch", 0) == planned
        faults = trainer.period_metrics()["train_page_faults"]
        # Memory pressure may take pages that the model keeps, and a busy disk reads none twice.
        assert faults == pytest.approx(planned / PAGE, rel=0.02, abs=4)
    trainer.close()


def test_dropped_pages_are_read_again_and_others_are_not(tmp_path: Path) -> None:
    import numpy as np
    import torch

    if file_system(tmp_path) in ("tmpfs", "ramfs"):
        pytest.skip("the temporary folder lies in memory, where nothing is read from a disk")
    path = tmp_path / "rows"
    path.write_bytes(bytes(range(16)) * (16 * PAGE // 16))
    with path.open("rb+") as file:
        import os

        os.fsync(file.fileno())
    with MappedFile(path, Recorder(torch.device("cpu"))) as mapped:
        pages = np.array([0, 3, 4, 9])
        for dropped, wanted in (([], 4), ([3, 4], 2), ([], 0)):
            if dropped:
                mapped.drop(np.array(dropped))
            before = mapped.major_faults
            mapped.touch("pages", pages, phase=Phase.FETCH)
            assert mapped.major_faults - before == wanted
        assert bytes(mapped.array(np.uint8, (32,))) == bytes(range(16)) * 2
