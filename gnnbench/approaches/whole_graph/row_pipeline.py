"""Steps, memory and volume of a pipeline of row chunks between sparse and dense ranks.

Every rank takes part in every handover and return, in one order: handover k of a layer, then its
return k. Sparse ranks have two buffers for products under way, so the product of chunk k waits for
the handover of chunk k - 2. Dense ranks receive into place where there is a single sparse rank;
else blocks of columns come into one of two buffers and are put together. Returns mirror that.

Every chunk of the last layer goes on at once through loss and first gradient, so that the turn from
forward to backward is no barrier. In the first layer's backward pass, which returns nothing, the
weights' gradients follow chunk by chunk; elsewhere they wait for the idle time between layers.

Legend: s bytes per element, S sparse ranks, D dense ranks, N rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gnnbench.approaches.writing.stack import StackShape
from gnnbench.iterations import Iteration, RankSteps
from gnnbench.steps import After, Kind, Lane, Phase, Step
from gnnbench.work import all_reduce_bytes

if TYPE_CHECKING:
    from gnnbench.approaches.whole_graph.mixed_accelerators import MixedStructure

BUFFERS = 2


def exchanged_bytes(shape: StackShape, num_rows: int) -> int:
    """Bytes that sparse and dense ranks send each other in an epoch.

    s N (sum of d_{l-1} over layers + 3 times the sum of d_l over inner layers): forward, every
    layer's product and every inner layer's output; backward, both gradients of the latter.
    """
    dims = shape.dims
    return shape.element_bytes * num_rows * (sum(dims[:-1]) + 3 * sum(dims[1:-1]))


class RowPipeline:
    """The plan of all ranks. Ranks with slices or shares of one size have the same steps."""

    def __init__(self, shape: StackShape, structure: MixedStructure) -> None:
        self.shape, self.structure = shape, structure
        self.buffers = min(BUFFERS, len(structure.forward))
        self.group = tuple(range(structure.world_size))
        self.nothing = (0,) * structure.world_size
        self.dealt = [structure.dealt(chunk) for chunk in range(len(structure.forward))]
        self.columns = {width: structure.columns(width) for width in shape.dims}
        self._sent: dict[tuple[object, ...], tuple[int, ...]] = {}

    def iteration(self) -> Iteration:
        """The steps of one epoch of every rank."""
        held = self.structure
        sparse: dict[tuple[int, ...], RankSteps] = {}
        dense: dict[tuple[int, ...], RankSteps] = {}
        complete: dict[tuple[tuple[int, ...], tuple[int, ...]], RankSteps] = {}
        ranks: list[RankSteps] = []
        for rank in range(held.sparse_ranks):
            cuts = tuple(self.columns[width][rank] for width in self.shape.dims)
            if cuts not in sparse:
                sparse[cuts] = _SparseSteps(self, rank).all()
            ranks.append(sparse[cuts])
        for place in range(held.dense_ranks):
            rows = tuple(dealt[place] for dealt in self.dealt)
            if rows not in dense:
                dense[rows] = _DenseSteps(self, rows).all()
            train = held.train_rows[place]
            if (rows, train) not in complete:
                complete[rows, train] = self._with_loss(dense[rows], rows, train)
            ranks.append(complete[rows, train])
        return tuple(ranks)

    def _with_loss(
        self, steps: RankSteps, rows: tuple[int, ...], train: tuple[int, ...]
    ) -> RankSteps:
        """Say how many training rows each chunk has: no two ranks need agree in that."""
        classes, s = self.shape.dims[-1], self.shape.element_bytes
        chunks = iter(self.structure.forward)
        complete = []
        for step in steps:
            if step.op == "softmax_cross_entropy":
                n, t = rows[chunk := next(chunks)], train[chunk]
                step = replace(
                    step, rows=n * classes, nonzeros=t * classes, width=classes,
                    flops=5 * t * classes, bytes=(n + 2 * t) * classes * s,
                )  # fmt: skip
            complete.append(step)
        return tuple(complete)

    def sent_by_sparse(self, chunk: int, cut: int) -> tuple[int, ...]:
        """Bytes to each rank of a sparse rank's columns of a chunk."""
        key = ("sparse", chunk, cut)
        if key not in self._sent:
            row = cut * self.shape.element_bytes
            none = (0,) * self.structure.sparse_ranks
            self._sent[key] = (*none, *(rows * row for rows in self.dealt[chunk]))
        return self._sent[key]

    def sent_by_dense(self, rows: int, width: int) -> tuple[int, ...]:
        """Bytes to each rank of a dense rank's rows of a tensor."""
        key = ("dense", rows, width)
        if key not in self._sent:
            column = rows * self.shape.element_bytes
            none = (0,) * self.structure.dense_ranks
            self._sent[key] = (*(cut * column for cut in self.columns[width]), *none)
        return self._sent[key]

    # -- memory ----------------------------------------------------------------------------------

    def resident(self) -> tuple[dict[str, int], ...]:
        """Bytes of each rank that live from before the first epoch: here, all there are."""
        held = self.structure
        sparse = [self._sparse_bytes(rank) for rank in range(held.sparse_ranks)]
        dense = [self._dense_bytes(place) for place in range(held.dense_ranks)]
        return (*sparse, *dense)

    def _sparse_bytes(self, rank: int) -> dict[str, int]:
        shape, held = self.shape, self.structure
        s, dims, n = shape.element_bytes, shape.dims, held.num_rows
        cuts = [self.columns[width][rank] for width in dims[:-1]]
        pointers = 8 * (n + len(held.forward))
        drops = shape.input_dropout > 0
        return {
            "parameters": 4 * shape.num_parameters * s,
            "x": n * cuts[0] * s,
            "h0": n * cuts[0] * s if drops else 0,
            "row_ids": 8 * n if drops else 0,
            "topology": pointers + 4 * sum(held.nonzeros),
            "topology_t": pointers + 4 * sum(held.nonzeros_t),
            "scales": (2 if shape.model.normalisation == "symmetric" else 1) * n * s,
            "columns": column_buffers(shape.num_layers) * n * max(cuts[1:], default=0) * s,
            "pieces": self.buffers * held.tallest * max(cuts) * s,
        }

    def _dense_bytes(self, place: int) -> dict[str, int]:
        shape, held = self.shape, self.structure
        s, dims = shape.element_bytes, shape.dims
        rows = sum(dealt[place] for dealt in self.dealt)
        found = {
            "parameters": 4 * shape.num_parameters * s,
            "labels": 8 * rows + 3 * rows,
            "row_ids": 8 * rows,
            "train_rows": 8 * sum(held.train_rows[place]),
        }
        if shape.model.self_weight:
            copies = 2 if shape.input_dropout > 0 else 1
            found["x"] = copies * rows * dims[0] * s
        if held.sparse_ranks > 1:
            tallest = max(dealt[place] for dealt in self.dealt)
            wide = max(dims[:-1])
            back = max(dims[1:-1], default=0)
            found["pieces"] = self.buffers * tallest * (wide + back) * s
        for layer in range(1, shape.num_layers + 1):
            found[f"z{layer}"] = rows * dims[layer - 1] * s
            found[f"h{layer}"] = rows * dims[layer] * s
            found[f"g{layer}"] = rows * dims[layer] * s
        return found


def column_buffers(num_layers: int) -> int:
    """Buffers of a sparse rank's columns: one is read while another fills."""
    return 2 if num_layers > 1 else 0


class _Steps:
    """Write the steps of one rank; the runtime performs exactly these."""

    lane: Lane

    def __init__(self, pipeline: RowPipeline) -> None:
        self.pipeline, self.shape, self.structure = pipeline, pipeline.shape, pipeline.structure
        self.s = pipeline.shape.element_bytes
        self.steps: list[Step] = []

    def add(
        self, name: str, kind: Kind, op: str, phase: Phase, layer: int,
        *, lane: Lane | None = None, after: tuple[str, ...] = (), **facts: Any,
    ) -> str:  # fmt: skip
        self.steps.append(
            Step(
                name=name, kind=kind, op=op, lane=lane or self.lane, phase=phase, layer=layer,
                after=tuple(After(step) for step in after), **facts,
            )
        )  # fmt: skip
        return name

    def exchange(
        self, name: str, lane: Lane, phase: Phase, layer: int, rows: int, width: int,
        send: tuple[int, ...] | None, after: tuple[str, ...] = (),
    ) -> str:  # fmt: skip
        """A handover or return; `send` is None at its receiving end."""
        size = rows * width * self.s
        return self.add(
            name, Kind.ALL_TO_ALL, "all_to_all", phase, layer, lane=lane, after=after,
            rows=rows * width, width=width, bytes=0 if send is None else size, buffer_bytes=size,
            send_bytes=self.pipeline.nothing if send is None else send, group=self.pipeline.group,
        )  # fmt: skip

    def elementwise(
        self, name: str, op: str, phase: Phase, layer: int, rows: int, width: int, passes: int,
        after: tuple[str, ...] = (),
    ) -> str:  # fmt: skip
        return self.add(
            name, Kind.ELEMENTWISE, op, phase, layer, after=after, rows=rows * width, width=width,
            flops=rows * width, bytes=passes * rows * width * self.s,
        )  # fmt: skip

    def update(self, after: tuple[str, ...]) -> None:
        theta, group = self.shape.num_parameters, self.pipeline.group
        size = (theta + 1) * self.s
        name = self.add(
            "sync/gradients", Kind.ALL_REDUCE, "all_reduce", Phase.SYNC, -1, lane=Lane.COMM,
            after=after, rows=theta + 1, buffer_bytes=size, group=group,
            bytes=all_reduce_bytes(size, len(group)),
        )  # fmt: skip
        self.add(
            "update/adam", Kind.OPTIMIZER, "adam", Phase.UPDATE, -1, after=(name,), rows=theta,
            flops=12 * theta, bytes=7 * theta * self.s,
        )  # fmt: skip

    def order(self, phase: Phase) -> tuple[int, ...]:
        held = self.structure
        return held.forward if phase is Phase.FORWARD else held.backward


class _SparseSteps(_Steps):
    lane = Lane.SPARSE

    def __init__(self, pipeline: RowPipeline, rank: int) -> None:
        super().__init__(pipeline)
        self.cuts = {width: cuts[rank] for width, cuts in pipeline.columns.items()}
        self.returned: tuple[str, ...] = ()

    def all(self) -> RankSteps:
        shape = self.shape
        dims, layers, n = shape.dims, shape.num_layers, self.structure.num_rows
        if shape.input_dropout > 0:
            cut = self.cuts[dims[0]]
            self.elementwise("forward/0/dropout", "dropout", Phase.FORWARD, 0, n, cut, 2)
        for layer in range(1, layers):
            self._chunks(Phase.FORWARD, layer, dims[layer - 1], Phase.FORWARD, dims[layer])
        turn = dims[layers - 1] if layers > 1 else None
        self._chunks(Phase.FORWARD, layers, dims[layers - 1], Phase.BACKWARD, turn)
        for layer in range(layers - 1, 0, -1):
            back = dims[layer - 1] if layer > 1 else None
            self._chunks(Phase.BACKWARD, layer, dims[layer], Phase.BACKWARD, back)
        self.update(())
        return tuple(self.steps)

    def _chunks(
        self, phase: Phase, layer: int, width: int, returns: Phase, back: int | None
    ) -> None:
        """Multiply and hand over every chunk; `back` is the width of what comes back, if any."""
        # A product needs all rows of its input: the last that came back.
        first, handed, last = self.returned, list[str](), ""
        for chunk in self.order(phase):
            waits = first if not handed else ()
            if len(handed) >= BUFFERS:
                waits = (handed[-BUFFERS],)
            handed.append(self._hand(phase, layer, width, chunk, waits))
            if back is not None:
                last = self._return(returns, layer, back, chunk)
        self.returned = (last,) if last else ()

    def _hand(
        self, phase: Phase, layer: int, width: int, chunk: int, waits: tuple[str, ...]
    ) -> str:
        held, cut, where = self.structure, self.cuts[width], f"{phase}/{layer}"
        entries = held.nonzeros if phase is Phase.FORWARD else held.nonzeros_t
        rows, nnz = held.rows(chunk), entries[chunk]
        if cut:
            read = min(held.num_rows, nnz)
            name = self.add(
                f"{where}/spmm/{chunk}", Kind.SPMM, "spmm", phase, layer, after=waits, rows=rows,
                source_rows=held.num_rows, nonzeros=nnz, width=cut, flops=2 * nnz * cut,
                bytes=8 * (rows + 1) + 4 * nnz + (read + rows) * cut * self.s,
            )  # fmt: skip
            waits = (name,)
        send = self.pipeline.sent_by_sparse(chunk, cut)
        return self.exchange(
            f"{where}/hand/{chunk}", Lane.COMM, phase, layer, rows, cut, send, waits
        )

    def _return(self, phase: Phase, layer: int, width: int, chunk: int) -> str:
        name, rows = f"{phase}/{layer}/return/{chunk}", self.structure.rows(chunk)
        return self.exchange(name, Lane.BACKGROUND, phase, layer, rows, self.cuts[width], None)


class _DenseSteps(_Steps):
    lane = Lane.DENSE

    def __init__(self, pipeline: RowPipeline, rows: tuple[int, ...]) -> None:
        super().__init__(pipeline)
        self.rows, self.own_rows = rows, sum(rows)
        self.alone = self.structure.sparse_ranks == 1

    def all(self) -> RankSteps:
        shape = self.shape
        layers, own_rows = shape.num_layers, self.own_rows
        if shape.model.self_weight and shape.input_dropout > 0:
            width = shape.dims[0]
            self.elementwise("forward/0/dropout", "dropout", Phase.FORWARD, 0, own_rows, width, 2)
        for layer in range(1, layers + 1):
            self._forward(layer)
        for layer in range(layers, 1, -1):
            self._weights(layer, own_rows, "")
            self._backward(layer - 1)
        self.update((self.steps[-1].name,))
        return tuple(self.steps)

    def _forward(self, layer: int) -> None:
        shape, phase, where = self.shape, Phase.FORWARD, f"forward/{layer}"
        fan_in, fan_out, own = shape.dims[layer - 1], shape.dims[layer], shape.model.self_weight
        if own:
            # Needs no sparse rank: it fills the time until the first chunk is here.
            op = "gemm_nn_bias"
            self._gemm(f"{where}/self", op, phase, layer, self.own_rows, fan_in, fan_out)
        op = "gemm_nn_add" if own else "gemm_nn_bias"
        inbox, outbox = _Inbox(self, phase, layer), _Outbox(self, phase, layer)
        turn = _Outbox(self, Phase.BACKWARD, layer)
        for chunk in self.structure.forward:
            rows, here = self.rows[chunk], inbox.take(chunk, fan_in)
            name = f"{where}/gemm/{chunk}"
            self._gemm(name, op, phase, layer, rows, fan_in, fan_out, after=here)
            if layer < shape.num_layers:
                name, op_name = f"{where}/activation/{chunk}", "relu"
                if shape.dropout > 0:
                    op_name = "relu_dropout"
                self.elementwise(name, op_name, phase, layer, rows, fan_out, 2)
                outbox.put(chunk, fan_out, name)
            else:
                name, op_name = f"forward/loss/{chunk}", "softmax_cross_entropy"
                self.add(name, Kind.ELEMENTWISE, op_name, phase, layer)
                self._input(layer, chunk, turn)

    def _backward(self, layer: int) -> None:
        """Write the pass from the gradient of H_l to that of the product below."""
        shape, phase, where = self.shape, Phase.BACKWARD, f"backward/{layer}"
        width, above = shape.dims[layer], shape.dims[layer + 1]
        inbox, outbox = _Inbox(self, phase, layer), _Outbox(self, phase, layer)
        for chunk in self.structure.backward:
            rows, here = self.rows[chunk], inbox.take(chunk, width)
            if shape.model.self_weight:
                name, op = f"backward/{layer + 1}/self_input/{chunk}", "gemm_nt_add"
                self._gemm(name, op, phase, layer + 1, rows, above, width, after=here)
                here = ()
            name = f"{where}/activation/{chunk}"
            self.elementwise(name, "relu_backward", phase, layer, rows, width, 3, after=here)
            self._input(layer, chunk, outbox)

    def _input(self, layer: int, chunk: int, outbox: _Outbox) -> None:
        """Write what follows the gradient of a chunk's output: that of its input, if there is."""
        rows, fan_in = self.rows[chunk], self.shape.dims[layer - 1]
        if layer == 1:
            self._weights(layer, rows, f"/{chunk}")
            return
        name, fan_out = f"backward/{layer}/input/{chunk}", self.shape.dims[layer]
        self._gemm(name, "gemm_nt", Phase.BACKWARD, layer, rows, fan_out, fan_in)
        outbox.put(chunk, fan_in, name)

    def _weights(self, layer: int, rows: int, suffix: str) -> None:
        """Write the weights' gradients over some rows."""
        shape, phase, where = self.shape, Phase.BACKWARD, f"backward/{layer}"
        fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
        self.elementwise(f"{where}/bias{suffix}", "column_sum", phase, layer, rows, fan_out, 1)
        self._gemm(f"{where}/weight{suffix}", "gemm_tn", phase, layer, fan_in, rows, fan_out)
        if shape.model.self_weight:
            name = f"{where}/self_weight{suffix}"
            self._gemm(name, "gemm_tn", phase, layer, fan_in, rows, fan_out)

    def copy(
        self, name: str, phase: Phase, layer: int, chunk: int, width: int, after: tuple[str, ...]
    ) -> str:
        """Blocks of columns into whole rows, or back."""
        rows = self.rows[chunk]
        return self.add(
            name, Kind.GATHER, "gather", phase, layer, after=after, rows=rows, width=width,
            source_rows=rows, bytes=2 * rows * width * self.s,
        )  # fmt: skip

    def _gemm(
        self, name: str, op: str, phase: Phase, layer: int, m: int, k: int, n: int,
        after: tuple[str, ...] = (),
    ) -> str:  # fmt: skip
        return self.add(
            name, Kind.GEMM, op, phase, layer, after=after, rows=m, inner=k, width=n,
            flops=2 * m * k * n, bytes=(m * k + k * n + m * n) * self.s,
        )  # fmt: skip


class _Inbox:
    """A dense rank's end of the handovers of one layer."""

    def __init__(self, steps: _DenseSteps, phase: Phase, layer: int) -> None:
        self.steps, self.phase, self.layer = steps, phase, layer
        self.unpacked: list[str] = []

    def take(self, chunk: int, width: int) -> tuple[str, ...]:
        """Write a handover; return what the first step on its rows waits for on another lane."""
        steps, where = self.steps, f"{self.phase}/{self.layer}"
        name = steps.exchange(
            f"{where}/hand/{chunk}", Lane.COMM, self.phase, self.layer, steps.rows[chunk], width,
            None, (self.unpacked[-BUFFERS],) if len(self.unpacked) >= BUFFERS else (),
        )  # fmt: skip
        if steps.alone:
            return (name,)
        name = steps.copy(f"{where}/unpack/{chunk}", self.phase, self.layer, chunk, width, (name,))
        self.unpacked.append(name)
        return ()


class _Outbox:
    """A dense rank's end of the returns of one layer."""

    def __init__(self, steps: _DenseSteps, phase: Phase, layer: int) -> None:
        self.steps, self.phase, self.layer = steps, phase, layer
        self.sent: list[str] = []

    def put(self, chunk: int, width: int, made: str) -> None:
        """Write the return of a chunk whose rows the step `made` has finished."""
        steps, where = self.steps, f"{self.phase}/{self.layer}"
        if not steps.alone:
            room = (self.sent[-BUFFERS],) if len(self.sent) >= BUFFERS else ()
            name = f"{where}/pack/{chunk}"
            made = steps.copy(name, self.phase, self.layer, chunk, width, room)
        rows = steps.rows[chunk]
        self.sent.append(
            steps.exchange(
                f"{where}/return/{chunk}", Lane.BACKGROUND, self.phase, self.layer, rows, width,
                steps.pipeline.sent_by_dense(rows, width), (made,),
            )
        )  # fmt: skip
