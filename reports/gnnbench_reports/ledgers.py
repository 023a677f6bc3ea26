"""Read what reports need of ledgers: chosen columns, and the collectives of all ranks.

Ledgers are long, so only the columns needed are parsed, by pandas instead of `gnnbench.ledger`.
Where the time of a period goes is in `parts`.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from gnnbench.errors import DataError
from gnnbench.ledger import COLUMNS, SCHEMA
from gnnbench.steps import COLLECTIVES, COMMUNICATION, STORAGE, Kind, Lane, Phase

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
        frame = read_columns(path, _COLLECTIVE_TYPES)
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


_COLLECTIVE_TYPES = {
    "period": "int64",
    "name": "str",
    "kind": "str",
    "lane": "str",
    "phase": "str",
    "group_size": "int64",
    "bytes": "int64",
    "duration_s": "float64",
}


def read_columns(path: Path, types: dict[str, str]) -> Any:
    """Read these columns of a ledger as a DataFrame; a torn last line is dropped.

    Raises:
        DataError: the file is unreadable or no ledger.
    """
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
        with warnings.catch_warnings():
            # Rows of more fields than the header has would be cut with a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.BytesIO(content),
                usecols=list(types),
                dtype=types,
                na_filter=False,
                index_col=False,
            )
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
        raise DataError(path, f"malformed ledger: {error}") from None


_LOCAL = frozenset(kind.value for kind in Kind) - {
    kind.value for kind in COMMUNICATION | STORAGE | {Kind.COPY}
}
_STEP_TYPES = {
    "period": "int64",
    "name": "str",
    "kind": "str",
    "op": "str",
    "phase": "str",
    "duration_s": "float64",
}


def step_seconds(path: Path, warmup: int = 0) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Seconds of each local step of a rank, by (name, kind, operation); empty without the ledger.

    Returns:
        Mean seconds of one step, and seconds per period; medians over the periods after `warmup`,
        or over all of them if there are no others. Evaluation is left out.
    """
    if not path.is_file():
        return {}
    frame = read_columns(path, _STEP_TYPES)
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
