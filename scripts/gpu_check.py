"""Check and measure this machine's GPUs in one command, in less than ten minutes.

    python scripts/gpu_check.py --out reports/measured

Runs the tests that need a GPU (NCCL among them; on a single GPU in practice mode, several ranks on
one device), compares and times the kernels, trains the built-in suite `gpu` on 1 and 2 ranks, and
writes DIR/gpu-check-<device>.json. Installs nothing and needs no network. Exit codes: 0 all well,
1 something failed, 2 no CUDA device.

`--device cpu` rehearses the script itself on a small scale; its numbers say nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
ROOTS = [str(REPO), *(str(REPO / name) for name in ("runtime", "simulator", "reports"))]
TESTS_LIMIT_S, SUITE_LIMIT_S = 270, 240
ERROR_LIMIT = 1e-4


def main() -> int:
    """Run all checks; write what came out, whatever failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args()
    sys.path[:0] = ROOTS
    os.environ["PYTHONPATH"] = os.pathsep.join([*ROOTS, os.environ.get("PYTHONPATH", "")])
    try:
        import torch
    except ImportError:
        print("gpu-check: torch is not installed: pip install 'gnnbench[runtime]'", file=sys.stderr)
        return 2
    if args.device == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda or "none, a CPU build"
        print(
            f"gpu-check: no CUDA device (torch {torch.__version__}, CUDA {built})", file=sys.stderr
        )
        return 2

    begin = time.monotonic()
    found: dict[str, Any] = {
        "schema": 1,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_facts(args.device),
    }
    checks: dict[str, Callable[[str], dict[str, Any]]] = {
        "tests": gpu_tests,
        "kernels": kernels,
        "suite": suite,
    }
    for name, check in checks.items():
        started = time.monotonic()
        try:
            found[name] = check(args.device)
        except Exception as error:
            found[name] = {"ok": False, "reason": f"{type(error).__name__}: {error}"[:500]}
        found[name]["seconds"] = round(time.monotonic() - started, 1)
        word = "ok" if found[name]["ok"] else "failed"
        print(f"{word:<9}{name:<9}{found[name].get('reason', '')}", flush=True)
    found["seconds"] = round(time.monotonic() - begin, 1)
    found["ok"] = all(found[name]["ok"] for name in checks)

    args.out.mkdir(parents=True, exist_ok=True)
    label = "".join(c if c.isalnum() else "-" for c in found["device"]["name"].lower())
    path = args.out / f"gpu-check-{label if args.device == 'cuda' else 'rehearsal'}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{'ok' if found['ok'] else 'failed':<9}{path} ({found['seconds']:.0f} s)")
    return 0 if found["ok"] else 1


def device_facts(device: str) -> dict[str, Any]:
    """Return what the measured numbers belong to."""
    import torch

    facts: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if device == "cpu":
        return {**facts, "name": "rehearsal", "count": 0}
    properties = torch.cuda.get_device_properties(0)
    facts |= {
        "name": properties.name,
        "count": torch.cuda.device_count(),
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }
    try:
        import pynvml

        pynvml.nvmlInit()
        facts["driver"] = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
    except Exception as error:  # absent or refused: the driver's version is a nicety
        facts["driver"] = f"unknown ({type(error).__name__})"
    return facts


def gpu_tests(device: str) -> dict[str, Any]:
    """Run `pytest -m gpu`; without pytest say so and count it as not done."""
    if importlib.util.find_spec("pytest") is None:
        return {"ok": False, "reason": "pytest is not installed: pip install pytest hypothesis"}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", f"--junitxml={report}"]
        if importlib.util.find_spec("pytest_timeout") is None:
            command += [
                "-o",
                "addopts=",
                "-o",
                "timeout=",
                "-W",
                "ignore::pytest.PytestConfigWarning",
            ]
        try:
            done = subprocess.run(
                command, cwd=REPO, capture_output=True, text=True, timeout=TESTS_LIMIT_S
            )
        except subprocess.TimeoutExpired:
            return {"ok": False, "reason": f"the tests took longer than {TESTS_LIMIT_S} s"}
        if not report.exists():
            tail = (done.stdout + done.stderr).strip().splitlines()[-5:]
            return {"ok": False, "reason": " | ".join(tail)[-500:]}
        counts, broken = _read_junit(report)
    # On a rehearsal every one of them is skipped for want of a GPU.
    ok = not broken and (device == "cpu" or counts["passed"] > 0)
    reason = f"{counts['passed']} passed, {counts['skipped']} skipped, {len(broken)} failed"
    return {"ok": ok, "reason": reason, **counts, "failed": broken}


def _read_junit(path: Path) -> tuple[dict[str, int], list[dict[str, str]]]:
    counts = {"passed": 0, "skipped": 0}
    broken: list[dict[str, str]] = []
    for case in ElementTree.parse(path).iter("testcase"):
        trouble = case.find("failure")
        trouble = case.find("error") if trouble is None else trouble
        if trouble is not None:
            name = f"{case.get('classname')}::{case.get('name')}"
            broken.append({"test": name, "message": (trouble.get("message") or "")[:300]})
        elif case.find("skipped") is not None:
            counts["skipped"] += 1
        else:
            counts["passed"] += 1
    return counts, broken


def kernels(device: str) -> dict[str, Any]:
    """Compare the device's kernels with the CPU's, and time them with events."""
    import torch

    from gnnbench.data.generators import generate

    small = device == "cpu"
    nodes, degree = (2_000, 8) if small else (200_000, 25)
    widths = (16,) if small else (16, 64, 256)
    graph = generate("uniform", num_nodes=nodes, mean_degree=degree, seed=1)
    generator = torch.Generator().manual_seed(1)
    picks = torch.randint(nodes, (nodes // 2,), generator=generator)
    rows: list[dict[str, Any]] = []
    for width in widths:
        x = torch.randn((nodes, width), generator=generator)
        rows += [_spmm(graph, x, device), _gather(picks, x, device)]
    wrong = [row for row in rows if row["max_error"] > ERROR_LIMIT]
    reason = f"{len(rows)} measured, {len(wrong)} differ from the CPU by more than {ERROR_LIMIT:g}"
    return {"ok": not wrong, "reason": reason, "rows": rows}


def _spmm(graph: Any, x: Any, device: str) -> dict[str, Any]:
    import torch

    from gnnbench_runtime.kernels import backend

    nodes, width = x.shape
    indptr, indices = (torch.from_numpy(a.copy()) for a in (graph.indptr, graph.indices))
    expected = torch.empty_like(x)
    backend("cpu", 1).spmm(indptr, indices, x, expected)
    there = [t.to(device) for t in (indptr, indices, x, expected)]
    there[-1].zero_()
    ours = backend(device, 1)
    seconds = _median_s(lambda: ours.spmm(*there), device)
    moved = graph.num_edges * (4 + 4 * width) + nodes * (8 + 4 * width)
    return _row("spmm", nodes, graph.num_edges, width, seconds, moved, expected, there[-1])


def _gather(picks: Any, x: Any, device: str) -> dict[str, Any]:
    from gnnbench_runtime.kernels import backend

    expected = x[picks]
    there = [t.to(device) for t in (x, picks, expected)]
    there[-1].zero_()
    ours = backend(device, 1)
    seconds = _median_s(lambda: ours.gather_rows(*there), device)
    moved = len(picks) * (8 + 8 * x.shape[1])
    return _row("gather", len(picks), 0, x.shape[1], seconds, moved, expected, there[-1])


def _row(
    op: str, rows: int, nonzeros: int, width: int, seconds: float, moved: int, want: Any, got: Any
) -> dict[str, Any]:
    """Return one measurement; the error is relative to the largest value."""
    error = (got.cpu() - want).abs().max() / want.abs().max()
    return {
        "op": op,
        "rows": rows,
        "nonzeros": nonzeros,
        "width": width,
        "median_s": seconds,
        "bytes_per_s": moved / seconds,
        "max_error": float(error),
    }


def _median_s(work: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Return the median seconds of one call, by device events where there are any."""
    import torch

    for _ in range(3):
        work()
    times: list[float] = []
    for _ in range(repeats):
        if device == "cpu":
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
            continue
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last) / 1e3)
    return statistics.median(times)


def suite(device: str) -> dict[str, Any]:
    """Train the suite `gpu` (rehearsal: `demo`, one run); approaches must agree on the loss."""
    from gnnbench.results import Results

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gnnbench", "run", "gpu" if device == "cuda" else "demo"]
        command += ["--results", folder, "--device", device, "--json"]
        if device == "cpu":
            command += ["--only", "*-gcn-*"]
        try:
            done = subprocess.run(
                command, cwd=REPO, capture_output=True, text=True, timeout=SUITE_LIMIT_S
            )
            said = done.stderr.strip().splitlines()[-1:]
        except subprocess.TimeoutExpired:
            said = [f"the suite took longer than {SUITE_LIMIT_S} s"]
        records = list(Results(folder).runs())
    rows = [
        {
            "run_id": record.run_id,
            "status": record.status,
            "reason": record.reason,
            "practice": record.device.get("practice"),
            "backend": record.device.get("backend"),
            "approach": record.spec["approach"],
            "model": record.spec["model"]["name"],
            "period_s": [round(period["seconds"], 7) for period in record.periods],
            "loss": [period["loss"] for period in record.periods],
            "bytes": record.periods[-1]["bytes"] if record.periods else {},
            "metrics": record.metrics,
            "memory": record.memory,
            "energy": record.energy,
        }
        for record in records
    ]
    apart = _apart(rows)
    failed = [row["run_id"] for row in rows if row["status"] == "failed"]
    ok = bool(rows) and not failed and not apart and all(r["status"] == "ok" for r in rows)
    reason = f"{len(rows)} runs, {len(failed)} failed" + "".join(f"; {line}" for line in apart)
    return {"ok": ok, "reason": reason if rows else " ".join(said), "rows": rows}


def _apart(rows: list[dict[str, Any]]) -> list[str]:
    """Name the exact runs whose last loss is more than a thousandth off their reference's."""
    from gnnbench.approaches.names import APPROACHES

    lines: list[str] = []
    last = {(row["approach"], row["model"]): row["loss"][-1] for row in rows if row["loss"]}
    for row in rows:
        promise = APPROACHES.get(row["approach"]).promise
        wanted = last.get((promise.reference, row["model"]))
        if not promise.exact or wanted is None or not row["loss"]:
            continue
        if abs(row["loss"][-1] - wanted) > 1e-3 * abs(wanted):
            lines.append(
                f"{row['run_id']} has loss {row['loss'][-1]}, {promise.reference} has {wanted}"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
