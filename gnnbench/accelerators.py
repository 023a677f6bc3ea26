"""Sparse and dense accelerators as device types: constants with status and source.

A device has a sparse engine (aggregation), a dense engine (update), or both. Every constant carries
its status and source, as in cluster files. Speed-ups and savings that papers report are results,
not constants of a device, and have no field here (FG-68).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from gnnbench.cluster import Constant
from gnnbench.errors import SpecError, UnknownName
from gnnbench.strict import bounds, build, choices, raise_all, read_toml

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseEngine:
    """The engine of the sparse product.

    lanes             multiply-accumulates per cycle
    efficiency        share of the lanes that does work
    lanes_per_row     lanes that one row can use; 0: all of them (rows are spread or rebalanced)
    onchip_bytes      buffer that keeps rows of the dense operand for re-use
    row_overhead_s    fixed time per destination row; chunk_overhead_s per chunk
    """

    lanes: Constant
    clock_hz: Constant
    efficiency: Constant
    lanes_per_row: Constant
    onchip_bytes: Constant
    row_overhead_s: Constant
    chunk_overhead_s: Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseEngine:
    """The engine of the dense product: `arrays` arrays of array_rows x array_cols.

    dataflow   weight_stationary, output_stationary: systolic folds with fill and drain;
               flat: no fill, work over lanes (a GPU, or one fabric that serves both products)
    """

    arrays: Constant
    array_rows: Constant
    array_cols: Constant
    clock_hz: Constant
    efficiency: Constant
    chunk_overhead_s: Constant
    dataflow: str = field(metadata=choices("weight_stationary", "output_stationary", "flat"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Off-chip memory. The row-hit efficiencies are shares of the peak rate.

    transaction_bytes   smallest transfer; rows are rounded up to whole transactions
    """

    bytes_per_s: Constant
    stream_efficiency: Constant
    random_efficiency: Constant
    transaction_bytes: Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Joules: idle power all the time, plus operations and off-chip bytes (simulation 8)."""

    idle_w: Constant
    joules_per_mac: Constant
    joules_per_offchip_byte: Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One device.

    one_device         both engines are on this device and share its memory; otherwise a pair of the
                       same name means two such devices
    unified            one set of lanes does both products: paired with itself, nothing overlaps
    buffer_slots       chunks that fit between the engines (B_q)
    link_bytes_per_s   rate at which chunks leave or reach the device; 0 within one chip, at no cost
    """

    name: str
    description: str
    schema: int = field(default=SCHEMA, metadata=bounds(SCHEMA, SCHEMA))
    one_device: bool = True
    unified: bool = False
    memory: Memory
    energy: Energy
    buffer_slots: Constant
    link_bytes_per_s: Constant
    sparse: SparseEngine | None = None
    dense: DenseEngine | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.sparse is None and self.dense is None:
            problems.append("give a [sparse] table, a [dense] table, or both; found neither")
        if self.unified and (self.sparse is None or self.dense is None):
            problems.append("unified: needs a [sparse] and a [dense] table")
        for where, table, positive in (
            ("sparse", self.sparse, ("lanes", "clock_hz", "efficiency")),
            ("dense", self.dense, ("arrays", "array_rows", "array_cols", "clock_hz", "efficiency")),
            ("memory", self.memory, ("bytes_per_s", "stream_efficiency", "random_efficiency")),
        ):
            for key in positive if table is not None else ():
                if getattr(table, key).value <= 0:
                    problems.append(f"{where}.{key}: found 0, allowed a number > 0")
        if self.buffer_slots.value < 1:
            problems.append(f"buffer_slots: found {self.buffer_slots.value}, allowed >= 1")
        raise_all(problems)

    def constants(self) -> dict[str, Constant]:
        """Every constant by dotted name."""
        found: dict[str, Constant] = {}
        for part in ("sparse", "dense", "memory", "energy"):
            table = getattr(self, part)
            for key in table.__slots__ if table is not None else ():
                value = getattr(table, key)
                if isinstance(value, Constant):
                    found[f"{part}.{key}"] = value
        found["buffer_slots"] = self.buffer_slots
        found["link_bytes_per_s"] = self.link_bytes_per_s
        return found


def list_accelerators() -> list[str]:
    """Names of the built-in accelerators."""
    folder = resources.files("gnnbench") / "catalogue" / "accelerators"
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def load_accelerator(name_or_path: str | Path) -> Accelerator:
    """Read an accelerator file, or a built-in by name.

    Raises:
        UnknownName: no such built-in (with a suggestion).
        SpecError: every problem of the file in one go.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        return _parse(read_toml(Path(name_or_path)), text)
    name = text.lower()
    if name not in list_accelerators():
        raise UnknownName("accelerator", text, list_accelerators())
    folder = resources.files("gnnbench") / "catalogue" / "accelerators"
    with resources.as_file(folder / f"{name}.toml") as path:
        return _parse(read_toml(path), name)


def sparse_engine(device: Accelerator) -> SparseEngine:
    """The device's sparse engine; SpecError when it has none."""
    if device.sparse is None:
        raise SpecError(f"--sparse {device.name}: has a dense engine only; {_with('sparse')}")
    return device.sparse


def dense_engine(device: Accelerator) -> DenseEngine:
    """The device's dense engine; SpecError when it has none."""
    if device.dense is None:
        raise SpecError(f"--dense {device.name}: has a sparse engine only; {_with('dense')}")
    return device.dense


def _with(part: str) -> str:
    devices = [load_accelerator(name) for name in list_accelerators()]
    return f"allowed: {', '.join(d.name for d in devices if getattr(d, part) is not None)}"


def _parse(table: dict[str, Any], where: str) -> Accelerator:
    problems: list[str] = []
    device = build(Accelerator, table, where, problems)
    raise_all(problems)
    assert device is not None
    return device
