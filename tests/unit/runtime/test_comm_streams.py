"""Transfers of unlike lanes never queue behind each other on a GPU; checked without one."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import torch

from gnnbench.steps import Lane
from gnnbench_runtime.comm import Comm


def test_each_lane_has_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []

    def enter(stream: Any) -> Any:
        used.append(stream)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: MagicMock())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "current")
    monkeypatch.setattr(torch.cuda, "stream", enter)
    dist = SimpleNamespace(all_to_all_single=MagicMock(), get_backend=lambda group: "nccl")
    monkeypatch.setattr("gnnbench_runtime.comm.dist", dist)
    comm = Comm(MagicMock(), world_size=2, device=torch.device("cuda"))
    comm._groups[Lane.BACKGROUND] = "second"
    given, taken = torch.zeros(2), torch.zeros(2)
    for lane in (Lane.COMM, Lane.BACKGROUND, Lane.COMM):
        comm.all_to_all_async(taken, given, [1, 1], [1, 1], "move", "forward", lane=lane)
    first, second, third = used
    assert first is third is not second
    for stream in used:
        # What is sent must be there: the stream waits for the work that made it.
        stream.wait_stream.assert_called_with("current")
