"""The shape facts of many steps as arrays, one entry per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gnnbench.plan import Step

Floats = npt.NDArray[np.float64]

FIELDS = ("flops", "bytes", "rows", "nonzeros", "width", "inner", "source_rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts as in `plan.Step`; counts of elements, bytes and flops. `element_bytes` is s."""

    flops: Floats
    bytes: Floats
    rows: Floats
    nonzeros: Floats
    width: Floats
    inner: Floats
    source_rows: Floats
    element_bytes: float = 4.0

    @classmethod
    def of(cls, steps: Sequence[Step], *, element_bytes: float = 4.0) -> Facts:
        """Collect the facts of steps, in their order."""
        table = np.array(
            [
                (s.flops, s.bytes, s.rows, s.nonzeros, s.width, s.inner, s.source_rows)
                for s in steps
            ],
            dtype=np.float64,
        ).reshape(len(steps), len(FIELDS))
        columns = {name: table[:, i] for i, name in enumerate(FIELDS)}
        return cls(**columns, element_bytes=element_bytes)

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
