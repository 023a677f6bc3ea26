"""Which rung of evidence each operation has on each device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnnbench.cluster import Cluster
from gnnbench.costs.collective_tables import collective_time
from gnnbench.costs.devices import devices, facts_of
from gnnbench.costs.elsewhere import PREFERRED, model_of
from gnnbench.costs.kernels import KERNELS
from gnnbench.ladder import grade
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
_TABLE_OF = {"cusparse": "cuSPARSE, fp32", "rode_sddmm": "RoDe, fp32", "gemm": "bf16"}
_WITHOUT_TABLE = {
    "gemm": ("gemm (fp32)", "a table of fp32 products on any GPU"),
    "sddmm": ("sddmm (DGL, PyG)", "a table of the SDDMM kernels of frameworks on any GPU"),
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
    """What the catalogue knows of a device: local operations, and collectives inside a host."""
    found = []
    for kind in LOCAL:
        kernel, _ = PREFERRED.get(kind.value, ("", 0.0))
        name = f"{kind.value} ({_TABLE_OF[kernel]})" if kernel else kind.value
        model = model_of(kernel, device) if kernel else None
        if model is not None:
            found.append(
                Support(
                    device=device,
                    operation=name,
                    rung=model.grade,
                    radius=model.form.radius,
                    missing=None
                    if model.grade == "measured elsewhere"
                    else f"a table of {kernel} on this device",
                )
            )
        else:
            missing = _missing(kernel, device) if kernel else f"a table of {kind.value} on any GPU"
            found.append(_datasheet(device, name, missing))
        if kind.value in _WITHOUT_TABLE:
            found.append(_datasheet(device, *_WITHOUT_TABLE[kind.value]))
    for kind in COLLECTIVES:
        timed = collective_time(device, kind.value, _RANKS, _BYTES)
        name, missing = f"{kind.value} in a host", "a table of NCCL on this device"
        if timed is None:
            found.append(_datasheet(device, name, missing))
            continue
        own = timed.grade == "measured elsewhere"
        found.append(
            Support(
                device=device,
                operation=name,
                rung=timed.grade,
                radius=timed.radius,
                missing=None if own else missing,
            )
        )
    return found


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
        if key in calibrated and not any(t in entry.operation for t in ("bf16", "RoDe")):
            rung, radius = calibrated[key]
            entry = Support(
                device=cluster.name,
                operation=entry.operation,
                rung=rung,
                radius=radius,
                missing=None,
            )
        lifted.append(entry)
    return lifted


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
