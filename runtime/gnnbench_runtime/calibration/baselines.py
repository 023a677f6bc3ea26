"""Baselines: what a rank's process holds before any data, by a short run of each approach.

The memory of a run counts from a baseline that contains interpreter, libraries and compiled loops.
A process that trains on streams loads other code than one that trains on graphs, so the baseline is
a fact of the approach. It is read from runs of real ranks, because only these load what ranks load.
Other work on the machine does not change it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
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

ELSEWHERE_BYTES = {"whole_graph": 0.0, "mini_batch": 5e6, "out_of_core": 8e6, "temporal": 4.8e7}
"""What families held beyond the baseline of whole graphs on a CPU, on other machines."""
_ELSEWHERE = "distance between families on other machines (reports/measured)"
_REPEATS = 2
"""Runs of an approach. The first one may compile loops, and then holds the compiler as well."""


def measure_baselines(
    approaches: Sequence[str],
    *,
    device: str,
    threads: int,
    progress: Callable[[str, float], None],
) -> dict[str, float]:
    """Return the baseline of a rank in bytes, by approach; of one that cannot run here, none.

    Args:
        approaches: their names.
        device: "cpu" or "cuda".
        threads: CPU threads of a rank.
        progress: called with a word and the share done.

    Raises:
        RunFailed: none of them could run.
    """
    examples = [baseline_run(name, threads) for name in approaches]
    runs = [replace(run, repeat=repeat) for run in examples for repeat in range(_REPEATS)]
    found: dict[str, float] = {}
    reasons = []
    with owner.scratch("gnnbench-baselines-") as folder:
        trained = run_all(runs, Results(folder), [folder], device=device)
        for number, (run, (record, _)) in enumerate(zip(runs, trained, strict=True), 1):
            if record.status == "ok":
                size = max(map(held_bytes, record.memory))
                found[run.approach] = min(found.get(run.approach, size), size)
            else:
                reasons.append(record.reason)
            progress(f"memory of {run.approach}", number / len(runs))
    if not found:
        raise RunFailed(f"calibration failed: {reasons[0]}", rank=0)
    return found


def baseline_run(approach: str, threads: int) -> RunSpec:
    """The example of an approach with the fewest ranks, in the precision of most runs."""
    run = min(APPROACHES.get(approach).examples(), key=lambda example: example.ranks)
    training = replace(run.training, threads_per_rank=threads, precision="float32")
    return replace(run, suite="calibration", training=training)


def context_constants(
    measured: Mapping[str, float], elsewhere: Mapping[str, float]
) -> tuple[Constant, dict[str, Constant]]:
    """The least baseline, and what approaches and families add to it, see `hardware.Device`.

    Args:
        measured: baselines by approach. A family has the median of its own.
        elsewhere: by how much families differed on other machines. Those of which no approach was
            measured here are taken to be as far from the others.
    """
    own: dict[str, list[float]] = defaultdict(list)
    for name, size in measured.items():
        own[family_of(name)].append(size)
    known = {of: statistics.median(sizes) for of, sizes in own.items()}
    # Of several measured families each gives an estimate of the others.
    least = statistics.median(size - elsewhere.get(of, 0.0) for of, size in known.items())
    sizes = {of: least + more for of, more in elsewhere.items()} | known | dict(measured)
    context = min(sizes.values())

    def constant(name: str, value: float) -> Constant:
        if name in known or name in measured:
            return Constant(value=value, status="measured", source="calibrate")
        return Constant(value=value, status="transferred", source=_ELSEWHERE)

    lowest = min(sizes, key=lambda name: sizes[name])
    return constant(lowest, context), {
        name: constant(name, size - context) for name, size in sorted(sizes.items())
    }


def held_bytes(memory: Mapping[str, Any]) -> float:
    """What a rank held before any data, from its part of a run's record.

    On a GPU it is what the device has in use beyond the reserve of torch's allocator: the context
    and the code of kernels.
    """
    if "device_used_bytes" in memory:
        return float(max(memory["device_used_bytes"] - memory.get("reserved_bytes", 0), 0))
    return float(memory["baseline_bytes"])
