"""The results folder: one self-describing folder per run and per prediction.

    RESULTS/
      runs/<run_id>/run.json                 RunRecord
      runs/<run_id>/ledger-rank<r>.csv       measured ledger of each rank
      predictions/<config_id>@<cluster>-x<n>/prediction.json    n ranks on a host
      predictions/<config_id>@<cluster>-x<n>/ledger-rank<r>.csv of chosen ranks
      predictions/<cluster>.cluster.toml     the cluster of the predictions
      cache/                                 converted datasets and partitions, safe to delete

Records are written to a temporary name and renamed, so a reader never sees half a record and a
crash never destroys an earlier one. Every record carries the schema version.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import shutil
import socket
import statistics
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gnnbench import owner
from gnnbench.atomic import write_json
from gnnbench.errors import DataError, SpecError
from gnnbench.ledger import Row, read_ledger
from gnnbench.spec import RunSpec
from gnnbench.strict import build

SCHEMA = 2
STATUSES = ("ok", "diverged", "failed", "skipped", "running")
ENDED = ("ok", "diverged", "failed")
"""What a run that started can end as. "diverged" means that a loss or a parameter is not finite."""

R = TypeVar("R", "RunRecord", "PredictionRecord")


@dataclass(slots=True, kw_only=True)
class RunRecord:
    """What happened in one run.

    Attributes:
        spec: the run, with the digest of its dataset; `non_defaults` are the fields that it sets.
        dataset: facts of the dataset: name, kind, source, digest, sizes.
        periods: per period, {"period", "kind" ("epoch", ...), "iterations", "seconds" (slowest
            rank), "loss", "metrics" {name: value}, "bytes" {"kind/phase": bytes moved by all
            ranks}, "planned" {the same by the plan}}. Where events arrive late also "events" (that
            arrive with the period), "release_s" (when the last of them does) and "end_s" (of the
            slowest rank), in seconds since the first period began.
        metrics: by name, such as "test_accuracy", of the last evaluation.
        memory: per rank, {"rank", "baseline_bytes" (process before data), "peak_bytes" (highest
            during training), "source" ("resident set" | "allocator"), optional
            "device_used_bytes" and "cap" (what enforced a cap on the host's memory)}.
        held: extent of the comparison with the plan: {"steps", "iterations", "of_iterations"}.
        probe: {"before_s", "after_s"}: a fixed small kernel timed around the run.
        device: {"kind", "name", "backend", "ranks_per_host", "threads_per_rank", "practice",
            "note"}.
    """

    run_id: str
    config_id: str
    spec: dict[str, Any]
    non_defaults: dict[str, Any] = field(default_factory=dict)
    status: str = "running"
    reason: str = ""
    failed_rank: int | None = None
    failed_phase: str = ""
    started_at: str = ""
    wall_s: float = 0.0
    dataset: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    periods: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    memory: list[dict[str, Any]] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)
    probe: dict[str, float] = field(default_factory=dict)
    energy: dict[str, Any] = field(default_factory=dict)
    setup_s: dict[str, float] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def run(self) -> RunSpec:
        return RunSpec.from_dict(self.spec)

    @property
    def period(self) -> str:
        """Unit of reporting of this run: "epoch", "increment" or "round"."""
        return str(self.periods[0].get("kind", "epoch")) if self.periods else "epoch"

    def steady_periods(self) -> list[dict[str, Any]]:
        """The periods after the warm-up, or all of them if none would be left."""
        # A run shorter than its warm-up is judged by what there is.
        return self.periods[self.run.training.warmup_epochs :] or self.periods

    @property
    def period_s(self) -> float | None:
        """Median seconds of a period after the warm-up; None if no period ended."""
        seconds = [float(period["seconds"]) for period in self.steady_periods()]
        # The median, because a garbage collection or another process may double one epoch.
        return statistics.median(seconds) if seconds else None


@dataclass(slots=True, kw_only=True)
class PredictionRecord:
    """The prediction for one configuration on one cluster with one layout of ranks.

    period       unit of reporting: "epoch", "increment" or "round"
    period_s     median predicted seconds per period; interval [low_s, high_s] at 90 %
    grade        a rung of `gnnbench.ladder`: the weakest constant that matters
    bytes        per period covered: [{"kind/phase": bytes moved by all ranks}, ...]
    memory       per rank: {"rank", "baseline_bytes", "workload_bytes", "peak_bytes", ...}
    energy       of a period: {"joules", "low_j", "high_j", "grade", "basis"}; empty if not known
    phases       seconds per period by phase, on the slowest rank, waiting included
    counted      whether sizes were counted on the real structure; else `basis` describes how
                 they were estimated
    cluster_digest  of the content of the cluster file that it was made with
    """

    config_id: str
    spec: dict[str, Any]
    cluster: str
    ranks_per_host: int = 0
    status: str = "ok"
    reason: str = ""
    period: str = "epoch"
    period_s: float = 0.0
    low_s: float = 0.0
    high_s: float = 0.0
    grade: str = ""
    method: str = ""
    bytes: list[dict[str, int]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)
    energy: dict[str, Any] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    lanes: dict[str, float] = field(default_factory=dict)
    counted: bool = True
    basis: str = ""
    probe_s: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)
    cluster_digest: str = ""
    schema: int = SCHEMA

    @property
    def run(self) -> RunSpec:
        return RunSpec.from_dict(self.spec)


class Results:
    """A results folder, made if absent.

    Attributes:
        passed_over: a line for each record or ledger that could not be read.
    """

    def __init__(self, folder: Path | str, *, create: bool = True) -> None:
        self.folder = Path(folder)
        self.passed_over: list[str] = []
        if not create and not self.folder.is_dir():
            raise DataError(
                self.folder, "no such results folder; `gnnbench run SUITE --results DIR` makes one"
            )
        if create:
            self.folder.mkdir(parents=True, exist_ok=True)
            for place in ("runs/*", "predictions", "predictions/*", "cache/*"):
                # Temporary files of processes that died; those of living ones are kept.
                owner.sweep(self.folder, f"{place}/.*{owner.TEMPORARY}")

    def training(self) -> AbstractContextManager[None]:
        """Own all training into this folder on this machine. Raises Busy.

        Two commands that train at once disturb each other's times. Machines that share a folder
        share its runs instead, see `owned_run`.
        """
        # By host name: process ids of another host say nothing here.
        lock = self.folder / "runs" / f".training-{socket.gethostname()}"
        return owner.owned(lock, f"trains into {self.folder}")

    def owned_run(self, run_id: str) -> AbstractContextManager[None]:
        """Own one run. Raises Busy while another process trains it."""
        return owner.owned(self.run_folder(run_id) / ".owner", f"trains {run_id}")

    def pass_over(self, error: DataError) -> None:
        """Remember a file that could not be read, so that commands name it and go on."""
        self.passed_over += [
            line for line in str(error).splitlines() if line not in self.passed_over
        ]

    def run_folder(self, run_id: str) -> Path:
        return self.folder / "runs" / run_id

    def prediction_folder(self, record: PredictionRecord) -> Path:
        return self.folder / "predictions" / prediction_name(record)

    def cluster_file(self, cluster: str) -> Path:
        """File with the cluster of the predictions."""
        return self.folder / "predictions" / f"{cluster}.cluster.toml"

    def cache(self, kind: str) -> Path:
        folder = self.folder / "cache" / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save_run(self, record: RunRecord) -> None:
        """Write a record. One that is not ok never replaces one that is."""
        folder = own_folder(self.run_folder(record.run_id))
        # A later attempt that failed says nothing against the earlier success.
        if record.status != "ok" and self._is_ok(record.run_id):
            return
        write_json(folder / "run.json", dataclasses.asdict(record))

    def save_prediction(self, record: PredictionRecord) -> Path:
        folder = own_folder(self.prediction_folder(record))
        write_json(folder / "prediction.json", dataclasses.asdict(record))
        return folder

    def load_run(self, run_id: str) -> RunRecord | None:
        path = self.run_folder(run_id) / "run.json"
        return _load(RunRecord, path) if path.exists() else None

    def finished(self, run: RunSpec, *, retry_failed: bool = False) -> RunRecord | None:
        """The record of an earlier run that is still valid, or None."""
        try:
            record = self.load_run(run.run_id)
        except DataError as error:
            self.pass_over(error)
            return None
        # A skipped or running record is no result: the run is tried again.
        kept = ENDED[:1] if retry_failed else ENDED
        return record if record is not None and record.status in kept else None

    def forget_unopened(self, asked: RunSpec) -> None:
        """Remove the record of a run whose dataset could not be opened.

        Its id lacks the digest of the content, so no later record would replace it.
        """
        # With a digest the id is that of a real configuration; without one, nothing will ever
        # replace it.
        if asked.dataset.digest:
            return
        shutil.rmtree(self.run_folder(asked.run_id), ignore_errors=True)
        for folder in self.folder.glob(f"predictions/{glob.escape(asked.config_id)}@*"):
            shutil.rmtree(folder, ignore_errors=True)

    def runs(self) -> Iterator[RunRecord]:
        """Every readable record of a run; the others are passed over."""
        yield from self._records(RunRecord, "runs/*/run.json")

    def predictions(self) -> Iterator[PredictionRecord]:
        """Every readable prediction; the others are passed over.

        So are those for an earlier content of their cluster's file: constants of two calibrations
        must not stand in one table.
        """
        kept: dict[str, str] = {}
        for record in self._records(PredictionRecord, "predictions/*/prediction.json"):
            path = self.cluster_file(record.cluster)
            if record.cluster not in kept:
                kept[record.cluster] = file_digest(path) if path.is_file() else ""
            now = kept[record.cluster]
            if record.cluster_digest and now and now != record.cluster_digest:
                where = self.prediction_folder(record) / "prediction.json"
                self.pass_over(
                    DataError(
                        where,
                        f"of an earlier {record.cluster}, whose file has changed: predict again",
                    )
                )
                continue
            yield record

    def measured_ledger(self, run_id: str) -> dict[int, list[Row]]:
        return _ledgers(self.run_folder(run_id))

    def predicted_ledger(self, record: PredictionRecord) -> dict[int, list[Row]]:
        return _ledgers(self.prediction_folder(record))

    def _records(self, cls: type[R], pattern: str) -> Iterator[R]:
        # Sorted, so that reports do not depend on the order of the file system.
        for path in sorted(self.folder.glob(pattern)):
            try:
                yield _load(cls, path)
            except DataError as error:
                self.pass_over(error)

    def _is_ok(self, run_id: str) -> bool:
        try:
            before = self.load_run(run_id)
        # A record that cannot be read is no success to be protected.
        except DataError:
            return False
        return before is not None and before.status == "ok"


def file_digest(path: Path) -> str:
    """Identify the content of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def own_folder(folder: Path) -> Path:
    """The folder of a record, made if absent. Raises DataError for a link to another place."""
    if folder.is_symlink():
        raise DataError(folder, "a link in the place of a record's folder: remove it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _ledgers(folder: Path) -> dict[int, list[Row]]:
    found = {int(p.stem.removeprefix("ledger-rank")): p for p in folder.glob("ledger-rank*.csv")}
    return {rank: read_ledger(found[rank]) for rank in sorted(found)}


def _load(cls: type[R], path: Path) -> R:
    try:
        if not path.is_file():  # a device or a pipe would be read without end
            raise DataError(path, "not a readable record: it is no file")
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(path, f"not a readable record: {error}") from None
    if not isinstance(table, Mapping) or not isinstance(table.get("schema"), int):
        raise DataError(path, "not a record of gnnbench: it has no schema version")
    if table["schema"] > SCHEMA:
        raise DataError(
            path,
            f"schema {table['schema']} is newer than this program ({SCHEMA}); upgrade gnnbench",
        )
    if table["schema"] < SCHEMA:
        raise DataError(
            path,
            f"schema {table['schema']} is of an earlier gnnbench (now {SCHEMA}); "
            "run or predict the suite again into a new folder",
        )
    # Unknown keys of a record are left out, not refused: a newer minor version may have added one.
    names = {f.name for f in dataclasses.fields(cls)}
    problems: list[str] = []
    record = build(cls, {k: v for k, v in table.items() if k in names}, "record", problems)
    if record is not None:
        problems += _content_problems(record)
        problems += _place_problems(record, path.parent.name)
    if record is None or problems:
        raise DataError(path, f"not a whole record: {problems[0]}")
    return record


def _place_problems(record: RunRecord | PredictionRecord, folder: str) -> list[str]:
    """A record names its folder, so that what is made from the name lands nowhere else."""
    named = record.run_id if isinstance(record, RunRecord) else prediction_name(record)
    return [] if named == folder else [f"it is of {named!r}, and lies in {folder!r}"]


def prediction_name(record: PredictionRecord) -> str:
    """Name of a prediction's folder: configuration, cluster and layout.

    Predictions for two machines lie side by side.
    """
    name = f"{record.config_id}@{record.cluster}-x{record.ranks_per_host}"
    if len(name.encode()) <= 240:
        return name
    # File systems take 255 bytes, and constants given with --set make names long.
    short = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[:220].decode(errors='ignore')}-{short}"


def _content_problems(record: RunRecord | PredictionRecord) -> list[str]:
    """What reports could not use of a record whose fields have the right types."""
    try:
        RunSpec.from_dict(record.spec, "record.spec")
    except SpecError as error:
        return list(error.problems)
    if record.status not in STATUSES:
        return [f"record.status: found {record.status!r}"]
    if isinstance(record, PredictionRecord):
        return []
    return [
        f"record.periods[{number}].{key}: found {entry.get(key)!r}"
        for number, entry in enumerate(record.periods)
        for key, kind in _PERIOD.items()
        if not isinstance(entry.get(key), kind) or not isinstance(entry.get("bytes", {}), dict)
    ]


# What every period of a record has. A loss that is not finite is None.
_PERIOD: dict[str, Any] = {"seconds": int | float, "loss": int | float | None}
