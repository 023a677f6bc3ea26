"""Tables of embeddings with their Adagrad state: in memory, or on the disk behind a buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.approaches.out_of_core.link_plan import buffer_slots
from gnnbench.approaches.out_of_core.links import (
    Facts,
    LinkStructure,
    initial_rows,
    training_facts,
)
from gnnbench.approaches.out_of_core.visits import Visit
from gnnbench.data.triples import Triples
from gnnbench.disk_limit import DiskLimit
from gnnbench.steps import Ints, Phase
from gnnbench_runtime.approaches.out_of_core.buffer import Files, PartitionBuffer, by_partition
from gnnbench_runtime.disk import aligned_empty
from gnnbench_runtime.generations import Generations
from gnnbench_runtime.protocol import RankContext


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Present:
    """A visit that has begun.

    Args:
        number: of the visit in its epoch.
        visit: what it is.
        facts: that are trained on, in the order of the disk.
        ids: of the entities in the buffer, rising.
        rows, states: places of their embeddings and of their Adagrad states in `table`, int64.
    """

    number: int
    visit: Visit
    facts: Facts
    ids: Ints
    rows: Ints
    states: Ints


class Table(Protocol):
    """A table of embeddings. `table` has rows and states of those that can be trained on now."""

    table: Tensor

    def epoch(self, visits: list[Visit], first: list[int]) -> Iterator[Present]:
        """Yield the visits of an epoch; `first` are the numbers of their first iterations."""

    def begun(self, visits: list[Visit], number: int, first: list[int]) -> None:
        """Say that the facts of a visit have been taken in."""

    def parts(self) -> Iterable[tuple[Ints, Tensor]]:
        """Ids and embeddings of all entities, part by part."""

    def state(self) -> Tensor:
        """Embeddings and states by id, [2, V, d]."""

    def restore(self, state: Tensor) -> None:
        """Take up what `state` returned."""

    def close(self) -> None:
        """Let go of files and threads."""


class MemoryTable:
    """All rows in the host's memory: embeddings first, then their states."""

    def __init__(
        self, context: RankContext, data: Triples, structure: LinkStructure, width: int
    ) -> None:
        self._count = structure.rows.num_rows
        self.table = torch.zeros((2 * self._count, width), dtype=context.dtype)
        ids = np.arange(self._count, dtype=np.int64)
        drawn = initial_rows(context.run.training.seed, ids, width)
        self.table[: self._count] = torch.from_numpy(drawn).to(context.dtype)
        self._facts = training_facts(data)

    def epoch(self, visits: list[Visit], first: list[int]) -> Iterator[Present]:
        """Yield the one visit of an epoch."""
        ids = np.arange(self._count, dtype=np.int64)
        for number, visit in enumerate(visits):
            yield Present(
                number=number,
                visit=visit,
                facts=self._facts,
                ids=ids,
                rows=ids,
                states=ids + self._count,
            )

    def begun(self, visits: list[Visit], number: int, first: list[int]) -> None:
        """Nothing is read."""

    def parts(self) -> Iterable[tuple[Ints, Tensor]]:
        """All entities at once."""
        yield np.arange(self._count, dtype=np.int64), self.table[: self._count]

    def state(self) -> Tensor:
        """Embeddings and states by id."""
        return self.table.view(2, self._count, -1)

    def restore(self, state: Tensor) -> None:
        """Copy a state in."""
        self.table.copy_(state.view_as(self.table))

    def close(self) -> None:
        """Nothing is open."""


class DiskTable:
    """Partitions on the disk, each with its embeddings first and then their states."""

    def __init__(
        self,
        context: RankContext,
        data: Triples,
        structure: LinkStructure,
        width: int,
        *,
        ahead: bool,
        generations: Generations | None = None,
        limit: DiskLimit | None = None,
    ) -> None:
        assert structure.buckets is not None
        assert structure.position is not None
        self._position = structure.position
        self._structure, self._width, self._dtype = structure, width, context.dtype
        # Blocks of the disk are bytes, which numpy views as elements of this type.
        self._kind = torch.empty(0, dtype=context.dtype).numpy().dtype
        self._order = np.argsort(self._position)
        seed = context.run.training.seed

        def partition(number: int) -> NDArray[Any]:
            rows = initial_rows(seed, self._ids(number), width).astype(self._kind)
            return np.concatenate([rows, np.zeros_like(rows)])

        facts = training_facts(data)
        edges = [(structure.bucket_of(facts), facts)]
        files = Files.make(
            context.cache,
            structure.rows,
            structure.buckets,
            by_partition(structure.rows, partition),
            edges,
            None if generations is None else generations.table,
            filled=generations is not None and generations.last is not None,
        )
        self._buffer = PartitionBuffer(
            context,
            files,
            structure.rows,
            structure.buckets,
            slots=buffer_slots(structure, ahead=ahead),
            width=width,
            columns=3,
            writes=True,
            prefetch=ahead,
            limit=limit,
        )
        self.table = self._buffer.table

    def _ids(self, partition: int) -> Ints:
        """Ids of a partition's entities, by position."""
        start = partition * self._structure.rows.per_partition
        found: Ints = self._order[start : start + self._structure.rows.rows_of(partition)]
        return found

    def epoch(self, visits: list[Visit], first: list[int]) -> Iterator[Present]:
        """Yield the visits of an epoch."""
        structure = self._structure
        per = structure.rows.per_partition
        counts = np.array([structure.rows.rows_of(i) for i in range(structure.rows.partitions)])
        for number, (visit, facts) in enumerate(self._buffer.visit(visits, first)):
            ids = structure.resident_ids(visit)
            part = structure.partition_of[ids]
            rows = self._buffer.row_of(part, self._position[ids] - part * per)
            yield Present(
                number=number,
                visit=visit,
                facts=facts,
                ids=ids,
                rows=rows,
                # A block holds its embeddings, then their states; the last one is shorter.
                states=rows + counts[part],
            )

    def begun(self, visits: list[Visit], number: int, first: list[int]) -> None:
        """Read ahead."""
        self._buffer.ahead(visits, number, first[number])

    def parts(self) -> Iterable[tuple[Ints, Tensor]]:
        """Partition by partition, read from the disk."""
        for number in range(self._structure.rows.partitions):
            block = self._block(number)
            self._buffer.read_block("evaluate/partitions", number, block, Phase.EVALUATE)
            ids = self._ids(number)
            yield ids, torch.from_numpy(self._content(block, number)[0])

    def state(self) -> Tensor:
        """Embeddings and states by id, read from the disk."""
        found = torch.empty((2, self._structure.rows.num_rows, self._width), dtype=self._dtype)
        for number in range(self._structure.rows.partitions):
            block = self._block(number)
            self._buffer.files.rows.read(block, number * self._structure.rows.block_bytes)
            ids = torch.from_numpy(self._ids(number))
            found[:, ids] = torch.from_numpy(self._content(block, number))
        return found

    def restore(self, state: Tensor) -> None:
        """Write a state to the disk."""
        for number in range(self._structure.rows.partitions):
            block = self._block(number)
            self._content(block, number)[:] = state[:, torch.from_numpy(self._ids(number))].numpy()
            self._buffer.files.rows.write(block, number * self._structure.rows.block_bytes)

    def _block(self, number: int) -> NDArray[np.uint8]:
        return aligned_empty((self._structure.rows.bytes_of(number),), np.uint8)

    def _content(self, block: NDArray[np.uint8], number: int) -> NDArray[Any]:
        """A block as embeddings and states, [2, rows, d]."""
        rows = self._structure.rows
        # What follows the rows fills the block up to the size that the disk reads.
        content = block[: rows.rows_of(number) * rows.row_bytes].view(self._kind)
        return content.reshape(2, -1, self._width)

    def close(self) -> None:
        """Stop reading ahead, give the files' space back."""
        self._buffer.close()
