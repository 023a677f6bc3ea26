"""Layers of a batch that are all computed on all of its vertices and edges.

A batch may be one list of edges for all layers, as in PyG without `trim_to_layer` and in Capsule
with PyG's layers. Every layer then multiplies the rows of all input vertices and sums over all
edges; the rows of the seeds are taken at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gnnbench.steps import Kind, Phase, Size, Step, Work

Floats = NDArray[np.float64]
_PATTERN = (Kind.SPMM, Kind.SDDMM)
_TRAINED = (Phase.FORWARD, Phase.BACKWARD)


def untrimmed(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps of one batch with the sizes of the first layer's input in every layer.

    The loss stays that of the seeds.
    """
    sizes: dict[int, Work] = {}
    for step in steps:
        if step.phase is Phase.FORWARD and step.kind in _PATTERN and step.layer not in sizes:
            sizes[step.layer] = step.work
    if 1 not in sizes:
        return tuple(steps)
    first = sizes[1]

    def grown(step: Step) -> Step:
        own = sizes.get(step.layer)
        if own is None or step.phase not in _TRAINED or step.name == "forward/loss":
            return step
        return replace(step, work=_grown(step.work, own, first))

    return tuple(grown(step) for step in steps)


def _grown(done: Work, own: Work, first: Work) -> Work:
    """Work of a layer whose pattern is `own`, on the vertices and edges of pattern `first`."""
    vertices, edges = first.source_rows, first.nonzeros
    if done.kind in _PATTERN or done.op == "edge_sums":
        factor = _ratio(edges, own.nonzeros)
        if done.kind in _PATTERN:
            done = done._replace(rows=vertices, source_rows=vertices, nonzeros=edges)
        else:
            done = done._replace(rows=_times(factor, done.rows))
    elif done.kind is Kind.GEMM:
        # Rows of the layer's targets, or of its sources where a product comes before the sum.
        ends = (own.rows, own.source_rows)
        by_rows = any(np.array_equal(done.rows, end) for end in ends)
        factor = _ratio(vertices, done.rows if by_rows else done.inner)
        done = done._replace(rows=vertices) if by_rows else done._replace(inner=vertices)
    else:
        # Both ends of an edge are scored: every vertex twice.
        times = 2 if done.op.startswith("attention_scores") else 1
        factor = _ratio(times * vertices * done.width, done.rows)
        done = done._replace(rows=_times(factor, done.rows))
    return done._replace(bytes=_times(factor, done.bytes), flops=_times(factor, done.flops))


def _ratio(whole: Size, part: Size) -> Floats:
    return np.asarray(whole / np.maximum(part, 1), float)


def _times(factor: Floats, size: Size) -> Size:
    made = np.round(factor * size).astype(np.int64)
    return int(made) if made.ndim == 0 else made
