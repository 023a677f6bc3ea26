"""Torch modules trained by autograd inside recorded steps: one step per module and direction.

The hand-written stack (`models.stack`) is for models whose layers are sums over neighbours and
dense products. Whatever else a model is made of (a memory updater, a decoder, an MLP) is a torch
module. A `Tape` runs modules one after the other, each in a step of its own, and goes back through
them in the opposite order: autograd works within a module, never across two.

    tape = Tape(recorder)
    y = tape.run("encoder", encoder, x, forward=work.module(...), backward=work.module(...))
    z = tape.run("decoder", decoder, y, forward=..., backward=...)
    tape.backward({z: gradient_of_z})

The plan writes the same steps, "forward/encoder", "forward/decoder", "backward/decoder",
"backward/encoder", with the same functions of `gnnbench.work`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnnbench.steps import Lane, Phase, Work
from gnnbench_runtime.models.parameters import Parameters, Shapes
from gnnbench_runtime.recorder import Recorder


def shapes_of(modules: Mapping[str, nn.Module]) -> Shapes:
    """Names and shapes of all parameters, "module.parameter", in the order of the modules."""
    return [
        (f"{name}.{parameter}", tuple(tensor.shape))
        for name, module in modules.items()
        for parameter, tensor in module.named_parameters()
    ]


def adopt(modules: Mapping[str, nn.Module], parameters: Parameters) -> None:
    """Let the modules' parameters and gradients be views of flat vectors.

    So the all-reduce of all gradients is one collective and the optimizer is one kernel, and the
    modules start from values that are drawn by counter: equal on every rank.

    Args:
        modules: on any device; they are moved to that of the parameters.
        parameters: made for `shapes_of(modules)`.
    """
    for name, module in modules.items():
        module.to(parameters.flat.device, parameters.flat.dtype)
        for own, held in module.named_parameters():
            held.data = parameters.value[f"{name}.{own}"]
            held.grad = parameters.grad[f"{name}.{own}"]


@dataclass(slots=True)
class _Entry:
    name: str
    outputs: tuple[Tensor, ...]
    """As autograd made them."""
    shown: tuple[Tensor, ...]
    """What others see: without history, collecting the gradient of the outputs."""
    work: Work
    layer: int


class Tape:
    """Runs modules forward in recorded steps and remembers the way back.

    Args:
        recorder: of steps.
        lane: on which modules run.
    """

    def __init__(self, recorder: Recorder, lane: Lane = Lane.COMPUTE) -> None:
        self._recorder, self._lane = recorder, lane
        self._entries: list[_Entry] = []

    def run(
        self,
        name: str,
        module: nn.Module,
        *inputs: Tensor,
        forward: Work,
        backward: Work,
        layer: int = -1,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run a module in the step "forward/NAME".

        Args:
            name: of both of its steps.
            module: its parameters' gradients add up over several runs.
            inputs: outputs of earlier runs collect gradients; other tensors do not.
            forward, backward: the work of both directions.
            layer: of the steps.

        Returns:
            What the module returns: a tensor, or several.
        """
        with (
            self._recorder.step(
                f"forward/{name}", forward, phase=Phase.FORWARD, lane=self._lane, layer=layer
            ),
            torch.enable_grad(),
        ):
            made = module(*inputs)
        outputs = made if isinstance(made, tuple) else (made,)
        shown = tuple(output.detach().requires_grad_() for output in outputs)
        self._entries.append(_Entry(name, outputs, shown, backward, layer))
        return shown if isinstance(made, tuple) else shown[0]

    def backward(self, gradients: Mapping[Tensor, Tensor]) -> None:
        """Go back through all runs, the last one first, each in its step "backward/NAME".

        Parameters' gradients are added to; set them to zero before the first run. A run whose
        outputs led nowhere has no gradient, but its step is recorded: the plan has it.

        Args:
            gradients: of outputs of runs, such as those that a loss gave.
        """
        for output, gradient in gradients.items():
            output.grad = gradient
        while self._entries:
            entry = self._entries.pop()
            with self._recorder.step(
                f"backward/{entry.name}",
                entry.work,
                phase=Phase.BACKWARD,
                lane=self._lane,
                layer=entry.layer,
            ):
                pairs = [
                    (output, shown.grad)
                    for output, shown in zip(entry.outputs, entry.shown, strict=True)
                    if shown.grad is not None and output.requires_grad
                ]
                if pairs:
                    torch.autograd.backward(
                        [output for output, _ in pairs], [gradient for _, gradient in pairs]
                    )

    def forget(self) -> None:
        """Drop what was run and not gone back through, as after an evaluation."""
        self._entries.clear()
