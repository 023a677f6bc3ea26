"""The rehearsal: one epoch on a scrap of the graph, before anything is measured.

It loads and compiles every kernel that the run will use, and lets libraries take what they keep for
good (threads, workspaces, compiled code). So the memory baseline holds what any graph would need,
and the first epoch of the run is an epoch like the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import Approach
from gnnbench.data.graph import Graph
from gnnbench_runtime.protocol import RankContext

_NODES, _NODES_PER_RANK = 256, 16


def rehearse(
    trainer_type: Callable[..., Any], approach: Approach, context: RankContext, graph: Graph
) -> None:
    """Train one epoch and evaluate on a miniature of `graph`, all ranks together; keep nothing."""
    run = context.run
    small = miniature(graph, max(_NODES, _NODES_PER_RANK * run.ranks))
    if approach.cannot_run(run, small) is not None:
        return
    structure = approach.structure(small, run, context.cache)
    trainer = trainer_type(context, small, structure)
    trainer.train_epoch(0)
    trainer.evaluate()
    trainer.close()


def miniature(graph: Graph, num_nodes: int) -> Graph:
    """Return the graph of the first nodes, of the same widths and types, with a split of its own.

    Its arrays are read-only, as mapped ones are: to numba that is another type.
    """
    n = min(num_nodes, graph.num_nodes)
    indptr = np.asarray(graph.indptr[: n + 1])
    sources = np.asarray(graph.indices[: indptr[-1]])
    inside = sources < n
    kept = np.zeros(len(sources) + 1, np.int64)
    np.cumsum(inside, out=kept[1:])
    third = np.arange(n) % 3
    arrays: dict[str, Any] = {
        "indptr": kept[indptr],
        "indices": sources[inside],
        "features": None if graph.features is None else np.array(graph.features[:n]),
        "labels": None if graph.labels is None else _known(np.array(graph.labels[:n])),
        "train_mask": third == 0,
        "val_mask": third == 1,
        "test_mask": third == 2,
        "edge_times": None,
    }
    if graph.edge_times is not None:
        arrays["edge_times"] = np.asarray(graph.edge_times[: indptr[-1]])[inside]
    for array in arrays.values():
        if array is not None:
            array.flags.writeable = False
    return dataclasses.replace(graph, **arrays)


def _known(labels: NDArray[Any]) -> NDArray[Any]:
    """Return class labels with those of unlabelled nodes (-1) made up: here every node trains."""
    return labels if labels.ndim > 1 or labels.dtype.kind == "f" else np.maximum(labels, 0)


def scratch_context(context: RankContext, folder: Path) -> RankContext:
    """Return the context with a cache of the rank's own, so that nothing false is ever reused."""
    cache = folder / f"rehearsal-rank{context.rank}"
    cache.mkdir()
    return dataclasses.replace(context, cache=cache)
