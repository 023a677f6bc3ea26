"""Problems of a plan: steps of ranks that do not fit together, one sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gnnbench.iterations import Iteration, RankClass
from gnnbench.steps import COLLECTIVES, LATEST, Groups, Step


def schedule_problems(
    approach: str,
    schedule: Sequence[int],
    periods: Sequence[int],
    releases: Sequence[float],
    iterations: int,
) -> list[str]:
    """Problems of the schedule of `iterations` distinct iterations, and of the periods."""
    problems = []
    if any(length < 1 for length in periods) or sum(periods) != len(schedule):
        problems.append(
            f"{approach}: a schedule of {len(schedule)} iterations, but periods of {sum(periods)}"
        )
    problems += [
        f"{approach}: the schedule names iteration {index} of {iterations}"
        for index in sorted(set(schedule))
        if not 0 <= index < iterations
    ]
    if releases and len(releases) != len(schedule):
        problems.append(
            f"{approach}: {len(releases)} release times for {len(schedule)} scheduled iterations"
        )
    return problems


def iteration_problems(where: str, iteration: Iteration, world_size: int) -> list[str]:
    """Problems within one iteration: names, waits, and collectives that do not match."""
    if iteration.world_size != world_size:
        return [f"{where}: steps for {iteration.world_size} ranks in a plan of {world_size}"]
    problems: list[str] = []
    meetings = _Meetings(where)
    for of in iteration.classes:
        rank = int(of.ranks[0])
        problems += _mixed_groups(where, of)
        seen: set[str] = set()
        for step in of.steps:
            if step.name in seen:
                problems.append(f"{where} rank {rank}: two steps named {step.name!r}")
            for after in step.after:
                if after.lag < LATEST:
                    problems.append(
                        f"{where} rank {rank}: {step.name!r} waits with lag {after.lag}"
                    )
                elif after.lag == 0 and after.step not in seen:
                    problems.append(
                        f"{where} rank {rank}: {step.name!r} waits for {after.step!r}, "
                        "which is not an earlier step of the iteration"
                    )
            seen.add(step.name)
            if step.work.kind in COLLECTIVES:
                meetings.join(of, step)
    return problems + meetings.problems()


def _mixed_groups(where: str, of: RankClass) -> list[str]:
    """A class must join the same steps in the same groups: two steps share a group on all or none.

    Collectives are matched by their number within the group, which the ranks of a class share.
    """
    groups: dict[object, NDArray[np.object_]] = {}
    for step in of.steps:
        if isinstance(step.group, Groups):
            key = step.group.table, step.group.of.tobytes()
            if key not in groups:
                table = np.empty(len(step.group.table), object)
                table[:] = step.group.table
                groups[key] = table[step.group.of]
    each = list(groups.values())
    for number, one in enumerate(each):
        for other in each[number + 1 :]:
            same = [a == b for a, b in zip(one, other, strict=True)]
            if any(same) and not all(same):
                return [f"{where}: a class whose ranks join collectives in different patterns"]
    return []


class _Meetings:
    """Which collectives each rank joins in each group, by sets of ranks that join the same."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.wrong: list[str] = []
        # Per group: sets of ranks, each with what it joins in order.
        self.joined: dict[tuple[int, ...], dict[tuple[int, ...], list[tuple[str, int]]]] = {}

    def join(self, of: RankClass, step: Step) -> None:
        call = step.work.kind.value, step.layer
        for group, ranks in _groups_of(of, step):
            foreign = set(ranks).difference(group)
            if foreign:
                self.wrong.append(
                    f"{self.where} rank {min(foreign)}: {step.name!r} is of a foreign group "
                    f"{_short(group)}"
                )
            else:
                self.joined.setdefault(group, {}).setdefault(ranks, []).append(call)

    def problems(self) -> list[str]:
        problems = self.wrong
        for group, calls in self.joined.items():
            by_rank = {rank: called for ranks, called in calls.items() for rank in ranks}
            first = by_rank.get(group[0], [])
            for rank in group[1:]:
                if by_rank.get(rank, []) != first:
                    problems.append(
                        f"{self.where}: ranks {group[0]} and {rank} disagree on the collectives "
                        f"of group {_short(group)}: {first} against {by_rank.get(rank, [])}"
                    )
                    break
        return problems


def _groups_of(of: RankClass, step: Step) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The groups in which ranks of a class take a step, each with those ranks."""
    group = step.group
    if not isinstance(group, Groups):
        return [(group, tuple(of.ranks.tolist()))]
    return [
        (group.table[number], tuple(of.ranks[group.of == number].tolist()))
        for number in np.unique(group.of).tolist()
    ]


def lag_problems(
    approach: str, schedule: Sequence[int], of: Mapping[int, int], samples: Sequence[Iteration]
) -> list[str]:
    """Waits for a step of an earlier iteration that does not have it.

    Args:
        approach: for messages.
        schedule: which distinct iteration runs when.
        of: the layout of each distinct iteration.
        samples: an iteration of each layout.
    """
    waits = [
        [
            (class_, step.name, after)
            for class_ in sample.classes
            for step in class_.steps
            for after in step.after
            if after.lag
        ]
        for sample in samples
    ]
    if not any(waits):
        return []
    names = [[{s.name for s in c.steps} for c in sample.classes] for sample in samples]

    def lacking(class_: RankClass, name: str, layout: int) -> int | None:
        """A rank of the class that has no step of this name in a layout."""
        which = samples[layout].places()[0][class_.ranks]
        for rank, place in zip(class_.ranks.tolist(), which.tolist(), strict=True):
            if name not in names[layout][place]:
                return int(rank)
        return None

    problems: list[str] = []
    checked: set[tuple[int, int, int]] = set()
    layouts = [of[index] for index in schedule]
    for number, layout in enumerate(layouts):
        for place, (class_, step, after) in enumerate(waits[layout]):
            if after.lag > number:
                continue
            then = layouts[number - after.lag] if after.lag > 0 else LATEST
            if (layout, then, place) in checked:
                continue
            checked.add((layout, then, place))
            candidates = range(len(samples)) if after.lag == LATEST else (then,)
            lacks = [lacking(class_, after.step, one) for one in candidates]
            if all(rank is not None for rank in lacks):
                told = "the latest " if after.lag == LATEST else ""
                where = "no iteration has" if after.lag == LATEST else "is not in the iteration"
                problems.append(
                    f"{approach} rank {lacks[0]}: {step!r} waits for {told}{after.step!r}, "
                    f"which {where}" + (f" {after.lag} before" if after.lag > 0 else "")
                )
    return problems


def _short(group: Sequence[int]) -> str:
    return str(tuple(group)) if len(group) <= 8 else f"({group[0]}, ..., {group[-1]})"
