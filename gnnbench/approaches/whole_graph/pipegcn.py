"""PipeGCN: halo rows of an epoch are used in the next epoch, so that their exchange is hidden.

Bytes equal those of `partition` (fullgraph section 7, FG-39). Features and gradients of the
boundary are one epoch old; epoch 0 uses zeros for both. With attention the exchanged rows are those
of T = H W, and the scores of halo rows apply the current parameters to T of the previous epoch. The
zero rows of epoch 0 take part in the softmax like any row: leaving them out would make that epoch a
different computation from all others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from gnnbench import work
from gnnbench.approaches.base import GraphLike, Layout, Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.approaches.whole_graph.partition import Partitioned
from gnnbench.approaches.whole_graph.rows import (
    Options,
    RowSizes,
    buffers,
    resident,
    row_iteration,
    row_plan,
)
from gnnbench.approaches.writing.evaluating import answered
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.approaches.writing.stack import StackWriter
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Buffer, Phase, Work
from gnnbench.strict import bounds, choices

SMOOTHED = {
    "none": (),
    "features": (Phase.FORWARD,),
    "gradients": (Phase.BACKWARD,),
    "both": (Phase.FORWARD, Phase.BACKWARD),
}
PLACE_PASSES, SMOOTH_PASSES = 5, 3
"""Buffer passes: fold an arrival into its average; for features also copy it behind the own rows"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeKnobs:
    """Knobs of `pipegcn`.

    Args:
        staleness: age of halo rows and of their gradients, in epochs; 0 is `partition`. With
            attention, stale rows may need a smaller learning rate.
        smoothing: which received values are replaced by their running average,
            avg = gamma avg + (1 - gamma) received, which starts at zero.
        gamma: decay of the running average.
        partitioner: how vertices are assigned to ranks.
        objective: what METIS minimises: communication volume (vol) or edge cut (cut).
        order: which product of a layer comes first; min_width aggregates at the smaller of the
            layer's two widths.
    """

    staleness: int = field(default=1, metadata=bounds(0, 1))
    smoothing: str = field(
        default="none", metadata=choices("none", "features", "gradients", "both")
    )
    gamma: float = field(default=0.95, metadata=bounds(0, 1, open_high=True))
    partitioner: str = field(default="metis", metadata=choices("metis", "fennel", "hash", "chunk"))
    objective: str = field(default="vol", metadata=choices("vol", "cut"))
    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )


def place_work(rows: Any, width: int, element_bytes: int, *, smooth: bool) -> Work:
    """Copy received rows behind the own rows, or first update their running average with them."""
    if smooth:
        return work.elementwise(
            "smooth", rows, width, passes=PLACE_PASSES, element_bytes=element_bytes
        )
    return work.gather(rows, width, rows, element_bytes, ids=False)


def smooth_work(rows: Any, width: int, element_bytes: int) -> Work:
    """Update the running average of gradients with the received ones."""
    passes = SMOOTH_PASSES
    return work.elementwise("smooth", rows, width, passes=passes, element_bytes=element_bytes)


class StaleWriter(StackWriter):
    """Writes a stack whose background exchanges deliver rows for the next epoch."""

    smoothed: tuple[Phase, ...] = ()

    def exchange(self, phase: Phase, layer: int, width: int) -> None:
        if self.halo is None:
            return
        # The rows in use are those of the previous epoch. In the first epoch there are none yet:
        # the buffers are zero, as published.
        waits = (After(f"{phase}/{layer}/exchange", lag=1),)
        if phase is Phase.FORWARD:
            self._take_features(layer, width, waits)
        else:
            self._take_gradients(layer, width, waits)
        self.transfer(phase, layer, width, late=True)

    def _take_features(self, layer: int, width: int, waits: tuple[After, ...]) -> None:
        assert self.halo is not None
        phase, where, s = Phase.FORWARD, f"forward/{layer}", self.element_bytes
        placed = place_work(self.halo.received_rows, width, s, smooth=phase in self.smoothed)
        self.step(f"{where}/place", placed, phase, layer, after=waits)
        packed = work.gather(self.halo.sent_rows, width, self.sizes[layer - 1].rows, s)
        self.step(f"{where}/pack", packed, phase, layer)

    def _take_gradients(self, layer: int, width: int, waits: tuple[After, ...]) -> None:
        assert self.halo is not None
        phase, where, s = Phase.BACKWARD, f"backward/{layer}", self.element_bytes
        rows = self.halo.sent_rows
        if phase in self.smoothed:
            smoothed = smooth_work(rows, width, s)
            self.step(f"{where}/smooth", smoothed, phase, layer, after=waits)
            waits = ()
        self.unpack(phase, layer, width, after=waits)
        leaving = self.halo.received_rows
        packed = work.gather(leaving, width, leaving, s, ids=False)
        self.step(f"{where}/pack", packed, phase, layer)


_WRITERS: dict[str, type[StaleWriter]] = {
    name: type(f"StaleWriter_{name}", (StaleWriter,), {"smoothed": phases})
    for name, phases in SMOOTHED.items()
}


def stale_buffers(shape: StackShape, sizes: RowSizes, smoothing: str) -> tuple[Buffer, ...]:
    """Buffers of `pipegcn` in addition to those of `partition`: send and receive buffers, averages.

    No two transfers can share a buffer, because all of them may be in progress at once.
    """
    s, given, taken = shape.element_bytes, sizes.sent_rows, sizes.halo_rows
    both, phi, psi = given + taken, shape.forward_widths(), shape.backward_widths()
    held = {"stale_features": both * phi * s, "stale_gradients": both * psi * s}
    if Phase.FORWARD in SMOOTHED[smoothing]:
        held["smooth_features"] = taken * phi * s
    if Phase.BACKWARD in SMOOTHED[smoothing]:
        held["smooth_gradients"] = given * psi * s
    return buffers(held)


class PipeGcn(Partitioned):
    """Card and plan of `pipegcn`."""

    name = "pipegcn"
    title = "PipeGCN (halo exchange one epoch late)"
    paper = "Wan et al., PipeGCN, ICLR 2022"
    summary = "partitions; halo rows of the previous epoch, sent while ranks compute"
    promise = Promise(
        kind="stale",
        text="Halo rows and their gradients are those of the previous epoch; with staleness 0 "
        "it equals `partition`.",
        limit={"staleness": 0},
        by=1,
    )
    accepts = Accepts(attention=True)
    look = Look(colour="#009E73", marker="D")
    published = (
        Published(names=r"^pipegcn(?! \(sync\)$)", recipe="gnnbench.published.recipes:pipegcn"),
    )
    knobs_type = PipeKnobs
    runtime = "gnnbench_runtime.approaches.whole_graph.pipegcn:PipeTrainer"

    def examples(self) -> list[RunSpec]:
        return [
            example("pipegcn"),
            example("pipegcn", 3, model={"kind": "sage"}, knobs={"smoothing": "both"}),
            example("pipegcn", model={"kind": "gat", "heads": 2}),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """Probes of smoothing, the only operation that other approaches do not have."""
        if probe.ranks == 1:
            return []
        knobs = {"smoothing": "both", "partitioner": "hash"}
        return [replace(probe.run, approach=self.name, ranks=probe.ranks, knobs=knobs)]

    def problems(self, run: RunSpec) -> list[str]:
        """`smoothing` needs staleness 1."""
        knobs: PipeKnobs = self.knobs(run)
        if knobs.staleness == 0 and knobs.smoothing != "none":
            return [
                f"smoothing: found {knobs.smoothing!r} with staleness 0, where rows arrive fresh; "
                "set smoothing = 'none' or staleness = 1"
            ]
        return []

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: PipeKnobs = self.knobs(run)
        sizes: RowSizes = structure.sizes
        options = Options(order=knobs.order)
        plan = row_plan(data, run, sizes, options, counted=structure.counted, basis=structure.basis)
        plan = replace(plan, notes={**plan.notes, "staleness": knobs.staleness})
        # Nothing is late: the plan of `partition` is the plan.
        if knobs.staleness == 0 or sizes.world_size == 1:
            return plan
        shape = stack_shape(data, run, knobs.order)
        writer = _WRITERS[knobs.smoothing]
        stale = replace(
            plan,
            iterations=[row_iteration(shape, sizes, options, writer=writer)],
            resident=resident(shape, sizes) + stale_buffers(shape, sizes, knobs.smoothing),
        )
        # Training packs rows into buffers of each transfer; an evaluation waits for each.
        packed = sizes.sent_rows * shape.widest_exchange * shape.element_bytes
        return answered(stale, halo_rows=packed)


APPROACH = PipeGcn()
