"""A .npy file that is written block by block: its array need never be in memory as a whole."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ArrayFile:
    """A .npy file that grows by rows; closing it writes their number into its header.

    Args:
        path: of the file, which is replaced.
        dtype: of the elements.
        row_shape: of a row; () for a vector.
    """

    def __init__(self, path: Path, dtype: Any, row_shape: tuple[int, ...] = ()) -> None:
        self.path, self.dtype, self.row_shape = path, np.dtype(dtype), row_shape
        self.rows = 0
        self._file = path.open("wb")
        self._write_header()

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows behind those that are there, converted to the file's type."""
        if rows.shape[1:] != self.row_shape:
            raise ValueError(f"rows of shape {rows.shape[1:]}, the file has {self.row_shape}")
        if rows.size:
            plain = np.ascontiguousarray(rows, self.dtype).reshape(-1)
            self._file.write(plain.view(np.uint8).data)
        self.rows += len(rows)

    def close(self) -> None:
        """Complete the file; a second call does nothing."""
        if self._file.closed:
            return
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        # numpy pads the header for any number of rows, so its length does not change.
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (self.rows, *self.row_shape),
            },
        )

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
