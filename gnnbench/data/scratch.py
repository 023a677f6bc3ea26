"""Arrays that a loop needs for a moment, kept from one call to the next.

A fresh array of some hundred kilobytes costs a page fault per 4 KiB, which can take longer than the
loop that fills it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Scratch:
    """Named arrays that grow to their largest use and are then used again.

    One caller at a time: a second call of the same name returns the same memory.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def __call__(self, name: str, size: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return `size` entries whose values are left from the last use."""
        held = self._arrays.get(name)
        if held is None or len(held) < size:
            held = self._arrays[name] = np.empty(size + size // 8, dtype)
        return held[:size]
