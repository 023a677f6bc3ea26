"""A dense rank's side of handovers and returns: transfers in progress and their buffers.

Legend: n rows of a chunk, F width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from torch import Tensor

from gnnbench import work
from gnnbench.approaches.whole_graph.pipeline_steps import BUFFERS
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.approaches.whole_graph.mixed_rank import MixedRank
from gnnbench_runtime.models.relayout import copy_blocks
from gnnbench_runtime.pending import Pending


class Mail:
    """What a dense rank exchanges with the sparse ranks.

    Args:
        rank: the dense rank.
        at: where each chunk's rows are among the own ones.
    """

    def __init__(self, rank: MixedRank, at: Sequence[slice]) -> None:
        self.rank, self.at = rank, at
        self.alone = rank.structure.sparse_ranks == 1
        dims, count = rank.shape.dims, min(BUFFERS, len(at))
        tallest = 0 if self.alone else max(part.stop - part.start for part in at)
        wide, back = max(dims[:-1]), max(dims[1:-1], default=0)
        self.arriving = [rank.empty(tallest * wide) for _ in range(count)]
        self._leaving = [rank.empty(tallest * back) for _ in range(count)]
        self._sent: deque[Pending] = deque()
        self._count = 0

    def splits(self, rows_nF: Tensor) -> list[int]:
        """Elements of some rows that each rank holds as columns: none on dense ranks."""
        n, width = rows_nF.shape
        splits = [cut * n for cut in self.rank.columns[width]]
        return splits + self.rank.no_ranks[len(splits) :]

    def copy(
        self, name: str, phase: Phase, layer: int, packed: Tensor, rows_nF: Tensor, *, pack: bool
    ) -> None:
        """Copy blocks of columns into whole rows, or with `pack` whole rows into blocks."""
        n, width = rows_nF.shape
        done = work.gather(n, width, n, rows_nF.element_size(), ids=False)
        with self.rank.step(name, done, phase, layer):
            copy_blocks(packed, rows_nF, self.rank.columns[width], pack=pack)

    def put(self, phase: Phase, layer: int, chunk: int, rows_nF: Tensor) -> None:
        """Return a chunk's rows. They must not change until the sparse ranks answer."""
        flat, where = rows_nF.view(-1), f"{phase}/{layer}"
        if not self.alone:
            while len(self._sent) >= len(self._leaving):
                self._sent.popleft().wait()
            flat = self._leaving[self._count % len(self._leaving)][: rows_nF.numel()]
            self._count += 1
            self.copy(f"{where}/pack/{chunk}", phase, layer, flat, rows_nF, pack=True)
        name, sent = f"{where}/return/{chunk}", (flat, self.splits(rows_nF))
        self._sent.append(self.rank.transfer(name, phase, layer, lane=Lane.BACKGROUND, sent=sent))

    def close(self) -> None:
        """Wait until everything has been sent."""
        while self._sent:
            self._sent.popleft().wait()


class Inbox:
    """Handovers of one layer, posted in order and as early as buffers allow.

    Args:
        mail: of the rank.
        phase, layer: of the handovers.
        order: of the chunks.
        rows: all own rows, into which the chunks are written.
    """

    def __init__(
        self, mail: Mail, phase: Phase, layer: int, order: Sequence[int], rows: Tensor
    ) -> None:
        self._mail, self._phase, self._layer, self._rows = mail, phase, layer, rows
        self._left = deque(order)
        self._pending: deque[tuple[Pending, Tensor]] = deque()
        self._joined = 0
        in_place = mail.alone and mail.rank.waits_in_thread
        for _ in range(len(order) if in_place else BUFFERS):
            self._join()

    def _join(self) -> None:
        if not self._left:
            return
        mail, chunk = self._mail, self._left.popleft()
        rows_nF = self._rows[mail.at[chunk]]
        flat = rows_nF.view(-1)
        if not mail.alone:
            flat = mail.arriving[self._joined % len(mail.arriving)][: rows_nF.numel()]
        self._joined += 1
        name, received = f"{self._phase}/{self._layer}/hand/{chunk}", (flat, mail.splits(rows_nF))
        pending = mail.rank.transfer(
            name, self._phase, self._layer, lane=Lane.COMM, received=received
        )
        self._pending.append((pending, flat))

    def take(self, chunk: int) -> None:
        """Wait until the chunk's rows are in place. Chunks are taken in order."""
        pending, flat = self._pending.popleft()
        pending.wait()
        mail, phase, layer = self._mail, self._phase, self._layer
        if not mail.alone:
            rows_nF = self._rows[mail.at[chunk]]
            mail.copy(f"{phase}/{layer}/unpack/{chunk}", phase, layer, flat, rows_nF, pack=False)
        self._join()
