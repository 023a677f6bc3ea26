"""The writer of a stream's iterations: ingest, sample, fetch, forward, backward, update."""

from __future__ import annotations

from typing import Any

from gnnbench import work
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import StreamStructure
from gnnbench.approaches.writing.chain import Chain
from gnnbench.iterations import Iteration, RankClass
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import After, Buffer, Ints, Lane, Phase, Size, Space, Work

ID_BYTES = work.ID_BYTES


def attention_work(
    shape: TemporalShape, layer: int, queries: Size, edges: Size, *, backward: bool
) -> Work:
    """Work of a layer, from sizes of the plan or of the tensors at hand."""
    return work.temporal_attention(
        queries=queries,
        edges=edges,
        fanout=shape.fanouts[layer - 1],
        width=shape.width(layer),
        edge_width=shape.edges,
        hidden=shape.hidden,
        heads=shape.heads,
        kept=shape.attention_kept(layer, queries, edges),
        parameters=shape.attention_parameters(layer),
        element_bytes=shape.element_bytes,
        backward=backward,
    )


def decoder_work(shape: TemporalShape, roots: Size, pairs: Size, *, backward: bool) -> Work:
    """Work of the decoder, from sizes of the plan or of the tensors at hand."""
    return work.link_decoder(
        roots=roots,
        pairs=pairs,
        hidden=shape.hidden,
        kept=shape.decoder_kept(pairs),
        parameters=shape.decoder_parameters,
        element_bytes=shape.element_bytes,
        backward=backward,
    )


def updater_work(shape: TemporalShape, distinct: Size, rows: Size, *, backward: bool) -> Work:
    """Work of the memory's updater, from sizes of the plan or of the tensors at hand."""
    return work.memory_updater(
        distinct=distinct,
        rows=rows * shape.width(1),
        message=shape.message,
        hidden=shape.hidden,
        kept=shape.updater_kept(distinct, rows),
        parameters=shape.updater_parameters,
        element_bytes=shape.element_bytes,
        backward=backward,
    )


def sample_bytes(shape: TemporalShape, queries: Ints, distinct: Size) -> Size:
    """Bytes of a sample as tensors.

    A delta and a place per edge, ids of rows that are fetched; with memory, per distinct node its
    id, the age of its message, whether it has one and of which event, and a place per row.
    """
    edges, s = queries[-1] - queries[0], shape.element_bytes
    per_edge = s + ID_BYTES + (ID_BYTES if shape.edges else 0)
    per_row = (ID_BYTES if shape.nodes else 0) + (ID_BYTES if shape.memory else 0)
    per_node = (ID_BYTES + 2 * s + (ID_BYTES if shape.edges else 0)) if shape.memory else 0
    found: Size = edges * per_edge + queries[-1] * per_row + distinct * per_node
    return found


def resident(shape: TemporalShape, data: Any) -> tuple[Buffer, ...]:
    """Buffers that live throughout: features, parameters, gradient, the optimizer's state, memory.

    A node's memory, and its message: the memories of both ends.
    """
    s, count = shape.element_bytes, shape.num_parameters
    moments = {"adam": 2, "adagrad": 1, "sgd": 0}[shape.optimizer]
    return (
        Buffer("node_features", data.num_nodes * shape.nodes * s),
        Buffer("edge_features", data.num_edges * shape.edges * s),
        Buffer("parameters", (2 + moments) * count * s + s),
        Buffer("memory", shape.memory * data.num_nodes * 3 * shape.hidden * s),
        Buffer("clock", shape.memory * data.num_nodes * 3 * ID_BYTES, Space.HOST),
    )


class StreamWriter:
    """Writes iterations; the ranks are one class.

    Args:
        shape: the model.
        structure: what is asked for when, and its sizes.
        device: "cpu" where nothing has to be copied.
    """

    def __init__(self, shape: TemporalShape, structure: StreamStructure, device: str) -> None:
        self.shape, self.structure, self.device = shape, structure, device
        self.group = tuple(range(structure.protocol.ranks))

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
                work.ingest(stop - first),
                phase=Phase.LOAD,
                after=waits,
                allocates=(held,),
            )
        if piece.kind != "ingest":
            queries, distinct = self.structure.sizes(period, number)
            evaluates = piece.kind == "evaluate"
            self._input(chain, queries, distinct, evaluates, waits)
            if evaluates:
                self._predict(chain, piece, period, queries, distinct)
            else:
                self._learn(chain, piece, queries, distinct)
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

    def _input(
        self,
        chain: Chain,
        queries: Ints,
        distinct: Ints,
        evaluates: bool,
        waits: tuple[After, ...],
    ) -> None:
        """Draw neighbours and fetch the rows of nodes and edges."""
        shape, s = self.shape, self.shape.element_bytes
        phases = (Phase.EVALUATE,) * 2 if evaluates else (Phase.SAMPLE, Phase.FETCH)
        held = sample_bytes(shape, queries, distinct)
        chain.step(
            "sample/draw",
            work.sample_temporal(list(queries)),
            phase=phases[0],
            after=waits,
            allocates=(Buffer("sample", held),),
        )
        if self.device != "cpu":
            chain.step("fetch/copy", work.to_device(held), phase=phases[1], lane=Lane.COPY)
        edges = queries[-1] - queries[0]
        stream = self.structure.stream
        with_memory = shape.memory * distinct
        for name, rows, width, source in (
            ("nodes", queries[-1], shape.nodes, stream.num_nodes),
            ("edges", edges, shape.edges, stream.num_edges),
            ("memory", with_memory, shape.memory * 3 * shape.hidden, stream.num_nodes),
            ("messages", with_memory, shape.memory * shape.edges, stream.num_edges),
        ):
            if width:
                chain.step(
                    f"fetch/{name}",
                    work.gather(rows, width, source, s),
                    phase=phases[1],
                    allocates=(Buffer(f"{name}_rows", rows * width * s),),
                )

    def _forward(
        self,
        chain: Chain,
        queries: Ints,
        distinct: Ints,
        pairs: Size,
        phase: Phase,
        *held: Buffer,
    ) -> None:
        shape, s, top = self.shape, self.shape.element_bytes, self.shape.num_layers
        if shape.memory:
            done = updater_work(shape, distinct, queries[-1], backward=False)
            kept = shape.updater_kept(distinct, queries[-1]) * s
            scratch = Buffer("scratch", distinct * (shape.message + 6 * shape.hidden) * s)
            chain.step(
                "forward/updater",
                done,
                phase=phase,
                allocates=(Buffer("kept_updater", kept), scratch),
            )
        for layer in range(1, top + 1):
            rows, edges = queries[top - layer], queries[top - layer + 1] - queries[top - layer]
            kept = shape.attention_kept(layer, rows, edges) * s
            scratch = Buffer("scratch", self._scratch(layer, rows, edges))
            chain.step(
                f"forward/attention_{layer}",
                attention_work(shape, layer, rows, edges, backward=False),
                phase=phase,
                layer=layer,
                allocates=(Buffer(f"kept_{layer}", kept), scratch),
            )
        held_by_decoder = Buffer("kept_decoder", (shape.decoder_kept(pairs) + 3 * pairs) * s)
        done = decoder_work(shape, queries[0], pairs, backward=False)
        chain.step("forward/decoder", done, phase=phase, allocates=(held_by_decoder, *held))

    def _scratch(self, layer: int, rows: Size, edges: Size) -> Size:
        """Bytes that come and go within a layer, the way back included."""
        d, f = self.shape.hidden, self.shape.fanouts[layer - 1]
        both = self.shape.width(layer) + self.shape.edges + d
        found: Size = (3 * rows * f * d + 2 * edges * (both + d)) * self.shape.element_bytes
        return found

    def _learn(self, chain: Chain, piece: Piece, queries: Ints, distinct: Ints) -> None:
        """Forward, loss, backward, all-reduce, update."""
        shape, s, top = self.shape, self.shape.element_bytes, self.shape.num_layers
        pairs = self._pairs(queries[0], shape.negatives)
        self._forward(chain, queries, distinct, pairs, Phase.FORWARD)
        chain.step("loss", work.binary_cross_entropy(pairs, s), phase=Phase.FORWARD)
        done = decoder_work(shape, queries[0], pairs, backward=True)
        chain.step("backward/decoder", done, phase=Phase.BACKWARD, frees=("kept_decoder",))
        for layer in range(top, 0, -1):
            rows, edges = queries[top - layer], queries[top - layer + 1] - queries[top - layer]
            chain.step(
                f"backward/attention_{layer}",
                attention_work(shape, layer, rows, edges, backward=True),
                phase=Phase.BACKWARD,
                layer=layer,
                frees=(f"kept_{layer}",),
            )
        if shape.memory:
            done = updater_work(shape, distinct, queries[-1], backward=True)
            chain.step("backward/updater", done, phase=Phase.BACKWARD, frees=("kept_updater",))
        count, ranks = shape.num_parameters, len(self.group)
        if ranks > 1:
            summed = work.all_reduce(count + 1, s, ranks)
            chain.step("sync/gradients", summed, phase=Phase.SYNC, lane=Lane.COMM, group=self.group)
        update = {"adam": work.adam, "sgd": work.sgd, "adagrad": work.adagrad}[shape.optimizer]
        chain.step(f"update/{shape.optimizer}", update(count, s), phase=Phase.UPDATE)
        if shape.memory:
            self._write(chain, piece)

    def _write(self, chain: Chain, piece: Piece) -> None:
        """Give every rank the new memory of the batch's ends; each writes all of it."""
        shape, s, ranks = self.shape, self.shape.element_bytes, len(self.group)
        share = max(map(len, piece.shares)) * 2 * shape.hidden
        room = Buffer("ends", (1 + ranks) * share * s)
        if ranks > 1:
            chain.step(
                "memory/gather",
                work.all_gather(share, s, ranks),
                phase=Phase.SYNC,
                lane=Lane.COMM,
                group=self.group,
            )
        rows = self.structure.written(piece)
        held = Buffer("written", 3 * rows * (3 * shape.hidden * s + ID_BYTES))
        done = work.memory_write(rows, 3 * shape.hidden, self.structure.stream.num_nodes, s)
        chain.step("memory/write", done, phase=Phase.UPDATE, allocates=(room, held))

    def _predict(
        self, chain: Chain, piece: Piece, period: int, queries: Ints, distinct: Ints
    ) -> None:
        """Forward; after the last batch of an increment, scores go to every rank."""
        negatives, s = self.structure.sampling.negatives[1], self.shape.element_bytes
        ranks, schedule = len(self.group), self.structure.schedule
        scores = schedule.share_of(*schedule.predicted(period)) * (1 + negatives)
        held = Buffer("scores", (1 + ranks) * scores * s)
        pairs = self._pairs(queries[0], negatives)
        self._forward(chain, queries, distinct, pairs, Phase.EVALUATE, held)
        if piece.closes and ranks > 1:
            chain.step(
                "evaluate/scores",
                work.all_gather(scores, s, ranks),
                phase=Phase.EVALUATE,
                lane=Lane.COMM,
                group=self.group,
            )

    def _pairs(self, roots: Size, negatives: int) -> Size:
        """Pairs that are scored: one true and some false ones per event."""
        found: Size = roots // (2 + negatives) * (1 + negatives)
        return found
