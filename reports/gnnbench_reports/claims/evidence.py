"""What a verdict rests on: the configurations with links to their records and ledgers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gnnbench.results import Results, RunRecord
from gnnbench_reports.claims.judging import Judgement
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.labels import seed_of
from gnnbench_reports.study import Study
from gnnbench_reports.tables import Column, Links

COLUMNS = (
    Column(heading="side", word=True),
    Column(heading="dataset", word=True),
    Column(heading="model", word=True),
    Column(heading="approach"),
    Column(heading="ranks", number=True),
    Column(heading="runs", number=True, meaning="finished runs: repeats and seeds"),
    Column(heading="time per period", number=True),
    Column(
        heading="files",
        links=True,
        meaning="records of the runs and of the prediction, ledgers, and the cluster's constants",
    ),
)
SUMS = "ledger-sums.csv"
"""The ledgers of a run or prediction, summed by kind of step, in a published folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited:
    """A configuration that a verdict rests on."""

    side: str
    study: Study
    row: Comparison

    def runs(self) -> list[RunRecord]:
        return self.study.runs_of(self.row) if self.side == "measured" else []


def cited(judgement: Judgement, studies: Mapping[str, Study | None]) -> Iterator[Cited]:
    """The configurations of a claim's inequalities, each once."""
    seen = set()
    for outcome in judgement.outcomes:
        study = studies[outcome.test.side]
        for row in outcome.rows:
            key = outcome.test.side, row.cluster, row.key
            if study is not None and key not in seen:
                seen.add(key)
                yield Cited(side=outcome.test.side, study=study, row=row)


def folders(one: Cited) -> list[tuple[str, Path]]:
    """The folders that a configuration's records are in, each with a word for it."""
    results = one.study.results
    if one.side == "measured":
        return [(_word(run), results.run_folder(run.run_id)) for run in one.runs()]
    prediction = one.study.prediction_of(one.row)
    return [] if prediction is None else [("prediction", results.prediction_folder(prediction))]


def _word(run: RunRecord) -> str:
    seed, repeat = seed_of(run.spec), run.run.repeat
    return f"seed {seed}" + (f", repeat {repeat}" if repeat else "")


def links(one: Cited, root: Path, *, published: bool = False) -> Links:
    """Links from the page to a configuration's files.

    Args:
        one: the configuration.
        root: the folder of the page and of the results.
        published: whether the page lies in a folder with summed ledgers, see `publishing`.
    """
    found = []
    for word, folder in folders(one):
        record = "run.json" if one.side == "measured" else "prediction.json"
        ledger = SUMS if published else _first_ledger(folder)
        found.append((word, _address(folder / record, root)))
        if ledger:
            found.append(("ledger", _address(folder / ledger, root)))
    constants = constants_of(one.study.results, one.row) if one.side == "simulated" else None
    if found and constants is not None:
        found.append(("constants", _address(constants, root)))
    return Links(tuple(found))


def constants_of(results: Results, row: Comparison) -> Path | None:
    """The cluster file of a predicted row, where the folder keeps it."""
    path = results.cluster_file(row.cluster)
    return path if path.is_file() else None


def _first_ledger(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("ledger-rank*.csv"))
    return names[0] if names else ""


def _address(path: Path, root: Path) -> str:
    return quote(path.relative_to(root).as_posix())
