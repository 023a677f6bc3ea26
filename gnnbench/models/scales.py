"""Row, column and self scalings of the normalised adjacency, from degrees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.graph import Graph
from gnnbench.models.base import Model

FloatArray = NDArray[np.float64]
Degrees = NDArray[np.integer[Any]]


def vertex_scales(graph: Graph, model: Model) -> tuple[FloatArray, FloatArray | None]:
    """Return (as destination, as source) scale of every vertex, float64 [N], by true degrees."""
    # Only the symmetric normalisation asks for out-degrees, a pass over a directed graph's edges.
    symmetric = model.normalisation == "symmetric"
    incoming = graph.in_degrees()
    return degree_scales(incoming, graph.out_degrees() if symmetric else incoming, model)


def degree_scales(
    incoming: Degrees, outgoing: Degrees, model: Model
) -> tuple[FloatArray, FloatArray | None]:
    """Return the scales of vertices of these degrees as destinations and as sources.

    symmetric: 1/sqrt(in-degree + 1) and 1/sqrt(out-degree + 1), the loop included; the self term of
    a vertex is the product of both. mean: 1/in-degree (0 for a vertex without in-edges) and None.
    """
    if model.normalisation == "symmetric":
        return 1.0 / np.sqrt(incoming + 1.0), 1.0 / np.sqrt(outgoing + 1.0)
    return np.divide(1.0, incoming, out=np.zeros(len(incoming)), where=incoming > 0), None
