"""Modules on a tape learn what one graph of autograd would, in the steps that a plan has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import torch
from torch import nn

from gnnbench import work
from gnnbench_runtime.models.modules import Tape, adopt, shapes_of
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.recorder import Recorder

HOST = torch.device("cpu")


class Kept:
    def __init__(self) -> None:
        self.rows: list[Any] = []

    def append(self, rows: Any) -> None:
        self.rows += rows

    def close(self) -> None:
        """Nothing is open."""


class Halves(nn.Module):
    """Two outputs, of which a later module may use one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4, 6))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x @ self.weight
        return y[:, :3].tanh(), y[:, 3:].relu()


@pytest.fixture
def modules() -> dict[str, nn.Module]:
    return {"halves": Halves(), "decoder": nn.Linear(3, 2)}


def cost(op: str) -> Any:
    return work.module(op, flops=7, bytes=9, rows=5)


def stepped(modules: dict[str, nn.Module], parameters: Parameters, twice: bool) -> list[Any]:
    """Forward and backward by tape; return the ledger."""
    kept = Kept()
    recorder = Recorder(HOST, writer=kept)  # type: ignore[arg-type]
    recorder.period_begin(0)
    tape, x = Tape(recorder), torch.arange(20.0, dtype=torch.float64).view(5, 4) / 10
    parameters.flat_grad.zero_()
    left, right = tape.run(
        "halves", modules["halves"], x, forward=cost("halves_forward"), backward=cost("halves_back")
    )
    both = left + right if twice else left
    z = tape.run(
        "decoder",
        modules["decoder"],
        both.detach().requires_grad_() if twice else left,
        forward=cost("decoder_forward"),
        backward=cost("decoder_back"),
    )
    assert isinstance(z, torch.Tensor)
    tape.backward({z: 2 * z.detach()})
    recorder.period_end()
    return kept.rows


def test_gradients_equal_those_of_one_graph(modules: dict[str, nn.Module], tmp_path: Path) -> None:
    parameters = Parameters(shapes_of(modules), 3, HOST, torch.float64)
    adopt(modules, parameters)
    rows = stepped(modules, parameters, twice=False)
    by_tape = parameters.gradient.clone()

    parameters.flat_grad.zero_()
    x = torch.arange(20.0, dtype=torch.float64).view(5, 4) / 10
    modules["decoder"](modules["halves"](x)[0]).square().sum().backward()
    torch.testing.assert_close(by_tape, parameters.gradient, rtol=0, atol=1e-12)
    assert by_tape.abs().sum() > 0
    assert [row.name for row in rows] == [
        "forward/halves",
        "forward/decoder",
        "backward/decoder",
        "backward/halves",
    ]
    assert {(row.kind, row.bytes, row.flops) for row in rows} == {("module", 9, 7)}


def test_a_module_that_led_nowhere_has_its_step(modules: dict[str, nn.Module]) -> None:
    parameters = Parameters(shapes_of(modules), 3, HOST, torch.float64)
    adopt(modules, parameters)
    assert len(stepped(modules, parameters, twice=True)) == 4
    assert not parameters.grad["halves.weight"].any()
    assert parameters.grad["decoder.weight"].any()


def test_parameters_are_views_drawn_by_counter(modules: dict[str, nn.Module]) -> None:
    parameters = Parameters(shapes_of(modules), 3, HOST, torch.float64)
    adopt(modules, parameters)
    parameters.flat.fill_(0.5)
    assert {float(p.detach().unique()) for m in modules.values() for p in m.parameters()} == {0.5}
    again = {"halves": Halves(), "decoder": nn.Linear(3, 2)}
    adopt(again, Parameters(shapes_of(again), 3, HOST, torch.float64))
    assert again["halves"].weight.abs().sum() > 0  # type: ignore[union-attr,operator]
