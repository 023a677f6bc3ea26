"""A study: everything a report is made from, read once (see `opening`)."""

from __future__ import annotations

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

    def spec(self, row: Comparison) -> Mapping[str, Any]:
        """The spec of a row's first configuration."""
        specs = [r.spec for r in self.runs if r.config_id == row.config_id]
        specs += [r.spec for r in self.predictions if r.config_id == row.config_id]
        return specs[0] if specs else {}

    def runs_of(self, row: Comparison) -> list[RunRecord]:
        """The finished runs of a row, of all its seeds."""
        return [
            run
            for run in self.runs
            if run.status == "ok"
            and run.config_id in row.config_ids
            and int(run.device.get("ranks_per_host") or row.ranks_per_host) == row.ranks_per_host
        ]

    def prediction_of(self, row: Comparison) -> PredictionRecord | None:
        """The prediction that a row is compared with."""
        place = row.config_id, row.cluster
        found = [r for r in self.predictions if (r.config_id, r.cluster) == place]
        exact = [r for r in found if r.ranks_per_host == row.ranks_per_host]
        return next(iter(exact or found), None)
