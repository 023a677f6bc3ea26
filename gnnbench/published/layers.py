"""A plan whose layers run as a framework issues them, of systems that train from the disk.

Our plans of these systems have fused kernels, a launch each. Their code has DGL's or PyG's layers,
as systems that train from memory have (see `published.released`), or MariusGNN's own: rows of all
sampled neighbours are gathered into a buffer, and the buffer is summed by segments (out-of-core
reference section 5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gnnbench.approaches.writing.shape import StackShape
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.published.released import Rewriter, by_edges
from gnnbench.published.software import Loader, Software
from gnnbench.steps import LATEST, Kind, Lane, Phase, Step, Work

_BEFORE = (Phase.LOAD, Phase.SAMPLE, Phase.FETCH)


def layered(plan: Plan, shape: StackShape, software: Software) -> Plan:
    """The plan with its training steps as the software's framework issues them.

    Args:
        plan: of an approach that trains from the disk: what trains a batch comes last.
        shape: the model that the plan was written for.
        software: what the published code does.
    """
    if not software.framework:
        return plan
    own = Software(loader=Loader(sampler="host", framework=software.framework))

    def made(steps: tuple[Step, ...]) -> tuple[Step, ...]:
        first = next(
            (place for place, step in enumerate(steps) if step.phase not in _BEFORE), len(steps)
        )
        layers = _Layers(steps[first:], shape, own, 0.0)
        # Training starts behind what its lane does before.
        layers.last = next((s for s in reversed(steps[:first]) if s.lane is Lane.COMPUTE), None)
        return (*steps[:first], *layers.steps())

    def rewritten(number: int) -> Iteration:
        classes = plan.iterations[number].classes
        return Iteration([RankClass(of.ranks, made(of.steps)) for of in classes])

    return replace(
        plan,
        iterations=LazyIterations(len(plan.iterations), rewritten),
        notes={**plan.notes, "layers": software.framework},
    )


class _Layers(Rewriter):
    """Rewrites the training steps of a batch; layers take what the plan's layers take."""

    # An iteration may load partitions only: the batch before is in an earlier one.
    batch_before = LATEST

    def _work(self, step: Step) -> Work:
        return step.work

    def _unfused(self, step: Step, loader: Loader) -> Iterator[Step]:
        if loader.framework != "torch" or step.kind is not Kind.SPMM:
            yield from super()._unfused(step, loader)
            return
        yield from by_edges(step, self.shape.element_bytes)
