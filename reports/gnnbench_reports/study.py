"""A study: everything a report is made from, read once (see `opening`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gnnbench.cluster import Cluster
from gnnbench.results import PredictionRecord, Results, RunRecord
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.summary import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A results folder, compared.

    Attributes:
        clusters: all clusters that it has predictions for; `cluster` is the one compared with.
        machine: the description of that cluster; None where none is found.
        kept: rows of findings that an earlier report wrote, where the records are not there.
    """

    results: Results
    cluster: str
    clusters: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    predictions: tuple[PredictionRecord, ...]
    rows: tuple[Comparison, ...]
    summary: Summary
    machine: Cluster | None = None
    kept: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    _records: _Records = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_records", _Records(self.runs, self.predictions))

    def spec(self, row: Comparison) -> Mapping[str, Any]:
        """The spec of a row's first configuration."""
        return self._records.specs.get(row.config_id, {})

    def runs_of(self, row: Comparison) -> list[RunRecord]:
        """The finished runs of a row, of all its seeds, in the order of `runs`."""
        of = self._records.finished
        found = [
            one for config_id in dict.fromkeys(row.config_ids) for one in of.get(config_id, ())
        ]
        return [
            run
            for _, run in sorted(found, key=lambda one: one[0])
            if int(run.device.get("ranks_per_host") or row.ranks_per_host) == row.ranks_per_host
        ]

    def prediction_of(self, row: Comparison) -> PredictionRecord | None:
        """The prediction that a row is compared with."""
        found = self._records.predictions.get((row.config_id, row.cluster), [])
        exact = [r for r in found if r.ranks_per_host == row.ranks_per_host]
        return next(iter(exact or found), None)


class _Records:
    """The records of a study by configuration: sections ask for them row by row."""

    __slots__ = ("finished", "predictions", "specs")

    def __init__(self, runs: Sequence[RunRecord], predictions: Sequence[PredictionRecord]) -> None:
        self.specs: dict[str, Mapping[str, Any]] = {}
        self.finished: dict[str, list[tuple[int, RunRecord]]] = defaultdict(list)
        self.predictions: dict[tuple[str, str], list[PredictionRecord]] = defaultdict(list)
        for place, run in enumerate(runs):
            self.specs.setdefault(run.config_id, run.spec)
            if run.status == "ok":
                self.finished[run.config_id].append((place, run))
        for record in predictions:
            self.specs.setdefault(record.config_id, record.spec)
            self.predictions[record.config_id, record.cluster].append(record)
