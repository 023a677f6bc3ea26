"""Everything a report is made from, read once."""

from __future__ import annotations

from dataclasses import dataclass

from gnnbench.results import PredictionRecord, Results, RunRecord
from gnnbench_reports.compare import Comparison, choose_cluster, compare_records
from gnnbench_reports.summary import Summary, summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A results folder, compared. `clusters` are all clusters that it has predictions for."""

    results: Results
    cluster: str
    clusters: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    predictions: tuple[PredictionRecord, ...]
    rows: tuple[Comparison, ...]
    summary: Summary


def read_study(results: Results, cluster: str | None = None) -> Study:
    """Read and compare a results folder; see `compare` for `cluster` and errors."""
    runs, predictions = tuple(results.runs()), tuple(results.predictions())
    chosen = choose_cluster(runs, predictions, cluster)
    rows = tuple(compare_records(results, runs, predictions, chosen))
    return Study(
        results=results,
        cluster=chosen,
        clusters=tuple(sorted({record.cluster for record in predictions})),
        runs=runs,
        predictions=predictions,
        rows=rows,
        summary=summarise(rows),
    )
