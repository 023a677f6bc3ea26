"""Moving a graph's arrays into tensors without leaving mapped pages behind."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.data.graph import Graph


def rows_as_tensor(
    features: NDArray[np.float32],
    rows: NDArray[np.int64] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Feature rows as a tensor; a mapped file is used in place where nothing must change."""
    if rows is None and dtype == torch.float32 and device.type == "cpu":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the mapping is read-only, and only read
            return torch.from_numpy(np.asarray(features))
    count = len(features) if rows is None else len(rows)
    held = torch.empty((count, features.shape[1]), dtype=dtype, device=device)
    source = reopened(features)
    for start in range(0, count, 65_536):
        part = slice(start, min(start + 65_536, count))
        chunk = source[part] if rows is None else source[rows[part]]
        held[part] = torch.from_numpy(np.ascontiguousarray(chunk)).to(device, dtype)
    return held


def reopened(array: NDArray[Any]) -> NDArray[Any]:
    """A separate mapping of a mapped array; its pages are released with it."""
    if isinstance(array, np.memmap) and array.filename is not None:
        fresh = np.load(array.filename, mmap_mode="r", allow_pickle=False)
        if fresh.shape == array.shape and fresh.dtype == array.dtype:
            return fresh  # type: ignore[no-any-return]
    return array


def reopened_graph(graph: Graph) -> Graph:
    """The graph over mappings of its own (see `reopened`)."""
    fields = {f.name: getattr(graph, f.name) for f in dataclasses.fields(graph)}
    arrays: dict[str, Any] = {
        k: reopened(v) for k, v in fields.items() if isinstance(v, np.ndarray)
    }
    return dataclasses.replace(graph, **arrays)


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor."""
    return tensor.numel() * tensor.element_size()


def sizes_of(tensor: Tensor) -> tuple[int, int]:
    """Rows and columns of a matrix."""
    rows, columns = tensor.shape
    return rows, columns
