"""Random integers inside compiled loops: the keys of `gnnbench.data.keys`, under numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gnnbench.data import keys

mix64: Callable[[Any], Any] = njit(inline="always")(keys.mix64)
GOLDEN = np.uint64(keys.GOLDEN)
ONE = np.uint64(1)
_LOW32 = np.uint64(0xFFFFFFFF)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop on first use; it releases the interpreter lock."""
    made: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")(function)
    return made


@njit(inline="always")
def extend(key: Any, counter: Any) -> Any:
    """`keys.extend` by one counter; key is uint64."""
    return mix64((key ^ np.uint64(counter)) + GOLDEN)


@njit(inline="always")
def below(key: Any, slot: Any, bound: Any) -> Any:
    """Return a uniform integer in 0 .. bound-1, bound < 2**32, without bias.

    Multiply and shift with rejection (Lemire 2019); a redraw hashes the rejected bits again.
    """
    bits = mix64((key ^ np.uint64(slot)) + GOLDEN)
    bound = np.uint64(bound)
    product = (bits >> np.uint64(32)) * bound
    if (product & _LOW32) < bound:
        floor = ((_LOW32 - bound) + ONE) % bound
        while (product & _LOW32) < floor:
            bits = mix64(bits + GOLDEN)
            product = (bits >> np.uint64(32)) * bound
    return np.int64(product >> np.uint64(32))
