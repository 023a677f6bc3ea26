"""Timelines of a few telling runs, both worlds in one file, for Perfetto."""

from __future__ import annotations

from pathlib import Path

from gnnbench.ledger import Row, read_ledger
from gnnbench.trace import write_trace
from gnnbench_reports.compare import Comparison
from gnnbench_reports.study import Study

MAX_EVENTS = 40_000
MAX_RANKS = 3


def telling(study: Study) -> dict[str, Comparison]:
    """Return the configurations worth looking at, by why: the best, median and worst prediction.

    Where nothing was both measured and predicted: the slowest configuration.
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
        (row.measured_epoch_s or row.predicted_epoch_s or 0.0, row.config_id, row)
        for row in study.rows
        if row.measured or row.predicted
    ]
    return {"slowest": max(timed)[2]} if timed else {}


def write_traces(study: Study, folder: Path) -> dict[str, str]:
    """Write the timelines; return file name to what it shows. Earlier traces are removed."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.trace.json"):
        old.unlink()
    written: dict[str, str] = {}
    for why, row in telling(study).items():
        name = f"{_safe(row.config_id)}.trace.json"
        if name in written:
            continue
        worlds = _worlds(study, row)
        if not worlds:
            continue
        left_out = write_trace(folder / name, worlds, max_events=MAX_EVENTS)
        sides = " and ".join(worlds)
        short = f", its first epochs ({left_out} later steps left out)" if left_out else ""
        written[name] = f"timeline of the {why}, {sides}{short}; open in ui.perfetto.dev"
    return written


def _worlds(study: Study, row: Comparison) -> dict[str, dict[int, list[Row]]]:
    results = study.results
    predicted = _ranks(results.prediction_folder(row.config_id, row.cluster)) if row.cluster else {}
    runs = [r for r in study.runs if r.config_id == row.config_id and r.status == "ok"]
    measured = _ranks(results.run_folder(runs[0].run_id)) if runs else {}
    # The same ranks on both sides, where both have them.
    common = sorted(measured.keys() & predicted.keys())
    chosen = {
        world: common or sorted(found)
        for world, found in (("measured", measured), ("predicted", predicted))
        if found
    }
    of = {"measured": measured, "predicted": predicted}
    return {
        world: {rank: read_ledger(of[world][rank]) for rank in ranks[:MAX_RANKS]}
        for world, ranks in chosen.items()
    }


def _ranks(folder: Path) -> dict[int, Path]:
    return {int(p.stem.removeprefix("ledger-rank")): p for p in folder.glob("ledger-rank*.csv")}


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
