"""Features of a graph in a file on the disk, row behind row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gnnbench.approaches.out_of_core.storage import padded
from gnnbench.data.graph import Graph
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench_runtime.disk import BlockFile, aligned_empty
from gnnbench_runtime.protocol import RankContext

_ROWS_AT_ONCE = 16_384
"""A multiple of the disk's block, so that chunks of any stride are whole blocks."""


def write_rows(
    context: RankContext, graph: Graph, path: Path, *, row_bytes: int, stride: int, file_bytes: int
) -> BlockFile:
    """Write the features in the precision of the run, some rows at a time.

    Args:
        context: the rank.
        graph: has the features.
        path: of the file.
        row_bytes: of one row.
        stride: bytes from one row to the next.
        file_bytes: of the file, whole blocks.
    """
    assert graph.features is not None
    kind = torch.empty(0, dtype=context.dtype).numpy().dtype
    file = BlockFile(path, size_bytes=file_bytes, writable=True)
    block = aligned_empty((padded(_ROWS_AT_ONCE * stride),), np.uint8)
    for start in range(0, graph.num_nodes, _ROWS_AT_ONCE):
        part = np.asarray(graph.features[start : start + _ROWS_AT_ONCE]).astype(kind)
        size = len(part) * stride
        wide = block[:size].reshape(len(part), stride)
        wide[:, :row_bytes] = part.view(np.uint8).reshape(len(part), -1)
        file.write(block[: padded(size)], start * stride)
        forget_mapped_pages([graph.features])
    return file
