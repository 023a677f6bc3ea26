"""The partition buffer: slots in host memory, filled from the disk and written back to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import owner
from gnnbench.approaches.out_of_core.storage import Buckets, Rows
from gnnbench.approaches.out_of_core.visits import Visit
from gnnbench.data.draws import compiled
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench.disk_limit import DiskLimit
from gnnbench.steps import Ints, Phase
from gnnbench_runtime.disk import BlockFile, Disk, Positioned, aligned_empty
from gnnbench_runtime.generations import SlottedFile
from gnnbench_runtime.protocol import RankContext

PIECE_BYTES = 16 * 2**20
"""Of a table that is sorted at once while it is written to the disk; a copy takes as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The table and the edges on the disk.

    The files have no names and leave with the process, however it ends, but for a durable table.
    """

    rows: BlockFile | SlottedFile
    edges: BlockFile

    @classmethod
    def make(
        cls,
        cache: Path,
        rows: Rows,
        buckets: Buckets,
        fill: Callable[[Any], None],
        edges: Iterable[tuple[Ints, NDArray[np.int32]]],
        table: SlottedFile | None = None,
        *,
        filled: bool = False,
    ) -> Files:
        """Write both files, chunk by chunk: neither need fit in memory.

        Args:
            cache: folder on the disk that is measured.
            rows, buckets: where everything lies.
            fill: writes the rows into their file, see `by_partition` and `streamed`.
            edges: chunks of them, int32 [n, columns], with the number i p + j of each one's bucket.
            table: a file of rows that outlives the process; None for one that does not.
            filled: whether it has its rows already.
        """
        with owner.scratch("out-of-core-", cache) as folder:
            paths = folder / "rows.bin", folder / "edges.bin"
            made = cls(
                rows=table or BlockFile(paths[0], size_bytes=rows.file_bytes, writable=True),
                edges=BlockFile(paths[1], size_bytes=buckets.file_bytes, writable=True),
            )
            _write_edges(paths[1], buckets, edges)
        made.edges.drop()
        if not filled:
            fill(made.rows)
        return made

    def close(self) -> None:
        """Give the files' space back."""
        self.rows.close()
        self.edges.close()


def by_partition(rows: Rows, partition: Callable[[int], NDArray[Any]]) -> Callable[[Any], None]:
    """Return what fills a file of rows one partition after the other.

    Args:
        rows: where everything lies.
        partition: content of a partition, rows of `rows.row_bytes`.
    """

    def fill(file: Positioned) -> None:
        block = aligned_empty((rows.block_bytes,), np.uint8)
        for number in range(rows.partitions):
            content = np.ascontiguousarray(partition(number)).reshape(-1).view(np.uint8)
            block[: len(content)] = content
            file.write(block[: rows.bytes_of(number)], number * rows.block_bytes)

    return fill


def streamed(
    rows: Rows, position: NDArray[np.int32], table: NDArray[Any], kind: np.dtype[Any]
) -> Callable[[Any], None]:
    """Return what fills a file of rows in the order of a table that is larger than memory.

    The table is read once, from its first row to its last. Each piece of it is sorted by partition,
    and each partition's rows are appended to those that came before.

    Args:
        rows: where everything lies in the file.
        position: of every row of the table, int32 [N]; rises with the row within a partition.
        table: [N, F], a mapped file if it does not fit in memory.
        kind: element type in the file.
    """

    def fill(file: BlockFile) -> None:
        size, per = rows.row_bytes, rows.per_partition
        at_once = max(PIECE_BYTES // max(size, 1), 1)
        for start in range(0, rows.num_rows, at_once):
            places = position[start : start + at_once]
            order = np.argsort(places)
            places = places[order]
            piece = np.asarray(table[start : start + at_once])[order].astype(kind, copy=False)
            content = piece.reshape(-1).view(np.uint8)
            part = places // per
            begins = np.flatnonzero(np.diff(part, prepend=-1))
            ends = np.append(begins[1:], len(part))
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                number, place = int(part[begin]), int(places[begin])
                offset = number * rows.block_bytes + (place - number * per) * size
                file.put(content[begin * size : end * size], offset)
            forget_mapped_pages([table])
        file.drop()

    return fill


def _write_edges(
    path: Path, buckets: Buckets, chunks: Iterable[tuple[Ints, NDArray[np.int32]]]
) -> None:
    """Put each edge into its bucket, behind those that came before."""
    total, columns = int(buckets.offsets[-1]), buckets.edge_bytes // 4
    if not total:
        return
    file = np.memmap(path, np.int32, "r+", shape=(total, columns))
    into, cursor = np.asarray(file), buckets.offsets[:-1].copy()
    for bucket, edges in chunks:
        _deal(bucket, edges, cursor, into)
        forget_mapped_pages([file])
    file.flush()


@compiled
def _deal(bucket: Any, edges: Any, cursor: Any, into: Any) -> None:
    """Append each edge to its bucket, whose next place is in `cursor`."""
    for edge in range(len(edges)):
        place = cursor[bucket[edge]]
        for column in range(edges.shape[1]):
            into[place, column] = edges[edge, column]
        cursor[bucket[edge]] = place + 1


class PartitionBuffer:
    """Slots for partitions, and a table of where each partition is.

    Args:
        context: the rank.
        files: on the disk.
        rows, buckets: where everything lies in them.
        slots: partitions that fit.
        width: elements of a row of `table`; a row on the disk may have several.
        columns: of an edge.
        writes: whether evicted partitions are written back.
        prefetch: whether the next visit is read while one is worked on.
        limit: of the disk.
    """

    def __init__(
        self,
        context: RankContext,
        files: Files,
        rows: Rows,
        buckets: Buckets,
        *,
        slots: int,
        width: int,
        columns: int,
        writes: bool = False,
        prefetch: bool = False,
        limit: DiskLimit | None = None,
    ) -> None:
        self.files, self.rows, self.buckets = files, rows, buckets
        self.writes, self._recorder = writes, context.recorder
        self._columns = columns
        kind = torch.empty(0, dtype=context.dtype).numpy().dtype
        self.slot_rows = rows.slot_bytes // (width * kind.itemsize)
        memory = aligned_empty((slots * self.slot_rows, width), kind)
        # The system maps pages when they are touched first: not in the first epoch's reads.
        memory.fill(0)
        self._bytes = memory.reshape(-1).view(np.uint8)
        self.table: Tensor = torch.from_numpy(memory)
        self.slot_of = np.full(rows.partitions, -1, np.int64)
        self._free = list(range(slots))
        self._disk = Disk(context.recorder, limit)
        self._thread = ThreadPoolExecutor(1, "read-ahead") if prefetch else None
        self._pending: Future[NDArray[np.int32]] | None = None

    def visit(self, visits: Sequence[Visit], step_of: Sequence[int]) -> Iterator[Any]:
        """Yield the visits of an epoch with the edges read for each, int32 [E, columns].

        The caller calls `ahead` once it has taken the edges in; with prefetch the next visit is
        read from then on.

        Args:
            visits: of the epoch.
            step_of: number of the first iteration of each.
        """
        for number, visit in enumerate(visits):
            first = number == 0
            self._recorder.at(step_of[number])
            if self._pending is not None:
                edges, self._pending = self._pending.result(), None
            else:
                if self.writes and not first:
                    self._evict(visit.evicted, "evict/partitions")
                self._release(visit.evicted)
                edges = self._read("load", visit)
            yield visit, edges
        self._settle()
        if self.writes:
            self._evict(visits[-1].resident, "flush/partitions")
        self._release(visits[-1].resident)

    def ahead(self, visits: Sequence[Visit], number: int, step: int) -> None:
        """With prefetch: write back what visit `number` evicted, and read the next visit."""
        if self._thread is None:
            return
        visit = visits[number]
        following = visits[number + 1] if number + 1 < len(visits) else None

        def job() -> Any:
            self._recorder.at(step)
            if number > 0:
                if self.writes:
                    self._evict(visit.evicted, "evict/partitions")
                self._release(visit.evicted)
            return None if following is None else self._read("ahead", following)

        self._pending = self._thread.submit(job)

    def row_of(self, partition: NDArray[Any], offset: NDArray[Any]) -> Ints:
        """Rows of `table` by partition and place within it."""
        found: Ints = self.slot_of[partition] * self.slot_rows + offset
        return found

    def resident_rows(self, partitions: Ints) -> Ints:
        """Rows of `table` that hold some partitions, one behind the other."""
        sizes = [self.rows.rows_of(number) for number in partitions.tolist()]
        starts = (self.slot_of[partitions] * self.slot_rows).tolist()
        pairs = zip(starts, sizes, strict=True)
        return np.concatenate([np.arange(start, start + size) for start, size in pairs])

    def read_block(self, name: str, partition: int, block: NDArray[np.uint8], phase: Phase) -> None:
        """Read a partition beside the buffer."""
        pieces = [(block, partition * self.rows.block_bytes)]
        self._disk.read(name, self.files.rows, pieces, phase=phase)

    def _settle(self) -> None:
        """Wait for what still runs beside the last visit."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _piece(self, partition: int) -> tuple[NDArray[np.uint8], int]:
        start = int(self.slot_of[partition]) * self.rows.slot_bytes
        size = self.rows.bytes_of(partition)
        return self._bytes[start : start + size], partition * self.rows.block_bytes

    def _evict(self, partitions: Ints, name: str) -> None:
        pieces = [self._piece(int(number)) for number in partitions]
        self._disk.write(name, self.files.rows, pieces, phase=Phase.LOAD)

    def _release(self, partitions: Ints) -> None:
        for number in partitions:
            self._free.append(int(self.slot_of[number]))
            self.slot_of[number] = -1

    def _read(self, name: str, visit: Visit) -> NDArray[np.int32]:
        """Read what a visit admits: partitions into free slots, edges into an array."""
        for number in visit.admitted:
            self.slot_of[number] = self._free.pop()
        pieces = [self._piece(int(number)) for number in visit.admitted]
        self._disk.read(f"{name}/partitions", self.files.rows, pieces, phase=Phase.LOAD)
        runs = self.buckets.runs(visit.wanted)  # type: ignore[arg-type]
        spans = self.buckets.spans(runs)
        sizes = spans[:, 1] - spans[:, 0]
        ends = np.cumsum(sizes)
        staging = aligned_empty((int(sizes.sum()),), np.uint8)
        places = list(
            zip((ends - sizes).tolist(), ends.tolist(), spans[:, 0].tolist(), strict=True)
        )
        self._disk.read(
            f"{name}/edges",
            self.files.edges,
            [(staging[start:stop], offset) for start, stop, offset in places],
            phase=Phase.LOAD,
        )
        unit = self.buckets.edge_bytes
        # Where each run begins in what was read: its request's place, and its own within that.
        request = np.searchsorted(spans[:, 0], runs[:, 0] * unit, side="right") - 1
        begin = (ends - sizes - spans[:, 0])[request] + runs[:, 0] * unit
        length = (runs[:, 1] - runs[:, 0]) * unit
        found = [
            staging[at : at + size].view(np.int32)
            for at, size in zip(begin.tolist(), length.tolist(), strict=True)
        ]
        flat = np.concatenate(found) if found else np.empty(0, np.int32)
        return flat.reshape(-1, self._columns)

    def close(self) -> None:
        """Stop the thread and let go of the files."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        self.files.close()
