"""The shape facts of many pieces of work as arrays, one entry per rank that does them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gnnbench.steps import Step, Work

Floats = npt.NDArray[np.float64]

FIELDS = ("flops", "bytes", "rows", "nonzeros", "width", "inner", "source_rows")
PER_CALL = ("flops", "bytes", "rows", "nonzeros")
"""Facts that are totals over the calls of a piece of work; the others are those of each call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts as in `steps.Work`; counts of elements, bytes and flops. `element_bytes` is s."""

    flops: Floats
    bytes: Floats
    rows: Floats
    nonzeros: Floats
    width: Floats
    inner: Floats
    source_rows: Floats
    element_bytes: float = 4.0

    @classmethod
    def of(
        cls,
        works: Sequence[Work],
        counts: Sequence[int] | None = None,
        *,
        element_bytes: float = 4.0,
    ) -> Facts:
        """Collect facts in order. `counts` are the ranks that do each piece; 1 by default.

        Work that represents several calls is described by the facts of one call; its time is that
        of one call times the number of calls.
        """
        total = len(works) if counts is None else sum(counts)
        columns = {}
        for name in FIELDS:
            values = [getattr(work, name) for work in works]
            columns[name] = column(values, counts, total)
        if any(not isinstance(work.calls, int) or work.calls != 1 for work in works):
            calls = column([work.calls for work in works], counts, total)
            for name in PER_CALL:
                columns[name] = columns[name] / np.maximum(calls, 1.0)
        return cls(**columns, element_bytes=element_bytes)

    @classmethod
    def of_steps(cls, steps: Sequence[Step], *, element_bytes: float = 4.0) -> Facts:
        """Facts of single ranks' steps."""
        return cls.of([step.work for step in steps], element_bytes=element_bytes)

    def take(self, index: npt.NDArray[np.intp]) -> Facts:
        """Facts of some of the steps."""
        columns = {name: getattr(self, name)[index] for name in FIELDS}
        return Facts(**columns, element_bytes=self.element_bytes)

    def __len__(self) -> int:
        return len(self.bytes)

    @property
    def source_bytes(self) -> Floats:
        """Bytes of the table that rows are read from: the working set of spmm and gather."""
        return self.source_rows * self.width * self.element_bytes

    def row_bytes(self, line: float) -> Floats:
        """Bytes that reading one row moves, in whole cache lines (simulation 5.3)."""
        lines: Floats = np.ceil(self.width * self.element_bytes / line)
        return lines * line


def column(values: Sequence[object], counts: Sequence[int] | None, total: int) -> Floats:
    """Concatenate sizes of several pieces of work, each repeated for its number of ranks."""
    if counts is None:
        return np.array(values, dtype=np.float64)
    out = np.empty(total)
    start = 0
    for value, count in zip(values, counts, strict=True):
        out[start : start + count] = value  # type: ignore[call-overload]
        start += count
    return out
