"""A study: everything a report is made from, read once.

A results folder holds records and ledgers. A folder that holds only the tables of an earlier report
(`comparison.csv` and the like) can be compared and reported again too, see `kept`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gnnbench.cluster import Cluster, list_clusters, load_cluster
from gnnbench.results import PredictionRecord, Results, RunRecord
from gnnbench_reports import kept
from gnnbench_reports.compare import choose_cluster, compare_records
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.summary import Summary, summarise


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


def read_study(results: Results, cluster: str | None = None) -> Study:
    """Read and compare a results folder; see `compare` for `cluster` and errors."""
    runs, predictions = tuple(results.runs()), tuple(results.predictions())
    if not runs and not predictions:
        return _kept_study(results, cluster)
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
        machine=find_machine(results, chosen),
    )


def _kept_study(results: Results, cluster: str | None) -> Study:
    rows = kept.read_comparisons(results.folder)
    clusters = tuple(sorted({row.cluster for row in rows} - {""}))
    chosen = kept.chosen_cluster(clusters, cluster)
    return Study(
        results=results,
        cluster=chosen,
        clusters=clusters,
        runs=(),
        predictions=(),
        rows=rows,
        summary=summarise(rows),
        machine=find_machine(results, chosen),
        kept=kept.read_findings(results.folder),
    )


def find_machine(results: Results, name: str) -> Cluster | None:
    """Return the cluster of this name: as kept with its predictions, in the folder, or built in."""
    for path in (results.cluster_file(name), results.folder / "cluster.toml"):
        if name and path.is_file():
            found = load_cluster(path)
            if found.name == name:
                return found
    return load_cluster(name) if name in list_clusters() else None
