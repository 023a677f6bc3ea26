"""The writer of a batch's input: sample, here or from the owners; fetch rows, through caches."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.temporal.caching import CacheTrace
from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.approaches.temporal.structure import Sizes, StreamStructure
from gnnbench.approaches.writing.chain import Chain
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import After, Buffer, Ints, Lane, Phase, Size

ID_BYTES = work.ID_BYTES


def sample_bytes(
    shape: TemporalShape, queries: Ints, distinct: Size, cached: tuple[str, ...] = ()
) -> Size:
    """Bytes of a sample as tensors.

    A delta and a place per edge, ids of rows that are fetched without a cache; with memory, per
    distinct node its id, the age of its message, whether it has one and of which event, and a place
    per row.
    """
    edges, s = queries[-1] - queries[0], shape.element_bytes
    of_edges = ID_BYTES if shape.edges and "edges" not in cached else 0
    per_edge = s + ID_BYTES + of_edges
    of_nodes = ID_BYTES if shape.nodes and "nodes" not in cached else 0
    per_row = of_nodes + (ID_BYTES if shape.memory else 0)
    per_node = (ID_BYTES + 2 * s + of_edges) if shape.memory else 0
    found: Size = edges * per_edge + queries[-1] * per_row + distinct * per_node
    return found


def _answer_bytes(of: dict[str, Ints]) -> Ints:
    """Bytes of a cache's answer as tensors, from its counts.

    Place and slot per hit, place and row per miss, row and slot per row that enters, and a slot per
    refilled one.
    """
    found: Ints = 2 * of["hits"] + 2 * of["misses"] + 2 * of["entered"] + of["refilled"]
    return ID_BYTES * found


def num_pairs(piece: Piece, queries: Ints) -> Ints:
    """Pairs that each rank scores: the true one and the candidates of each event.

    R_0 counts source, destination and candidates.
    """
    found: Ints = queries[0] - np.array([len(share) for share in piece.shares], np.int64)
    return found


class InputWriter:
    """Writes the steps that draw neighbours and fetch rows.

    Args:
        shape: the model.
        structure: what is asked for when, and its sizes.
        trace: of the caches.
        device: "cpu" where index tensors need not be copied.
        lane: of sampling, of caches and of gathers.
        alive: batches whose input lives at once.
    """

    def __init__(
        self,
        shape: TemporalShape,
        structure: StreamStructure,
        trace: CacheTrace,
        device: str,
        *,
        lane: Lane = Lane.COMPUTE,
        alive: int = 1,
    ) -> None:
        self.shape, self.structure, self.trace, self.device = shape, structure, trace, device
        self.lane, self.alive = lane, alive
        self.group = tuple(range(structure.protocol.ranks))
        stream = structure.stream
        self.tables = {
            "nodes": (shape.nodes, stream.num_nodes),
            "edges": (shape.edges, stream.num_edges),
        }

    def write(
        self, chain: Chain, place: tuple[int, int], evaluates: bool, waits: tuple[After, ...]
    ) -> Sizes:
        """Write an iteration's input; return its sizes.

        Args:
            place: period and number of the iteration.
            waits: of its first step.
        """
        shape = self.shape
        sampling, fetching = (Phase.EVALUATE,) * 2 if evaluates else (Phase.SAMPLE, Phase.FETCH)
        found, cached = self.structure.sizes(*place), self.trace.kinds
        held = sample_bytes(shape, found.queries, found.distinct, cached)
        counts = {kind: self.trace.counts(*place, kind) for kind in cached}
        # What is filled ahead would grow while the batch before it lives: it has the largest size
        # from the start.
        room = {
            kind: of if self.alive == 1 else self.trace.most(place[0], kind)
            for kind, of in counts.items()
        }
        grown: Size = 0
        for kind, of in counts.items():
            held = held + _answer_bytes(of)
            grown = grown + _answer_bytes(room[kind]) - _answer_bytes(of)
        if evaluates and self.structure.sampling.fixed:
            piece = self.structure.pieces[place[0]][place[1]]
            held = held + 2 * ID_BYTES * num_pairs(piece, found.queries)
        if shape.dropout and not evaluates:
            held = held + ID_BYTES * found.queries[-1]
        sample = Buffer("sample", self.alive * (held + grown))
        if self.structure.partitioned:
            self._ask_owners(chain, found, sampling, waits, sample)
        else:
            done = work.sample_temporal(list(found.queries))
            chain.step(
                "sample/draw",
                done,
                phase=sampling,
                lane=self.lane,
                after=waits,
                allocates=(sample,),
            )
        for kind, of in counts.items():
            done = work.cache_lookup(of["hits"] + of["misses"], of["moved"])
            chain.step(f"fetch/{kind}_lookup", done, phase=fetching, lane=self.lane)
        if self.device != "cpu":
            chain.step("fetch/copy", work.to_device(held), phase=fetching, lane=Lane.COPY)
        self._rows(chain, found, fetching)
        refills = self.trace.refills(*place) if cached else ()
        for kind, of in counts.items():
            self._through_cache(chain, kind, of, room[kind], fetching, refills=kind in refills)
        return found

    def _ask_owners(
        self,
        chain: Chain,
        found: Sizes,
        phase: Phase,
        waits: tuple[After, ...],
        sample: Buffer,
    ) -> None:
        """Per hop: queries go to the owners of their vertices, which draw and reply."""
        ones = 1 - np.eye(len(self.group), dtype=np.int64)
        fanouts = self.structure.sampling.fanouts_from_seeds
        for hop, (asked, fanout) in enumerate(zip(found.owners, fanouts, strict=True)):
            served = asked.sum(axis=0)
            others = asked * ones
            now, then = found.queries[hop : hop + 2]
            # Queries and replies, sent and received, on the host and on the device.
            size = (now + served) * (work.QUERY_BYTES + work.STORED_EDGE_BYTES * fanout)
            chain.step(
                f"sample/{hop}/route",
                work.route(now),
                phase=phase,
                after=waits,
                allocates=(sample, Buffer("replies", 2 * size)),
            )
            waits = ()
            for name, done in (
                ("counts", work.all_to_all(ones, ones.sum(axis=0), ID_BYTES)),
                ("queries", work.temporal_queries(others, others.sum(axis=0))),
                ("serve", work.serve_temporal(served, fanout)),
                ("replies", work.temporal_replies(others.T, others.sum(axis=1), fanout)),
            ):
                travels: dict[str, Any] = (
                    {} if name == "serve" else {"lane": Lane.COMM, "group": self.group}
                )
                chain.step(f"sample/{hop}/{name}", done, phase=phase, **travels)
            placed = work.place_temporal(now, then - now)
            chain.step(f"sample/{hop}/place", placed, phase=phase)

    def _rows(self, chain: Chain, found: Sizes, phase: Phase) -> None:
        """Gather the rows that are not behind a cache, on the device."""
        shape, s, cached = self.shape, self.shape.element_bytes, self.trace.kinds
        with_memory = shape.memory * found.distinct
        stream = self.structure.stream
        edges = found.queries[-1] - found.queries[0]
        of_edges = 0 if "edges" in cached else shape.edges
        for name, rows, width, source in (
            ("nodes", found.queries[-1], 0 if "nodes" in cached else shape.nodes, stream.num_nodes),
            ("edges", edges, of_edges, stream.num_edges),
            ("memory", with_memory, shape.memory_width, stream.num_nodes),
            ("messages", with_memory, shape.memory * of_edges, stream.num_edges),
        ):
            if width:
                chain.step(
                    f"fetch/{name}",
                    work.gather(rows, width, source, s),
                    phase=phase,
                    lane=self.lane,
                    allocates=(Buffer(f"{name}_rows", self.alive * rows * width * s),),
                )

    def _through_cache(
        self,
        chain: Chain,
        kind: str,
        of: dict[str, Ints],
        room: dict[str, Ints],
        phase: Phase,
        *,
        refills: bool,
    ) -> None:
        """Hits from the device, misses from the host; what enters is written to the cache.

        Args:
            of: counts of the iteration.
            room: counts that buffers have room for.
        """
        s, (width, num_rows) = self.shape.element_bytes, self.tables[kind]
        capacity = self.trace.how.capacity(kind, num_rows)
        copies = self.lane if self.device == "cpu" else Lane.COPY

        def gather(name: str, rows: Ints, source: Size, *held: Buffer) -> None:
            done = work.gather(rows, width, source, s)
            full = f"fetch/{kind}_{name}"
            chain.step(full, done, phase=phase, lane=self.lane, allocates=held)

        def move(name: str, rows: Ints, most: Ints) -> None:
            # Twice: gathered on the host, then on the device.
            both = Buffer(f"{kind}_moved", 2 * most * width * s)
            gather(f"{name}_rows", rows, num_rows, both)
            copied = work.to_device(rows * width * s)
            chain.step(f"fetch/{kind}_{name}_copy", copied, phase=phase, lane=copies)

        if refills:
            rows = of["refilled"]
            move("refill", rows, room["refilled"])
            gather("refill", rows, rows)
        # The rows of the batches that live at once, and the two parts of the newest ones.
        requests = (self.alive + 1) * (room["hits"] + room["misses"])
        gather("hits", of["hits"], capacity, Buffer(f"{kind}_rows", requests * width * s))
        move("miss", of["moved"], room["moved"])
        gather("misses", of["misses"], of["moved"])
        entered = Buffer(f"{kind}_entered", room["entered"] * width * s)
        gather("enter", of["entered"], of["moved"], entered)
