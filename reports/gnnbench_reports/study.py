"""Everything a report is made from, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gnnbench.cluster import Cluster, list_clusters, load_cluster
from gnnbench.results import PredictionRecord, Results, RunRecord
from gnnbench_reports.compare import Comparison, choose_cluster, compare_records
from gnnbench_reports.summary import Summary, summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A results folder, compared.

    clusters   all clusters that it has predictions for; `cluster` is the one compared with
    machine    the description of that cluster, None where it is not to be found
    """

    results: Results
    cluster: str
    clusters: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    predictions: tuple[PredictionRecord, ...]
    rows: tuple[Comparison, ...]
    summary: Summary
    machine: Cluster | None = None

    def spec(self, row: Comparison) -> Mapping[str, Any]:
        """Return what was asked for in a row's first configuration."""
        specs = {r.config_id: r.spec for r in self.predictions}
        specs |= {r.config_id: r.spec for r in self.runs}
        return specs.get(row.config_id, {})


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
        machine=find_machine(results, chosen),
    )


def find_machine(results: Results, name: str) -> Cluster | None:
    """Return the cluster of this name: as kept with its predictions, in the folder, or built in."""
    for path in (results.cluster_file(name), results.folder / "cluster.toml"):
        if name and path.is_file():
            found = load_cluster(path)
            if found.name == name:
                return found
    return load_cluster(name) if name in list_clusters() else None
