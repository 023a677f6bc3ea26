"""To and from networkx, for graphs drawn or computed there."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError


def from_networkx(
    graph: Any, *, name: str | None = None, features: str | None = None, label: str | None = None
) -> Graph:
    """Convert a networkx graph; nodes are numbered in its order, a DiGraph stays directed.

    `features` and `label` name node attributes: a list of numbers, and a class number. Parallel
    edges become one and self loops are dropped, as everywhere; both are counted in `notes`.
    """
    number = {node: i for i, node in enumerate(graph.nodes)}
    ends = np.array([(number[u], number[v]) for u, v in graph.edges()], np.int64).reshape(-1, 2)
    fields: dict[str, Any] = {}
    title = name or getattr(graph, "name", "") or "networkx"
    try:
        if features is not None:
            rows = [graph.nodes[node][features] for node in graph.nodes]
            fields["features"] = np.array(rows, np.float32).reshape(len(number), -1)
        if label is not None:
            labels = np.array([graph.nodes[node][label] for node in graph.nodes], np.int64)
            fields |= {"labels": labels, "num_classes": int(labels.max(initial=-1)) + 1}
    except KeyError as error:
        raise DataError(title, f"a node has no attribute {error}") from error
    except (TypeError, ValueError) as error:
        raise DataError(title, f"attributes are not numbers of one shape ({error})") from error
    return from_edges(
        title, ends[:, 0], ends[:, 1], len(number), undirected=not graph.is_directed(), **fields
    )


def to_networkx(graph: Graph) -> Any:
    """Return a networkx Graph (undirected) or DiGraph with nodes 0..N-1 and `label` where known."""
    import networkx as nx

    result: Any = nx.Graph(name=graph.name) if graph.undirected else nx.DiGraph(name=graph.name)
    result.add_nodes_from(range(graph.num_nodes))
    dst = np.repeat(np.arange(graph.num_nodes), graph.in_degrees())
    result.add_edges_from(zip(graph.indices.tolist(), dst.tolist(), strict=True))
    if graph.labels is not None and graph.labels.ndim == 1:
        nx.set_node_attributes(result, dict(enumerate(graph.labels.tolist())), "label")
    return result
