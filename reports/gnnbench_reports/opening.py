"""Opening a results folder as a study.

A results folder holds records and ledgers. A folder that holds only the tables of an earlier report
(`comparison.csv` and the like) can be compared and reported again too, see `kept`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from gnnbench.cluster import Cluster, list_clusters, load_cluster
from gnnbench.errors import DataError, SpecError
from gnnbench.results import PredictionRecord, Results
from gnnbench_reports import kept
from gnnbench_reports.compare import choose_cluster, compare_records
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.study import Study
from gnnbench_reports.summary import summarise


def read_study(results: Results, cluster: str | None = None) -> Study:
    """Read and compare a results folder; see `compare` for `cluster` and errors."""
    runs, predictions = tuple(results.runs()), tuple(results.predictions())
    if not runs and not predictions:
        return _kept_study(results, cluster)
    chosen = choose_cluster(runs, predictions, cluster)
    rows = tuple(compare_records(results, runs, predictions, chosen))
    others = sorted({record.cluster for record in predictions} - {chosen})
    if cluster is None and others and not any(row.measured for row in rows):
        rows = _side_by_side(results, predictions, (chosen, *others))
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


def read_predicted(results: Results, cluster: str | None) -> Study:
    """Read the predictions for one cluster, without the runs: to compare it with another.

    Raises:
        UnknownName: no prediction is for this cluster.
        DataError: the folder holds no predictions.
    """
    predictions = tuple(results.predictions())
    if not predictions:
        raise DataError(
            results.folder,
            "holds no predictions: `gnnbench predict SUITE --cluster A,B --results DIR` adds some",
        )
    chosen = choose_cluster((), predictions, cluster)
    rows = tuple(compare_records(results, (), predictions, chosen))
    return Study(
        results=results,
        cluster=chosen,
        clusters=tuple(sorted({record.cluster for record in predictions})),
        runs=(),
        predictions=predictions,
        rows=rows,
        summary=summarise(rows),
        machine=find_machine(results, chosen),
    )


def _side_by_side(
    results: Results, predictions: Sequence[PredictionRecord], clusters: Sequence[str]
) -> tuple[Comparison, ...]:
    """Predictions for several clusters, each labelled with its own: nothing was measured."""
    rows = [
        dataclasses.replace(row, label=_on_cluster(row))
        for name in clusters
        for row in compare_records(results, (), predictions, name)
    ]
    return tuple(sorted(rows, key=lambda row: (row.dataset, row.model, row.approach, row.ranks)))


def _on_cluster(row: Comparison) -> str:
    """The label with the cluster, and with the ranks on a host where layouts were told apart."""
    layout = re.search(r"(, )?ranks_per_host=\d+", row.label)
    label, place = row.label, row.cluster
    if layout is not None:
        label = label.replace(layout[0], "").replace(" []", "")
        place = f"{place}:{row.ranks_per_host}"
    return f"{label} on {place}"


def _kept_study(results: Results, cluster: str | None) -> Study:
    rows, findings = kept.read_comparisons(results.folder), kept.read_findings(results.folder)
    if not rows and not any(findings.values()) and not results.passed_over:
        raise DataError(
            results.folder,
            "holds no runs and no predictions: `gnnbench run SUITE --results DIR` and "
            "`gnnbench predict SUITE --results DIR` fill it",
        )
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
        kept=findings,
    )


def find_machine(results: Results, name: str) -> Cluster | None:
    """Return the cluster of this name: as kept with its predictions, in the folder, or built in."""
    for path in (results.cluster_file(name), results.folder / "cluster.toml"):
        if not name or not path.is_file():
            continue
        try:
            found = load_cluster(path)
        except SpecError as error:
            results.pass_over(DataError(path, f"no readable cluster: {error.problems[0]}"))
            continue
        if found.name == name:
            return found
    return load_cluster(name) if name in list_clusters() else None
