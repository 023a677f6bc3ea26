"""PipeGCN: the halo exchange of an epoch is used one epoch later, so that it hides behind work.

Bytes are those of `partition`, exactly (fullgraph section 7, FG-39). Features and gradients of the
boundary are one epoch old; epoch 0 takes zeros for both. With attention the rows are those of
T = H W: scores of halo rows are today's parameters on yesterday's T. The zeros of epoch 0 take part
in the softmax like any row, with nothing of their own in the score; left out they would make that
epoch another computation than all others, and a running average begins at zero anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from gnnbench.approaches.base import GraphLike, Layout
from gnnbench.approaches.whole_graph.partition import Partition
from gnnbench.approaches.whole_graph.rows import (
    RankSizes,
    full_graph_plan,
    rank_steps,
    resident,
    stack_shape,
)
from gnnbench.approaches.writing.stack import StackShape, StackSteps
from gnnbench.plan import After, Kind, Lane, Phase, Plan, Step
from gnnbench.spec import RunSpec
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

    staleness: epochs that boundary rows are late; 0 is `partition`. Attention wants smaller steps
    then than it does with fresh rows. smoothing: which arrivals are replaced by their running
    average, avg = gamma avg + (1 - gamma) arrival, from zero. partitioner, objective, order: as in
    `partition`.
    """

    staleness: int = field(default=1, metadata=bounds(0, 1))
    smoothing: str = field(
        default="none", metadata=choices("none", "features", "gradients", "both")
    )
    gamma: float = field(default=0.95, metadata=bounds(0, 1, open_high=True))
    partitioner: str = field(default="metis", metadata=choices("metis", "hash", "chunk"))
    objective: str = field(default="vol", metadata=choices("vol", "cut"))
    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )


class StaleSteps(StackSteps):
    """The steps of a stack whose exchanges run in the background and serve the next epoch."""

    smoothed: tuple[Phase, ...] = ()

    def _exchange(self, phase: Phase, layer: int, width: int) -> None:
        if self.halo is None:
            return
        where = f"{phase}/{layer}"
        waits = (After(f"{where}/exchange", lag=1),)
        if phase is Phase.FORWARD:
            self._take_features(where, layer, width, waits)
        else:
            self._take_gradients(where, layer, width, waits)
        self._begin(phase, layer, width)

    def _take_features(self, where: str, layer: int, width: int, waits: tuple[After, ...]) -> None:
        assert self.halo is not None
        rows, s = sum(self.halo.recv_rows), self.shape.element_bytes
        if Phase.FORWARD in self.smoothed:
            self._elementwise(
                f"{where}/place", "smooth", Phase.FORWARD, layer, rows, width, PLACE_PASSES,
                after=waits,
            )  # fmt: skip
        else:
            self._rows(f"{where}/place", "gather", Phase.FORWARD, layer, rows, width, 2 * width * s,
                       rows, after=waits)  # fmt: skip
        packed = sum(self.halo.send_rows)
        self._rows(
            f"{where}/pack", "gather", Phase.FORWARD, layer, packed, width, 8 + 2 * width * s,
            self.sizes[layer - 1].rows,
        )  # fmt: skip

    def _take_gradients(self, where: str, layer: int, width: int, waits: tuple[After, ...]) -> None:
        assert self.halo is not None
        rows, s = sum(self.halo.send_rows), self.shape.element_bytes
        phase = Phase.BACKWARD
        if phase in self.smoothed:
            self._elementwise(
                f"{where}/smooth", "smooth", phase, layer, rows, width, SMOOTH_PASSES, after=waits
            )
            waits = ()
        self._rows(
            f"{where}/unpack", "scatter_add", phase, layer, rows, width, 8 + 2 * width * s,
            self.sizes[layer - 1].rows, kind=Kind.SCATTER, after=waits,
        )  # fmt: skip
        leaving = sum(self.halo.recv_rows)
        self._rows(f"{where}/pack", "gather", phase, layer, leaving, width, 2 * width * s, leaving)

    def _rows(
        self, name: str, op: str, phase: Phase, layer: int, rows: int, width: int,
        row_bytes: int, source_rows: int, *, kind: Kind = Kind.GATHER,
        after: tuple[After, ...] = (),
    ) -> None:  # fmt: skip
        self._compute(
            name, kind, op, phase, layer, rows=rows, width=width, source_rows=source_rows,
            bytes=rows * row_bytes, after=after,
        )  # fmt: skip

    def _begin(self, phase: Phase, layer: int, width: int) -> None:
        """Start this epoch's transfer, which the next epoch takes."""
        halo, s = self.halo, self.shape.element_bytes
        assert halo is not None
        send, recv = halo.send_rows, halo.recv_rows
        if phase is Phase.BACKWARD:
            send, recv = recv, send
        self.chain.beside(
            Step(
                name=f"{phase}/{layer}/exchange", kind=Kind.ALL_TO_ALL, op="all_to_all",
                lane=Lane.BACKGROUND, phase=phase, layer=layer, rows=sum(send) * width,
                width=width, bytes=sum(send) * width * s, group=halo.group,
                send_bytes=tuple(r * width * s for r in send),
                buffer_bytes=max(sum(send), sum(recv)) * width * s,
            )
        )  # fmt: skip


_WRITERS: dict[str, type[StaleSteps]] = {
    name: type(f"StaleSteps_{name}", (StaleSteps,), {"smoothed": phases})
    for name, phases in SMOOTHED.items()
}


def stale_buffers(shape: StackShape, size: RankSizes, smoothing: str) -> dict[str, int]:
    """Bytes of what `pipegcn` holds besides `partition`'s: both ends of every transfer, averages.

    No two transfers can share a buffer, because all may be under way at once.
    """
    s, given, taken = shape.element_bytes, sum(size.send_rows), size.halo_rows
    both, phi, psi = given + taken, shape.forward_widths(), shape.backward_widths()
    held = {"stale_features": both * phi * s, "stale_gradients": both * psi * s}
    if Phase.FORWARD in SMOOTHED[smoothing]:
        held["smooth_features"] = taken * phi * s
    if Phase.BACKWARD in SMOOTHED[smoothing]:
        held["smooth_gradients"] = given * psi * s
    return held


class PipeGcn(Partition):
    """Card and plan of `pipegcn`."""

    name = "pipegcn"
    title = "PipeGCN (halo exchange one epoch late)"
    paper = "Wan et al., PipeGCN, ICLR 2022"
    summary = "boundary rows and their gradients are one epoch old and travel behind computation"
    exact = False
    runtime = "gnnbench_runtime.approaches.whole_graph.pipegcn:PipeTrainer"
    knobs_type = PipeKnobs
    attention = True

    def skip_reason(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
        """Any number of ranks; it has none of `partition`'s knobs that need a rule."""
        return None

    def problems(self, run: RunSpec) -> list[str]:
        """There is nothing to smooth without staleness."""
        knobs: PipeKnobs = self.knobs(run)
        if knobs.staleness == 0 and knobs.smoothing != "none":
            return [
                f"smoothing: found {knobs.smoothing!r} with staleness 0, where rows arrive fresh; "
                "set smoothing = 'none' or staleness = 1"
            ]
        return []

    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: PipeKnobs = self.knobs(run)
        sizes: list[RankSizes] = structure.sizes
        plan = full_graph_plan(
            graph, run, sizes, order=knobs.order, exact=structure.exact, basis=structure.basis
        )
        plan = replace(plan, notes={**plan.notes, "staleness": knobs.staleness})
        if knobs.staleness == 0 or len(sizes) == 1:
            return plan
        shape, group = stack_shape(graph, run, knobs.order), tuple(range(len(sizes)))
        writer = _WRITERS[knobs.smoothing]
        return replace(
            plan,
            iterations=(tuple(rank_steps(shape, s, group, writer=writer) for s in sizes),),
            resident=tuple(
                resident(shape, size) | stale_buffers(shape, size, knobs.smoothing)
                for size in sizes
            ),
        )


APPROACH = PipeGcn()
