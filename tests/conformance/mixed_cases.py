"""What ranks of `mixed-accelerators` do in tests; runs inside the processes of a pool."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import cases

from gnnbench.data.graph import Graph
from gnnbench.spec import RunSpec
from gnnbench_runtime.approaches.whole_graph.mixed_rank import MixedRank


def train_as_on_a_device(
    rank: int, world_size: int, graph: Graph, run: RunSpec, epochs: int
) -> dict[str, Any]:
    """As `cases.train_full`, with transfers queued as on a device; also the order of transfers."""
    transfer, order = MixedRank.transfer, []

    def noted(self: MixedRank, name: str, *args: Any, **more: Any) -> Any:
        order.append(name)
        return transfer(self, name, *args, **more)

    with (
        patch.object(MixedRank, "waits_in_thread", False),
        patch.object(MixedRank, "transfer", noted),
    ):
        done = cases.train_full(rank, world_size, graph, run, None, epochs)
    return {**done, "order": order}
