"""Seconds of NCCL collectives between hosts, from tables of nccl-tests over several host counts.

Times of one size are interpolated between measured numbers of hosts along what the algorithm's
latency grows with: an all-reduce (trees) with the log of the hosts, an all-gather or reduce-scatter
(rings) and an all-to-all (messages) with the ranks. Of an all-to-all only the bytes to other hosts
count, so its times are those per share of bytes that leave. Beyond the measured numbers of hosts
the last two continue. Sizes are interpolated in logs, which keeps switches of protocols.

A cluster without a table gets the times of those with one, at sizes over the rate of a host's
network: a floor stays, a rate scales. Bytes are those of the whole buffer, as in
`collective_tables`.
"""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from gnnbench.costs.collective_tables import Timed
from gnnbench.costs.devices import read_text
from gnnbench.costs.fit import conformal_radius
from gnnbench.costs.kernel_fit import Judged
from gnnbench.costs.kernels import Floats

COLUMNS = {"gpu", "nodes", "gpus_per_node", "fabric", "op", "bytes", "time_us_out"}
_NAME = {"alltoall": "all_to_all"}
_SETTINGS = {"all_to_all": "setup(5)"}
_TUNED = "setup(4)"
"""Of a system measured with several settings of its environment, the one that its operators
recommend: 4, and 5 for all-to-all. The first is plain TCP (reference on public measurements)."""
SYSTEM_RADIUS = 0.6
"""90 % radius on a cluster whose network has no table: what eight public figures of four other
networks need (A100 on EFA and InfiniBand, V100 on InfiniBand and EFA)."""

Curve = tuple[Floats, Floats]
"""Log bytes, rising, and log seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Hosts of a table: `per_host` GPUs each, and bytes per second of a host's network each way."""

    name: str
    per_host: int
    host_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """Curves by system, operation and number of hosts."""

    curves: Mapping[tuple[System, str, int], Curve]

    def without(self, system: System, op: str, hosts: int) -> Between:
        """The table without a number of hosts of a system and operation."""
        left_out = (system, op, hosts)
        return Between(curves={k: c for k, c in self.curves.items() if k != left_out})

    def systems(self, op: str) -> list[System]:
        return list(dict.fromkeys(s for s, o, _ in self.curves if o == op))

    def seconds(self, system: System, op: str, hosts: int, size: float) -> float | None:
        """Seconds on a system with curves; None where two numbers of hosts are not measured."""
        counts = sorted(n for s, o, n in self.curves if (s, o) == (system, op))
        if hosts in counts:
            return math.exp(_read(self.curves[system, op, hosts], size))
        if len(counts) < 2:
            return None
        above = next((n for n in counts if n > hosts), counts[-1])
        high = max(counts.index(above), 1)
        low_n, high_n = counts[high - 1], counts[high]
        low, top = (
            math.exp(_read(self.curves[system, op, n], size)) / _leaving(op, n)
            for n in (low_n, high_n)
        )
        at, start, end = (_growth(op, n, system.per_host) for n in (hosts, low_n, high_n))
        value = low + (top - low) * (at - start) / (end - start)
        return max(value, 0.5 * min(low, top)) * _leaving(op, hosts)


def _growth(op: str, hosts: int, per_host: int) -> float:
    return math.log2(hosts) if op == "all_reduce" else float(hosts * per_host - 1)


def _leaving(op: str, hosts: int) -> float:
    return (hosts - 1) / hosts if op == "all_to_all" else 1.0


def _read(curve: Curve, size: float) -> float:
    """Log seconds at a size: the floor below the curve, its last rate beyond."""
    sizes, seconds = curve
    at = math.log(max(size, 1.0))
    return float(np.interp(at, sizes, seconds)) + max(at - float(sizes[-1]), 0.0)


def is_between_table(text: str) -> bool:
    """Whether a CSV is a table of collectives between hosts."""
    return set(next(csv.reader(io.StringIO(text)), [])) >= COLUMNS


def read_between(text: str) -> tuple[Between, dict[str, int]]:
    """A table of collectives between hosts, and its rows left out by reason."""
    times: dict[tuple[System, str, int], dict[float, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    left_out: dict[str, int] = defaultdict(int)
    for row in csv.DictReader(io.StringIO(text)):
        found = row_of(row)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            system, op, hosts = found
            seconds = float(row["time_us_out"]) * 1e-6
            times[system, op, hosts][float(row["bytes"])].append(seconds)
    curves = {}
    for key, by_size in times.items():
        sizes = sorted(by_size)
        medians = [statistics.median(by_size[size]) for size in sizes]
        curves[key] = np.log(sizes), np.log(medians)
    return Between(curves=curves), dict(left_out)


def row_of(row: Mapping[str, str]) -> tuple[System, str, int] | str:
    """System, operation and hosts of a row, or why it is left out."""
    op = _NAME.get(row["op"], row["op"])
    if op not in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        return f"operation {row['op']}: not a collective of NCCL that is modelled"
    if not row["nodes"] or not row["gpus_per_node"] or not row["bytes"]:
        return "hosts or bytes not stated"
    if not row["time_us_out"]:
        return "time not stated"
    setting = row.get("env", "")
    if setting.startswith("setup(") and not setting.startswith(_SETTINGS.get(op, _TUNED)):
        return "a setting that its operators do not recommend"
    hosts, per_host = int(float(row["nodes"])), int(float(row["gpus_per_node"]))
    rate = _host_rate(row["fabric"])
    if hosts < 2 or rate is None:
        return "one host" if hosts < 2 else f"rate of the network not stated: {row['fabric']}"
    name = f"{row.get('system', '')} {row['gpu']}".strip()
    return System(name=name, per_host=per_host, host_bytes_per_s=rate), op, hosts


def _host_rate(fabric: str) -> float | None:
    """Bytes per second of a host by the words of its fabric: so many cards of so many Gb/s."""
    if re.search(r"tcp|ethernet|gbe", fabric, re.I):
        return None
    cards = re.search(r"(\d+) NIC/node", fabric)
    stated = re.search(r"(\d+)\s?G\b", fabric)
    each = next((r for w, r in (("Slingshot", 2e2), ("HDR", 2e2)) if w in fabric), None)
    gigabits = float(stated[1]) if stated else each
    if gigabits is None:
        return None
    return gigabits * 1e9 / 8.0 * (int(cards[1]) if cards else 1)


@cache
def shipped_between() -> Between:
    """The table that the catalogue holds."""
    return read_between(read_text("between_hosts.csv"))[0]


@cache
def between_time(
    op: str, hosts: int, per_host: int, size: float, host_bytes_per_s: float
) -> Timed | None:
    """Seconds of a collective over several hosts of a cluster; None: nothing to anchor them on.

    Args:
        op: kind of the collective.
        hosts: at least two.
        per_host: ranks on each.
        size: bytes of the whole buffer.
        host_bytes_per_s: what a host's network carries each way.
    """
    table, found = shipped_between(), []
    for system in table.systems(op):
        rate = host_bytes_per_s
        if op == "all_to_all":  # each rank sends a buffer, so a host sends one per rank
            rate *= system.per_host / per_host
        moved = table.seconds(system, op, hosts, size * system.host_bytes_per_s / rate)
        if moved is not None:
            found.append(moved)
    if not found:
        return None
    return Timed(seconds=statistics.geometric_mean(found), grade="transferred", radius=_radius())


@cache
def _radius() -> float:
    hosts = np.concatenate([np.zeros(1), *(j.errors for j in leave_hosts_out(shipped_between()))])
    return max(SYSTEM_RADIUS, conformal_radius(hosts))


def leave_hosts_out(table: Between) -> list[Judged]:
    """Judge each number of hosts by the others of its system; needs three of them.

    Ends are judged by continuing the others.
    """
    errors: dict[str, list[float]] = defaultdict(list)
    for (system, op, hosts), (sizes, seconds) in table.curves.items():
        rest = table.without(system, op, hosts)
        for size, measured in zip(sizes, seconds, strict=True):
            found = rest.seconds(system, op, hosts, math.exp(size))
            if found is not None:
                errors[system.name].append(float(measured) - math.log(found))
    return [
        Judged(
            kernel="nccl between hosts",
            device=name,
            left_out="hosts",
            errors=np.array(values),
            inside=np.array([float(abs(v) <= SYSTEM_RADIUS) for v in values]),
        )
        for name, values in errors.items()
    ]


def judge_between(table: Between) -> tuple[list[Judged], dict[str, int]]:
    """Judge every row by the shipped table, a system that is in it at its other host counts."""
    shipped, reasons = shipped_between(), defaultdict[str, int](int)
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (system, op, hosts), (sizes, seconds) in table.curves.items():
        own = shipped.without(system, op, hosts)
        for size, measured in zip(sizes, seconds, strict=True):
            at = math.exp(size)
            found, radius = own.seconds(system, op, hosts, at), SYSTEM_RADIUS
            if found is None and system not in shipped.systems(op):
                timed = between_time(op, hosts, system.per_host, at, system.host_bytes_per_s)
                found = None if timed is None else timed.seconds
            if found is None:
                reasons[f"{op} of {system.name}: no other number of hosts to judge it by"] += 1
                continue
            errors[system.name].append((float(measured) - math.log(found), radius))
    judged = [
        Judged(
            kernel="nccl between hosts",
            device=name,
            left_out="hosts",
            errors=np.array([e for e, _ in pairs]),
            inside=np.array([float(abs(e) <= r) for e, r in pairs]),
        )
        for name, pairs in errors.items()
    ]
    return judged, dict(reasons)
