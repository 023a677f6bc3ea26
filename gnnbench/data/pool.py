"""An array that grows in place, on huge pages where the system has them.

Random reads of a pool of gigabytes miss the table of pages, unless pages are large. numpy asks for
large ones where it allocates, but not where an array is resized.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Pool:
    """Elements of one type, whose array is replaced when it grows: take `array` anew each time.

    Args:
        length: elements to begin with, at least 1; their values are zero.
        dtype: of an element.
    """

    def __init__(self, length: int, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self.array: NDArray[Any]
        self._take(_mapped(length * self._dtype.itemsize), length)

    def lengthen(self, length: int) -> None:
        """Grow; values stay, new ones are zero. The memory moves without copying where it can."""
        size, old = length * self._dtype.itemsize, self._map
        before, self.array = self.array, np.empty(0, self._dtype)
        count = len(before)
        del before
        try:
            old.resize(size)
        except (BufferError, OSError, SystemError):
            # Someone still has the array, or the system cannot move memory.
            values = np.frombuffer(old, self._dtype, count)
            self._take(_mapped(size), length)
            self.array[:count] = values
        else:
            self._take(old, length)

    def _take(self, memory: mmap.mmap, length: int) -> None:
        self._map = memory
        self.array = np.frombuffer(memory, self._dtype, length)


def _mapped(size: int) -> mmap.mmap:
    found = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel that was built without them
            found.madvise(mmap.MADV_HUGEPAGE)
    return found
