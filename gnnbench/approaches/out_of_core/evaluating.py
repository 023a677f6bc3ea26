"""The evaluation of node classification within bounded memory: layer by layer, range by range.

Features, topology and the rows of every layer are files. Topology is mapped, and rows are written
to mapped files, whose pages are given back after every range.
"""

from __future__ import annotations

from typing import Any

from gnnbench.approaches.mini_batch.patterns import block_bytes
from gnnbench.approaches.writing.evaluating import EvaluationWriter, quiet
from gnnbench.approaches.writing.shape import LayerSizes, stack_shape
from gnnbench.iterations import Iteration
from gnnbench.spec import RunSpec
from gnnbench.work import ID_BYTES

BYTES_AT_ONCE = 8 * 2**20
"""Bytes of the source rows of some vertices, at most, unless one alone has more."""
PAGE_BYTES = 2**21
"""Of a large page, which Linux makes resident around a byte of a mapped file."""
ANSWERS_AT_ONCE = 65_536
"""Vertices of a split whose answers are counted at once."""


def sources_at_once(row_bytes: int) -> int:
    """Source rows of a range of vertices."""
    return max(BYTES_AT_ONCE // row_bytes, 1)


def layerwise_evaluation(data: Any, run: RunSpec) -> Iteration:
    """An evaluation by one rank; `data` is a graph or its profile."""
    shape = quiet(stack_shape(data, run, "aggregate_first"))
    s, n, edges = shape.element_bytes, data.num_nodes, data.num_edges
    scales = {"symmetric": 2, "mean": 1, "softmax": 0}[shape.model.normalisation]
    writer = EvaluationWriter(1)
    # Degrees are there for a moment while scales are made of them.
    tables = {"scales": (scales + 1) * 8 * n, "sampler": 4 * n}
    writer.step("tables", {}, on_host=tables)
    for layer in range(1, shape.num_layers + 1):
        fan_in, fan_out = shape.dims[layer - 1 : layer + 1]
        brought = min(sources_at_once(fan_in * s), n + edges)
        # A vertex brings itself and its neighbours; those of several may be the same.
        rows = max(brought * n // max(n + edges, 1), 1)
        sizes = LayerSizes(rows=rows, source_rows=min(brought, n), nonzeros=brought - rows)
        u, drawn = min(brought, n), brought - rows
        first = shape.orders[layer - 1] == "aggregate_first" and not shape.model.attention
        made = {
            "inputs": u * fan_in * s,
            "blocks": block_bytes(shape, [sizes], first=layer),
            f"z{layer}" if first else f"t{layer}": (rows * fan_in if first else u * fan_out) * s,
            f"h{layer}": (u if layer < shape.num_layers else rows) * fan_out * s,
        }
        if shape.has_norm(layer):
            made[f"n{layer}"] = (rows * fan_out + 2 * rows) * s
        drawing = {
            # A range of rows, or of edges, lies in two large pages of its file.
            "pages": min(n * fan_out * s, 2 * PAGE_BYTES) + min(4 * edges, 2 * PAGE_BYTES),
            "drawing": ID_BYTES * (2 * u + rows) + 4 * drawn,
        }
        ends = [*made, *drawing]
        writer.step(str(layer), made, on_host=drawing, frees=ends)
    classes = shape.dims[-1]
    asked = min(ANSWERS_AT_ONCE, n)
    answers = asked * (classes * s + 2 * ID_BYTES + 3)
    writer.step("answers", {}, on_host={"answers": answers + n + ID_BYTES * n})
    return writer.iteration()
