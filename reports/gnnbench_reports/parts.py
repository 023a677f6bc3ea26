"""Where the time of a period goes: local work by phase, communication, waiting, disk, hidden time.

Every instant of a rank's period has one part. Steps on the foreground lanes come first. Steps on
the other lanes count as far as no foreground step covers them; covered communication is "hidden".
What is left of the period is idle, or work outside any step.

Stages answer another question: how long sampling, loading and training take, whether or not other
work hides them. A stage is all steps of its phases, communication included and waiting for late
ranks excluded, so that stages of a pipeline may sum to more than its period.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.errors import DataError
from gnnbench.steps import COMMUNICATION as COMMUNICATING
from gnnbench.steps import Engine, Phase
from gnnbench_reports.ledgers import read_columns

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

FOREGROUND = frozenset({Engine.COMPUTE, Engine.COMM, Engine.SPARSE, Engine.DENSE})
"""Engines whose steps hold a rank up. It has one accelerator of a mixed pair, sparse or dense."""
COMMUNICATION, WAITING, DISK, HIDDEN = "communication", "waiting", "disk", "hidden"
BEHIND = {
    Engine.BACKGROUND: COMMUNICATION,
    Engine.DISK: DISK,
    Engine.COPY: "copy",
    Engine.HOST: "host",
}
"""Part of the time in which a rank waits for a lane, in the order in which lanes are asked."""
EXTRA = (COMMUNICATION, WAITING, *list(BEHIND.values())[1:])
"""Parts of a period beside its phases; "hidden" overlaps with the others."""

SAMPLING, LOADING, TRAINING = "sampling", "loading", "training"
STAGE_OF = {
    Phase.SAMPLE.value: SAMPLING,
    Phase.LOAD.value: LOADING,
    Phase.FETCH.value: LOADING,
    Phase.FORWARD.value: TRAINING,
    Phase.BACKWARD.value: TRAINING,
    Phase.SYNC.value: TRAINING,
    Phase.UPDATE.value: TRAINING,
}
"""Stages of a mini-batch by phase, as tables of mini-batch systems split an epoch."""
STAGES = (SAMPLING, LOADING, TRAINING)

_TYPES = {
    "period": "int64",
    "name": "str",
    "kind": "str",
    "lane": "str",
    "phase": "str",
    "group_size": "int64",
    "start_s": "float64",
    "duration_s": "float64",
}
_SHARED = ["period", "name", "place", "kind", "group_size"]
_TOGETHER = frozenset(kind.value for kind in COMMUNICATING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Seconds per period: by part on the slowest rank, by stage on the one with most work."""

    parts: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)


def part_seconds(folder: Path, *, warmup: int = 0) -> Mapping[str, float]:
    """Seconds per period by part on the slowest rank of a run; see `split_seconds`."""
    return split_seconds(folder, warmup=warmup).parts


def split_seconds(folder: Path, *, warmup: int = 0) -> Split:
    """Seconds per period by part and by stage; empty without ledgers.

    A step with other ranks is "communication" for as long as it took the rank that entered it last,
    and "waiting" for the rest. Each number is the median over periods; parts of no time are left
    out. Parts are of the slowest rank, the one with the largest sum. Stages are of the rank with
    most work: ranks that meet in every step take the same time, waiting included. Evaluation is
    left out, and so are periods before `warmup`, unless there are no others.

    Known deviation: where the ledger of another rank is absent, as those of most predicted ranks
    are, the time spent waiting for that rank counts as communication.
    """
    ledgers = [_timed(path, warmup) for path in sorted(folder.glob("ledger-rank*.csv"))]
    frames = [frame for frame in ledgers if len(frame)]
    least = _least_seconds(frames)
    return Split(
        parts=max((_parts(frame, least) for frame in frames), key=whole, default={}),
        stages=max((_stages(frame, least) for frame in frames), key=whole, default={}),
    )


def parts_of(study: Study, row: Comparison, side: str) -> Mapping[str, float]:
    """The parts of a row's period, "measured" or predicted; by phase where no ledger is kept."""
    if side == "measured":
        return row.phases_measured
    record = study.prediction_of(row)
    if record is None or row.phases_measured:
        return row.phases_predicted  # split already, for the comparison
    warmup = record.run.training.warmup_epochs
    try:
        found = part_seconds(study.results.prediction_folder(record), warmup=warmup)
    except DataError as error:
        study.results.pass_over(error)
        found = {}
    return found or row.phases_predicted


def whole(parts: Mapping[str, float]) -> float:
    """Seconds of all parts that follow one another: all but the hidden ones."""
    return sum(seconds for name, seconds in parts.items() if name != HIDDEN)


def _timed(path: Path, warmup: int) -> Any:
    """The steps of one rank that its periods consist of."""
    frame = read_columns(path, _TYPES)
    # A period's seconds and bytes exclude evaluation, so its parts do too.
    frame = frame[frame["phase"] != Phase.EVALUATE.value]
    steady = frame[frame["period"] >= warmup]
    frame = (frame if steady.empty else steady).copy()
    frame["engine"] = frame["lane"].str.split(":").str[0]
    frame["place"] = frame.groupby(["period", "name"]).cumcount()
    return frame


def _least_seconds(frames: list[Any]) -> Any:
    """The shortest time of each step with other ranks, which excludes waiting for late ranks."""
    import pandas as pd

    if len(frames) < 2:
        return None
    together = [frame[frame["kind"].isin(_TOGETHER)] for frame in frames]
    return pd.concat(together).groupby(_SHARED)["duration_s"].min().rename("least_s")


def _parts(frame: Any, least: Any) -> dict[str, float]:
    import pandas as pd

    shared = frame["kind"].isin(_TOGETHER)
    front = frame["engine"].isin(FOREGROUND)
    own = frame[front & ~shared]
    tables = [_sum(own["duration_s"], own["period"], own["phase"])]
    joint = frame[front & shared]
    took = joint["duration_s"]
    if least is not None and not joint.empty:
        took = joint.join(least, on=_SHARED)["least_s"].fillna(took)
    waited = joint["duration_s"] - took
    tables += [_sum(took, joint["period"], COMMUNICATION), _sum(waited, joint["period"], WAITING)]
    covered = frame[front]
    for engine, name in BEHIND.items():
        behind = frame[frame["engine"] == engine]
        if behind.empty:
            continue
        bare, length = _uncovered(behind, covered)
        tables.append(_sum(bare, behind["period"], name))
        if engine is Engine.BACKGROUND:
            tables.append(_sum(length - bare, behind["period"], HIDDEN))
        covered = pd.concat([covered, behind])
    tables = [table for table in tables if len(table)]
    if not tables:
        return {}
    table = pd.concat(tables, axis=1).reindex(frame["period"].unique()).fillna(0.0)
    # Bare background steps are communication too.
    medians = table.T.groupby(level=0).sum().T.median()
    return {str(part): float(seconds) for part, seconds in medians.items() if seconds > 0}


def _stages(frame: Any, least: Any) -> dict[str, float]:
    """Seconds of all steps of each stage; of a step with other ranks, without the wait for them."""
    took = frame["duration_s"]
    if least is not None:
        shared = frame[frame["kind"].isin(_TOGETHER)]
        known = shared.join(least, on=_SHARED)["least_s"].reindex(frame.index)
        took = known.fillna(took)
    table = _sum(took, frame["period"], frame["phase"].map(STAGE_OF)).fillna(0.0)
    return {str(stage): float(seconds) for stage, seconds in table.median().items() if seconds > 0}


def _sum(seconds: Any, period: Any, part: Any) -> Any:
    """Seconds by period, in a column per part."""
    import pandas as pd

    if seconds.empty:
        return pd.DataFrame()
    if isinstance(part, str):
        part = pd.Series(part, index=seconds.index, dtype="object")
    return seconds.groupby([period, part]).sum().unstack(fill_value=0.0)


def _uncovered(steps: Any, cover: Any) -> tuple[Any, Any]:
    """Seconds of each step in which no step of `cover` runs, and its seconds altogether.

    An instant with two of the steps belongs to the one that began first.
    """
    import numpy as np
    import pandas as pd

    start, end = _disjoint(steps)
    hidden = np.zeros(len(start))
    if len(cover):
        first, last = _disjoint(cover)
        order = np.argsort(first, kind="stable")
        edges = np.column_stack([first[order], last[order]]).ravel()
        running = np.column_stack([np.zeros(len(order)), (last - first)[order]]).ravel().cumsum()
        hidden = np.interp(end, edges, running) - np.interp(start, edges, running)
    length = pd.Series(end - start, index=steps.index)
    return length - hidden, length


def _disjoint(steps: Any) -> tuple[Any, Any]:
    """Start and end of each step, cut to begin after the end of all that began before it."""
    import numpy as np

    start = steps["start_s"].to_numpy()
    end = start + steps["duration_s"].to_numpy()
    order = np.argsort(start, kind="stable")
    before = np.maximum.accumulate(np.concatenate([[-np.inf], end[order][:-1]]))
    cut_start, cut_end = np.empty_like(start), np.empty_like(end)
    cut_start[order] = np.maximum(start[order], before)
    cut_end[order] = np.maximum(end[order], cut_start[order])
    return cut_start, cut_end
