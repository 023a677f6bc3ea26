#!/usr/bin/env python3
"""Fit the radii of what is unknown of published software, and test each on a source left out.

    python scripts/software_radius.py TABLE.csv...

Prints, by family of approaches and by epochs and parts of epochs, the radius that nine of ten times
need besides the simulator's own interval, and the share of the times of each source that lie inside
the interval earned by all other sources. The radii are those of `gnnbench.published.split`.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gnnbench.costs.fit import conformal_radius
from gnnbench.published.reason import Reason
from gnnbench.published.rows import read_files
from gnnbench.published.score import Comparison, states_time
from gnnbench.published.split import family_of, is_whole
from gnnbench.published.stream_times import stated_epochs
from gnnbench.published.systems import case_of
from gnnbench_simulator.validation import compare_rows

Group = Mapping[str, Sequence[float]]


def needed(comparison: Comparison) -> float:
    """Radius that would put a published time at the end of its interval; 0 if none is needed."""
    predicted, end = comparison.predicted or 0.0, comparison.high
    error = math.log(comparison.published / predicted)
    if error < 0:
        end = comparison.low
    assert end is not None
    own = math.log(end / predicted) ** 2 - comparison.software_radius**2
    return math.sqrt(max(error**2 - max(own, 0.0), 0.0))


def grouped(comparisons: Iterable[Comparison], cases: Iterable[object]) -> dict[str, Group]:
    """Needed radii by group and source."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for comparison, case in zip(comparisons, cases, strict=True):
        if isinstance(case, Reason) or not comparison.scored or comparison.low is None:
            continue
        if states_time(comparison.row):
            kind = "epochs" if is_whole(comparison.row) else "parts"
            name = f"{family_of(case)}, {kind}"  # type: ignore[arg-type]
            found[name][comparison.row.source].append(needed(comparison))
    return dict(found)


def radius(group: Group, *, without: str = "") -> float:
    """The radius that nine of ten times of the other sources need."""
    values = [value for source, own in group.items() if source != without for value in own]
    return conformal_radius(np.asarray(values)) if values else math.nan


def main() -> None:
    """Print the radii of the tables that are named."""
    rows = read_files(Path(name) for name in sys.argv[1:])
    epochs = stated_epochs(rows)
    groups = grouped(compare_rows(rows), [case_of(row, epochs) for row in rows])
    for name, group in sorted(groups.items()):
        number = sum(map(len, group.values()))
        print(f"{name}: radius {radius(group):.2f} of {number} times of {len(group)} sources")
        for source, own in sorted(group.items(), key=lambda item: -len(item[1])):
            limit = radius(group, without=source)
            inside = np.mean(np.asarray(own) <= limit) if math.isfinite(limit) else math.nan
            largest = max(own)
            print(f"  {source[:60]:60} {len(own):4}  {limit:5.2f} {inside:6.0%}  {largest:5.2f}")


if __name__ == "__main__":
    main()
