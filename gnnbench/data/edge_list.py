"""An edge list that is read block by block, because it may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gnnbench.steps import Ints

Block = tuple[Ints, Ints]
"""Sources and targets of some edges, int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeList:
    """An edge list.

    Args:
        name: of the graph.
        blocks: sources and targets, in any order; they are read once.
        undirected: whether both directions of every edge are stored.
        num_nodes: ids lie in 0..num_nodes-1; None: ids that leave gaps are renumbered from 0, in
            their order.
        notes: of the reader; complete when the blocks have been read.
    """

    name: str
    blocks: Iterable[Block]
    undirected: bool = True
    num_nodes: int | None = None
    notes: dict[str, object] = field(default_factory=dict)
