"""Which of the edges that a temporal query may see it takes: the newest, or uniform ones.

A pick depends on the key of the hop, the vertex, the time and the slot, and on nothing else.

Source: temporal reference section 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gnnbench.data.draws import below, extend

NEVER = -(2**63)
"""Earlier than every time."""
NO_LIMIT = np.iinfo(np.int64).max
"""Later than every event."""


@njit(inline="always")
def take(
    node: Any, time: Any, low: Any, high: Any, picks: Any, key: Any, uniform: Any, out: Any, at: Any
) -> None:
    """Write the positions that a query takes to out[at : at + picks].

    The newest first; or distinct ones by Floyd's algorithm (Bentley and Floyd 1987) over the output
    slots.
    """
    count = high - low
    if not uniform or picks == count:
        for slot in range(picks):
            out[at + slot] = high - 1 - slot
    else:
        own = extend(extend(key, node), time)
        for slot in range(picks):
            top = count - picks + slot
            pick = low + below(own, slot, top + 1)
            for before in range(at, at + slot):
                if out[before] == pick:
                    pick = low + top
                    break
            out[at + slot] = pick
