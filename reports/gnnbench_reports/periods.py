"""Keep times of an epoch and of an increment apart: they are no times of the same work.

A stream may be learnt in increments by one approach and in epochs by another, in one suite and with
one model. Tables, figures and answers compare the rows of one dataset and model, so the model's
name says what the period is where both occur: "tgn (increments)", "tgn (epochs)".
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

from gnnbench_reports.comparison import Comparison


def apart_by_period(rows: Sequence[Comparison]) -> list[Comparison]:
    """The rows, with the period in the model's name where a dataset and model have several."""
    groups: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for row in rows:
        groups[row.dataset, row.model].append(row)
    nouns = {key: _periods(group) for key, group in groups.items()}
    return [
        row
        if len(set(of.values())) < 2
        else dataclasses.replace(row, model=f"{row.model} ({of[row.config_id]}s)")
        for row in rows
        for of in (nouns[row.dataset, row.model],)
    ]


def _periods(rows: Sequence[Comparison]) -> dict[str, str]:
    """What a period is, by configuration.

    A row without a time has none: it goes with the timed rows of its approach, or with most rows.
    """
    timed = [row for row in rows if row.measured or row.predicted]
    usual = Counter(row.period for row in timed).most_common(1)
    of_approach = {row.approach: row.period for row in timed}
    found = {row.config_id: row.period for row in timed}
    for row in rows:
        most = usual[0][0] if usual else row.period
        found.setdefault(row.config_id, of_approach.get(row.approach, most))
    return found
