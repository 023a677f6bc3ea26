"""Optimizers over flat parameters: one kernel, one recorded step."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.spec import TrainingSpec
from gnnbench.steps import Lane, Phase, Work
from gnnbench_runtime.models.parameters import Parameters


class Optimizer(Protocol):
    """Updates parameters from their gradient. `state` is what a checkpoint must keep."""

    parameters: Parameters
    num_steps: int

    def step(self, *, lane: Lane = Lane.COMPUTE) -> None:
        """One update."""

    def state(self) -> dict[str, Tensor]:
        """Tensors that the next update depends on, besides the parameters."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what is no tensor of its own from a state, whose tensors have been copied."""


class _Flat:
    """What the optimizers share: parameters, settings, a recorder and kernels."""

    def __init__(
        self, parameters: Parameters, training: TrainingSpec, recorder: Any, kernels: Any
    ) -> None:
        self.parameters, self.training = parameters, training
        self.recorder, self.kernels = recorder, kernels
        self.num_steps = 0

    def state(self) -> dict[str, Tensor]:
        """The number of updates that were made."""
        return {"num_steps": torch.tensor(self.num_steps)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up the number of updates."""
        self.num_steps = int(state["num_steps"])

    def _span(self, done: Work, lane: Lane) -> Any:
        return self.recorder.step(f"update/{done.op}", done, phase=Phase.UPDATE, lane=lane)

    @property
    def _element_bytes(self) -> int:
        return self.parameters.flat.element_size()


class Adam(_Flat):
    """Adam (Kingma and Ba, ICLR 2015), as torch.optim.Adam computes it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.first_moment = torch.zeros_like(self.parameters.flat)
        self.second_moment = torch.zeros_like(self.parameters.flat)

    def step(self, *, lane: Lane = Lane.COMPUTE) -> None:
        """One update."""
        held, settings = self.parameters, self.training
        self.num_steps += 1
        with self._span(work.adam(held.count, self._element_bytes), lane):
            self.kernels.adam(
                held.flat,
                held.gradient,
                self.first_moment,
                self.second_moment,
                self.num_steps,
                settings.lr,
                betas=(0.9, 0.999),
                eps=1e-8,
                weight_decay=settings.weight_decay,
            )

    def state(self) -> dict[str, Tensor]:
        moments = {"first_moment": self.first_moment, "second_moment": self.second_moment}
        return {**super().state(), **moments}


class Sgd(_Flat):
    """Plain gradient descent: p -= lr (g + weight_decay p)."""

    def step(self, *, lane: Lane = Lane.COMPUTE) -> None:
        """One update."""
        held, settings = self.parameters, self.training
        self.num_steps += 1
        with self._span(work.sgd(held.count, self._element_bytes), lane):
            # p (1 - lr decay) - lr g is p - lr (g + decay p), and leaves the gradient as it is.
            if settings.weight_decay:
                held.flat.mul_(1.0 - settings.lr * settings.weight_decay)
            held.flat.add_(held.gradient, alpha=-settings.lr)


class Adagrad(_Flat):
    """Adagrad (Duchi, Hazan and Singer, JMLR 2011), as torch.optim.Adagrad computes it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.squares = torch.zeros_like(self.parameters.flat)

    def step(self, *, lane: Lane = Lane.COMPUTE) -> None:
        """One update."""
        held, settings = self.parameters, self.training
        self.num_steps += 1
        with self._span(work.adagrad(held.count, self._element_bytes), lane):
            gradient = held.gradient
            if settings.weight_decay:
                gradient.add_(held.flat, alpha=settings.weight_decay)
            self.squares.addcmul_(gradient, gradient)
            held.flat.addcdiv_(gradient, self.squares.sqrt().add_(1e-10), value=-settings.lr)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "squares": self.squares}


_OPTIMIZERS = {"adam": Adam, "sgd": Sgd, "adagrad": Adagrad}


def make_optimizer(
    parameters: Parameters, training: TrainingSpec, recorder: Any, kernels: Any
) -> Optimizer:
    """The optimizer that a training spec names."""
    made: Optimizer = _OPTIMIZERS[training.optimizer](parameters, training, recorder, kernels)
    return made
