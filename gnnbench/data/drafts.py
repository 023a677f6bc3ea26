"""Rows of unknown length, written one behind the other by several threads.

A sampler that keeps some of a row's neighbours learns how many only while it looks at them. It
writes them where the row before ended and stops where a whole row might not fit; the buffer then
grows, and the sampler goes on. Each neighbour is read once; memory is taken for kept ones only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.threads import Team

Write = Callable[[NDArray[np.int32], int, int, int], tuple[int, int]]
ROWS_PER_RANGE = 512
"""Rows worth handing to another thread."""


def drafted(
    team: Team, rows: int, longest: int, expected: Callable[[int, int], int], write: Write
) -> NDArray[np.int32]:
    """Return all kept entries, in the order of the rows.

    Args:
        team: threads that write.
        rows: how many.
        longest: entries of the longest row.
        expected: about how many entries rows start .. stop-1 keep.
        write: writes rows into a buffer, given the next row, the stop and the place; returns the
            row and the place at which it stopped for want of room.
    """
    drafts: dict[int, NDArray[np.int32]] = {}

    def fill(start: int, stop: int) -> None:
        draft = np.empty(expected(start, stop) + longest, np.int32)
        row, at = write(draft, start, stop, 0)
        while row < stop:
            draft = np.concatenate([draft, np.empty(len(draft) + longest, np.int32)])
            row, at = write(draft, row, stop, at)
        drafts[start] = draft[:at]

    team.run(fill, team.split(rows, ROWS_PER_RANGE))
    return np.concatenate([drafts[start] for start in sorted(drafts)])
