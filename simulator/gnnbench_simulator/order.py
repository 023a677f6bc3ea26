"""The order in which the replay evaluates the blocks of an iteration.

A block comes after the blocks for which it waits. No step waits for a later iteration, so
iterations are evaluated one after the other, also where they overlap in time.
"""

from __future__ import annotations

from gnnbench.errors import Unsupported
from gnnbench.steps import Lane
from gnnbench_simulator.layout import Block, Layout, Mode

Member = tuple[int, Block]
_Waiting = tuple[int, Lane, Block]


def evaluation_order(layout: Layout) -> list[list[Member]]:
    """Lists of (class, block): one local block, or all blocks of collectives that end together.

    Raises:
        Unsupported: no order was found; the engine tells whether ranks truly wait in a circle.
    """
    return _Ordering(layout).run()


class _Ordering:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.queues: list[dict[Lane, list[Block]]] = []
        for cls in layout.classes:
            lanes: dict[Lane, list[Block]] = {}
            # Reversed, so that the next block of a lane is the last of its list and cheap to take.
            for block in reversed(cls.blocks):
                lanes.setdefault(block.lane, []).append(block)
            self.queues.append(lanes)
        self.done: list[set[str]] = [set() for _ in layout.classes]
        self.order: list[list[Member]] = []

    def run(self) -> list[list[Member]]:
        remaining = sum(len(cls.blocks) for cls in self.layout.classes)
        while remaining:
            progress = self._local_blocks() + self._collectives()
            if not progress:
                raise Unsupported("deadlock: the steps of the ranks have no valid order")
            remaining -= progress
        return self.order

    def _head(self, c: int, lane: Lane) -> Block | None:
        """The next block of a lane, if all it waits for in this iteration has been evaluated."""
        queue = self.queues[c][lane]
        if not queue:
            return None
        # With a lag the step is one of an earlier iteration, which has been evaluated.
        met = all(after.lag or after.step in self.done[c] for after in queue[-1].waits)
        return queue[-1] if met else None

    def _take(self, c: int, lane: Lane) -> None:
        self.done[c].add(self.queues[c][lane].pop().publishes)

    def _local_blocks(self) -> int:
        taken = 0
        for c, lanes in enumerate(self.queues):
            moved = True
            while moved:
                moved = False
                for lane in lanes:
                    block = self._head(c, lane)
                    while block is not None and block.mode is not Mode.COLLECTIVE:
                        self.order.append([(c, block)])
                        self._take(c, lane)
                        taken, moved = taken + 1, True
                        block = self._head(c, lane)
        return taken

    def _collectives(self) -> int:
        """Complete every set of collectives that all ranks of their groups have reached."""
        waiting: list[_Waiting] = []
        for c, lanes in enumerate(self.queues):
            for lane in lanes:
                block = self._head(c, lane)
                if block is not None and block.mode is Mode.COLLECTIVE:
                    waiting.append((c, lane, block))
        taken = 0
        for together, reached in _connected(waiting):
            sizes = {key: len(self.layout.groups[key[0]]) for key in reached}
            # Where a rank of a group is missing, its class may get there in the next pass.
            if reached == sizes:
                self.order.append([(c, block) for c, _, block in together])
                for c, lane, _ in together:
                    self._take(c, lane)
                taken += len(together)
        return taken


def _connected(
    waiting: list[_Waiting],
) -> list[tuple[list[_Waiting], dict[tuple[int, int], int]]]:
    """Sets of waiting blocks that share groups, and how many ranks of each group are there."""
    sets: list[tuple[list[_Waiting], dict[tuple[int, int], int]]] = []
    for entry in waiting:
        block = entry[2]
        assert block.meeting is not None
        members, counts = [entry], dict[tuple[int, int], int]()
        for group in block.meeting.groups.tolist():
            key = (group, block.meeting.sequence)
            counts[key] = counts.get(key, 0) + 1
        apart = []
        for other in sets:
            if other[1].keys() & counts.keys():
                members = other[0] + members
                for key, count in other[1].items():
                    counts[key] = counts.get(key, 0) + count
            else:
                apart.append(other)
        sets = [*apart, (members, counts)]
    return sets
