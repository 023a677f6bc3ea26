"""Steps of an evaluation between periods, for the memory that it needs.

Buffers of an evaluation have names of their own (`buffers.EVALUATED`): they live while those of the
training still do, and end with the evaluation. An approach that evaluates with the buffers of its
training only needs room to count right answers (`answered`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import Halo, LayerSizes, StackShape
from gnnbench.approaches.writing.stack import StackWriter
from gnnbench.buffers import EVALUATED
from gnnbench.iterations import Iteration, RankClass
from gnnbench.plan import Plan
from gnnbench.steps import After, Buffer, Kind, Phase, Size, Space, Step, Work

ANSWER_BYTES = 11
"""Of a row whose answer is counted: the class number that was found, and three booleans."""


def answered(plan: Plan, **held: Size) -> Plan:
    """The plan with an evaluation in the buffers of its training, and in some others.

    Right answers need room: as much as labels (a class number) and masks of three splits.

    Args:
        plan: of the training.
        held: bytes of buffers that only the evaluation needs, by name.
    """
    labels = next(buffer.bytes for buffer in plan.resident if buffer.name == "labels")
    writer = EvaluationWriter(plan.world_size)
    if held:
        writer.step("forward", held)
    writer.step("answers", {"answers": labels})
    return replace(plan, evaluation=(writer.iteration(),))


def quiet(shape: StackShape) -> StackShape:
    """The model as it is evaluated: nothing is dropped."""
    return replace(shape, dropout=0.0, input_dropout=0.0)


def reads_own_rows(shape: StackShape, ranks: int) -> bool:
    """Whether layer 1 reads no row of another rank: it is alone, or sends transformed rows."""
    return ranks == 1 or shape.orders[0] == "transform_first"


class EvaluationWriter:
    """Writes the steps of an evaluation of all ranks, which are one class.

    Args:
        ranks: how many.
    """

    def __init__(self, ranks: int) -> None:
        self._ranks = range(ranks)
        self._steps: list[Step] = []
        self._living: dict[str, None] = {}

    def step(
        self,
        name: str,
        held: Mapping[str, Size],
        *,
        on_host: Mapping[str, Size] | None = None,
        frees: Sequence[str] = (),
    ) -> None:
        """Add a step that allocates buffers, of the device and of the host.

        Args:
            name: behind "evaluate/".
            held, on_host: bytes by the name of the buffer.
            frees: buffers that end with the step.
        """
        spaces = (held, Space.DEVICE), (on_host or {}, Space.HOST)
        room = tuple(
            Buffer(EVALUATED + own, size, space) for of, space in spaces for own, size in of.items()
        )
        ends = tuple(EVALUATED + own for own in frees)
        size = sum((buffer.bytes for buffer in room), 0)
        done = Work(Kind.HOST, "evaluate", bytes=size)
        self._add(
            Step(
                name=f"evaluate/{name}",
                work=done,
                phase=Phase.EVALUATE,
                allocates=room,
                frees=ends,
            )
        )

    def forward(self, shape: StackShape, layers: Sequence[LayerSizes], halo: Halo | None) -> None:
        """Add a forward pass; the buffers of a layer end with the one after it."""
        writer = StackWriter(quiet(shape), layers, halo, Chain())
        living: dict[str, None] = {}
        for layer in range(1, shape.num_layers + 1):
            first = len(writer.chain.steps)
            writer.layer_forward(layer)
            writer.activate(layer, layers[layer - 1].rows)
            made = writer.chain.steps[first:]
            living |= dict.fromkeys(buffer.name for step in made for buffer in step.allocates)
            kept = {f"n{layer}" if shape.has_norm(layer) else f"h{layer}", "halo_rows"}
            ends = [name for name in living if name not in kept]
            made[-1] = replace(made[-1], frees=tuple(ends))
            for step in made:
                self._add(_evaluating(step))
            living = {name: None for name in living if name in kept}

    def iteration(self) -> Iteration:
        """The evaluation, whose last step frees everything."""
        ends = tuple(dict.fromkeys([*self._steps[-1].frees, *self._living]))
        self._steps[-1] = replace(self._steps[-1], frees=ends)
        return Iteration([RankClass(self._ranks, self._steps)])

    def _add(self, step: Step) -> None:
        self._steps.append(step)
        self._living |= dict.fromkeys(buffer.name for buffer in step.allocates)
        for name in step.frees:
            self._living.pop(name, None)


def _evaluating(step: Step) -> Step:
    """A step of a forward pass as an evaluation performs it, in buffers of its own."""
    return replace(
        step,
        name=_renamed(step.name),
        phase=Phase.EVALUATE,
        allocates=tuple(b._replace(name=EVALUATED + b.name) for b in step.allocates),
        frees=tuple(EVALUATED + name for name in step.frees),
        after=tuple(After(_renamed(after.step), after.lag) for after in step.after),
    )


def _renamed(name: str) -> str:
    return name.replace("forward/", "evaluate/", 1)
