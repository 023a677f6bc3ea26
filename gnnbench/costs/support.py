"""Which rung of evidence each operation has on each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gnnbench.cluster import Cluster, Constant
from gnnbench.costs.between_hosts import between_time
from gnnbench.costs.collective_tables import Timed, collective_time
from gnnbench.costs.devices import devices, facts_of
from gnnbench.costs.elsewhere import PREFERRED, model_of
from gnnbench.costs.kernels import KERNELS
from gnnbench.costs.storage import COPY_RADIUS
from gnnbench.ladder import grade, weakest
from gnnbench.steps import Kind

COLLECTIVES = (Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.REDUCE_SCATTER, Kind.ALL_TO_ALL)
LOCAL = (
    Kind.SPMM,
    Kind.SDDMM,
    Kind.GEMM,
    Kind.GATHER,
    Kind.SCATTER,
    Kind.SAMPLE,
    Kind.ELEMENTWISE,
    Kind.OPTIMIZER,
)
_RANKS, _BYTES = 8, 2.0**20
_HOSTS = 4
_NAMES: Mapping[tuple[str, float], str] = {
    ("spmm", 4.0): "spmm (cuSPARSE, fp32)",
    ("sddmm", 4.0): "sddmm (RoDe, fp32)",
    ("gemm", 2.0): "gemm (bf16)",
    ("gemm", 4.0): "gemm (fp32)",
    ("gather", 4.0): "gather",
    ("scatter", 4.0): "scatter",
    ("elementwise", 4.0): "elementwise",
    ("optimizer", 4.0): "optimizer",
}
_WITHOUT_TABLE = {
    "sddmm": ("sddmm (DGL, PyG)", "a table of the SDDMM kernels of frameworks on any GPU"),
    "gemm": ("gemm (tf32)", "a table of TF32 products on any GPU"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """The rung of an operation on a device, and the 90 % radius (log) that it earned.

    `missing` names the measurement that would lift it; None where the rung is the first.
    """

    device: str
    operation: str
    rung: str
    radius: float | None
    missing: str | None


def supported(device: str) -> list[Support]:
    """What the catalogue knows of a device: local operations and collectives."""
    found: list[Support] = []
    for kind in LOCAL:
        pairs = [pair for pair in PREFERRED if pair[0] == kind.value]
        found += [_local(device, pair) for pair in pairs]
        if not pairs:
            found.append(_datasheet(device, kind.value, f"a table of {kind.value} on any GPU"))
        if kind.value in _WITHOUT_TABLE:
            found.append(_datasheet(device, *_WITHOUT_TABLE[kind.value]))
    for kind in COLLECTIVES:
        timed = collective_time(device, kind.value, _RANKS, _BYTES)
        missing = "a table of NCCL on this device"
        found.append(_timed(device, f"{kind.value} in a host", timed, missing))
    rate = _RANKS * _NETWORK_BYTES_PER_S
    for kind in COLLECTIVES:
        op = "all_gather" if kind is Kind.REDUCE_SCATTER else kind.value
        timed = between_time(op, _HOSTS, _RANKS, _BYTES, rate)
        missing = "nccl-tests on this network, on two numbers of hosts at least"
        found.append(_timed(device, f"{kind.value} between hosts", timed, missing))
    return found


_NETWORK_BYTES_PER_S = 2.5e10
"""Of the network card at which the rung of collectives between hosts is asked for."""


def _local(device: str, pair: tuple[str, float]) -> Support:
    kernel = PREFERRED[pair]
    model = model_of(kernel, device)
    if model is None:
        return _datasheet(device, _NAMES[pair], _missing(kernel, device))
    own = model.grade == "measured elsewhere"
    return Support(
        device=device,
        operation=_NAMES[pair],
        rung=model.grade,
        radius=model.form.radius,
        missing=None if own else f"a table of {kernel} on this device",
    )


def _timed(device: str, name: str, timed: Timed | None, missing: str) -> Support:
    if timed is None:
        return _datasheet(device, name, missing)
    own = timed.grade == "measured elsewhere"
    return Support(
        device=device,
        operation=name,
        rung=timed.grade,
        radius=timed.radius,
        missing=None if own else missing,
    )


def supported_by(cluster: Cluster) -> list[Support]:
    """As `supported`, with what was calibrated on the cluster in its place."""
    found = supported(cluster.device.name)
    calibrated = {m.kind: (grade(m.status), m.radius) for m in cluster.ops}
    calibrated |= {
        f"{m.op} in a host": (grade(m.status), m.radius)
        for m in cluster.collectives
        if m.layout == "intra"
    }
    lifted = []
    for entry in found:
        key = entry.operation if "host" in entry.operation else entry.operation.split(" (")[0]
        if key in calibrated and not any(t in entry.operation for t in ("bf16", "tf32", "RoDe")):
            rung, radius = calibrated[key]
            entry = Support(
                device=cluster.name,
                operation=entry.operation,
                rung=rung,
                radius=radius,
                missing=None,
            )
        lifted.append(entry)
    return [*lifted, *_moved(cluster)]


def _moved(cluster: Cluster) -> list[Support]:
    """The rungs of copies to the device, and of the disk."""
    found = []
    if cluster.links.host is not None:
        rate = cluster.links.host.bytes_per_s
        remedy = "a copy from pinned memory, timed on this machine (nvbandwidth)"
        found.append(_constant(cluster.name, "copy to the device", (rate,), COPY_RADIUS, remedy))
    remedy = "`gnnbench calibrate --only disk` on this machine"
    for write, name in ((False, "read"), (True, "write")):
        if cluster.storage is None:
            found.append(_datasheet(cluster.name, name, f"[storage] of this cluster: {remedy}"))
        else:
            constants = cluster.storage.constants(write=write)
            radius = cluster.storage.radius
            found.append(_constant(cluster.name, name, constants, radius, remedy))
    return found


def _constant(
    name: str, operation: str, constants: Sequence[Constant], radius: float, remedy: str
) -> Support:
    rung = weakest([grade(c.status) for c in constants])
    return Support(
        device=name,
        operation=operation,
        rung=rung,
        radius=None if rung == "datasheet" else radius,
        missing=None if rung.startswith("measured") else remedy,
    )


def known_devices() -> Sequence[str]:
    """Devices of the catalogue of measured constants."""
    return list(devices())


def _datasheet(device: str, operation: str, missing: str) -> Support:
    return Support(
        device=device, operation=operation, rung="datasheet", radius=None, missing=missing
    )


def _missing(kernel: str, device: str) -> str:
    """What is needed of a device before others' tables of a kernel can be transferred to it."""
    facts = facts_of(device)
    if facts is None:
        return "facts of this device (devices.csv)"
    lacking = [name for name in KERNELS[kernel].known if not getattr(facts, name)]
    return f"{' and '.join(lacking)} of this device" if lacking else f"a table of {kernel}"
