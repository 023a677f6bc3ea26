"""Replay of PyTorch's CUDA caching allocator: peak reserved memory, not just living bytes.

Rules of simulation section 7 for one stream without `max_split_size` or expandable segments:
requests are rounded up to 512 B; the smallest free block of the pool that fits is taken, the lower
address on a tie; without one a segment is made; blocks merge with free neighbours of their segment.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gnnbench.iterations import Places
from gnnbench.plan import Plan
from gnnbench.steps import Space, Step, pick

MIB = 2**20
ROUND = 512
SMALL = 1 * MIB
SMALL_SEGMENT, LARGE_SEGMENT = 2 * MIB, 20 * MIB
OWN_SEGMENT = 10 * MIB


@dataclass(slots=True, eq=False)
class _Block:
    address: int
    size: int
    small: bool
    free: bool = True
    before: _Block | None = None
    behind: _Block | None = None

    @property
    def key(self) -> tuple[int, int]:
        return self.size, self.address


class CachingAllocator:
    """Allocate and free by name; `reserved` never shrinks, as long as nothing runs out.

    Before it gives up, PyTorch gives segments back in which nothing lives: a run needs no more than
    `peak_held`, the most bytes of segments in which something lived.
    """

    def __init__(self) -> None:
        self.allocated = self.reserved = 0
        self.peak_allocated = self.peak_held = 0
        self._unused = 0
        self._next = 0
        self._blocks: dict[str, _Block] = {}
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._at: dict[int, _Block] = {}

    def allocate(self, name: str, size: int) -> None:
        """Allocate a buffer; a living name grows to the larger size.

        It is freed first, as workspaces do: nothing reads the old buffer any more.
        """
        living = self._blocks.get(name)
        if living is not None and living.size >= _rounded(size):
            return
        if living is not None:
            self._release(living)
        self._blocks[name] = self._take(_rounded(size))

    def free(self, name: str) -> None:
        """Free a buffer; unknown names are ignored, as a plan may free what it never made."""
        block = self._blocks.pop(name, None)
        if block is not None:
            self._release(block)

    def restart(self) -> None:
        """Begin new peaks with what lives now."""
        self.peak_allocated = self.allocated
        self.peak_held = self.reserved - self._unused

    def _take(self, size: int) -> _Block:
        small = size <= SMALL
        free = self._free[small]
        place = bisect_left(free, (size, -1))
        block = self._at[free[place][1]] if place < len(free) else self._segment(size, small)
        free.remove(block.key)
        if _is_segment(block):
            self._unused -= block.size
        rest = block.size - size
        if rest >= ROUND if small else rest > SMALL:
            self._split(block, size)
        block.free = False
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_held = max(self.peak_held, self.reserved - self._unused)
        return block

    def _segment(self, size: int, small: bool) -> _Block:
        if small:
            total = SMALL_SEGMENT
        elif size < OWN_SEGMENT:
            total = LARGE_SEGMENT
        else:
            total = -(-size // (2 * MIB)) * 2 * MIB
        self.reserved += total
        # Segments lie apart, so that blocks of two never look like neighbours.
        block = _Block(self._next, total, small)
        self._next += total + LARGE_SEGMENT
        self._at[block.address] = block
        self._unused += total
        insort(self._free[small], block.key)
        return block

    def _split(self, block: _Block, size: int) -> None:
        rest = _Block(block.address + size, block.size - size, block.small)
        rest.before, rest.behind = block, block.behind
        if block.behind is not None:
            block.behind.before = rest
        block.behind, block.size = rest, size
        self._at[rest.address] = rest
        insort(self._free[block.small], rest.key)

    def _release(self, block: _Block) -> None:
        self.allocated -= block.size
        block.free = True
        if block.behind is not None and block.behind.free:
            self._merge(block, block.behind)
        if block.before is not None and block.before.free:
            self._free[block.small].remove(block.before.key)
            block = block.before
            assert block.behind is not None
            self._join(block, block.behind)
        if _is_segment(block):
            self._unused += block.size
        insort(self._free[block.small], block.key)

    def _merge(self, block: _Block, behind: _Block) -> None:
        self._free[block.small].remove(behind.key)
        self._join(block, behind)

    def _join(self, block: _Block, behind: _Block) -> None:
        block.size += behind.size
        block.behind = behind.behind
        if behind.behind is not None:
            behind.behind.before = block
        del self._at[behind.address]


def _is_segment(block: _Block) -> bool:
    return block.before is None and block.behind is None


def _rounded(size: int) -> int:
    return max(-(-size // ROUND) * ROUND, ROUND)


def replay_allocator(plan: Plan, rank: int, *, periods: int = 1) -> CachingAllocator:
    """Perform a rank's allocations on its device in program order; resident buffers first."""
    return replay_allocators(plan, [rank], periods=periods)[0]


def replay_allocators(
    plan: Plan, chosen: Sequence[int], *, periods: int = 1
) -> list[CachingAllocator]:
    """`replay_allocator` of several ranks, in one walk of the plan."""
    allocators = [CachingAllocator() for _ in chosen]
    for buffer in plan.resident:
        if buffer.space is Space.DEVICE:
            for rank, allocator in zip(chosen, allocators, strict=True):
                allocator.allocate(buffer.name, pick(buffer.bytes, rank))
    _follow(plan.allocations(periods=periods), chosen, allocators)
    return allocators


def replay_evaluation(
    plan: Plan, chosen: Sequence[int], allocators: Sequence[CachingAllocator]
) -> None:
    """Go on with the evaluation that follows; the peaks are then those of the evaluation."""
    for allocator in allocators:
        allocator.restart()
    _follow(plan.evaluated(), chosen, allocators)


def _follow(
    steps: Iterable[tuple[Places, Step]],
    chosen: Sequence[int],
    allocators: Sequence[CachingAllocator],
) -> None:
    """Perform what some ranks allocate and free in some steps."""
    for ranks, step in steps:
        columns = np.searchsorted(ranks, chosen).tolist()
        for rank, column, allocator in zip(chosen, columns, allocators, strict=True):
            if column < len(ranks) and ranks[column] == rank:
                _perform(allocator, step, column)


def _perform(allocator: CachingAllocator, step: Step, column: int) -> None:
    for buffer in step.allocates:
        if buffer.space is not Space.DEVICE:
            continue
        if buffer.exact:
            allocator.free(buffer.name)
        allocator.allocate(buffer.name, pick(buffer.bytes, column))
    for name in step.frees:
        allocator.free(name)
