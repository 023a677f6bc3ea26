"""Seconds of local steps: calibrated here, else measured elsewhere, else a datasheet roofline.

A calibrated operation uses the constants for the number of ranks that share the host. For an
operation that was not calibrated, measurements of the same device model elsewhere are used, or
those of another device, scaled by the bandwidths of both (`gnnbench.costs.elsewhere`). Without any,
a roofline of the device's peak rates is used (grade "datasheet"), never the constants of another
operation; on a calibrated cluster the prediction names the operation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gnnbench.cluster import Cluster, Device, OpModel, Storage
from gnnbench.costs.elsewhere import step_model
from gnnbench.costs.facts import Facts, Floats, column
from gnnbench.costs.forms import FORM_OF_KIND, form
from gnnbench.costs.launches import launches
from gnnbench.costs.model import op_seconds
from gnnbench.costs.ranges import beyond, outside, radius_of
from gnnbench.costs.storage import COPY_RADIUS, disk_seconds
from gnnbench.errors import Unsupported
from gnnbench.ladder import grade, weakest
from gnnbench.steps import STORAGE, Engine, Kind, Step, Work
from gnnbench_simulator.pieces import GAP_OP, Item, Pieces, Places

PROBE_OP = "speed_probe"
"""What a fixed kernel took, again and again, while the machine was calibrated."""

_ZERO = np.zeros(1)


@dataclass(frozen=True, slots=True)
class CostClass:
    """Steps whose times depend on the same constants, so that their errors are correlated.

    `uncalibrated`: others of the cluster's operations are calibrated, and this one is not.
    `outside`: shapes that lie outside of the range in which the operation was measured. `shared`:
    share of the variance of its errors that the steps of one run have in common; None: not known.
    """

    name: str
    grade: str
    radius: float
    uncalibrated: bool = False
    outside: tuple[str, ...] = ()
    shared: float | None = None


# Fractions of peak compute and bandwidth that fp32 kernels sustain, by GPU generation. Source:
# simulation 5.1 and 5.2 (Turing, Volta, Ampere, Hopper fitted on public measurements); CPU
# assumed.
EFFICIENCY: Mapping[str, tuple[float, float]] = {
    "cpu": (0.70, 0.80),
    "maxwell": (0.61, 0.80),  # compute as the next generation's (P100 fp32), bandwidth assumed
    "turing": (0.40, 0.81),
    "volta": (0.82, 0.80),
    "ampere": (0.76, 0.78),
    "ada": (0.29, 0.80),  # compute of the L4, which its 72 W throttle; bandwidth assumed
    "hopper": (0.73, 0.80),
    "blackwell": (0.70, 0.80),
    "cdna": (0.70, 0.80),  # assumed, as Blackwell: no fp32 kernel of AMD is in the tables
}
_RANDOM_ROWS = 0.7  # of stream bandwidth, rows of 128-512 B; simulation 5.3, unverified
_CACHE_SPEEDUP = 3.0  # bandwidth of the last cache over memory; assumed
_CACHE_SHARE = 0.75  # of a cache that one operand can hold; simulation 5.3, unverified
_DRAWN_BYTES = 1000.0
"""Memory traffic, at 0.3 of the bandwidth, that takes as long as to draw one edge on a device: the
index, insertion into a hash table by atomics, and renumbering. Fitted to the sampling times of two
published rows (ogbn-products on a V100: 3.7 ns per edge), which are not scored."""
_SORTED_BYTES = 88.0
"""The same of an entry that is only sorted or routed: a sector, and 56 B of a table (5.5)."""
_NO_DRAWS = (
    "device_prepare_blocks",
    "prepare_attention",
    "prepare_blocks",
    "prepare_weighted",
    "route",
)
ON_DEVICE = "device_"
"""Begins the name of an operation of others' software that draws on the device."""
_OF_HOST = (Kind.SAMPLE, Kind.HOST)
_INGESTED_S = 4.0e-7
"""Seconds in which a core inserts an edge into a store of a stream: 200,000 events between 20,000
vertices, one core of an AMD EPYC that others used as well (30 November 2026)."""
_RADII = {
    Kind.GEMM: 0.35,
    Kind.ELEMENTWISE: 0.35,
    Kind.OPTIMIZER: 0.45,
    Kind.COPY: COPY_RADIUS,
    Kind.SPMM: 0.7,
    Kind.SDDMM: 0.7,
    Kind.GATHER: 0.7,
    Kind.SCATTER: 0.8,
    Kind.SAMPLE: 0.8,
}
_DEFAULT_RADIUS = 0.8


class Durations:
    """Seconds of local steps for ranks of one cluster, `co_located` of them on each host.

    On a CPU, `lanes` of a rank that work at once slow each other down as that many ranks do: they
    share caches and memory, and two of them may be hardware threads of one core.
    """

    def __init__(
        self, cluster: Cluster, *, co_located: int = 1, lanes: int = 1, element_bytes: float = 4.0
    ) -> None:
        self.cluster, self.co_located, self.element_bytes = cluster, co_located, element_bytes
        self.classes: dict[str, CostClass] = {}
        self._spent: dict[str, float] = defaultdict(float)
        busy = co_located * (lanes if cluster.device.kind == "cpu" else 1)
        self._models = _choose(cluster, busy)
        self._gap = self._models.get(GAP_OP)
        if self._gap is not None:
            self.classes[GAP_OP] = CostClass(
                GAP_OP, grade(self._gap.status), self._gap.radius, shared=self._gap.shared
            )

    def price(self, pieces: Pieces) -> tuple[list[Floats], list[Floats], list[str]]:
        """Seconds, seconds until the next step, and cost class of each piece of work, in order.

        The seconds of one piece are [ranks]. Communication between ranks takes zero here and has
        no cost class: its time depends on all ranks of the group (see `network`).
        """
        seconds: list[Floats] = [_ZERO] * len(pieces.items)
        labels = [""] * len(pieces.items)
        for group in pieces.groups:
            cost, values = self._one_call(group.op, group.kind, group.hosted, group.facts)
            if group.calls is not None:
                values = values * group.calls
            self._add(cost, float(values.sum()))
            for i, span in zip(group.index, group.spans, strict=True):
                seconds[i], labels[i] = values[span], cost.name
        return seconds, self._gaps(pieces), labels

    def _add(self, cost: CostClass, seconds: float) -> None:
        """Join a class with what was priced of it before; its radius is the mean over its time."""
        before = self._spent[cost.name]
        self._spent[cost.name] = before + seconds
        known = self.classes.get(cost.name)
        if known is not None and before > 0:
            share = seconds / (before + seconds)
            radius = (1.0 - share) * known.radius + share * cost.radius
            outside = tuple(dict.fromkeys((*known.outside, *cost.outside)))
            cost = replace(cost, radius=radius, outside=outside)
        self.classes[cost.name] = cost

    def seconds(self, steps: Sequence[Step]) -> tuple[Floats, list[str]]:
        """Seconds and cost class of single ranks' steps."""
        items = [Item(step.work, 1, step.lane.engine is Engine.HOST) for step in steps]
        seconds, _, labels = self.price(Pieces(items, self.element_bytes))
        return np.concatenate([np.zeros(0), *seconds]), labels

    @property
    def has_gaps(self) -> bool:
        """Whether the cluster knows seconds that a framework spends between steps."""
        return self._gap is not None

    def _gaps(self, pieces: Pieces) -> list[Floats]:
        """Seconds that a framework spends after each step, calibrated apart from the steps."""
        model = self._gap
        if model is None:
            return [_ZERO] * len(pieces.items)
        if model.form != GAP_OP:  # files of older versions know one gap for all steps
            once = Work(kind=Kind.HOST, op=GAP_OP, rows=1)
            return [op_seconds(model, Facts.of([once]))] * len(pieces.items)
        facts, spans = pieces.gaps
        each = op_seconds(model, facts)
        return [each[span] for span in spans]

    def _one_call(
        self, op: str, kind: Kind, hosted: bool, facts: Facts
    ) -> tuple[CostClass, Floats]:
        if kind in STORAGE:
            disk, write = self._disk(), kind is Kind.WRITE
            seconds = disk_seconds(disk, facts.bytes, facts.rows, write=write)[1]
            worst = weakest([grade(c.status) for c in disk.constants(write=write)])
            return CostClass(op, worst, disk.radius), seconds
        model = self._models.get(op)
        if model is not None:
            seconds, over = op_seconds(model, facts), beyond(model, facts)
            # Steps that matter most decide how far the class may be off.
            weights = np.maximum(seconds, 1e-12)
            radius = float(np.average(radius_of(model, facts, over), weights=weights))
            where = tuple(outside(model, facts, over, seconds)) if over.any() else ()
            known = CostClass(op, grade(model.status), radius, outside=where, shared=model.shared)
            return known, seconds
        uncalibrated, device = bool(self._models), self.cluster.device
        # Drawing and keeping house are code of the host, whatever lane waits for them.
        hosted = hosted or (kind in _OF_HOST and not op.startswith(ON_DEVICE))
        issued, table = launches(op), None
        if device.kind == "gpu" and not hosted:
            table = step_model(device.name, kind.value, facts)
        if table is not None:
            # Tables time kernels; what issues them works ahead, and bounds the time from below.
            kernels, floor = table.on(device).seconds_of(facts), device.launch_s
            rung, radius = table.grade, table.form.radius
            # Where most launches take longer than their kernels, their evidence is what counts.
            if 2 * np.count_nonzero(kernels < issued * floor.value) > len(kernels):
                rung = weakest([rung, grade(floor.status)])
                radius = max(radius, _RADII.get(kind, _DEFAULT_RADIUS))
            cost = CostClass(op, rung, radius, uncalibrated)
            return cost, np.maximum(issued * floor.value, kernels)
        radius, rung = _RADII.get(kind, _DEFAULT_RADIUS), "datasheet"
        if kind is Kind.COPY and self.cluster.links.host is not None:
            rung = grade(self.cluster.links.host.bytes_per_s.status)
        assumed = CostClass(op, rung, radius, uncalibrated)
        return assumed, self._datasheet(op, kind, hosted, facts)

    def _datasheet(self, op: str, kind: Kind, hosted: bool, facts: Facts) -> Floats:
        if kind is Kind.COPY and self.cluster.links.host is not None:
            link = self.cluster.links.host
            copied: Floats = link.latency_s.value + facts.bytes / link.bytes_per_s.value
            return copied
        if hosted or self.cluster.device.kind == "cpu":
            return _cpu_defaults(self.cluster, op, kind, facts)
        return _gpu_defaults(self.cluster.device, op, kind, facts)

    def disk_busy(self, work: Work, ranks: int, places: Places | None = None) -> Floats:
        """Seconds for which a read or write keeps the disk busy, [ranks]; `places` as of `Item`."""
        size, requests = (column([size], [ranks], ranks) for size in (work.bytes, work.rows))
        return disk_seconds(self._disk(), size, requests, write=work.kind is Kind.WRITE)[0]

    def _disk(self) -> Storage:
        if self.cluster.storage is None:
            raise Unsupported(
                f"cluster {self.cluster.name} has no [storage], and the run reads or writes the "
                "disk: measure it on the machine with `gnnbench calibrate --only disk --out FILE`, "
                "or add the section to the cluster file"
            )
        return self.cluster.storage


def calibrated(cluster: Cluster, op: str, co_located: int) -> OpModel | None:
    """The operation's model for this many co-located ranks, else for the next lower or higher."""
    models = [m for m in cluster.ops if m.op == op]
    below = [m for m in models if m.co_located <= co_located]
    if below:
        return max(below, key=lambda m: m.co_located)
    return min(models, key=lambda m: m.co_located, default=None)


def _choose(cluster: Cluster, co_located: int) -> dict[str, OpModel]:
    """One model per operation, see `calibrated`."""
    names = dict.fromkeys(model.op for model in cluster.ops)
    found = {op: calibrated(cluster, op, co_located) for op in names}
    return {op: model for op, model in found.items() if model is not None}


def _gpu_defaults(device: Device, op: str, kind: Kind, facts: Facts) -> Floats:
    compute, memory = EFFICIENCY[device.arch]
    stream = memory * device.memory_bytes_per_s.value
    flops = compute * device.peak_flops_per_s.float32.value
    cache = _CACHE_SHARE * device.cache_bytes.value
    params = {"t0_s": launches(op) * device.launch_s.value}
    name = FORM_OF_KIND.get(kind, "roofline")
    if name == "gemm":
        name = "roofline"
    if name == "roofline":
        params |= {"s_per_flop": 1.0 / flops, "s_per_byte": 1.0 / stream}
    elif name in ("spmm", "gather"):
        near = 1.0 / (_CACHE_SPEEDUP * stream)
        params |= {
            "line_bytes": 32.0,
            "s_per_byte": near,
            "s_per_missed_byte": 1.0 / (_RANDOM_ROWS * stream) - near,
            "s_per_edge": 4.0 / stream,
            "s_per_row": 8.0 / stream,
            "s_per_out_byte": 1.0 / stream,
            "near_cache_bytes": cache,
            "cache_bytes": cache,
        }
        if name == "gather":
            width = facts.width * facts.element_bytes
            written: Floats = facts.rows * width / stream
            return form(name).seconds(facts, params) + written
    else:
        effective = 0.3 * device.memory_bytes_per_s.value
        params |= {
            "t0_s": 10 * device.launch_s.value,
            "s_per_row": 16.0 / effective,
            "s_per_edge": (_SORTED_BYTES if op in _NO_DRAWS else _DRAWN_BYTES) / effective,
            "cache_bytes": cache,
        }
    return form(name).seconds(facts, params)


def _cpu_defaults(cluster: Cluster, op: str, kind: Kind, facts: Facts) -> Floats:
    """Rooflines of a rank's CPU threads; random access and draws at assumed rates (section 5.5)."""
    device, host = cluster.device, cluster.host
    compute, memory = EFFICIENCY["cpu"]
    if device.kind == "cpu":
        stream, cache = memory * device.memory_bytes_per_s.value, device.cache_bytes.value
        flops = compute * device.peak_flops_per_s.float32.value
        threads, launch = device.threads, device.launch_s.value
    else:
        # A worker thread beside a GPU: about 10 GB/s and 50 GFLOP/s of a server core (assumed).
        stream, cache = min(1.0e10, memory * host.memory_bytes_per_s.value), 3.2e7
        flops, threads, launch = 5.0e10, device.threads, 1.0e-5
    params = {
        "t0_s": launches(op) * launch,
        "near_cache_bytes": 1.0e6,
        "cache_bytes": _CACHE_SHARE * cache,
    }
    name = FORM_OF_KIND.get(kind, "roofline")
    if op == "ingest":
        return np.asarray(params["t0_s"] + _INGESTED_S * facts.rows)
    if name in ("gemm", "roofline"):
        name = "roofline"
        params |= {"s_per_flop": 1.0 / flops, "s_per_byte": 1.0 / stream}
    elif name in ("spmm", "gather"):
        near = 1.0 / (_CACHE_SPEEDUP * stream)
        params |= {
            "s_per_byte": near,
            "s_per_missed_byte": 1.0 / (_RANDOM_ROWS * stream) - near,
            "s_per_edge": 1.0e-9 / threads,
            "s_per_row": 5.0e-9 / threads,
            "s_per_out_byte": 1.0 / stream,
        }
    else:
        params |= {
            "s_per_row": 2.0e-8 / threads,
            "s_per_edge": 5.0e-8 / threads,
            "s_per_missed_edge": 2.0e-8 / threads,
            "s_per_vertex": 2.0e-8 / threads,
        }
    return form(name).seconds(facts, params)
