"""Steps of a sparse and of a dense rank in a pipeline of row chunks.

`row_pipeline` defines their order and waits. The runtime performs the same steps in
`gnnbench_runtime.approaches.whole_graph.mixed_sparse` and `mixed_dense`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.whole_graph.mixed_structure import MixedStructure
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.approaches.writing.stack import optimizer_scratch, optimizer_work
from gnnbench.steps import After, Buffer, Ints, Lane, Phase, Size, Step, Work

BUFFERS = 2
"""Chunks that a side may have under way to the other one."""


class Pipeline:
    """What the steps of all ranks share: model, distribution of rows and columns, message sizes."""

    def __init__(self, shape: StackShape, structure: MixedStructure) -> None:
        self.shape, self.structure = shape, structure
        self.group = tuple(range(structure.world_size))
        self.nothing = np.zeros(structure.world_size, np.int64)
        self._dealt = structure.dealt
        # Ranks of a side send the same vector; a plan of a thousand ranks would otherwise keep a
        # thousand copies.
        self._known: dict[tuple[object, ...], Ints] = {}

    def from_sparse(self, chunk: int, columns: int) -> Ints:
        """Elements to each rank when a sparse rank hands its columns of a chunk over."""
        key = ("sparse", chunk, columns)
        if key not in self._known:
            self._known[key] = sent = self.nothing.copy()
            sent[self.structure.sparse_ranks :] = columns * self._dealt[chunk]
        return self._known[key]

    def from_dense(self, rows: int, width: int) -> Ints:
        """Elements to each rank when a dense rank returns its rows of a chunk."""
        key = ("dense", rows, width)
        if key not in self._known:
            self._known[key] = sent = self.nothing.copy()
            sent[: self.structure.sparse_ranks] = rows * np.array(self.structure.columns(width))
        return self._known[key]


class PipelineSteps:
    """Writes the steps of one class of ranks."""

    lane: Lane

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.shape, self.structure = pipeline, pipeline.shape, pipeline.structure
        self.s = pipeline.shape.element_bytes
        self.steps: list[Step] = []

    def add(
        self,
        name: str,
        done: Work,
        phase: Phase,
        layer: int,
        *,
        after: Sequence[str] = (),
        **place: Any,
    ) -> str:
        """Add a step on the rank's own lane, or on the one that `place` names; return its name."""
        waits = tuple(After(step) for step in after)
        place.setdefault("lane", self.lane)
        self.steps.append(
            Step(name=name, work=done, phase=phase, layer=layer, after=waits, **place)
        )
        return name

    def send(
        self, name: str, sent: Ints, lane: Lane, phase: Phase, layer: int, *, after: Sequence[str]
    ) -> str:
        """Add the sending side of a handover or return."""
        done = work.all_to_all(sent, 0, self.s)
        return self.add(name, done, phase, layer, lane=lane, after=after, group=self.pipeline.group)

    def receive(
        self,
        name: str,
        elements: int,
        lane: Lane,
        phase: Phase,
        layer: int,
        *,
        after: Sequence[str] = (),
    ) -> str:
        """Add the receiving side of a handover or return."""
        done = work.all_to_all(self.pipeline.nothing, elements, self.s)
        return self.add(name, done, phase, layer, lane=lane, after=after, group=self.pipeline.group)

    def dropout(self, rows: int, width: int) -> None:
        """Add the dropout of the input."""
        self.add("forward/0/dropout", work.dropout(rows, width, self.s), Phase.FORWARD, 0)

    def update(self, *, after: Sequence[str] = ()) -> None:
        """Add the all-reduce of the gradient (the loss is one more element) and the optimizer."""
        group, elements = self.pipeline.group, self.shape.num_parameters + 1
        reduced = work.all_reduce(elements, self.s, len(group))
        place: dict[str, Any] = {"lane": Lane.COMM, "group": group}
        name = self.add("sync/gradients", reduced, Phase.SYNC, -1, after=after, **place)
        done = optimizer_work(self.shape, self.shape.num_parameters)
        room = optimizer_scratch(self.shape, self.shape.num_parameters)
        self.add(f"update/{done.op}", done, Phase.UPDATE, -1, after=(name,), **room)

    def order(self, phase: Phase) -> tuple[int, ...]:
        held = self.structure
        return held.forward if phase is Phase.FORWARD else held.backward


class SparseSteps(PipelineSteps):
    """Steps of sparse ranks with equal slices; `cuts` are a rank's columns by width."""

    lane = Lane.SPARSE

    def __init__(self, pipeline: Pipeline, cuts: Mapping[int, int]) -> None:
        super().__init__(pipeline)
        self.cuts = cuts
        self._returned: tuple[str, ...] = ()

    def written(self) -> tuple[Step, ...]:
        """The steps of an epoch."""
        dims, layers = self.shape.dims, self.shape.num_layers
        if self.shape.input_dropout > 0:
            self.dropout(self.structure.num_rows, self.cuts[dims[0]])
        for layer in range(1, layers):
            self._aggregate(Phase.FORWARD, layer, dims[layer - 1], Phase.FORWARD, dims[layer])
        # The dense ranks go on to the loss, and return the gradients of this layer's products.
        turn = dims[layers - 1] if layers > 1 else None
        self._aggregate(Phase.FORWARD, layers, dims[layers - 1], Phase.BACKWARD, turn)
        for layer in range(layers - 1, 0, -1):
            back = dims[layer - 1] if layer > 1 else None
            self._aggregate(Phase.BACKWARD, layer, dims[layer], Phase.BACKWARD, back)
        self.update()
        return tuple(self.steps)

    def _aggregate(
        self, phase: Phase, layer: int, width: int, returns: Phase, back: int | None
    ) -> None:
        """Multiply and hand over every chunk.

        `returns` and `back` are the phase and width of the rows that return; None if none do.
        """
        handed: list[str] = []
        last: tuple[str, ...] = ()
        for chunk in self.order(phase):
            # A product needs all rows of its input: the last chunk of the returns before it.
            waits = self._returned if not handed else ()
            if len(handed) >= BUFFERS:
                # The buffer of that chunk is written again: its transfer must have ended.
                waits = (handed[-BUFFERS],)
            handed.append(self._hand(phase, layer, width, chunk, waits))
            if back is not None:
                name = f"{returns}/{layer}/return/{chunk}"
                elements = self.structure.rows(chunk) * self.cuts[back]
                last = (self.receive(name, elements, Lane.BACKGROUND, returns, layer),)
        # Returns come in order on one lane, so a wait for the last one waits for all.
        self._returned = last

    def _hand(
        self, phase: Phase, layer: int, width: int, chunk: int, waits: tuple[str, ...]
    ) -> str:
        held, cut, where = self.structure, self.cuts[width], f"{phase}/{layer}"
        entries = held.nonzeros if phase is Phase.FORWARD else held.nonzeros_t
        # With more sparse ranks than columns, some own none. They still join each collective.
        if cut:
            product = work.spmm(
                rows=held.rows(chunk),
                nonzeros=entries[chunk],
                width=cut,
                source_rows=held.num_rows,
                element_bytes=self.s,
                reuse=held.reuse,
            )
            waits = (self.add(f"{where}/spmm/{chunk}", product, phase, layer, after=waits),)
        sent = self.pipeline.from_sparse(chunk, cut)
        return self.send(f"{where}/hand/{chunk}", sent, Lane.COMM, phase, layer, after=waits)


class DenseSteps(PipelineSteps):
    """Steps of dense ranks that own equally many rows of each chunk.

    Args:
        pipeline: see there.
        rows: own rows of each chunk.
        trained: training rows of each chunk; ranks of the class may differ in them.
    """

    lane = Lane.DENSE

    def __init__(self, pipeline: Pipeline, rows: Sequence[int], trained: Sequence[Size]) -> None:
        super().__init__(pipeline)
        self.rows, self.trained, self.own_rows = rows, trained, sum(rows)
        self.alone = self.structure.sparse_ranks == 1

    def written(self) -> tuple[Step, ...]:
        """The steps of an epoch."""
        shape, layers = self.shape, self.shape.num_layers
        if shape.model.self_weight and shape.input_dropout > 0:
            self.dropout(self.own_rows, shape.dims[0])
        for layer in range(1, layers + 1):
            self._forward(layer)
        for layer in range(layers, 1, -1):
            self._weights(layer, self.own_rows, "")
            self._backward(layer - 1)
        self.update(after=(self.steps[-1].name,))
        return tuple(self.steps)

    def _forward(self, layer: int) -> None:
        shape, phase, where = self.shape, Phase.FORWARD, f"forward/{layer}"
        fan_in, fan_out, own = shape.dims[layer - 1], shape.dims[layer], shape.model.self_weight
        if own:
            # It needs no sparse rank, so it fills the time until the first chunk arrives.
            sizes = self.own_rows, fan_in, fan_out
            self._gemm(f"{where}/self", "gemm_nn_bias", phase, layer, sizes)
        op = "gemm_nn_add" if own else "gemm_nn_bias"
        inbox, outbox = Inbox(self, phase, layer), Outbox(self, phase, layer)
        turn = Outbox(self, Phase.BACKWARD, layer)
        for chunk in self.structure.forward:
            rows, here = self.rows[chunk], inbox.take(chunk, fan_in)
            sizes = rows, fan_in, fan_out
            self._gemm(f"{where}/gemm/{chunk}", op, phase, layer, sizes, after=here)
            if layer < shape.num_layers:
                outbox.put(chunk, fan_out, self._activate(layer, chunk))
            else:
                self._loss(chunk)
                self._input(layer, chunk, turn)

    def _activate(self, layer: int, chunk: int) -> str:
        shape, phase, rows = self.shape, Phase.FORWARD, self.rows[chunk]
        width = shape.dims[layer]
        if shape.has_norm(layer):
            normalised = work.layer_norm(rows, width, self.s)
            self.add(f"forward/{layer}/norm/{chunk}", normalised, phase, layer)
        name, dropped = f"forward/{layer}/activation/{chunk}", shape.dropout > 0
        done = work.activation(shape.model.activation, rows, width, self.s, dropped=dropped)
        return self.add(name, done, phase, layer)

    def _loss(self, chunk: int) -> None:
        last, trained = self.shape.num_layers, self.trained[chunk]
        classes = self.shape.dims[-1]
        done = work.cross_entropy(self.rows[chunk], classes, trained, self.s)
        # Two copies of the training rows' logits, and two numbers a row, live while it is computed.
        scratch = Buffer("loss_scratch", 2 * trained * (classes + 1) * self.s)
        place: dict[str, Any] = {"allocates": (scratch,), "frees": (scratch.name,)}
        self.add(f"forward/loss/{chunk}", done, Phase.FORWARD, last, **place)

    def _backward(self, layer: int) -> None:
        """Write the pass from the gradient of H_l to that of the product below."""
        shape, phase, where = self.shape, Phase.BACKWARD, f"backward/{layer}"
        width, above = shape.dims[layer], shape.dims[layer + 1]
        inbox, outbox = Inbox(self, phase, layer), Outbox(self, phase, layer)
        for chunk in self.structure.backward:
            rows, here = self.rows[chunk], inbox.take(chunk, width)
            if shape.model.self_weight:
                name, sizes = f"backward/{layer + 1}/self_input/{chunk}", (rows, above, width)
                self._gemm(name, "gemm_nt_add", phase, layer + 1, sizes, after=here)
                here = ()
            done = work.activation_backward(shape.model.activation, rows, width, self.s)
            self.add(f"{where}/activation/{chunk}", done, phase, layer, after=here)
            if shape.has_norm(layer):
                done = work.layer_norm_backward(rows, width, self.s)
                self.add(f"{where}/norm/{chunk}", done, phase, layer)
            self._input(layer, chunk, outbox)

    def _input(self, layer: int, chunk: int, outbox: Outbox) -> None:
        """Write what follows the gradient of a chunk's output: that of its input, if it has one."""
        rows, fan_in = self.rows[chunk], self.shape.dims[layer - 1]
        # The input needs no gradient, so the weights' gradient can start chunk by chunk.
        if layer == 1:
            self._weights(layer, rows, f"/{chunk}")
            return
        name, sizes = f"backward/{layer}/input/{chunk}", (rows, self.shape.dims[layer], fan_in)
        self._gemm(name, "gemm_nt", Phase.BACKWARD, layer, sizes)
        outbox.put(chunk, fan_in, name)

    def _weights(self, layer: int, rows: int, suffix: str) -> None:
        """Write the weights' gradients over some rows."""
        shape, phase, where = self.shape, Phase.BACKWARD, f"backward/{layer}"
        fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
        summed, sizes = work.column_sum(rows, fan_out, self.s), (fan_in, rows, fan_out)
        self.add(f"{where}/bias{suffix}", summed, phase, layer)
        self._gemm(f"{where}/weight{suffix}", "gemm_tn", phase, layer, sizes)
        if shape.model.self_weight:
            self._gemm(f"{where}/self_weight{suffix}", "gemm_tn", phase, layer, sizes)

    def copy(
        self, name: str, phase: Phase, layer: int, rows: int, width: int, after: Sequence[str]
    ) -> str:
        """Write the copy of blocks of columns into whole rows, or back."""
        done = work.gather(rows, width, rows, self.s, ids=False)
        return self.add(name, done, phase, layer, after=after)

    def _gemm(
        self,
        name: str,
        op: str,
        phase: Phase,
        layer: int,
        sizes: tuple[int, int, int],
        *,
        after: Sequence[str] = (),
    ) -> None:
        """Write a dense product of sizes (M, K, N)."""
        self.add(name, work.gemm(op, *sizes, self.s), phase, layer, after=after)


class Inbox:
    """The receiving side of the handovers of one layer, on a dense rank."""

    def __init__(self, steps: DenseSteps, phase: Phase, layer: int) -> None:
        self.steps, self.phase, self.layer = steps, phase, layer
        self.unpacked: list[str] = []

    def take(self, chunk: int, width: int) -> tuple[str, ...]:
        """Write a handover; return the step that the first step on its rows waits for."""
        steps, phase, layer = self.steps, self.phase, self.layer
        rows, where = steps.rows[chunk], f"{phase}/{layer}"
        room = (self.unpacked[-BUFFERS],) if len(self.unpacked) >= BUFFERS else ()
        name, elements = f"{where}/hand/{chunk}", rows * width
        steps.receive(name, elements, Lane.COMM, phase, layer, after=room)
        # A single sparse rank has whole rows: they arrive in place, and the product can read them.
        if steps.alone:
            return (name,)
        unpack = f"{where}/unpack/{chunk}"
        self.unpacked.append(steps.copy(unpack, phase, layer, rows, width, (name,)))
        return ()


class Outbox:
    """The sending side of the returns of one layer, on a dense rank."""

    def __init__(self, steps: DenseSteps, phase: Phase, layer: int) -> None:
        self.steps, self.phase, self.layer = steps, phase, layer
        self.sent: list[str] = []

    def put(self, chunk: int, width: int, made: str) -> None:
        """Write the return of a chunk whose rows the step `made` has finished."""
        steps, phase, layer = self.steps, self.phase, self.layer
        rows, where = steps.rows[chunk], f"{phase}/{layer}"
        if not steps.alone:
            room = (self.sent[-BUFFERS],) if len(self.sent) >= BUFFERS else ()
            made = steps.copy(f"{where}/pack/{chunk}", phase, layer, rows, width, room)
        sent, name = steps.pipeline.from_dense(rows, width), f"{where}/return/{chunk}"
        steps.send(name, sent, Lane.BACKGROUND, phase, layer, after=(made,))
        self.sent.append(name)
