#!/usr/bin/env python3
"""A guard: a grid of about 2,000 predictions, compared between two revisions.

    python scripts/guard.py                      against the committed baseline
    python scripts/guard.py --since REV          against another revision of this repository
    python scripts/guard.py --write FILE         write the predictions of the grid

Two things are listed, and fail: what worked before and is refused now, and what moved by more than
the interval that was printed before. What is refused in both, or works only now, is counted.
A change that is meant to move predictions comes with a new baseline:

    python scripts/guard.py --write tests/guard/baseline.csv

Takes a few minutes on two cores; needs neither torch nor a network.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
BASELINE = REPO / "tests" / "guard" / "baseline.csv"
ROOTS = ("", "runtime", "simulator", "reports")
GRAPHS = ("pubmed", "ogbn-arxiv", "ogbn-products")
MODELS: tuple[dict[str, Any], ...] = (
    {"kind": "sage", "hidden": 128, "layers": 2},
    {"kind": "gat", "hidden": 64, "layers": 2, "heads": 4},
)
RANKS = (1, 4, 8)
CLUSTERS = ("cpu-2core", "g4dn.12xlarge", "p3.8xlarge", "dgx-a100", "dgx-h100")
COLUMNS = ("key", "period_s", "low_s", "high_s", "reason")
_REASON_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Row:
    """A prediction of the grid, or why there is none."""

    key: str
    period_s: float = 0.0
    low_s: float = 0.0
    high_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What a revision did to a prediction."""

    key: str
    what: str


# -- the grid ------------------------------------------------------------------------------------


def runs_of(approach: str) -> Iterator[tuple[str, Any]]:
    """The runs of an approach with their keys: its own examples, and on profiles of graphs."""
    from gnnbench.approaches.names import APPROACHES
    from gnnbench.spec import BatchSpec, DatasetRef, ModelSpec, RunSpec, TrainingSpec

    card = APPROACHES.get(approach)
    for run in card.examples():  # an id hashes the run, so that a new example renames no other
        yield f"{approach}|{run.config_id}|{run.model.kind}|{run.ranks}", run
    if "graph" not in card.accepts.datasets:
        return
    for graph, model, ranks in itertools.product(GRAPHS, MODELS, RANKS):
        run = RunSpec(
            suite="guard",
            dataset=DatasetRef(name=graph, profile=graph),
            model=ModelSpec(name=model["kind"], **model),
            batch=BatchSpec(size=1024 * ranks, fanouts_from_seeds=(10, 5))
            if card.accepts.batch
            else BatchSpec(),
            training=TrainingSpec(epochs=2),
            approach=approach,
            ranks=ranks,
        )
        yield f"{approach}|{graph}|{model['kind']}|{ranks}", run


def predicted(approach: str) -> list[Row]:
    """The predictions of an approach, on every cluster of the grid."""
    from gnnbench.approaches.names import APPROACHES
    from gnnbench.cluster import load_cluster
    from gnnbench.data.source import Library
    from gnnbench.errors import GnnbenchError
    from gnnbench.models.names import MODELS as KINDS
    from gnnbench_simulator.session import predict_run

    card, library = APPROACHES.get(approach), Library((), None)
    clusters = [load_cluster(name) for name in CLUSTERS]
    rows = []
    for key, run in runs_of(approach):
        problems = [*card.problems(run), *KINDS.get(run.model.kind).problems(run.model)]
        try:
            data = None if problems else library.open(run.dataset)
        except GnnbenchError as error:
            problems = [str(error)]
        for cluster in clusters:
            at = f"{key}|{cluster.name}"
            if problems:
                rows.append(Row(at, reason=_short(problems[0])))
                continue
            try:
                found, _ = predict_run(run, data, cluster)
            except GnnbenchError as error:
                rows.append(Row(at, reason=_short(str(error))))
                continue
            # A run that does not fit is refused; how long it would take does not matter.
            if found.status == "ok":
                rows.append(Row(at, found.period_s, found.low_s, found.high_s))
            else:
                rows.append(Row(at, reason=_short(found.reason)))
    return rows


def _short(reason: str) -> str:
    return " ".join(reason.split())[:_REASON_LENGTH]


def grid(processes: int) -> list[Row]:
    """Every prediction of this revision, in the order of the approaches."""
    from gnnbench.approaches.names import APPROACHES

    names = APPROACHES.names()
    with ProcessPoolExecutor(processes) as pool:
        return [row for rows in pool.map(predicted, names) for row in rows]


# -- files ---------------------------------------------------------------------------------------


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write predictions with four digits."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        numbers = [f"{x:.4g}" if x else "" for x in (row.period_s, row.low_s, row.high_s)]
        table.writerow([row.key, *numbers, row.reason])
    path.write_text(out.getvalue(), encoding="utf-8")


def read(path: Path) -> list[Row]:
    """Read what `write` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(r["key"], *(float(r[n] or 0.0) for n in COLUMNS[1:4]), r["reason"])
            for r in csv.DictReader(file)
        ]


# -- the comparison ------------------------------------------------------------------------------


def compare(before: Sequence[Row], now: Sequence[Row]) -> tuple[list[Change], Counter[str]]:
    """What broke or moved, and how many predictions of each kind there are."""
    known, changes = {row.key: row for row in before}, []
    counts: Counter[str] = Counter()
    for row in now:
        old = known.pop(row.key, None)
        if old is None:
            counts["new in the grid"] += 1
        elif old.reason and row.reason:
            counts["refused in both"] += 1
        elif old.reason:
            counts["works only now"] += 1
        elif row.reason:
            counts["worked before, refused now"] += 1
            changes.append(Change(row.key, f"refused now: {row.reason}"))
        elif old.low_s <= row.period_s <= old.high_s:
            counts["within the interval"] += 1
        else:
            counts["moved by more than the interval"] += 1
            times = row.period_s / old.period_s
            text = f"{old.period_s:.3g} s ({old.low_s:.3g} ... {old.high_s:.3g}) is now "
            changes.append(Change(row.key, f"{text}{row.period_s:.3g} s, {times:.2f} times"))
    for key, old in known.items():
        counts["gone from the grid"] += 1
        if not old.reason:
            changes.append(Change(key, "gone from the grid"))
    return changes, counts


def show(changes: Sequence[Change], counts: Counter[str], most: int) -> None:
    """Print the counts, and the changes by approach and cluster, worst groups first."""
    for what, number in counts.most_common():
        print(f"{number:6d}  {what}")
    groups = Counter((c.key.split("|")[0], c.key.split("|")[-1]) for c in changes)
    for (approach, cluster), number in groups.most_common():
        print(f"{number:6d}  changed: {approach} on {cluster}")
    for change in changes[:most]:
        print(f"{change.key}: {change.what}")
    if len(changes) > most:
        print(f"and {len(changes) - most} more: --all prints them")


def revision(name: str, folder: Path) -> list[Row]:
    """The grid of another revision, unpacked into a folder."""
    packed = subprocess.run(
        ["git", "archive", name], cwd=REPO, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    out = folder / "guard.csv"
    roots = os.pathsep.join(str(folder / root) for root in ROOTS)
    script = [sys.executable, str(Path(__file__).resolve()), "--write", str(out)]
    subprocess.run(script, env={**os.environ, "PYTHONPATH": roots}, cwd=folder, check=True)
    return read(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the guard; 1 if something broke or moved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--since", metavar="REV", help="compare with this revision")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the grid and stop")
    parser.add_argument("--processes", type=int, default=2, help="default: 2")
    parser.add_argument("--all", action="store_true", help="print every change, not the first 40")
    args = parser.parse_args(arguments)
    now = grid(args.processes)
    if args.write:
        write(args.write, now)
        print(f"{len(now)} predictions in {args.write}")
        return 0
    if args.since:
        with tempfile.TemporaryDirectory() as folder:
            before = revision(args.since, Path(folder))
    else:
        before = read(BASELINE)
    changes, counts = compare(before, now)
    show(changes, counts, len(changes) if args.all else 40)
    if changes and args.since:
        log = ["git", "log", "--oneline", f"{args.since}..HEAD", "--", "gnnbench", "simulator"]
        print("changes of the code since then:")
        print(subprocess.run(log, cwd=REPO, capture_output=True, text=True, check=True).stdout)
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
