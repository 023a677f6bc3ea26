"""Arrays of files in one form: edges, masks of splits, and features, whatever way they lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.errors import DataError, SpecError


def archive(stream: IO[bytes]) -> Any:
    """The arrays of an .npz. Raises ValueError for a single array or a pickle."""
    parts = np.load(stream, allow_pickle=False)
    if not hasattr(parts, "files"):
        raise ValueError("a single array, not an archive of arrays")
    return parts


def array_of(parts: Any, names: tuple[str, ...], file: Path) -> NDArray[Any] | None:
    """The first of some arrays that an .npz holds; None if it holds none of them.

    Raises:
        DataError: an array of Python objects, which only pickle can read.
    """
    name = next((name for name in names if name in parts), None)
    if name is None:
        return None
    try:
        found: NDArray[Any] = parts[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            file, f"{name} holds Python objects, which are not read: save it as numbers or text"
        ) from None
    return found


def whole_numbers(array: NDArray[Any], what: str, file: Path) -> NDArray[np.int64]:
    """The array as int64. Raises DataError for fractions, which would be cut, and for text."""
    if array.dtype.kind in "ib":
        return array.astype(np.int64)
    if array.dtype.kind not in "uf":
        raise DataError(file, f"{what} of type {array.dtype}, expected whole numbers")
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    wrong = (whole != array) | (whole < 0) & (array > 0)
    if wrong.any():
        value = array[tuple(np.argwhere(wrong)[0])]
        raise DataError(file, f"{what}: found {value}, expected whole numbers below 2^63")
    return whole


def edge_pairs(array: NDArray[Any], file: Path, *, ends_first: bool = False) -> NDArray[np.int64]:
    """Edges as int64 [E, 2], from rows of pairs [E, 2] or from two rows of ends [2, E].

    An array [2, 2] fits both: with `ends_first` it holds the sources and the destinations, as
    `edge_index` of torch geometric does, else two pairs.
    """
    if array.dtype.kind == "b":
        raise DataError(file, "edges of type bool, expected ids of nodes: is it a matrix?")
    if array.shape == (2, 2) and ends_first:
        pairs = array.T
    elif array.ndim == 2 and array.shape[1] == 2:
        pairs = array
    elif array.ndim == 2 and array.shape[0] == 2:
        pairs = array.T
    elif array.size == 0:
        pairs = array.reshape(0, 2)
    else:
        raise DataError(file, f"edges of shape {array.shape}, expected [E, 2] or [2, E]")
    return whole_numbers(pairs, "edges", file)


def split_masks(
    arrays: Mapping[str, NDArray[Any]], num_nodes: int, split: int, file: Path
) -> dict[str, NDArray[np.bool_]]:
    """The masks of one split, as fields of Graph, from arrays of one or more masks.

    A mask lies in [N], [splits, N] or [N, splits]. A single mask beside several of another part is
    that of every split, as in files whose test nodes are always the same.

    Args:
        arrays: by "train", "val" and "test".
        num_nodes: N.
        split: which of the splits.
        file: for messages.

    Raises:
        DataError: another shape, or numbers other than 0 and 1, such as ids of nodes.
        SpecError: `split` is not there.
    """
    each = {part: _masks(array, num_nodes, f"{part}_masks", file) for part, array in arrays.items()}
    counts = {len(masks) for masks in each.values()}
    most = max(counts)
    if len(counts - {1, most}):
        said = ", ".join(f"{part}: {len(masks)}" for part, masks in each.items())
        raise DataError(file, f"masks of unlike numbers of splits: {said}")
    if not 0 <= split < most:
        raise SpecError(f"{file}: split: found {split}, allowed 0..{most - 1}")
    return {f"{part}_mask": masks[split if len(masks) > 1 else 0] for part, masks in each.items()}


def _masks(array: NDArray[Any], num_nodes: int, what: str, file: Path) -> NDArray[np.bool_]:
    """Masks as bool [splits, N]."""
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim == 2 and array.shape[1] != num_nodes and array.shape[0] == num_nodes:
        array = array.T
    if array.ndim != 2 or array.shape[1] != num_nodes or not len(array):
        raise DataError(
            file,
            f"{what} of shape {array.shape} for {num_nodes} nodes, expected [nodes] or "
            "[splits, nodes] with true or false for each node, not ids",
        )
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise DataError(file, f"{what} holds more than 0 and 1, expected true or false")
    return array.astype(np.bool_)


def feature_matrix(array: NDArray[Any], file: Path) -> NDArray[np.float32]:
    """Features as float32 [N, D]; a single column may lie in one dimension."""
    if array.dtype.kind not in "biuf":
        raise DataError(file, f"features of type {array.dtype}, expected numbers")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise DataError(file, f"features of shape {array.shape}, expected [nodes, features]")
    with np.errstate(over="ignore"):
        kept: NDArray[np.float32] = array.astype(np.float32)
    if array.dtype.kind == "f" and np.any(np.isinf(kept) & np.isfinite(array)):
        at = np.argwhere(np.isinf(kept) & np.isfinite(array))[0]
        value = array[tuple(at)]
        raise DataError(file, f"features: {value:g} in row {at[0]} is more than float32 can hold")
    return kept
