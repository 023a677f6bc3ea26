"""Read what reports need of ledgers: seconds by phase.

Ledgers are long, so only four columns are parsed, by pandas instead of `gnnbench.ledger`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from gnnbench.errors import DataError
from gnnbench.ledger import COLUMNS
from gnnbench.plan import Lane, Phase

# A step on these lanes holds the rank up; the other lanes work beside them.
FOREGROUND = (Lane.COMPUTE.value, Lane.COMM.value)


def phase_seconds(folder: Path, *, warmup_epochs: int = 0) -> dict[str, float]:
    """Return seconds per epoch by phase on the slowest rank of a run.

    Each is the median over epochs of the summed durations on the foreground lanes, waiting for
    peers included and evaluation left out. The slowest rank is the one with the largest sum.
    Epochs before `warmup_epochs` are left out unless there are no others. Empty without ledgers.
    """
    slowest: dict[str, float] = {}
    for path in sorted(folder.glob("ledger-rank*.csv")):
        phases = _phases_of_rank(path, warmup_epochs)
        if sum(phases.values()) > sum(slowest.values()):
            slowest = phases
    return slowest


def _phases_of_rank(path: Path, warmup_epochs: int) -> dict[str, float]:
    frame = _read(path)
    # Evaluation happens between epochs: their seconds and bytes leave it out, so phases do too.
    frame = frame[frame["lane"].isin(FOREGROUND) & (frame["phase"] != Phase.EVALUATE.value)]
    if frame.empty:
        return {}
    steady = frame[frame["epoch"] >= warmup_epochs]
    if not steady.empty:
        frame = steady
    sums = frame.groupby(["epoch", "phase"])["duration_s"].sum().unstack(fill_value=0.0)
    return {str(phase): float(value) for phase, value in sums.median().items()}


def _read(path: Path) -> Any:
    import pandas as pd

    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot read the ledger: {error.strerror}") from None
    # A crash can leave half a line at the end; what has no line end is not a row yet.
    content = content[: content.rfind(b"\n") + 1]
    if content.split(b"\n", 1)[0] != ",".join(COLUMNS).encode():
        raise DataError(path, "not a ledger: its header is not the one of this version")
    types = {"epoch": "int64", "lane": "str", "phase": "str", "duration_s": "float64"}
    try:
        return pd.read_csv(io.BytesIO(content), usecols=list(types), dtype=types)
    except ValueError as error:
        raise DataError(path, f"malformed ledger: {error}") from None
