"""Counter-based keys: random bits that depend on counters only, not on rank, thread or order.

A key is 64 bits. `fold(seed, *counters)` passes the counters through the finaliser of splitmix64
(Steele, Lea, Flood 2014), so a pick of the sampler or a bit of a dropout mask is a pure function of
(seed, epoch, step, ...). `mix64`, `mix64_array` and their copies in the samplers and kernels
(numba, torch) give the same bits, which a test checks.

Numba caches compiled code by the file of the caller: after editing `mix64` delete `__pycache__`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
FIRST = 0xBF58476D1CE4E5B9
SECOND = 0x94D049BB133111EB
MASK64 = 0xFFFFFFFFFFFFFFFF


def mix64(x: int) -> int:
    """Return a bijective hash of 64 bits; compiles under numba when x is uint64."""
    x = ((x ^ (x >> 30)) * FIRST) & MASK64
    x = ((x ^ (x >> 27)) * SECOND) & MASK64
    return x ^ (x >> 31)


def fold(seed: int, *counters: int) -> int:
    """Return the key of (seed, counters...), 0 <= key < 2**64.

    `fold(fold(s, a), b) != fold(s, a, b)` in general: the seed itself is mixed first. Continue a
    key with `extend`.
    """
    return extend(mix64((seed + GOLDEN) & MASK64), *counters)


def extend(key: int, *counters: int) -> int:
    """Walk further counters into a key: `extend(fold(s, a), b) == fold(s, a, b)`."""
    for counter in counters:
        key = mix64(((key ^ (counter & MASK64)) + GOLDEN) & MASK64)
    return key


def mix64_array(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return `mix64` of every element."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(FIRST)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(SECOND)
    return x ^ (x >> np.uint64(31))


def extend_array(key: int, counters: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return `extend(key, c)` for every counter c."""
    return mix64_array((np.uint64(key) ^ counters.astype(np.uint64)) + np.uint64(GOLDEN))


def unit(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return uniform numbers in [0, 1) made of random bits."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, *counters: int) -> np.random.Generator:
    """Return a numpy generator whose stream is a pure function of the counters (Philox)."""
    return np.random.Generator(np.random.Philox(key=fold(seed, *counters)))
