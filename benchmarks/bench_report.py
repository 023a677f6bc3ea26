r"""Time the report of a large suite, and its page in a browser; print JSON.

    gnnbench run demo --results base && gnnbench predict demo --results base
    python benchmarks/bench_report.py base --runs 1000 --out build/report-1000

The large folder consists of the records and ledgers of the small one, copied under further names of
its datasets and models, with new ids. The report is written twice by two processes; both must be
the same bytes. The page is opened in Chromium where one is installed: seconds until it has loaded
and is laid out, and until its longest table is sorted, filtered and laid out again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gnnbench.results import PredictionRecord, prediction_name
from gnnbench.spec import RunSpec

ROOT = Path(__file__).parents[1]
MODELS = 2
"""Names of a model; further copies get another name of the dataset."""
TURNS = 5
"""How often a page is opened, sorted and filtered; the median is reported."""


def enlarge(base: Path, out: Path, num_runs: int) -> int:
    """Copy the records of a results folder under further names; return the number of runs."""
    runs = sorted(base.glob("runs/*/run.json"))
    predictions = sorted(base.glob("predictions/*/prediction.json"))
    if not runs:
        raise SystemExit(f"{base}: no runs to copy; `gnnbench run SUITE --results {base}`")
    (out / "predictions").mkdir(parents=True)
    for path in base.glob("predictions/*.cluster.toml"):
        shutil.copy(path, out / "predictions")
    written = 0
    for number in itertools.count():
        for path in runs:
            if written == num_runs:
                return written
            record = renamed(path, number)
            copy(path, out / "runs" / record["run_id"], record)
            written += 1
        for path in predictions:
            record = renamed(path, number)
            known = {key: record[key] for key in ("config_id", "spec", "cluster", "ranks_per_host")}
            copy(path, out / "predictions" / prediction_name(PredictionRecord(**known)), record)
    raise AssertionError("the loop ends with the last run")


def renamed(path: Path, number: int) -> dict[str, Any]:
    """A record whose dataset and model have the names of copy `number`, with the ids of these."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    spec = record["spec"]
    spec["dataset"]["name"] += f"-{1 + number // MODELS}"
    spec["model"]["name"] += f"-{1 + number % MODELS}"
    run = RunSpec.from_dict(spec)
    record["config_id"] = run.config_id
    if "run_id" in record:
        record["run_id"] = run.run_id
        record["dataset"]["name"] = spec["dataset"]["name"]
    return record


def copy(path: Path, folder: Path, record: dict[str, Any]) -> None:
    """Write a record into its folder, with the ledgers that lie beside `path`."""
    folder.mkdir(parents=True)
    (folder / path.name).write_text(json.dumps(record, indent=1), encoding="utf-8")
    for ledger in path.parent.glob("ledger-*.csv"):
        os.link(ledger, folder / ledger.name)


def written(results: Path, out: Path) -> dict[str, float]:
    """Write a report in a process of its own; return its seconds and those of its cores."""
    before, begin = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "gnnbench", "report", str(results), "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return {"wall_s": time.perf_counter() - begin, "cpu_s": used}


def different(first: Path, second: Path) -> list[str]:
    """Files that only one report has, or whose bytes differ."""
    files: list[dict[Path, Path]] = [
        {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        for folder in (first, second)
    ]
    found = []
    for name in sorted(files[0].keys() | files[1].keys()):
        one, other = (table.get(name) for table in files)
        if one is None or other is None or one.read_bytes() != other.read_bytes():
            found.append(str(name))
    return found


LONGEST = """Array.from(document.querySelectorAll('table'))
  .reduce((a, b) => (b.tBodies[0].rows.length > a.tBodies[0].rows.length ? b : a))"""
"""The table with most lines."""
TIMED = """(() => {{
  const table = {table};
  const fold = table.closest('details');
  if (fold) fold.open = true;
  table.scrollIntoView();
  document.body.getBoundingClientRect();
  const begin = performance.now();
  {act};
  table.getBoundingClientRect();
  return (performance.now() - begin) / 1000;
}})()"""


def browsed(page: Path) -> dict[str, float]:
    """Median seconds to open the page, and to sort and filter its tables; {} without a browser."""
    sys.path.insert(0, str(ROOT))
    from tests.unit.reports.browser import PROGRAM, Browser

    if PROGRAM is None:
        return {}
    every: dict[str, list[float]] = {"open_s": [], "sort_all_s": [], "sort_longest_s": []}
    every["filter_longest_s"] = []
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        browser.resize(1200)
        for _ in range(TURNS):
            every["open_s"].append(opened(browser, page))
            for name, table in (
                ("all", "document.querySelector('#all table')"),
                ("longest", LONGEST),
            ):
                act = "table.tHead.rows[0].cells[0].click()"
                every[f"sort_{name}_s"].append(browser.run(TIMED.format(table=table, act=act)))
            act = (
                "const box = table.closest('.wide').previousElementSibling.querySelector('input');"
                "box.value = 'partition'; box.dispatchEvent(new Event('input'))"
            )
            every["filter_longest_s"].append(browser.run(TIMED.format(table=LONGEST, act=act)))
        errors = list(browser.errors)
        browser.close()
    if errors:
        raise SystemExit(f"the page complains: {errors[:3]}")
    return {name: statistics.median(times) for name, times in every.items()}


def opened(browser: Any, page: Path) -> float:
    """Seconds until a page has loaded and its first screen is laid out and drawn."""
    begin = time.perf_counter()
    browser.open(page)
    # The second frame begins once the first one has been drawn.
    browser.run("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
    return time.perf_counter() - begin


def reports(results: Path, out: Path) -> Iterator[tuple[Path, dict[str, float]]]:
    """Two reports of one folder, each with its seconds."""
    for name in ("first", "second"):
        yield out / name, written(results, out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description="time the report of a large suite")
    parser.add_argument("base", type=Path, help="a results folder with runs and predictions")
    parser.add_argument("--runs", type=int, default=1000, help="runs of the large folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to make; must not exist")
    args = parser.parse_args()
    results = args.out / "results"
    num_runs = enlarge(args.base, results, args.runs)
    # Inside of the folder, where `gnnbench report` puts it: its links are as long as usual.
    (one, took), (other, again) = reports(results, results)
    page = one / "index.html"
    figures = {
        "runs": num_runs,
        "wall_s": [took["wall_s"], again["wall_s"]],
        "cpu_s": [took["cpu_s"], again["cpu_s"]],
        "different": different(one, other),
        "page_bytes": page.stat().st_size,
        **browsed(page),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
