"""Row, column and self scalings of the normalised adjacency, from true global degrees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.graph import Graph
from gnnbench.models.base import Model

FloatArray = NDArray[np.float64]


def vertex_scales(graph: Graph, model: Model) -> tuple[FloatArray, FloatArray | None]:
    """Return (as destination, as source) scale of every vertex, float64 [N].

    symmetric: 1/sqrt(in-degree + 1) and 1/sqrt(out-degree + 1), the loop included; the self term of
    a vertex is the product of both. mean: 1/in-degree (0 for a vertex without in-edges) and None.
    """
    incoming = graph.in_degrees()
    if model.normalisation == "symmetric":
        outgoing = graph.out_degrees()
        return 1.0 / np.sqrt(incoming + 1.0), 1.0 / np.sqrt(outgoing + 1.0)
    return np.divide(1.0, incoming, out=np.zeros(len(incoming)), where=incoming > 0), None
