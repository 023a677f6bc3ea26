"""The writer of a stream's iterations: ingest, sample, fetch, forward, backward, update."""

from __future__ import annotations

from typing import Any

from gnnbench import work
from gnnbench.approaches.temporal.caching import CacheTrace
from gnnbench.approaches.temporal.inputs import InputWriter, num_pairs
from gnnbench.approaches.temporal.metrics import measured_bytes
from gnnbench.approaches.temporal.modules import decoder_work, layer_work, updater_work
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import Sizes, StreamStructure
from gnnbench.approaches.writing.chain import Chain
from gnnbench.iterations import Iteration, RankClass
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import After, Buffer, Lane, Phase, Size, Space

ID_BYTES = work.ID_BYTES


def resident(shape: TemporalShape, data: Any, trace: CacheTrace) -> tuple[Buffer, ...]:
    """Buffers that live throughout: features, parameters, gradient, the optimizer's state, memory.

    A node's memory, and that of the other end of its message; twice where old events are learnt
    from again. Features behind a cache are on the host, with a slot number per row.
    """
    s, count = shape.element_bytes, shape.num_parameters
    moments = {"adam": 2, "adagrad": 1, "sgd": 0}[shape.optimizer]
    memories = shape.memory * (1 + (trace.structure.protocol.replay > 0)) * data.num_nodes
    structure = trace.structure
    held = [
        # Scores of an increment, together and of all ranks.
        Buffer("gathered", (1 + structure.protocol.ranks) * structure.gathered_pairs * s),
        *schedule_buffers(structure),
        Buffer("parameters", (2 + moments) * count * s + s),
        Buffer("memory", memories * shape.memory_width * s),
        Buffer("clock", memories * 3 * ID_BYTES + shape.memory * data.num_nodes * 4, Space.HOST),
    ]
    for kind, rows, width in (
        ("nodes", data.num_nodes, shape.nodes),
        ("edges", data.num_edges, shape.edges),
    ):
        cached = kind in trace.kinds
        space = Space.HOST if cached else Space.DEVICE
        held.append(Buffer(f"{kind}_features", rows * width * s, space))
        if cached:
            slots = trace.how.capacity(kind, rows)
            held += [
                Buffer(f"{kind}_cache", slots * width * s),
                Buffer(f"{kind}_slots", ID_BYTES * (rows + 2 * slots), Space.HOST),
            ]
    return tuple(held)


def schedule_buffers(structure: StreamStructure) -> tuple[Buffer, ...]:
    """What a rank holds of the stream: its events, which are mapped, and the schedule."""
    return (
        Buffer("events", structure.event_bytes, Space.HOST),
        Buffer("schedule", structure.schedule_bytes, Space.HOST),
    )


class StreamWriter:
    """Writes iterations; the ranks are one class.

    Args:
        shape: the model.
        structure: what is asked for when, and its sizes.
        trace: of its caches.
        device: "cpu" where nothing has to be copied, and layers are loops on the host.
    """

    def __init__(
        self, shape: TemporalShape, structure: StreamStructure, trace: CacheTrace, device: str
    ) -> None:
        self.shape, self.structure = shape, structure
        self.input = InputWriter(shape, structure, trace, device)
        self.group = tuple(range(structure.protocol.ranks))
        self.on_host = device == "cpu"

    def iteration(self, period: int, number: int) -> Iteration:
        """One iteration of all ranks."""
        piece = self.structure.pieces[period][number]
        chain = Chain()
        # Nothing is prepared ahead: an iteration begins when the one before has ended.
        waits = (After(self._last(self._before(period, number)), 1),)
        first, stop = piece.ingest
        if stop > first:
            held = Buffer("store", self.structure.store_bytes[period], Space.HOST, exact=True)
            chain.step(
                "ingest",
                self.structure.ingestion(first, stop),
                phase=Phase.LOAD,
                after=waits,
                allocates=(held,),
            )
        if piece.kind != "ingest":
            evaluates = piece.kind == "evaluate"
            sizes = self.input.write(chain, (period, number), evaluates, waits)
            if evaluates:
                self._predict(chain, piece, period, sizes)
            else:
                self._learn(chain, piece, sizes)
                if self.shape.memory:
                    self._write(chain, piece)
        return Iteration([RankClass(self.group, chain.done())])

    def _before(self, period: int, number: int) -> Piece:
        """The piece before this one; the first has none, and waits for nothing."""
        pieces = self.structure.pieces
        if number:
            return pieces[period][number - 1]
        return pieces[max(period - 1, 0)][-1]

    def _last(self, piece: Piece) -> str:
        """The name of a piece's last step."""
        if piece.kind == "ingest":
            return "ingest"
        if piece.kind == "evaluate":
            gathers = piece.closes and len(self.group) > 1
            return "evaluate/scores" if gathers else "forward/decoder"
        return "memory/write" if self.shape.memory else f"update/{self.shape.optimizer}"

    def _forward(self, chain: Chain, sizes: Sizes, pairs: Size, phase: Phase, **last: Any) -> None:
        """Write the model's pass; `last` are fields of the decoder's step.

        In training every module keeps what its way back needs. In an evaluation only its rows are
        left of a module, until the next one has read them.
        """
        shape, s, top = self.shape, self.shape.element_bytes, self.shape.num_layers
        queries, distinct = sizes.queries, sizes.distinct
        learns = phase is Phase.FORWARD
        read: tuple[str, ...] = ()

        def held(name: str, size: Size, rows: Size, width: int) -> dict[str, Any]:
            nonlocal read
            kept = Buffer(f"kept_{name}", size)
            if learns:
                return {"allocates": (kept,)}
            made, freed = Buffer(f"made_{name}", rows * width * s), read
            read = (made.name,)
            return {"allocates": (kept, made), "frees": (kept.name, *freed)}

        if shape.memory:
            done = updater_work(shape, distinct, queries[-1], backward=False)
            size = shape.updater_kept(distinct, queries[-1]) * s
            room = held("updater", size, queries[-1], shape.width(1))
            chain.step("forward/updater", done, phase=phase, **room)
        for layer in range(1, top + 1):
            rows, edges = queries[top - layer], queries[top - layer + 1] - queries[top - layer]
            size = shape.layer_held(layer, rows, edges, on_host=self.on_host) * s
            if shape.dropout and learns:
                self._masks(chain, layer, rows, edges)
            chain.step(
                f"forward/{shape.layer}_{layer}",
                layer_work(shape, layer, rows, edges, backward=False),
                phase=phase,
                layer=layer,
                **held(str(layer), size, rows, shape.hidden),
            )
        room = held("decoder", (shape.decoder_kept(pairs) + 3 * pairs) * s, 0, 0)
        for name, value in last.items():
            room[name] = (*room.get(name, ()), *value)
        done = decoder_work(shape, queries[0], pairs, backward=False)
        chain.step("forward/decoder", done, phase=phase, **room)

    def _masks(self, chain: Chain, layer: int, rows: Size, edges: Size) -> None:
        """Draw the masks of a layer's dropout: of its output, and of its attention weights."""
        shape, s = self.shape, self.shape.element_bytes
        for name, count, width in (
            ("rows", rows, shape.hidden),
            ("edges", edges, shape.heads),
        ):
            chain.step(
                f"forward/{shape.layer}_{layer}/mask_{name}",
                work.dropout(count, width, s),
                phase=Phase.FORWARD,
                layer=layer,
                # The mask and the ones that it is drawn into.
                allocates=(Buffer(f"mask_{name}_{layer}", 2 * count * width * s),),
            )

    def _learn(self, chain: Chain, piece: Piece, sizes: Sizes) -> None:
        """Forward, loss, backward, all-reduce, update."""
        shape, s, top = self.shape, self.shape.element_bytes, self.shape.num_layers
        queries, distinct = sizes.queries, sizes.distinct
        pairs = num_pairs(piece, queries)
        self._forward(chain, sizes, pairs, Phase.FORWARD)
        chain.step("loss", work.binary_cross_entropy(pairs, s), phase=Phase.FORWARD)
        above = ""

        def back(name: str, scratch: Size, rows: Size, width: int) -> dict[str, Any]:
            """What comes and goes; the gradient of a module's rows ends with the next module."""
            nonlocal above
            grad = Buffer(f"of_{name}", rows * width * s)
            room = Buffer("scratch", scratch * s)
            frees = (room.name, f"kept_{name}", *((above,) if above else ()))
            above = grad.name
            return {"allocates": (grad, room), "frees": frees}

        done = decoder_work(shape, queries[0], pairs, backward=True)
        d = shape.hidden
        room = back("decoder", 4 * pairs * d, queries[0], d)
        chain.step("backward/decoder", done, phase=Phase.BACKWARD, **room)
        for layer in range(top, 0, -1):
            rows, edges = queries[top - layer], queries[top - layer + 1] - queries[top - layer]
            scratch = shape.layer_back(layer, rows, edges, on_host=self.on_host)
            room = back(str(layer), scratch, rows + edges, shape.width(layer))
            chain.step(
                f"backward/{shape.layer}_{layer}",
                layer_work(shape, layer, rows, edges, backward=True),
                phase=Phase.BACKWARD,
                layer=layer,
                **room,
            )
        if shape.memory:
            done = updater_work(shape, distinct, queries[-1], backward=True)
            room = back("updater", distinct * (shape.message + 6 * d), 0, 0)
            chain.step("backward/updater", done, phase=Phase.BACKWARD, **room)
        count, ranks = shape.num_parameters, len(self.group)
        if ranks > 1:
            summed = work.all_reduce(count + 1, s, ranks)
            chain.step("sync/gradients", summed, phase=Phase.SYNC, lane=Lane.COMM, group=self.group)
        update = {"adam": work.adam, "sgd": work.sgd, "adagrad": work.adagrad}[shape.optimizer]
        chain.step(
            f"update/{shape.optimizer}", update(count, s), phase=Phase.UPDATE, frees=(above,)
        )

    def _write(self, chain: Chain, piece: Piece, place: str = "memory") -> None:
        """Give every rank the new memory of the batch's ends; each writes all of it.

        `place` is put before the names of the steps.
        """
        shape, s, ranks = self.shape, self.shape.element_bytes, len(self.group)
        share = max(map(len, piece.shares)) * 2 * shape.hidden
        room = Buffer("ends", (1 + ranks) * share * s)
        if ranks > 1:
            chain.step(
                f"{place}/gather",
                work.all_gather(share, s, ranks),
                phase=Phase.SYNC,
                lane=Lane.COMM,
                group=self.group,
            )
        rows = self.structure.written(piece)
        held = Buffer("written", 3 * rows * (shape.memory_width * s + ID_BYTES))
        done = work.memory_write(rows, shape.memory_width, self.structure.stream.num_nodes, s)
        chain.step(f"{place}/write", done, phase=Phase.UPDATE, allocates=(room, held))

    def _predict(self, chain: Chain, piece: Piece, period: int, sizes: Sizes) -> None:
        """Forward; after the last batch of an increment, scores go to every rank."""
        s, ranks, structure = self.shape.element_bytes, len(self.group), self.structure
        first, stop = structure.schedule.predicted(period)
        scores = structure.most_pairs(first, stop)
        measures: dict[str, Any] = {}
        if piece.closes:
            size = measured_bytes(structure.all_pairs(first, stop), stop - first)
            metrics = Buffer("metrics", size, Space.HOST)
            measures = {"allocates": (metrics,), "frees": (metrics.name,)}
        gathers = bool(measures) and ranks > 1
        last: dict[str, Any] = {"allocates": (Buffer("scores", scores * s),)}
        if measures and not gathers:
            last = {"allocates": (*last["allocates"], *measures["allocates"])}
            last["frees"] = measures["frees"]
        self._forward(chain, sizes, num_pairs(piece, sizes.queries), Phase.EVALUATE, **last)
        if gathers:
            chain.step(
                "evaluate/scores",
                work.all_gather(scores, s, ranks),
                phase=Phase.EVALUATE,
                lane=Lane.COMM,
                group=self.group,
                **measures,
            )
