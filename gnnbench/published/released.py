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
from gnnbench.costs.launches import launches
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.published import frameworks
from gnnbench.published.software import ISSUE, NATIVE, Loader, Software
from gnnbench.published.untrimmed import untrimmed
from gnnbench.steps import After, Kind, Lane, Phase, Size, Step, Work, larger

EAGER = 20
"""Operations that a layer issues forward besides those of the plan, each a launch: index lists,
concatenation, dropout masks, views, message-function plumbing; twice as many backward. Counted in a
layer of such code with autograd, not measured (assumed)."""
OPTIMIZER_LAUNCHES = 10
"""Operations that an optimizer without fused kernels issues per parameter tensor (assumed)."""
REBUILD_LAUNCHES = 100
"""Operations that choose rows, renumber them and make a graph of them (assumed)."""
UNFUSED = {
    "relu_dropout": 2,
    "relu_backward": 2,
    "attention_scores": 6,
    "attention_scores_backward": 5,
}
"""Passes of a framework over rows for one of ours. Activation and dropout are kernels of their own,
each way. Both scores of an edge's ends are a product of all rows that is written, read and summed,
and their gradients two products, a sum and an addition each (DGL's GATConv)."""
PAGEABLE = 11.25 / 6.25
"""Seconds of a copy from pageable memory over those from pinned memory (V100, NVIDIA/nccl 398)."""
PYG_SPMM = 2.4
"""Seconds of `torch_sparse`'s product over those of cuSPARSE (RTX 3090, tariqaf/RA-SpMM)."""
SECTOR_BYTES = 32
"""What the device reads of pinned host memory for one drawn entry."""
UVA_SHARE, UVA_TABLE_BYTES, UVA_FALL = 0.13, 1e9, 0.85
"""Of the host link's rate, for sectors of a table of so many bytes; it falls as a power of a larger
one, as pages outgrow what the device translates. From 9.8 and 31.9 ns per row of tables of 1 and
4 GB over PCIe 4 (dmlc/dgl PR 6995)."""
_TRAINED = (Phase.FORWARD, Phase.BACKWARD, Phase.SYNC, Phase.UPDATE)
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

    topology = next((b.bytes for b in plan.resident if b.name == "topology"), 0)
    topology_bytes = float(np.max(topology))

    def taken(of: RankClass) -> Sequence[Step]:
        whole = software.loader is not None and software.loader.untrimmed
        return untrimmed(of.steps) if whole else of.steps

    def rewritten(number: int) -> Iteration:
        return Iteration(
            [
                RankClass(
                    of.ranks,
                    tuple(Rewriter(taken(of), shape, software, topology_bytes).steps()),
                )
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


def by_edges(step: Step, element_bytes: int) -> Iterator[Step]:
    """Yield a product as two steps: a row is gathered for each edge, and the rows are added up."""
    done, rows = step.work, step.work.nonzeros
    gathered = work.gather(rows, done.width, done.source_rows, element_bytes)
    yield Step(name=f"{step.name}_rows", work=gathered, phase=step.phase, layer=step.layer)
    yield replace(step, work=work.scatter_add(rows, done.width, done.rows, element_bytes))


class Rewriter:
    """Rewrites the steps of one class of ranks."""

    batch_before = 1
    """Iterations back in which the batch before was trained."""

    def __init__(
        self, steps: Sequence[Step], shape: StackShape, software: Software, topology_bytes: float
    ) -> None:
        self.planned, self.shape, self.software = steps, shape, software
        self.topology_bytes = topology_bytes
        self.dropped = {step.name for step in steps if self._is_dropped(step)}
        self.issued: set[tuple[Phase, int]] = set()
        self.last: Step | None = None
        self.pending: Size = 0
        self.waits: tuple[After, ...] = ()
        self.trains = False

    def steps(self) -> Iterator[Step]:
        """Yield the steps that the software takes, in program order."""
        names = {step.name for step in self.planned}
        if self.software.rebuilds and "sample/rebuild" not in names:
            yield from self._rebuilt()
        for step in self.planned:
            if step.name in self.dropped:
                continue
            after = tuple(wait for wait in step.after if wait.step not in self.dropped)
            kept = replace(step, after=after, work=self._work(step), lane=self._lane(step))
            taken = [*self._before(kept), *self._instead(kept)]
            if self.software.loader is not None and taken[0] is not kept:
                taken[0] = replace(taken[0], after=kept.after)
            for made in taken:
                if self.software.loader is not None and made.phase in _TRAINED:
                    yield from self._trained(made)
                else:
                    yield self._in_order(made)

    def _trained(self, step: Step) -> Iterator[Step]:
        """Yield a step of training on the device, and before it its issue by the process.

        What is only issued is issued with the next step of the device. The process starts a batch
        when its rows are there and the batch before is done, for which it waits at its end.
        """
        if step.op == "eager":
            self.pending, self.waits = self.pending + step.work.calls, self.waits + step.after
            return
        before, step = self.last, self._in_order(replace(step, after=self.waits + step.after))
        self.waits = ()
        if step.lane is not Lane.COMPUTE:
            yield step
            return
        waits: tuple[After, ...] = ()
        if not self.trains:
            done = [other.name for other in self.planned if other.kind is Kind.OPTIMIZER]
            waits = step.after + tuple(After(name, self.batch_before) for name in done[-1:])
            if before is not None and before.lane is step.lane:
                waits = (*waits, After(before.name))
            self.trains = True
        issued = _launches(step, self.pending + launches(step.op), lane=ISSUE)
        self.pending = 0
        yield replace(issued, after=waits)
        yield replace(step, after=(After(issued.name), *step.after))

    def _in_order(self, step: Step) -> Step:
        """The step, waiting for its predecessor where the software moved either to a lane."""
        last, self.last = self.last, step
        waits = {wait.step for wait in step.after}
        if self.software.loader is None or last is None or last.name in waits:
            return step
        if last.lane is step.lane:
            return step
        return replace(step, after=(After(last.name), *step.after))

    def _lane(self, step: Step) -> Lane:
        """Where the software takes a step: a sampler, and what fetches, may be lanes of their own.

        A plan with prefetch draws and fetches in a thread. In a disaggregated system another device
        draws, and the trainer fetches on a stream of its own: both are modelled by that thread.
        Where processes of the host only draw, the training process fetches between two batches.
        """
        loader = self.software.loader
        if loader is None or step.lane is Lane.COMPUTE:
            return step.lane
        if loader.disaggregated and step.phase is Phase.SAMPLE:
            return Lane.COMPUTE.at(1)
        if step.phase is not Phase.FETCH:
            return step.lane
        alone = loader.sampler == "host" and not loader.workers_slice
        return Lane.COMPUTE if alone else Lane.COPY

    def _is_dropped(self, step: Step) -> bool:
        """Whether the code does not have a step: of the first layer's exchange, or its product."""
        loader = self.software.loader
        if loader is not None and step.name == "fetch/copy":
            # Blocks that the device draws are there; from another one they come through the host.
            return loader.sampler != "host" and not loader.disaggregated
        if step.layer != 1 or loader is not None:
            return False
        exchange = step.name.rpartition("/")[2] in _EXCHANGE
        if self.shape.model.attention:
            # Inputs need no gradient; with precomputation their halo is there already.
            return exchange and (step.phase is Phase.BACKWARD or self.software.precompute)
        product = step.kind is Kind.SPMM and step.phase is Phase.FORWARD
        return self.software.precompute and (exchange or product)

    def _work(self, step: Step) -> Work:
        """What the code does in a step of ours."""
        loader = self.software.loader
        if loader is not None and step.phase is Phase.SAMPLE:
            if loader.sampler == "host":
                return scaled(step.work, 1.0 / loader.workers)
            drawn = step.work._replace(op=f"device_{step.work.op}")
            share = loader.trainers / loader.samplers if loader.disaggregated else 1.0
            return drawn if share == 1.0 else scaled(drawn, share)
        if loader is not None and step.name == "fetch/gather" and loader.features != "device":
            return scaled(step.work, loader.hits)
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
        if self.software.loader is not None:
            yield from self._loaded(step, self.software.loader)
        if step.kind is Kind.GEMM and step.layer > 0 and place not in self.issued:
            self.issued.add(place)
            yield _launches(step, EAGER if step.phase is Phase.FORWARD else 2 * EAGER)

    def _instead(self, step: Step) -> Iterator[Step]:
        """Yield what the code does for a step: most often the step itself."""
        if self.software.loader is not None:
            yield from self._unfused(step, self.software.loader)
            return
        step = _repeated(step)
        if self.software.rebuilds and step.name == "sample/rebuild":
            yield from self._rebuilt(step)
        elif self.software.released and step.name == "sync/gradients":
            yield from self._per_tensor(step)
        else:
            yield step

    def _unfused(self, step: Step, loader: Loader) -> Iterator[Step]:
        """Yield a step, and the operations of the framework that our plan fuses with it."""
        yield from frameworks.before(step, self.shape, loader)
        if loader.framework == "pyg" and step.kind is Kind.SPMM:
            yield replace(step, work=scaled(step.work, PYG_SPMM))
        elif loader.framework == "edges" and step.kind is Kind.SPMM:
            yield from by_edges(step, self._element_bytes)
        else:
            yield _repeated(step)
        yield from frameworks.after(step, self.shape, loader)

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

    def _loaded(self, step: Step, loader: Loader) -> Iterator[Step]:
        """Yield what a loader does before a batch is drawn, and before its rows are gathered."""
        if step.name == "sample/draw":
            if loader.subgraph_bytes:
                # A page of the cache is read and written once.
                read = work.host("read_files", rows=0, bytes=2 * loader.subgraph_bytes)
                yield replace(_beside(step, "files", read, Lane.HOST.at(2)), phase=Phase.LOAD)
                moved = work.to_device(int(PAGEABLE * loader.subgraph_bytes))
                copied = _beside(step, "subgraph", moved, Lane.COMPUTE)
                after = (After(f"{step.name}_files"),)
                yield replace(copied, phase=Phase.LOAD, after=after)
            if loader.launches:
                yield _launches(step, loader.launches * self.shape.num_layers, lane=step.lane)
            if loader.sampler == "uva":
                # Counted by the time they take, at the share of the link's rate that they reach.
                size = _times(SECTOR_BYTES / self._uva_share(), step.work.nonzeros)
                yield _beside(step, "host", work.to_device(size), step.lane)
        if step.name == "fetch/gather" and loader.features != "device" and loader.hits < 1.0:
            done = next(other.work for other in self.planned if other.name == step.name)
            rows = _times(1.0 - loader.hits, done.rows)
            stored = loader.stored_bytes or self._element_bytes
            size = rows * done.width * stored
            if loader.features == "staged_pageable":
                size = _times(PAGEABLE, size)
            if loader.features.startswith("staged"):
                alone = loader.features != "staged"
                each = -(-rows // (loader.slicers if alone else loader.workers))
                sliced = work.gather(each, done.width, done.source_rows, stored)
                ahead = loader.workers_slice or loader.sampler != "host"
                yield _beside(step, "slice", sliced, Lane.HOST if ahead else Lane.HOST.at(1))
            yield _beside(step, "host", work.to_device(size), step.lane)

    def _uva_share(self) -> float:
        """Share of the host link's rate that sectors of the graph's edges reach."""
        over = max(self.topology_bytes / UVA_TABLE_BYTES, 1.0)
        return UVA_SHARE * float(over**-UVA_FALL)

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


def _repeated(step: Step) -> Step:
    """The step with as many passes as a framework makes of it."""
    times = UNFUSED.get(step.work.op, 1)
    if times == 1:
        return step
    passes = step.work._replace(bytes=times * step.work.bytes, flops=times * step.work.flops)
    return replace(step, work=passes)


def _times(factor: float, size: Size) -> Size:
    """A size so many times as large, to the nearest whole number."""
    if isinstance(size, int):
        return round(factor * size)
    return np.round(factor * size).astype(np.int64)


def scaled(done: Work, factor: float) -> Work:
    """The work with sizes so many times as large."""
    return done._replace(
        bytes=_times(factor, done.bytes),
        rows=_times(factor, done.rows),
        nonzeros=_times(factor, done.nonzeros),
    )


def _beside(step: Step, name: str, done: Work, lane: Lane) -> Step:
    """A step before another one, in its phase."""
    return Step(name=f"{step.name}_{name}", work=done, lane=lane, phase=step.phase)


def _launches(step: Step, count: Size, lane: Lane = Lane.COMPUTE) -> Step:
    """Operations before a step, so small that issuing them is all they cost."""
    return Step(
        name=f"{step.name}/eager",
        work=work.launches(count),
        lane=lane,
        phase=step.phase,
        layer=step.layer,
    )
