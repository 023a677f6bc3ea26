"""Timelines of a few chosen runs for Perfetto, measured and predicted in one file."""

from __future__ import annotations

from pathlib import Path

from gnnbench.errors import DataError
from gnnbench.ledger import Row, read_ledger
from gnnbench.trace import write_trace
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.study import Study

MAX_EVENTS = 40_000
MAX_RANKS = 3


def chosen(study: Study) -> dict[str, Comparison]:
    """The configurations to show, by reason: the best, median and worst prediction.

    If nothing was both measured and predicted, the slowest configuration.
    """
    errors = [(row.error, row) for row in study.rows if row.error is not None]
    compared = sorted((abs(error), row.config_id, row) for error, row in errors)
    if compared:
        places = {
            "worst prediction": -1,
            "median prediction": len(compared) // 2,
            "best prediction": 0,
        }
        return {why: compared[at][2] for why, at in places.items()}
    timed = [
        (row.measured_period_s or row.predicted_period_s or 0.0, row.config_id, row)
        for row in study.rows
        if row.measured or row.predicted
    ]
    return {"slowest": max(timed)[2]} if timed else {}


def write_traces(study: Study, folder: Path) -> dict[str, str]:
    """Write the timelines; return file name to description. Earlier traces are removed."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.trace.json"):
        old.unlink()
    written: dict[str, str] = {}
    for why, row in chosen(study).items():
        name = f"{_safe(row.config_id)}.trace.json"
        if name in written:
            continue
        sides = _sides(study, row)
        if not sides:
            continue
        left_out = write_trace(folder / name, sides, max_events=MAX_EVENTS)
        short = f", its first periods ({left_out} later steps left out)" if left_out else ""
        written[name] = (
            f"timeline of the {why}, {' and '.join(sides)}{short}; open in ui.perfetto.dev"
        )
    return written


def _sides(study: Study, row: Comparison) -> dict[str, dict[int, list[Row]]]:
    record, runs = study.prediction_of(row), study.runs_of(row)
    # Other seeds are other runs: the prediction is of the first configuration.
    first = [run for run in runs if run.config_id == row.config_id]
    of = {
        "measured": _ranks(study.results.run_folder(first[0].run_id)) if first else {},
        "predicted": _ranks(study.results.prediction_folder(record)) if record else {},
    }
    # The same ranks on both sides, where both have them.
    common = sorted(of["measured"].keys() & of["predicted"].keys())
    try:
        return {
            side: {rank: read_ledger(found[rank]) for rank in (common or sorted(found))[:MAX_RANKS]}
            for side, found in of.items()
            if found
        }
    except DataError as error:
        study.results.pass_over(error)
        return {}


def _ranks(folder: Path) -> dict[int, Path]:
    return {int(p.stem.removeprefix("ledger-rank")): p for p in folder.glob("ledger-rank*.csv")}


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
