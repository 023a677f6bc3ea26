"""The job: what the launcher tells the ranks of one run, as a JSON file. Torch-free."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnnbench.spec import RunSpec

DEVICES = ("auto", "cpu", "cuda")
BACKENDS = ("gloo", "gloo_staged", "nccl")


def generations_folder(cache: Path, run_id: str) -> Path:
    """Where a durable run commits what it has learnt, see `durable`."""
    return cache / "generations" / run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run on `world_size` ranks.

    run_folder   folder of ledgers and error logs
    data         a dataset in native form
    cache        folder shared by the ranks of a host, kept between runs
    scratch      folder of this run only (pulses, rendezvous, parts), removed at its end
    backend      "gloo", "gloo_staged" (CUDA tensors through host memory) or "nccl"
    periods      iterations of each period of the plan
    releases     earliest start of each scheduled iteration, in seconds; empty: no release times
    practice     several ranks share one GPU: correct results, times of no meaning
    launcher     process id of the launcher; a rank ends when it ends
    """

    run: RunSpec
    run_folder: Path
    data: Path
    cache: Path
    scratch: Path
    world_size: int
    ranks_per_host: int
    periods: Sequence[int] = ()
    releases: Sequence[float] = ()
    device: str = "cpu"
    backend: str = "gloo"
    practice: bool = False
    note: str = ""
    launcher: int = 0

    def ledger(self, rank: int) -> Path:
        return self.run_folder / f"ledger-rank{rank}.csv"

    def error_log(self, rank: int) -> Path:
        return self.run_folder / f"error-rank{rank}.log"

    def pulse(self, rank: int) -> Path:
        return self.scratch / f"pulse-rank{rank}"

    def part(self, rank: int) -> Path:
        """Where the rank leaves its share of the record."""
        return self.scratch / f"part-rank{rank}.json"

    def failure(self, rank: int) -> Path:
        """Where the rank says why it failed."""
        return self.scratch / f"failure-rank{rank}.json"

    def output(self, rank: int) -> Path:
        """What the rank printed."""
        return self.scratch / f"output-rank{rank}.txt"

    def write(self) -> Path:
        path = self.scratch / "job.json"
        path.write_text(json.dumps(dataclasses.asdict(self), default=str), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Job:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        table["run"] = RunSpec.from_dict(table["run"])
        for name in ("run_folder", "data", "cache", "scratch"):
            table[name] = Path(table[name])
        return cls(**table)
