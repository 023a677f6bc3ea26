"""Steps that change the buffer: write back, read partitions and edges, build the graph.

Without prefetch a visit begins with its reads, and training waits. With prefetch the reads of the
next visit run on the lane `disk` while this one is trained; they go to slots that are free since
the last swap. Every epoch begins with an empty buffer, and one that is written to ends empty: reads
and writes of an epoch are the closed forms of its policy.

The lane `disk` writes what was evicted before it reads: a partition is never read while its last
state is still on its way to the disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from gnnbench import work
from gnnbench.approaches.out_of_core.storage import Rows
from gnnbench.approaches.out_of_core.visits import LoadSizes
from gnnbench.approaches.writing.chain import Chain
from gnnbench.steps import LATEST, After, Buffer, Lane, Phase, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """Writes the steps between two visits into the chain of the iteration that begins a visit.

    Args:
        prefetch: whether the next visit is read while this one is trained.
        writes: whether what is evicted is written back.
        last_step: name of the step that ends an iteration's use of the buffer.
    """

    prefetch: bool
    writes: bool
    last_step: str

    def begin(self, chain: Chain, sizes: LoadSizes, *, first: bool) -> None:
        """Write what brings a visit's data in; the `first` of an epoch fills an empty buffer."""
        if first or not self.prefetch:
            self._move(chain, "load", sizes, first=first)

    def ahead(
        self,
        chain: Chain,
        sizes: LoadSizes | None,
        following: LoadSizes | None,
        waits: tuple[After, ...] = (),
    ) -> None:
        """Write what runs beside a visit: its own write-back, then the reads of the following one.

        Args:
            chain: of the iteration that begins the visit.
            sizes: of the visit; None if it is the first, which evicts nothing.
            following: of the next visit of the epoch; None if there is none.
            waits: of the reads, where the chain has no step before them.
        """
        if not self.prefetch:
            return
        if self.writes and sizes is not None:
            self._write(chain, "evict/partitions", sizes, beside=True)
        if following is not None:
            self._read(chain, "ahead", following, waits, beside=True)

    def waits(self, *, first: bool) -> tuple[After, ...]:
        """What the first use of a visit's data waits for besides its predecessor."""
        return (After("ahead/edges", LATEST),) if self.prefetch and not first else ()

    def flush(self, chain: Chain, partitions: int, size: int) -> None:
        """Write all resident partitions back at the end of an epoch."""
        if self.writes:
            done = work.write(size, partitions)
            chain.step("flush/partitions", done, phase=Phase.LOAD, lane=Lane.DISK)

    def _move(self, chain: Chain, name: str, sizes: LoadSizes, *, first: bool) -> None:
        waits = (After(self.last_step, 1),)
        if self.writes and not first:
            self._write(chain, "evict/partitions", sizes, waits=waits)
        self._read(chain, name, sizes, waits)

    def _write(
        self,
        chain: Chain,
        name: str,
        sizes: LoadSizes,
        *,
        waits: tuple[After, ...] = (),
        beside: bool = False,
    ) -> None:
        done = work.write(sizes.evicted_bytes, sizes.evicted)
        chain.step(name, done, phase=Phase.LOAD, lane=Lane.DISK, after=waits, beside=beside)

    def _read(
        self,
        chain: Chain,
        name: str,
        sizes: LoadSizes,
        waits: tuple[After, ...],
        *,
        beside: bool = False,
    ) -> None:
        rows = work.read(sizes.partition_bytes, sizes.partitions)
        edges = work.read(sizes.edge_bytes, sizes.requests)
        staged = Buffer("staging", sizes.edge_bytes, Space.HOST)
        place = {"phase": Phase.LOAD, "lane": Lane.DISK, "beside": beside}
        chain.step(f"{name}/partitions", rows, after=waits, **place)  # type: ignore[arg-type]
        chain.step(f"{name}/edges", edges, allocates=(staged,), **place)  # type: ignore[arg-type]


def slots(capacity: int, most_admitted: int, *, prefetch: bool) -> int:
    """Slots of the buffer: the capacity, and with prefetch room for what a swap brings in."""
    return capacity + (most_admitted if prefetch else 0)


def buffer_of(rows: Rows, count: int, file_bytes: int) -> tuple[Buffer, ...]:
    """The buffer of partitions in host memory, and the files on the disk."""
    return (
        Buffer("partition_buffer", count * rows.slot_bytes, Space.HOST),
        Buffer("files", rows.file_bytes + file_bytes, Space.DISK),
    )
