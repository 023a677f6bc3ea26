"""Measured points of GPU kernels, read from tables of operations.

A table has one timing per row. Sparse kernels: gpu, kernel, dtype, matrix, rows, cols, nnz, width,
time_us and, as JSON in `extra`, facts of the row lengths. GEMM: system, dtype, m, n, k, seconds.
Unknown columns are ignored. Rows of kernels without a form are returned with a reason.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gnnbench.costs.devices import DeviceFacts, facts_of, read_text
from gnnbench.costs.kernels import KERNELS, Floats, Shapes
from gnnbench.errors import SpecError

_SPARSE = {"gpu", "kernel", "dtype", "rows", "cols", "nnz", "width", "time_us"}
_GEMM = {"system", "m", "n", "k", "seconds"}
_BYTES = {"fp32": 4.0, "bfloat16": 2.0}
_OTHER_ALGORITHMS = ("CSR_ALG1", "CSR_ALG3", "SDDMM")
_KERNEL_OF: Mapping[str, str] = {
    "RB_SR_RM": "rb_sr",
    "SparseTIR naive CSR": "naive_csr",
    "CSR_DIRECT": "csr_direct",
    "RoDe": "rode",
    "RODE_ENHANCED": "rode",
    "ASpT": "aspt",
    "Sputnik": "sputnik",
    "RoDe SDDMM": "rode_sddmm",
    "ASpT SDDMM": "aspt_sddmm",
    "cuSDDMM SDDMM": "cusddmm_sddmm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Timings of one kernel on one device.

    `origins` name the matrix (GEMM: the shape) of each timing: timings of one origin share what
    disturbs them, so that they are held out together. `judged` is False for generated matrices.
    """

    kernel: str
    device: DeviceFacts
    shapes: Shapes
    seconds: Floats
    origins: tuple[str, ...]
    judged: np.ndarray[Any, np.dtype[np.bool_]]
    source: str

    def __len__(self) -> int:
        return len(self.seconds)


def is_table(text: str) -> bool:
    """Whether a CSV is a table of kernels."""
    columns = set(next(csv.reader(io.StringIO(text)), []))
    return columns >= _SPARSE or columns >= _GEMM


def read_points(text: str, where: str) -> tuple[list[Points], Counter[str]]:
    """Points by kernel and device, and the number of rows left out by reason.

    Raises:
        SpecError: the table has not the columns of any kind of kernel.
    """
    reader = csv.DictReader(io.StringIO(text))
    columns = set(reader.fieldnames or [])
    if columns >= _SPARSE:
        parse, build = _sparse_row, _sparse_points
    elif columns >= _GEMM:
        parse, build = _gemm_row, _gemm_points
    else:
        raise SpecError(
            f"{where}: found columns {', '.join(sorted(columns))}; a table of kernels needs "
            f"{', '.join(sorted(_SPARSE))} or {', '.join(sorted(_GEMM))}"
        )
    kept: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for row in reader:
        found = parse(row)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            kept[found["kernel"], found["device"].device].append(found)
    return [build(rows) for rows in kept.values()], left_out


@cache
def shipped_points() -> tuple[Points, ...]:
    """The points that the catalogue holds as evidence."""
    found: list[Points] = []
    for name in ("spmm.csv", "sddmm.csv", "gemm.csv"):
        found += read_points(read_text(name), name)[0]
    return tuple(found)


def kernel_of(row: Mapping[str, str]) -> str | None:
    """The kernel whose form a row of a table of sparse kernels is compared with; None: no form."""
    name = row["kernel"].split(" (")[0]
    if name.lower().startswith("cusparse") and name.split()[-1] not in _OTHER_ALGORITHMS:
        return "cusparse"
    return _KERNEL_OF.get(name)


def _sparse_row(row: Mapping[str, str]) -> dict[str, Any] | str:
    kernel, device = kernel_of(row), facts_of(row["gpu"])
    if row["dtype"] != "fp32":
        return f"dtype {row['dtype']}: forms of sparse kernels are for fp32"
    if kernel is None:
        return f"kernel {row['kernel']}: no form"
    if device is None or not KERNELS[kernel].applies(device):
        return f"device {row['gpu']}: no measured cache bandwidth"
    extra = json.loads(row.get("extra") or "{}")
    rows, entries = float(row["rows"]), float(row["nnz"])
    skew = extra.get("cv_row")
    if skew is None and extra.get("std_row") is not None:
        skew = extra["std_row"] / (entries / rows)
    return {
        "kernel": kernel,
        "device": device,
        "origin": row["matrix"],
        "shape": (rows, float(row["cols"]), entries, float(row["width"])),
        "skew": 1.0 if skew is None else float(skew),
        "longest": float(extra.get("max_row", "nan")),
        "seconds": float(row["time_us"]) * 1e-6,
        "source": row.get("source_repo", ""),
    }


def _sparse_points(rows: Sequence[dict[str, Any]]) -> Points:
    """One point per matrix and width: the median of sessions and equal algorithms."""
    same: dict[tuple[object, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        same[(row["origin"], *row["shape"])].append(row)
    first = [group[0] for group in same.values()]
    shape = np.array([row["shape"] for row in first]).T
    generated = np.array([row["origin"].startswith("synth_") for row in first])
    # A generator draws columns at random, unless it makes communities.
    skews = [next((r["skew"] for r in g if r["skew"] != 1.0), 1.0) for g in same.values()]
    return Points(
        kernel=first[0]["kernel"],
        device=first[0]["device"],
        shapes=Shapes.of(
            rows=shape[0],
            columns=shape[1],
            nonzeros=shape[2],
            width=shape[3],
            skew=np.array(skews),
            longest=np.array([row["longest"] for row in first]),
            shuffled=generated.astype(float),
        ),
        seconds=np.array([statistics.median(r["seconds"] for r in g) for g in same.values()]),
        origins=tuple(row["origin"] for row in first),
        judged=~generated,
        source=", ".join(sorted({row["source"] for row in first} - {""})),
    )


def _gemm_row(row: Mapping[str, str]) -> dict[str, Any] | str:
    device, kernel = facts_of(row["system"]), KERNELS["gemm"]
    dtype = row.get("dtype", "bfloat16")
    if dtype not in _BYTES:
        return f"dtype {dtype}: forms of products are for {', '.join(_BYTES)}"
    if device is None or not kernel.applies(device):
        return f"device {row['system']}: no measured cache bandwidth or launch"
    shape = tuple(float(row[name]) for name in "mnk")
    return {
        "kernel": "gemm",
        "device": device,
        "origin": "x".join(row[name] for name in "mnk"),
        "shape": shape,
        "bytes": _BYTES[dtype],
        "seconds": float(row["seconds"]),
        "source": row.get("source", ""),
    }


def _gemm_points(rows: Sequence[dict[str, Any]]) -> Points:
    shape = np.array([row["shape"] for row in rows]).T
    return Points(
        kernel="gemm",
        device=rows[0]["device"],
        shapes=Shapes.of(
            rows=shape[0], width=shape[1], inner=shape[2], element_bytes=rows[0]["bytes"]
        ),
        seconds=np.array([row["seconds"] for row in rows]),
        origins=tuple(row["origin"] for row in rows),
        judged=np.ones(len(rows), bool),
        source=rows[0]["source"],
    )
