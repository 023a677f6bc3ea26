"""Fabricated results folders: plausible numbers in the records that real runs would write."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gnnbench.ledger import Row, write_ledger
from gnnbench.results import PredictionRecord, Results, RunRecord
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TaskSpec, TrainingSpec

MIB = 2**20
SWINGS = [
    {"name": name, "what": what, "grade": grade, "factor": factor, "low": low, "high": high}
    for name, what, grade, factor, low, high in (
        ("spmm", "operation", "measured", 1.31, 0.83, 1.22),
        ("links.inter.bytes_per_s", "constant", "datasheet", 1.25, 0.94, 1.09),
        ("gemm", "operation", "measured", 1.1, 0.98, 1.021),
    )
]
"""What moves a predicted time, as the simulator notes it."""
SECONDS = {"arxiv": 0.9, "cora": 0.012, "blocks10k": 0.16}
SPEED = {"single": 1.0, "partition": 1.08, "sampled": 2.2}
PHASES = {
    "single": {"forward": 0.4, "backward": 0.56, "update": 0.04},
    "partition": {"fetch": 0.12, "forward": 0.34, "backward": 0.48, "sync": 0.03, "update": 0.03},
    "sampled": {
        "sample": 0.3,
        "fetch": 0.2,
        "forward": 0.2,
        "backward": 0.22,
        "sync": 0.05,
        "update": 0.03,
    },
}


def row(period: int, phase: str, start: float, took: float, lane: str = "compute") -> Row:
    """A ledger row of a rank's own work."""
    return Row(period, 0, phase, "gemm", "gemm", lane, phase, 0, 1, 0, 0, start, took)


def judged(context: int, workload: int, *, limit: int) -> dict[str, Any]:
    """What a prediction says of a rank's memory on a CPU, and how it was judged."""
    needed = context + workload
    chance = 0.0 if needed <= limit else 0.99
    space = {
        "needed_bytes": needed,
        "low_bytes": needed,
        "high_bytes": needed + workload // 5,
        "limit_bytes": limit,
        "headroom_bytes": limit - needed,
        "p_out_of_memory": chance,
    }
    return {
        "spaces": {"memory": space},
        "space": "memory",
        "judged_bytes": needed,
        "limit_bytes": limit,
        "fits": needed <= limit,
        "verdict": "fits" if needed <= limit else "does not fit",
        "categories": {"memory": {"features": workload, "framework context": context}},
    }


class Fabricator:
    """Writes records through `Results`, as the runtime and the simulator do."""

    judged = staticmethod(judged)
    swings = SWINGS

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.results = Results(folder)
        self.random = random.Random(seed)

    @staticmethod
    def spec(
        dataset: str = "cora",
        model: str = "gcn",
        approach: str = "partition",
        ranks: int = 2,
        repeat: int = 0,
        knobs: dict[str, Any] | None = None,
        epochs: int = 6,
        seed: int = 0,
        task: str = "",
        metric: str = "",
    ) -> RunSpec:
        return RunSpec(
            suite="made-up",
            dataset=DatasetRef(name=dataset, generator="planted_partition", kind="graph"),
            task=TaskSpec(kind=task, metric=metric),
            model=ModelSpec(name=model, kind="gcn"),
            training=TrainingSpec(epochs=epochs, warmup_epochs=1, seed=seed),
            approach=approach,
            ranks=ranks,
            repeat=repeat,
            knobs=knobs or {},
        )

    def true_seconds(self, run: RunSpec) -> float:
        base = SECONDS.get(run.dataset.name, 0.1) * SPEED.get(run.approach, 1.5)
        heavier = 1.25 if run.model.name == "sage" else 1.0
        return heavier * base * (0.92 / run.ranks + 0.06 + 0.02 * run.ranks**0.5)

    def volumes(self, run: RunSpec) -> dict[str, int]:
        if run.ranks == 1:
            return {}
        unit = int(SECONDS.get(run.dataset.name, 0.1) * 4_000_000) * 4
        halo = int(unit * (1 - 1 / run.ranks))
        found = {"all_reduce/sync": 92_231 * 8 * (run.ranks - 1)}
        if run.approach == "partition":
            found |= {"all_to_all/forward": halo * 2, "all_to_all/backward": halo}
        if run.approach == "mixture":
            found |= {"all_to_all/forward": unit, "all_to_all/backward": unit // 2}
        if run.approach == "sampled":
            found |= {"all_to_all/fetch": halo * 9}
        return found

    def run(
        self, run: RunSpec, *, seconds: float | None = None, ledgers: bool = True, **changes: Any
    ) -> RunRecord:
        """Save a finished run; `seconds` fixes every period's time, `changes` replace fields."""
        middle = seconds if seconds is not None else self.true_seconds(run)
        middle *= 1 if seconds is not None else self.random.gauss(1, 0.03)
        periods = []
        for period in range(run.training.epochs):
            noise = 1 if seconds is not None else self.random.gauss(1, 0.02)
            slow = 3 if period == 0 else 1
            periods.append(
                {
                    "period": period,
                    "kind": "epoch",
                    "iterations": 1,
                    "seconds": middle * noise * slow,
                    "loss": 1.9 * 0.8**period,
                    "bytes": self.volumes(run),
                    "planned": self.volumes(run),
                    "metrics": {
                        "val_accuracy": 0.8 - 0.6 * 0.6**period + self.random.gauss(0, 0.004)
                    },
                }
            )
        workload = int(300 * MIB * SECONDS.get(run.dataset.name, 0.1) / run.ranks + 20 * MIB)
        fields: dict[str, Any] = {
            "run_id": run.run_id,
            "config_id": run.config_id,
            "spec": run.to_dict(),
            "status": "ok",
            "started_at": "2025-01-01T00:00:00Z",
            "wall_s": 12.0,
            "dataset": {"num_nodes": 10_000, "num_edges": 150_000},
            "device": {
                "kind": "cpu",
                "name": "a made-up processor",
                "backend": "gloo",
                "ranks_per_host": run.ranks,
                "threads_per_rank": 1,
            },
            "versions": {"gnnbench": "0.1.0", "torch": "2.8.0", "python": "3.11"},
            "periods": periods,
            "memory": [
                {
                    "rank": rank,
                    "baseline_bytes": 210 * MIB,
                    "peak_bytes": 210 * MIB + workload,
                    "source": "resident set",
                }
                for rank in range(run.ranks)
            ],
            "metrics": {
                "train_accuracy": 0.95,
                "val_accuracy": 0.79,
                "test_accuracy": self.random.gauss(0.81, 0.005),
            },
            "probe": {"before_s": 0.0102, "after_s": 0.0106},
        }
        record = RunRecord(**(fields | changes))
        self.results.save_run(record)
        if ledgers and record.status == "ok":
            self.ledgers(run, middle)
        return record

    def ledgers(self, run: RunSpec, middle: float) -> None:
        for rank in range(run.ranks):
            rows, clock = [], 0.0
            for period in range(run.training.epochs):
                for phase, share in PHASES.get(run.approach, {"forward": 1.0}).items():
                    lane = "comm" if phase in ("fetch", "sync") else "compute"
                    took = middle * share * (3 if period == 0 else 1) * (1 - 0.02 * rank)
                    rows.append(row(period, phase, clock, took, lane))
                    clock += took
            write_ledger(self.results.run_folder(run.run_id) / f"ledger-rank{rank}.csv", rows)

    def prediction(
        self, run: RunSpec, *, seconds: float | None = None, cluster: str = "bench", **changes: Any
    ) -> PredictionRecord:
        """Save a prediction; `seconds` fixes its time, else it errs by about a tenth."""
        middle = seconds if seconds is not None else self.true_seconds(run)
        middle *= 1 if seconds is not None else self.random.gauss(1.03, 0.08)
        workload = int(290 * MIB * SECONDS.get(run.dataset.name, 0.1) / run.ranks + 21 * MIB)
        phases = PHASES.get(run.approach, {"forward": 1.0})
        fields: dict[str, Any] = {
            "config_id": run.config_id,
            "spec": run.to_dict(),
            "cluster": cluster,
            "ranks_per_host": min(run.ranks, 16),
            "period_s": middle,
            "low_s": middle * 0.82,
            "high_s": middle * 1.2,
            "grade": "measured",
            "method": "replay",
            "bytes": [self.volumes(run)] * 3,
            "memory": [
                {
                    "rank": rank,
                    "baseline_bytes": 205 * MIB,
                    "workload_bytes": workload,
                    "peak_bytes": 205 * MIB + workload,
                    **judged(205 * MIB, workload, limit=4096 * MIB),
                }
                for rank in range(run.ranks)
            ],
            "phases": {phase: middle * share for phase, share in phases.items()},
            "probe_s": 0.0100,
            "notes": {
                "work_s": {"spmm": 0.6 * middle, "gemm": 0.3 * middle, "gather": 0.1 * middle}
            },
        }
        if run.ranks > 16:
            fields["notes"]["beyond"] = f"needs {run.ranks // 16} hosts; described for 1"
        record = PredictionRecord(**(fields | changes))
        self.results.save_prediction(record)
        return record

    def cached(
        self, policy: str, share: float, hits: float, *, ranks: int = 1, **changes: Any
    ) -> None:
        """A run with a feature cache, and its prediction, which is 0.002 too high."""
        knobs = {"placement": "host", "cache_policy": policy, "cache_share": share}
        spec = self.spec("cora", "gcn", "sampled", ranks, knobs=knobs)
        metrics = {"test_accuracy": 0.8, "cache_hit_rate": hits, "cache_misses": 900.0}
        self.run(spec, **({"ledgers": False, "metrics": metrics} | changes))
        notes = {"cache_hit_rate": hits + 0.002, "cache_misses": [2000, 900]}
        self.prediction(spec, notes=notes)

    def from_disk(
        self, policy: str, buffer: int, read: int, written: int = 0, **changes: Any
    ) -> None:
        """A run that reads partitions from the disk, and its prediction of the same bytes."""
        knobs = {"partitions": 16, "buffer": buffer, "policy": policy}
        spec = self.spec("facts", "distmult", "out-of-core", 1, knobs=knobs)
        moved = {"read/load": read, **({"write/update": written} if written else {})}
        periods = [
            {"period": at, "kind": "epoch", "seconds": 1.0, "loss": 1.0, "bytes": moved}
            for at in range(2)
        ]
        self.run(spec, **({"ledgers": False, "periods": periods} | changes))
        self.prediction(spec, seconds=1.0, bytes=[moved] * 2)

    def arriving(
        self,
        gap_s: float,
        measured_s: float | None,
        predicted_s: float,
        periods: int = 11,
        events: int = 100,
        **fields: Any,
    ) -> None:
        """A run and its prediction: so many events every `gap_s`, learnt in so many seconds.

        The first increment is measured to take five times as long; without a time there is no run.
        """
        run = self.spec(**{"approach": "continuous", "epochs": periods, "ranks": 1} | fields)
        training = dataclasses.replace(run.training, increments=periods, speedup=1 / gap_s)
        run = dataclasses.replace(run, training=training)
        releases = [gap_s * (1 + at) for at in range(periods)]
        found: list[dict[str, Any]] = []
        ended = 0.0
        for at, release in enumerate(releases if measured_s is not None else ()):
            took = (measured_s or 0.0) * (5 if at == 0 else 1)
            ended = max(ended, release) + took
            arrived = {"events": events, "release_s": release, "end_s": ended}
            found.append({"period": at, "kind": "increment", "seconds": took, **arrived})
        if found:
            self.run(run, periods=found, ledgers=False)
        notes = {
            "events": [events] * periods,
            "releases_s": releases,
            "periods_s": [predicted_s] * periods,
        }
        self.prediction(run, seconds=predicted_s, notes=notes)

    def whole_suite(
        self,
        datasets: tuple[str, ...] = tuple(SECONDS),
        models: tuple[str, ...] = ("gcn", "sage"),
        approaches: tuple[str, ...] = tuple(SPEED),
        measured: tuple[int, ...] = (1, 2),
        predicted: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64),
        repeats: int = 3,
    ) -> Results:
        """Three datasets, two models, three approaches; a skip, a failure, a second cluster."""
        for dataset in datasets:
            for model in models:
                for approach in approaches:
                    for ranks in sorted({*measured, *predicted}):
                        self._one(dataset, model, approach, ranks, measured, predicted, repeats)
        return self.results

    def _one(
        self,
        dataset: str,
        model: str,
        approach: str,
        ranks: int,
        measured: tuple[int, ...],
        predicted: tuple[int, ...],
        repeats: int,
    ) -> None:
        fits = approach != "single" or ranks == 1
        spec = self.spec(dataset, model, approach, ranks)
        for repeat in range(repeats if ranks in measured else 0):
            again = self.spec(dataset, model, approach, ranks, repeat)
            if not fits:
                reason = f"single uses 1 rank, not {ranks}"
                self.run(again, status="skipped", reason=reason, periods=[], memory=[], metrics={})
            elif (dataset, model, approach, ranks) == ("arxiv", "sage", "sampled", 2):
                self.run(
                    again,
                    status="failed",
                    reason="out of memory: 3.1 GiB wanted, 1.2 GiB free",
                    failed_rank=1,
                    failed_phase="backward",
                    periods=[],
                    memory=[],
                    metrics={},
                )
            else:
                self.run(again)
        if fits and ranks in predicted:
            self.prediction(spec)
            self.prediction(spec, cluster="datasheet_gpus", grade="datasheet")


@pytest.fixture
def fabricator(tmp_path: Path) -> Fabricator:
    return Fabricator(tmp_path / "results")


@pytest.fixture(scope="session")
def make_fabricator(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Fabricator]:
    return lambda name: Fabricator(tmp_path_factory.mktemp(name))
