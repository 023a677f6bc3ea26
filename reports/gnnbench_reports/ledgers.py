"""Read what reports need of ledgers: seconds by phase, and the collectives of all ranks.

Ledgers are long, so only the columns needed are parsed, by pandas instead of `gnnbench.ledger`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from gnnbench.errors import DataError
from gnnbench.ledger import COLUMNS, SCHEMA
from gnnbench.steps import COLLECTIVES, COMMUNICATION, STORAGE, Kind, Lane, Phase

# A rank waits for steps on these lanes; the other lanes overlap with them.
FOREGROUND = (Lane.COMPUTE.value, Lane.COMM.value)


def phase_seconds(folder: Path, *, warmup: int = 0) -> dict[str, float]:
    """Seconds per period by phase on the slowest rank of a run; empty without ledgers.

    Each is the median over periods of the summed durations on the foreground lanes. Waiting for
    other ranks is included, evaluation is left out. The slowest rank is the one with the largest
    sum. Periods before `warmup` are left out unless there are no others.
    """
    slowest: dict[str, float] = {}
    for path in sorted(folder.glob("ledger-rank*.csv")):
        phases = _phases_of_rank(path, warmup)
        if sum(phases.values()) > sum(slowest.values()):
            slowest = phases
    return slowest


_JUDGED = frozenset(COLLECTIVES - {Kind.BARRIER})


def collectives(folder: Path, *, ranks: int, warmup: int = 0) -> Any:
    """The collectives of all ranks of a run: one row per step of a period.

    Columns: name, kind, bytes (the maximum over ranks of the bytes sent), duration_s (the minimum
    over ranks, which excludes waiting for late ranks). Bytes and durations are medians over periods
    after `warmup`. Left out: evaluation, barriers, messages without bytes, collectives of some of
    the ranks, and transfers on the background lane. None unless every rank wrote the same steps.
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
            & (frame["period"] >= warmup)
        ].copy()
        frame["place"] = frame.groupby("period").cumcount()
        frames.append(frame.set_index(["period", "place"])[["name", "kind", "bytes", "duration_s"]])
    first = frames[0]
    if first.empty or any(not frame["name"].equals(first["name"]) for frame in frames[1:]):
        return None
    together = pd.concat(frames, keys=range(ranks), names=["rank"])
    steps = together.groupby(level=["period", "place"]).agg(
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


def _phases_of_rank(path: Path, warmup: int) -> dict[str, float]:
    frame = _read(path, _PHASE_TYPES)
    # A period's seconds and bytes exclude evaluation, so its phases do too.
    frame = frame[frame["lane"].isin(FOREGROUND) & (frame["phase"] != Phase.EVALUATE.value)]
    if frame.empty:
        return {}
    steady = frame[frame["period"] >= warmup]
    if not steady.empty:
        frame = steady
    sums = frame.groupby(["period", "phase"])["duration_s"].sum().unstack(fill_value=0.0)
    return {str(phase): float(value) for phase, value in sums.median().items()}


_PHASE_TYPES = {"period": "int64", "lane": "str", "phase": "str", "duration_s": "float64"}
_COLLECTIVE_TYPES = _PHASE_TYPES | {
    "name": "str",
    "kind": "str",
    "group_size": "int64",
    "bytes": "int64",
}


def _read(path: Path, types: dict[str, str]) -> Any:
    import pandas as pd

    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot read the ledger: {error.strerror}") from None
    # A crash can leave half a line at the end; what has no line end is not a row yet.
    content = content[: content.rfind(b"\n") + 1]
    if content.split(b"\n", 1)[0] != ",".join(COLUMNS).encode():
        raise DataError(
            path, f"not a ledger of schema {SCHEMA}; run the suite again into a new folder"
        )
    try:
        return pd.read_csv(io.BytesIO(content), usecols=list(types), dtype=types)
    except (ValueError, OverflowError) as error:
        raise DataError(path, f"malformed ledger: {error}") from None


_LOCAL = frozenset(kind.value for kind in Kind) - {
    kind.value for kind in COMMUNICATION | STORAGE | {Kind.COPY}
}
_STEP_TYPES = _PHASE_TYPES | {"name": "str", "kind": "str", "op": "str"}


def step_seconds(path: Path, warmup: int = 0) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Seconds of each local step of a rank, by (name, kind, operation); empty without the ledger.

    Returns:
        Mean seconds of one step, and seconds per period; medians over the periods after `warmup`,
        or over all of them if there are no others. Evaluation is left out.
    """
    if not path.is_file():
        return {}
    frame = _read(path, _STEP_TYPES)
    frame = frame[frame["kind"].isin(_LOCAL) & (frame["phase"] != Phase.EVALUATE.value)]
    steady = frame[frame["period"] >= warmup]
    frame = frame if steady.empty else steady
    if frame.empty:
        return {}
    each = frame.groupby(["name", "kind", "op", "period"])["duration_s"].agg(["mean", "sum"])
    middle = each.groupby(level=["name", "kind", "op"]).median()
    return {
        (str(name), str(kind), str(op)): (float(mean), float(whole))
        for (name, kind, op), mean, whole in middle.itertuples()
    }
