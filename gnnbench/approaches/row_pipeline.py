"""Steps, memory and volume of a pipeline of row chunks between sparse and dense ranks.

Every rank takes part in every handover and return, in one order: handover k of a layer, then its
return k. Sparse ranks have two buffers for products under way, so the product of chunk k waits for
the handover of chunk k - 2. Dense ranks receive into place where there is a single sparse rank;
else blocks of columns come into one of two buffers and are put together. Returns mirror that.

Legend: s bytes per element, S sparse ranks, D dense ranks, N rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gnnbench.approaches.layers import StackShape
from gnnbench.plan import After, Iteration, Kind, Lane, Phase, RankSteps, Step, all_reduce_bytes

if TYPE_CHECKING:
    from gnnbench.approaches.mixed_accelerators import MixedStructure

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
        complete: dict[tuple[tuple[int, ...], int], RankSteps] = {}
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
                complete[rows, train] = self._with_loss(dense[rows], sum(rows), train)
            ranks.append(complete[rows, train])
        return tuple(ranks)

    def _with_loss(self, steps: RankSteps, rows: int, train: int) -> RankSteps:
        """Put the loss of a rank's training rows, which no other rank need have as many of, in."""
        classes, s = self.shape.dims[-1], self.shape.element_bytes
        loss = {
            "rows": rows * classes, "nonzeros": train * classes, "width": classes,
            "flops": 5 * train * classes, "bytes": (rows + 2 * train) * classes * s,
        }  # fmt: skip
        return tuple(
            replace(step, **loss) if step.op == "softmax_cross_entropy" else step for step in steps
        )

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
            "pieces": BUFFERS * held.tallest * max(cuts) * s,
        }

    def _dense_bytes(self, place: int) -> dict[str, int]:
        shape, held = self.shape, self.structure
        s, dims = shape.element_bytes, shape.dims
        rows = sum(dealt[place] for dealt in self.dealt)
        found = {
            "parameters": 4 * shape.num_parameters * s,
            "labels": 8 * rows + 3 * rows,
            "row_ids": 8 * rows,
            "train_rows": 8 * held.train_rows[place],
        }
        if shape.model.self_weight:
            copies = 2 if shape.input_dropout > 0 else 1
            found["x"] = copies * rows * dims[0] * s
        if held.sparse_ranks > 1:
            tallest = max(dealt[place] for dealt in self.dealt)
            wide = max(dims[:-1])
            back = max(dims[1:-1], default=0)
            found["pieces"] = BUFFERS * tallest * (wide + back) * s
        for layer in range(1, shape.num_layers + 1):
            found[f"z{layer}"] = rows * dims[layer - 1] * s
            found[f"h{layer}"] = rows * dims[layer] * s
            found[f"g{layer}"] = rows * dims[layer] * s
        return found


def column_buffers(num_layers: int) -> int:
    """Buffers of a sparse rank's columns: one is read while another fills, between inner layers."""
    return min(num_layers - 1, 2)


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
            self._chunks(Phase.FORWARD, layer, dims[layer - 1], (layer, dims[layer]))
        self._chunks(Phase.FORWARD, layers, dims[layers - 1], None)
        if layers > 1:
            self._returns(Phase.BACKWARD, layers, dims[layers - 1])
        for layer in range(layers - 1, 0, -1):
            back = (layer, dims[layer - 1]) if layer > 1 else None
            self._chunks(Phase.BACKWARD, layer, dims[layer], back)
        self.update(())
        return tuple(self.steps)

    def _chunks(
        self, phase: Phase, layer: int, width: int, returns: tuple[int, int] | None
    ) -> None:
        """Multiply and hand over every chunk; `returns` is the layer and width of what follows."""
        # A product needs all rows of its input: the last that came back.
        first, handed, last = self.returned, list[str](), ""
        for chunk in self.order(phase):
            waits = first if not handed else ()
            if len(handed) >= BUFFERS:
                waits = (handed[-BUFFERS],)
            handed.append(self._hand(phase, layer, width, chunk, waits))
            if returns is not None:
                last = self._return(phase, *returns, chunk)
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

    def _returns(self, phase: Phase, layer: int, width: int) -> None:
        for chunk in self.order(phase):
            self.returned = (self._return(phase, layer, width, chunk),)


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
        self.add(
            "forward/loss", Kind.ELEMENTWISE, "softmax_cross_entropy", Phase.FORWARD, layers
        )
        for layer in range(layers, 0, -1):
            self._backward(layer)
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
        pieces = _Pieces(self, phase, layer)
        for chunk in self.structure.forward:
            rows = self.rows[chunk]
            here = pieces.receive(chunk, fan_in)
            last = self._gemm(
                f"{where}/gemm/{chunk}", op, phase, layer, rows, fan_in, fan_out, after=here
            )
            if layer < shape.num_layers:
                op_name = "relu_dropout" if shape.dropout > 0 else "relu"
                last = self.elementwise(
                    f"{where}/activation/{chunk}", op_name, phase, layer, rows, fan_out, 2
                )
                pieces.send(chunk, fan_out, last)

    def _backward(self, layer: int) -> None:
        shape, phase, where = self.shape, Phase.BACKWARD, f"backward/{layer}"
        fan_in, fan_out, own = shape.dims[layer - 1], shape.dims[layer], shape.model.self_weight
        pieces = _Pieces(self, phase, layer)
        for chunk in self.structure.backward:
            rows, here = self.rows[chunk], tuple[str, ...]()
            if layer < shape.num_layers:
                here = pieces.receive(chunk, fan_out)
                if own:
                    name, above = f"backward/{layer + 1}/self_input/{chunk}", shape.dims[layer + 1]
                    self._gemm(
                        name, "gemm_nt_add", phase, layer + 1, rows, above, fan_out, after=here
                    )
                    here = ()
                self.elementwise(
                    f"{where}/activation/{chunk}", "relu_backward", phase, layer, rows, fan_out,
                    3, after=here,
                )  # fmt: skip
            if layer > 1:
                name = f"{where}/input/{chunk}"
                last = self._gemm(name, "gemm_nt", phase, layer, rows, fan_out, fan_in)
                pieces.send(chunk, fan_in, last)
            else:
                self._weights(layer, rows, f"/{chunk}")
        if layer > 1:
            self._weights(layer, self.own_rows, "")

    def _weights(self, layer: int, rows: int, suffix: str) -> None:
        """Gradients of the weights over some rows.

        Above the first layer they fill the time until the next handover; in the first, where
        nothing follows, they go chunk by chunk behind the sparse ranks.
        """
        shape, phase, where = self.shape, Phase.BACKWARD, f"backward/{layer}"
        fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
        self.elementwise(f"{where}/bias{suffix}", "column_sum", phase, layer, rows, fan_out, 1)
        self._gemm(f"{where}/weight{suffix}", "gemm_tn", phase, layer, fan_in, rows, fan_out)
        if shape.model.self_weight:
            name = f"{where}/self_weight{suffix}"
            self._gemm(name, "gemm_tn", phase, layer, fan_in, rows, fan_out)

    def _gemm(
        self, name: str, op: str, phase: Phase, layer: int, m: int, k: int, n: int,
        after: tuple[str, ...] = (),
    ) -> str:  # fmt: skip
        return self.add(
            name, Kind.GEMM, op, phase, layer, after=after, rows=m, inner=k, width=n,
            flops=2 * m * k * n, bytes=(m * k + k * n + m * n) * self.s,
        )  # fmt: skip


class _Pieces:
    """A dense rank's ends of the handovers and returns of one layer."""

    def __init__(self, steps: _DenseSteps, phase: Phase, layer: int) -> None:
        self.steps, self.phase, self.layer = steps, phase, layer
        self.unpacked: list[str] = []
        self.sent: list[str] = []

    def receive(self, chunk: int, width: int) -> tuple[str, ...]:
        """Write the handover of a chunk; return what the first step on its rows waits for."""
        steps, where = self.steps, f"{self.phase}/{self.layer}"
        room = self.unpacked[-BUFFERS:][:1] if len(self.unpacked) >= BUFFERS else []
        name = steps.exchange(
            f"{where}/hand/{chunk}", Lane.COMM, self.phase, self.layer, steps.rows[chunk], width,
            None, tuple(room),
        )  # fmt: skip
        if steps.alone:
            return (name,)
        self.unpacked.append(self._copy(f"{where}/unpack/{chunk}", chunk, width, (name,)))
        return ()

    def send(self, chunk: int, width: int, made: str) -> None:
        """Write the return of a chunk whose rows the step `made` has finished."""
        steps, where = self.steps, f"{self.phase}/{self.layer}"
        if not steps.alone:
            room = self.sent[-BUFFERS:][:1] if len(self.sent) >= BUFFERS else []
            made = self._copy(f"{where}/pack/{chunk}", chunk, width, tuple(room))
        rows = steps.rows[chunk]
        self.sent.append(
            steps.exchange(
                f"{where}/return/{chunk}", Lane.BACKGROUND, self.phase, self.layer, rows, width,
                steps.pipeline.sent_by_dense(rows, width), (made,),
            )
        )  # fmt: skip

    def _copy(self, name: str, chunk: int, width: int, after: tuple[str, ...]) -> str:
        """Blocks of columns into whole rows, or back."""
        rows = self.steps.rows[chunk]
        return self.steps.add(
            name, Kind.GATHER, "gather", self.phase, self.layer, after=after, rows=rows,
            width=width, source_rows=rows, bytes=2 * rows * width * self.steps.s,
        )  # fmt: skip
