"""Read what reports need of ledgers: seconds by phase, and the collectives of all ranks.

Ledgers are long, so only the columns needed are parsed, by pandas instead of `gnnbench.ledger`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from gnnbench.errors import DataError
from gnnbench.ledger import COLUMNS
from gnnbench.steps import COLLECTIVES, Kind, Lane, Phase

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


_JUDGED = frozenset(COLLECTIVES - {Kind.BARRIER})


def collectives(folder: Path, *, ranks: int, warmup_epochs: int = 0) -> Any:
    """Return the collectives of all ranks of a run: one row per step of an epoch.

    Columns: name, kind, bytes (most that any rank sends), duration_s (of the rank that was held up
    least: the last one to arrive waits for nobody). Bytes and durations are medians over epochs
    after `warmup_epochs`. Evaluation, barriers, messages without bytes, groups of some of the ranks
    and transfers behind computation are left out. None unless every rank wrote the same steps.
    """
    import pandas as pd

    paths = [folder / f"ledger-rank{rank}.csv" for rank in range(ranks)]
    if not all(path.is_file() for path in paths):
        return None
    frames = []
    for path in paths:
        frame = _read(path, _COLLECTIVE_TYPES)
        frame = frame[
            frame["kind"].isin(_JUDGED)
            & (frame["lane"] == Lane.COMM.value)
            & (frame["phase"] != Phase.EVALUATE.value)
            & (frame["group_size"] == ranks)
            & (frame["epoch"] >= warmup_epochs)
        ].copy()
        frame["place"] = frame.groupby("epoch").cumcount()
        frames.append(frame.set_index(["epoch", "place"])[["name", "kind", "bytes", "duration_s"]])
    first = frames[0]
    if first.empty or any(not frame["name"].equals(first["name"]) for frame in frames[1:]):
        return None
    together = pd.concat(frames, keys=range(ranks), names=["rank"])
    steps = together.groupby(level=["epoch", "place"]).agg(
        name=("name", "first"),
        kind=("kind", "first"),
        bytes=("bytes", "max"),
        duration_s=("duration_s", "min"),
    )
    found = steps.groupby(level="place").agg(
        name=("name", "first"),
        kind=("kind", "first"),
        bytes=("bytes", "median"),
        duration_s=("duration_s", "median"),
    )
    return found[(found["bytes"] > 0) & (found["duration_s"] > 0)].reset_index(drop=True)


def _phases_of_rank(path: Path, warmup_epochs: int) -> dict[str, float]:
    frame = _read(path, _PHASE_TYPES)
    # Evaluation happens between epochs: their seconds and bytes leave it out, so phases do too.
    frame = frame[frame["lane"].isin(FOREGROUND) & (frame["phase"] != Phase.EVALUATE.value)]
    if frame.empty:
        return {}
    steady = frame[frame["epoch"] >= warmup_epochs]
    if not steady.empty:
        frame = steady
    sums = frame.groupby(["epoch", "phase"])["duration_s"].sum().unstack(fill_value=0.0)
    return {str(phase): float(value) for phase, value in sums.median().items()}


_PHASE_TYPES = {"epoch": "int64", "lane": "str", "phase": "str", "duration_s": "float64"}
_COLLECTIVE_TYPES = {
    **_PHASE_TYPES, "name": "str", "kind": "str", "group_size": "int64", "bytes": "int64",
}  # fmt: skip


def _read(path: Path, types: dict[str, str]) -> Any:
    import pandas as pd

    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot read the ledger: {error.strerror}") from None
    # A crash can leave half a line at the end; what has no line end is not a row yet.
    content = content[: content.rfind(b"\n") + 1]
    if content.split(b"\n", 1)[0] != ",".join(COLUMNS).encode():
        raise DataError(path, "not a ledger: its header is not the one of this version")
    try:
        return pd.read_csv(io.BytesIO(content), usecols=list(types), dtype=types)
    except ValueError as error:
        raise DataError(path, f"malformed ledger: {error}") from None
