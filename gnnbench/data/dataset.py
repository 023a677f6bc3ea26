"""The interface of every kind of dataset; code outside of `gnnbench.data` uses only this."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

_ROWS = 1 << 16  # rows that are looked at together, so that a mapped matrix is never all in memory
MOST_PROBLEMS = 8  # of one kind; what follows is counted


class Dataset(Protocol):
    """A graph, an edge stream or triples, in native form or in memory.

    Attributes:
        kind: "graph", "stream" or "triples".
        ARRAYS: the names of its arrays.
        PLAIN: names and types of its other content, except name and notes.
        name: as suites call it.
        digest: of the content; "" for data that has not been saved in native form.
    """

    kind: ClassVar[str]
    ARRAYS: ClassVar[tuple[str, ...]]
    PLAIN: ClassVar[Mapping[str, type]]

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def notes(self) -> dict[str, object]: ...

    def facts(self) -> dict[str, Any]:
        """The sizes that plans and records store, by name."""
        ...

    def arrays(self) -> dict[str, Any]:
        """The arrays by name; absent ones are left out. They may be memory-mapped."""
        ...

    def miniature(self, num_nodes: int) -> Self:
        """A small dataset with the same widths and types, for the rehearsal of a run."""
        ...

    def problems(self) -> list[str]:
        """Every broken invariant in a line. Cost: a pass over the arrays."""
        ...

    def check(self) -> None:
        """Raise DataError with every broken invariant."""
        ...

    def cannot_train(self, task: str) -> str | None:
        """Reason why no approach can learn a task from it, with the remedy; or None."""
        ...


def non_finite(name: str, array: NDArray[Any] | None) -> Iterator[str]:
    """Yield a line for a matrix that holds nan or infinity, with the first row and column."""
    if array is None or array.dtype.kind != "f":
        return
    for start in range(0, len(array), _ROWS):
        wrong = ~np.isfinite(array[start : start + _ROWS])
        if wrong.any():
            at = np.argwhere(wrong)[0]
            place = f"row {start + int(at[0])}"
            place += f", column {int(at[1])}" if len(at) > 1 else ""
            value = array[(start + int(at[0]), *at[1:])]
            yield f"{name}: {value} in {place}; allowed are finite numbers"
            return


def out_of_range(name: str, array: NDArray[Any], low: int, high: int) -> Iterator[str]:
    """Yield a line for an integer array with values outside low..high-1, with the first place."""
    if len(array) and (int(array.min()) < low or int(array.max()) >= high):
        at = int(np.argmax((array < low) | (array >= high)))
        yield f"{name}: found {int(array[at])} at {at}, allowed {low}..{high - 1}"


def label_problems(labels: NDArray[Any] | None, num_classes: int, rows: int) -> Iterator[str]:
    """Yield what is wrong with labels: classes from -1 (unknown), or finite rows of several."""
    if labels is None:
        return
    if len(labels) != rows:
        yield f"labels: {len(labels)} rows, expected {rows}"
    elif labels.dtype.kind == "f":
        yield from non_finite("labels", labels)
    else:
        yield from out_of_range("labels", labels, -1, num_classes)


def digest_of(profile: Any) -> str:
    """Identify the statistics of a profile, a dataclass of plain values."""
    text = json.dumps(dataclasses.asdict(profile), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def present(dataset: object, names: Iterable[str]) -> dict[str, Any]:
    """The arrays of a dataset by name; absent ones (None) are left out."""
    held = {name: getattr(dataset, name) for name in names}
    return {name: array for name, array in held.items() if array is not None}
