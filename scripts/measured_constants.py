#!/usr/bin/env python3
"""Make the measured constants of the catalogue from tables of operations.

    python scripts/measured_constants.py TABLES catalogue/measured

TABLES holds spmm.csv, sddmm.csv, gemm.csv, nccl.csv and nccl_internode.csv, as described in
`gnnbench/catalogue/measured/README.md`. Points whose licence allows it are copied, in the columns
that the readers need. Of tables without a licence, the fitted coefficients are kept, and a few
timings as cited facts. `forms.toml` is written from all points.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

from gnnbench.costs.between_hosts import row_of
from gnnbench.costs.devices import facts_of
from gnnbench.costs.fit import conformal_radius
from gnnbench.costs.kernel_fit import fit_kernel, leave_devices_out, leave_origins_out
from gnnbench.costs.kernels import KERNELS
from gnnbench.costs.points import Points, kernel_of, read_points
from gnnbench.tomlwriter import format_toml

SPARSE = ("gpu", "kernel", "dtype", "matrix", "rows", "cols", "nnz", "width", "extra", "time_us")
GEMM = ("system", "dtype", "m", "n", "k", "seconds", "source")
BETWEEN = ("system", "gpu", "nodes", "gpus_per_node", "fabric", "env", "op", "bytes", "time_us_out")
COLLECTIVE = ("device", "op_name", "num_gpus", "bytes", "seconds", "source")
FACTS = ("cv_row", "std_row", "max_row")
EVERY = {"naive_csr": 6, "rode_sddmm": 6}
"""Every so-manieth matrix is kept of long tables, and of those that are cited."""


def main(tables: Path, out: Path) -> None:
    """Write the constants of every device and kernel of the tables."""
    groups: dict[str, list[Points]] = defaultdict(list)
    for name in ("spmm", "sddmm", "gemm"):
        text = (tables / f"{name}.csv").read_text(encoding="utf-8")
        for points in read_points(text, name)[0]:
            if len(set(points.origins)) > 3:
                groups[points.kernel].append(points)
    (out / "forms.toml").write_text(format_toml({"forms": fitted(groups)}), encoding="utf-8")
    for name in ("spmm", "sddmm"):
        write(out / f"{name}.csv", (*SPARSE, "source_repo", "licence"), sparse(tables, name))
    gemm = read(tables / "gemm.csv")
    write(out / "gemm.csv", GEMM, [short(row, GEMM) for row in gemm])
    nccl = [short(row, COLLECTIVE) for row in read(tables / "nccl.csv")]
    write(out / "collectives.csv", COLLECTIVE, nccl)
    write(out / "between_hosts.csv", (*BETWEEN, "source_repo"), between(tables))


def fitted(groups: dict[str, list[Points]]) -> list[dict[str, object]]:
    """Coefficients of each kernel for all its devices (device "") and for each of them."""
    forms = []
    for name, points in groups.items():
        joint = fit_kernel(KERNELS[name], points)
        moved = leave_devices_out(points)
        if moved:
            radius = max(conformal_radius(j.errors) for j in moved)
            forms.append(entry(points, "", joint, radius, max(j.median for j in moved)))
        for group, judged in zip(points, leave_origins_out(points), strict=True):
            own = fit_kernel(KERNELS[name], [group], near=joint)
            forms.append(
                entry(
                    [group],
                    group.device.device,
                    own,
                    conformal_radius(judged.errors),
                    judged.median,
                )
            )
    return forms


def entry(
    points: list[Points], device: str, params: dict[str, float], radius: float, median: float
) -> dict[str, object]:
    """One form as the catalogue holds it."""
    return {
        "kernel": points[0].kernel,
        "device": device,
        "params": {k: float(f"{v:.4g}") for k, v in params.items()},
        "radius": round(radius, 3),
        "median_error": round(median, 3),
        "points": sum(len(p) for p in points),
        "devices": sorted({p.device.device for p in points}),
        "source": "; ".join(sorted({p.source for p in points})),
    }


def sparse(tables: Path, name: str) -> list[dict[str, str]]:
    """Rows of sparse kernels that may be shipped, and those that are cited."""
    rows, places = [], {}
    for row in read(tables / f"{name}.csv"):
        kernel = kernel_of(row)
        free = "none" not in row["licence"]
        if kernel is None or row["dtype"] != "fp32" or facts_of(row["gpu"]) is None:
            continue
        if kernel not in ("cusparse", "naive_csr", "rode_sddmm") or row["library"].endswith(
            ("sweep)", "PyG")
        ):
            continue
        if not free and kernel != "rode_sddmm":
            continue
        place = places.setdefault((kernel, row["matrix"]), len(places))
        if place % EVERY.get(kernel, 1):
            continue
        extra = json.loads(row["extra"] or "{}")
        kept = {key: extra[key] for key in FACTS if key in extra}
        row["extra"] = json.dumps(kept, separators=(",", ":")) if kept else ""
        row["time_us"] = f"{float(row['time_us']):.5g}"
        row["source_repo"] = f"{row['source_repo']} {row['commit'][:7]}"
        rows.append(short(row, (*SPARSE, "source_repo", "licence")))
    return rows


def between(tables: Path) -> list[dict[str, str]]:
    """Cited times of the one system that was measured on two numbers of hosts, thinned by size."""
    rows = []
    for row in read(tables / "nccl_internode.csv"):
        found = row_of(row)
        if isinstance(found, str) or "Polaris" not in row["system"]:
            continue
        power = math.log2(float(row["bytes"]))
        if power == int(power) and int(power) % 2 == (1 if found[1] == "all_gather" else 0):
            row["source_repo"] = f"{row['source_repo']} {row['commit'][:7]}"
            rows.append(short(row, (*BETWEEN, "source_repo")))
    return rows


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def short(row: dict[str, str], columns: tuple[str, ...]) -> dict[str, str]:
    """A row's kept columns, with as many digits as were measured."""
    kept = {name: row[name] for name in columns}
    if "source" in kept:
        kept["source"] = "aiconfigurator 095f58a"
    if "seconds" in kept:
        kept["seconds"] = f"{float(kept['seconds']):.4g}"
    return kept


def write(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    """Write a CSV file with Unix line ends."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
