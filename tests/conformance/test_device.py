"""Mistakes of the GPU path are found without a GPU (see `gnnbench_runtime.conformance.device`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import torch

from gnnbench.approaches.base import example
from gnnbench.data.source import Library
from gnnbench_runtime.approaches.whole_graph.partition import PartitionTrainer
from gnnbench_runtime.conformance.device import DEVICE, perform_off_the_host
from gnnbench_runtime.reading import array_on_host, on_host

RUN = example("partition", 2)


def trained() -> list[Any]:
    return perform_off_the_host(RUN, Library([]).open(RUN.dataset), 0)


def test_a_sound_trainer_runs() -> None:
    assert {row.phase for row in trained()} >= {"forward", "backward", "sync", "update"}


def on_the_host(trainer: Any) -> None:
    trainer.batches.labels = torch.zeros(len(trainer.batches.labels), dtype=torch.int64)


def read_unawares(trainer: Any) -> None:
    update = trainer.optimizer.step
    trainer.update = lambda: update() if float(trainer.parameters.loss) >= 0 else None


def of_another_type(trainer: Any) -> None:
    trainer.batches.x = trainer.batches.x.float()


def split_unevenly(trainer: Any) -> None:
    trainer.stack.exchange._send[1] += 1


@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        (on_the_host, "host and device"),
        (read_unawares, "meta"),
        (of_another_type, "mixed types|dtype|type"),
        (split_unevenly, "split"),
    ],
)
def test_a_mistake_is_an_error(
    mistake: Callable[[Any], None], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = PartitionTrainer.__init__

    def broken(self: Any, *args: Any, **more: Any) -> None:
        make(self, *args, **more)
        mistake(self)

    monkeypatch.setattr(PartitionTrainer, "__init__", broken)
    with pytest.raises(Exception, match=found):
        trained()


def test_deliberate_reads_give_zeros_where_there_is_nothing() -> None:
    assert on_host(torch.empty((2, 1), device=DEVICE)) == [[0.0], [0.0]]
    assert array_on_host(torch.empty(3, dtype=torch.int64, device=DEVICE)).tolist() == [0, 0, 0]
    assert on_host(torch.tensor([1, 2])) == array_on_host(torch.tensor([1, 2])).tolist() == [1, 2]
