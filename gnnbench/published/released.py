"""A plan as published software carries it out: the same work, and what its code does besides.

The rewrite goes through the steps of each class of ranks once, whatever the number of ranks. See
`published.software` for what the software does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from gnnbench import work
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.approaches.writing.stack import OPTIMIZERS
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.published.software import NATIVE, Software
from gnnbench.steps import Kind, Lane, Phase, Size, Step, Work, larger

EAGER = 20
"""Operations that a layer issues forward besides those of the plan, each a launch: index lists,
concatenation, dropout masks, views, message-function plumbing; twice as many backward. Counted in a
layer of such code with autograd, not measured (assumed)."""
OPTIMIZER_LAUNCHES = 10
"""Operations that an optimizer without fused kernels issues per parameter tensor (assumed)."""
REBUILD_LAUNCHES = 100
"""Operations that choose rows, renumber them and make a graph of them (assumed)."""
SECTOR_BYTES = 32
"""What the device reads of pinned host memory for one drawn entry."""
UVA_SHARE = 0.4
"""Of the host link's rate, for requests of 32-128 B: middle of 0.3 to 0.5 (simulation 5.5)."""
_EXCHANGE = frozenset(
    {"pack", "unpack", "place", "smooth", "exchange", "to_host", "to_device"},
)
"""Last part of the names of the steps of an exchange."""


def as_released(plan: Plan, shape: StackShape, software: Software) -> Plan:
    """The plan as the published software would carry it out.

    Args:
        plan: ours, of partition parallelism or of mini-batches.
        shape: the model that the plan was written for.
        software: what its code does besides.
    """
    if software == NATIVE:
        return plan

    def rewritten(number: int) -> Iteration:
        return Iteration(
            [
                RankClass(of.ranks, tuple(_Rewriter(of.steps, shape, software).steps()))
                for of in plan.iterations[number].classes
            ]
        )

    return replace(
        plan,
        iterations=LazyIterations(len(plan.iterations), rewritten),
        notes={**plan.notes, "software": "as released"},
    )


def tensors(shape: StackShape) -> list[int]:
    """Elements of every parameter tensor of the released models, in the order of the layers.

    They differ from ours: a layer above the first takes averaged heads, and a layer with a self
    weight has a bias for each of its two products.
    """
    sizes: list[int] = []
    for layer in range(1, shape.num_layers + 1):
        fan_in, fan_out = _input_width(shape, layer), shape.dims[layer]
        if shape.model.attention:
            sizes += [fan_in * fan_out, fan_out, fan_out, fan_out]
        else:
            sizes += [fan_in * fan_out, fan_out] * (2 if shape.model.self_weight else 1)
        if shape.has_norm(layer):
            sizes += [fan_out, fan_out]
    return sizes


class _Rewriter:
    """Rewrites the steps of one class of ranks."""

    def __init__(self, steps: Sequence[Step], shape: StackShape, software: Software) -> None:
        self.planned, self.shape, self.software = steps, shape, software
        self.dropped = {step.name for step in steps if self._is_dropped(step)}
        self.issued: set[tuple[Phase, int]] = set()

    def steps(self) -> Iterator[Step]:
        """Yield the steps that the software takes, in program order."""
        names = {step.name for step in self.planned}
        if self.software.rebuilds and "sample/rebuild" not in names:
            yield from self._rebuilt()
        for step in self.planned:
            if step.name in self.dropped:
                continue
            after = tuple(wait for wait in step.after if wait.step not in self.dropped)
            kept = replace(step, after=after, work=self._work(step))
            yield from self._before(kept)
            yield from self._instead(kept)

    def _is_dropped(self, step: Step) -> bool:
        """Whether the code does not have a step: of the first layer's exchange, or its product."""
        if step.layer != 1:
            return False
        exchange = step.name.rpartition("/")[2] in _EXCHANGE
        if self.shape.model.attention:
            # Inputs need no gradient; with precomputation their halo is there already.
            return exchange and (step.phase is Phase.BACKWARD or self.software.precompute)
        product = step.kind is Kind.SPMM and step.phase is Phase.FORWARD
        return self.software.precompute and (exchange or product)

    def _work(self, step: Step) -> Work:
        """What the code does in a step of ours."""
        if step.kind is Kind.OPTIMIZER:
            return OPTIMIZERS[self.shape.optimizer](sum(tensors(self.shape)), self._element_bytes)
        if self.shape.model.attention and 1 <= step.layer <= self.shape.num_layers:
            return self._attention_work(step)
        return step.work

    def _attention_work(self, step: Step) -> Work:
        """The work of an attention layer whose input travels: its predecessor's averaged heads.

        The layer multiplies own and halo rows, each as wide as one head of the predecessor.
        """
        shape, layer, done = self.shape, step.layer, step.work
        outer, inside = shape.dims[layer], _input_width(shape, layer)
        rows = self._sources(layer)
        products = {
            f"forward/{layer}/gemm": (rows, inside, outer),
            f"backward/{layer}/weight": (inside, rows, outer),
            f"backward/{layer}/input": (rows, outer, inside),
        }
        if step.name in products:
            return work.gemm(done.op, *products[step.name], self._element_bytes)
        if step.kind in (Kind.ALL_TO_ALL, Kind.GATHER, Kind.SCATTER):
            return _at_width(done, inside, self._element_bytes)
        return done

    def _before(self, step: Step) -> Iterator[Step]:
        """Yield what the code issues before a step."""
        place = (step.phase, step.layer)
        if step.kind is Kind.OPTIMIZER:
            yield _launches(step, OPTIMIZER_LAUNCHES * len(tensors(self.shape)))
        if self.software.batched and step.name in ("sample/draw", "fetch/gather"):
            yield self._host_read(step)
        if step.kind is Kind.GEMM and step.layer > 0 and place not in self.issued:
            self.issued.add(place)
            yield _launches(step, EAGER if step.phase is Phase.FORWARD else 2 * EAGER)

    def _instead(self, step: Step) -> Iterator[Step]:
        """Yield what the code does for a step: most often the step itself."""
        if self.software.rebuilds and step.name == "sample/rebuild":
            yield from self._rebuilt(step)
        elif self.software.released and step.name == "sync/gradients":
            yield from self._per_tensor(step)
        else:
            yield step

    def _rebuilt(self, step: Step | None = None) -> Iterator[Step]:
        """Yield the making of a graph, in place of a step if there is one."""
        aggregated = (Kind.SPMM, Kind.SDDMM, Kind.SAMPLE)
        entries: list[Size] = [s.work.nonzeros for s in self.planned if s.kind in aggregated]
        made = Step(
            name="sample/rebuild",
            work=work.rebuild_graph(reduce(larger, entries)),
            phase=Phase.SAMPLE,
            after=step.after if step else (),
        )
        yield made
        yield _launches(made, REBUILD_LAUNCHES)

    def _per_tensor(self, step: Step) -> Iterator[Step]:
        """Yield one message per parameter tensor, one after the other (fullgraph 16.4)."""
        sizes = tensors(self.shape)
        for number, elements in enumerate(sizes, start=1):
            yield replace(
                step,
                name=step.name if number == len(sizes) else f"{step.name}/{number}",
                work=work.all_reduce(elements, self._element_bytes, len(step.ranks)),
                after=step.after if number == 1 else (),
            )

    def _host_read(self, step: Step) -> Step:
        """What a step reads of host memory: a sector per drawn entry, or whole feature rows.

        Sectors reach `UVA_SHARE` of the link's rate: they are counted by the time they take.
        """
        done = step.work
        size = done.rows * done.width * self._element_bytes
        if step.kind is Kind.SAMPLE:
            size = round(SECTOR_BYTES / UVA_SHARE) * done.nonzeros
        return Step(
            name=f"{step.name}_host",
            work=work.to_device(size),
            lane=step.lane,
            phase=step.phase,
        )

    def _sources(self, layer: int) -> Size:
        """Rows that a layer's attention reads from: own ones and the halo."""
        name = f"forward/{layer}/sddmm"
        return next(step.work.source_rows for step in self.planned if step.name == name)

    @property
    def _element_bytes(self) -> int:
        return self.shape.element_bytes


def _input_width(shape: StackShape, layer: int) -> int:
    """Width of a layer's input in the released models, which average the heads of a layer."""
    return shape.dims[layer - 1] // (shape.heads[layer - 2] if layer > 1 else 1)


def _at_width(done: Work, width: int, element_bytes: int) -> Work:
    """The same rows, moved or copied at another width."""
    if done.send is not None:
        rows = done.buffer_bytes // done.unit_bytes
        return work.all_to_all(done.send, rows, width * element_bytes, width=width)
    if done.kind is Kind.SCATTER:
        return work.scatter_add(done.rows, width, done.source_rows, element_bytes)
    copied = work.gather(done.rows, done.width, done.source_rows, element_bytes, ids=False)
    ids = bool(np.any(done.bytes != copied.bytes))
    return work.gather(done.rows, width, done.source_rows, element_bytes, ids=ids)


def _launches(step: Step, count: int) -> Step:
    """Operations before a step, so small that issuing them is all they cost."""
    return Step(
        name=f"{step.name}/eager",
        work=work.launches(count),
        lane=Lane.COMPUTE,
        phase=step.phase,
        layer=step.layer,
    )
