"""Baselines: what a rank's process holds before any data, by short runs of each family's code.

The memory of a run counts from a baseline that contains interpreter, libraries and compiled loops. A
process that trains on streams loads other loops than one that trains on graphs, so the baseline is a
fact of the family of approaches. It is read from runs of real ranks, because only these load what
ranks load. Other work on the machine does not change it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gnnbench import owner
from gnnbench.approaches.names import APPROACHES, family_of
from gnnbench.cluster import Constant
from gnnbench.errors import RunFailed
from gnnbench.results import Results
from gnnbench.spec import RunSpec
from gnnbench_runtime.session import run_all

ELSEWHERE_BYTES = {"whole_graph": 0.0, "mini_batch": 6e6, "out_of_core": 8e6, "temporal": 5e7}
"""What families held beyond the baseline of whole graphs on a CPU, on other machines."""
_ELSEWHERE = "distance between families on other machines (reports/measured)"
_REPEATS = 2
"""Runs of a family. The first one may compile loops, and then holds the compiler as well."""


def measure_baselines(
    asked: Sequence[str],
    *,
    device: str,
    threads: int,
    progress: Callable[[str, float], None],
) -> dict[str, float]:
    """Return the baseline of a rank in bytes, by family of the approaches.

    A family that cannot run here has none.

    Args:
        asked: approaches; the first one of a family stands for it.
        device: "cpu" or "cuda".
        threads: CPU threads of a rank.
        progress: called with a word and the share done.

    Raises:
        RunFailed: no family could run.
    """
    runs = [
        (family, replace(run, repeat=repeat))
        for family, run in baseline_runs(asked, threads).items()
        for repeat in range(_REPEATS)
    ]
    found: dict[str, float] = {}
    reasons = []
    with owner.scratch("gnnbench-baselines-") as folder:
        trained = run_all([run for _, run in runs], Results(folder), [folder], device=device)
        for number, ((family, _), (record, _)) in enumerate(zip(runs, trained, strict=True), 1):
            if record.status == "ok":
                size = max(map(held_bytes, record.memory))
                found[family] = min(found.get(family, size), size)
            else:
                reasons.append(record.reason)
            progress(f"memory of {family}", number / len(runs))
    if not found:
        raise RunFailed(f"calibration failed: {reasons[0]}", rank=0)
    return found


def baseline_runs(asked: Sequence[str], threads: int) -> dict[str, RunSpec]:
    """One run per family: the example with the fewest ranks of its first approach."""
    chosen: dict[str, str] = {}
    for name in asked:
        chosen.setdefault(family_of(name), name)
    runs = {}
    for family, name in sorted(chosen.items()):
        run = min(APPROACHES.get(name).examples(), key=lambda example: example.ranks)
        training = replace(run.training, threads_per_rank=threads)
        runs[family] = replace(run, suite="calibration", training=training)
    return runs


def context_constants(
    measured: Mapping[str, float], elsewhere: Mapping[str, float]
) -> tuple[Constant, dict[str, Constant]]:
    """The least baseline of a family, and what each family adds to it, see `hardware.Device`.

    Args:
        measured: baselines by family.
        elsewhere: by how much families differed on other machines; those that were not measured
            here are taken to be as far from those that were.
    """
    # Of several measured families each gives an estimate of the others.
    least = statistics.median(size - elsewhere.get(of, 0.0) for of, size in measured.items())
    sizes = {of: least + more for of, more in elsewhere.items()} | dict(measured)
    first = min(sizes, key=lambda of: sizes[of])
    found = {
        of: Constant(
            value=float(size - sizes[first]),
            status="measured" if {of, first} <= set(measured) else "transferred",
            source="calibrate" if {of, first} <= set(measured) else _ELSEWHERE,
        )
        for of, size in sizes.items()
    }
    return replace(found[first], value=float(sizes[first])), found


def held_bytes(memory: Mapping[str, Any]) -> float:
    """What a rank held before any data, from its part of a run's record.

    On a GPU it is what the device has in use beyond the reserve of torch's allocator: the context
    and the code of kernels.
    """
    if "device_used_bytes" in memory:
        return float(max(memory["device_used_bytes"] - memory.get("reserved_bytes", 0), 0))
    return float(memory["baseline_bytes"])
