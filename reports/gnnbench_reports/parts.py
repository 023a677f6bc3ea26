"""Where the time of a period goes: local work by phase, communication, waiting, disk, hidden time.

Every instant of a rank's period has one part. Local work on the foreground lanes comes first. Then
comes communication on them, at instants without local work: chunks of a pipeline travel while
others are computed. Last come the other lanes, at instants without a foreground step. Communication
at the same instant as other work is "hidden". What is left of the period is idle, or work outside
any step.

Stages answer another question: how long sampling, loading and training take, whether or not other
work hides them. A stage is all steps of its phases, communication included and waiting for late
ranks excluded, so that stages of a pipeline may sum to more than its period.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
_ROUNDING = 1e-8
_SHARED = ["period", "name", "kind", "group_size"]
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
    read = [_timed(path, warmup) for path in sorted(folder.glob("ledger-rank*.csv"))]
    ledgers = [steps for steps in read if steps is not None]
    pairs = list(zip(ledgers, _least_seconds(ledgers), strict=True))
    return Split(
        parts=max((_parts(*pair) for pair in pairs), key=whole, default={}),
        stages=max((_stages(*pair) for pair in pairs), key=whole, default={}),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """The steps of one rank that its periods consist of, as arrays of one length.

    `place` numbers the periods from 0, in rising order. Arrays instead of frames: a ledger has few
    rows, and a report reads thousands of ledgers.
    """

    frame: Any
    place: Any
    periods: int
    engine: Any
    shared: Any
    start_s: Any
    duration_s: Any

    def sums(self, seconds: Any, chosen: Any) -> Any:
        """Seconds of the chosen steps by period."""
        import numpy as np

        return np.bincount(self.place[chosen], seconds, minlength=self.periods)


def _timed(path: Path, warmup: int) -> _Steps | None:
    """The steps of a rank outside of evaluation, after the warm-up if there are any."""
    import numpy as np

    frame = read_columns(path, _TYPES)
    # A period's seconds and bytes exclude evaluation, so its parts do too.
    kept = frame["phase"].to_numpy(dtype=object) != Phase.EVALUATE.value
    steady = kept & (frame["period"].to_numpy() >= warmup)
    kept = steady if steady.any() else kept
    if not kept.any():
        return None
    frame = frame if kept.all() else frame[kept]
    periods, place = np.unique(frame["period"].to_numpy(), return_inverse=True)
    lane, kind = (frame[name].to_numpy(dtype=object) for name in ("lane", "kind"))
    engine_of = {one: one.partition(":")[0] for one in set(lane)}
    return _Steps(
        frame=frame,
        place=place,
        periods=len(periods),
        engine=np.array([engine_of[one] for one in lane], dtype=object),
        shared=_among(kind, _TOGETHER),
        start_s=frame["start_s"].to_numpy(),
        duration_s=frame["duration_s"].to_numpy(),
    )


def _among(values: Any, wanted: Collection[str]) -> Any:
    """Whether each of some words is wanted."""
    import numpy as np

    found = {word: word in wanted for word in set(values)}
    return np.array([found[word] for word in values], dtype=bool)


def _least_seconds(ledgers: list[_Steps]) -> list[Any]:
    """The seconds of each rank's steps with other ranks, without waiting for late ranks.

    Of each step it is the shortest time of any rank, in the order of the rank's own steps.
    """
    import numpy as np

    joint = [steps.frame[steps.shared] for steps in ledgers]
    took = [steps.duration_s[steps.shared] for steps in ledgers]
    if len(ledgers) < 2:
        return took
    keys = [frame[_SHARED].reset_index(drop=True) for frame in joint]
    if all(key.equals(keys[0]) for key in keys[1:]):
        # Every rank took the same steps in the same order, as they do in a plan without branches.
        return [np.minimum.reduce(took)] * len(took)
    import pandas as pd

    numbered = []
    for steps in ledgers:
        place = steps.frame.groupby(["period", "name"]).cumcount()
        numbered.append(steps.frame.assign(place=place)[steps.shared])
    names = [*_SHARED, "place"]
    least = pd.concat(numbered).groupby(names)["duration_s"].min().rename("least_s")
    return [frame.join(least, on=names)["least_s"].to_numpy() for frame in numbered]


def _parts(steps: _Steps, least: Any) -> dict[str, float]:
    """Median seconds per period by part; `least` are those of the steps with other ranks."""
    import numpy as np

    tables: dict[str, Any] = {}

    def add(part: str, seconds: Any, chosen: Any) -> None:
        tables[part] = tables.get(part, 0.0) + steps.sums(seconds, chosen)

    front = _among(steps.engine, FOREGROUND)
    phase = steps.frame["phase"].to_numpy(dtype=object)
    own = front & ~steps.shared
    for name in set(phase[own]):
        chosen = own & (phase == name)
        add(str(name), steps.duration_s[chosen], chosen)
    joint = front & steps.shared
    took = np.zeros(len(front))
    took[steps.shared] = least
    bare, length = _uncovered(steps, joint, own)
    # Clocks and sums round: a nanosecond is no overlap.
    overlaps = length - bare > _ROUNDING
    alone = np.where(overlaps, bare / np.where(overlaps, length, 1.0), 1.0)
    add(COMMUNICATION, took[joint] * alone, joint)
    add(WAITING, (steps.duration_s - took)[joint] * alone, joint)
    if overlaps.any():
        add(HIDDEN, np.where(overlaps, length - bare, 0.0), joint)
    covered = front
    for engine, name in BEHIND.items():
        behind = steps.engine == engine
        if not behind.any():
            continue
        bare, length = _uncovered(steps, behind, covered)
        # Bare background steps are communication too.
        add(name, bare, behind)
        if engine is Engine.BACKGROUND:
            add(HIDDEN, length - bare, behind)
        covered = covered | behind
    medians = {part: float(np.median(table)) for part, table in sorted(tables.items())}
    return {part: seconds for part, seconds in medians.items() if seconds > 0}


def _stages(steps: _Steps, least: Any) -> dict[str, float]:
    """Seconds of all steps of each stage; of a step with other ranks, without the wait for them."""
    import numpy as np

    took = steps.duration_s.copy()
    took[steps.shared] = least
    phase = steps.frame["phase"].to_numpy(dtype=object)
    staged = np.unique(steps.place[_among(phase, STAGE_OF)])
    found = {}
    for stage in STAGES:
        chosen = _among(phase, {name for name, of in STAGE_OF.items() if of == stage})
        seconds = steps.sums(took[chosen], chosen)[staged]
        found[stage] = float(np.median(seconds)) if len(staged) else 0.0
    return {stage: seconds for stage, seconds in found.items() if seconds > 0}


def _uncovered(steps: _Steps, chosen: Any, cover: Any) -> tuple[Any, Any]:
    """Seconds of each chosen step in which no step of `cover` runs, and its seconds altogether.

    An instant with two of the steps belongs to the one that began first.
    """
    import numpy as np

    start, end = _disjoint(steps.start_s[chosen], steps.duration_s[chosen])
    hidden = np.zeros(len(start))
    if cover.any():
        first, last = _disjoint(steps.start_s[cover], steps.duration_s[cover])
        order = np.argsort(first, kind="stable")
        edges = np.column_stack([first[order], last[order]]).ravel()
        running = np.column_stack([np.zeros(len(order)), (last - first)[order]]).ravel().cumsum()
        hidden = np.interp(end, edges, running) - np.interp(start, edges, running)
    length = end - start
    return length - hidden, length


def _disjoint(start: Any, seconds: Any) -> tuple[Any, Any]:
    """Start and end of each step, cut to begin after the end of all that began before it."""
    import numpy as np

    end = start + seconds
    order = np.argsort(start, kind="stable")
    before = np.maximum.accumulate(np.concatenate([[-np.inf], end[order][:-1]]))
    cut_start, cut_end = np.empty_like(start), np.empty_like(end)
    cut_start[order] = np.maximum(start[order], before)
    cut_end[order] = np.maximum(end[order], cut_start[order])
    return cut_start, cut_end
