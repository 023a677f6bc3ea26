"""Seconds of NCCL collectives inside a host, from tables of measured latencies.

Times are interpolated between measured sizes in logs, so that launch floor, protocol switches and
multicast regimes are those of the table, and all-to-all is what was measured, not a ring. For a
number of ranks between two measured ones, the floor grows with the steps of a ring, and the rest
with the bytes that a link carries. A device without a table gets those of devices on the same
fabric, as functions of bytes over link bandwidth: a floor stays, a rate scales. The floor also goes
with what a load waits for beyond the cache. Devices of its own generation count most, because NCCL
picks protocols by generation, then those of like links.

Bytes are those of the whole buffer: what all ranks hold together for all-gather and reduce-scatter,
what one rank holds (its own part included) for all-reduce and all-to-all.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from gnnbench.costs.devices import DeviceFacts, facts_of, read_text
from gnnbench.costs.fit import conformal_radius
from gnnbench.costs.kernel_fit import Judged
from gnnbench.costs.kernels import Floats

COLUMNS = {"device", "op_name", "num_gpus", "bytes", "seconds"}
_SUSTAINED = 0.76
"""Share of a datasheet's link rate that a send sustains: as fitted on DGX A100 and DGX H100."""
_SAME_LINK, _OTHER_FABRIC = 0.05, 3.0
"""Log ratio of link rates up to which a host is one of the tables, and ratio from which it is
another fabric."""
_OTHER_GENERATION = 0.05
"""Weight of a donor of another GPU generation beside one of the same."""
_LIKE_LINKS = 1.0
"""Log ratio of link rates at which a donor weighs 1/e: rates tell generations of switches apart."""
_MULTICAST = ("hopper", "blackwell")
"""Generations whose switches add up and multicast."""
_NAME = {"alltoall": "all_to_all"}

Curve = tuple[Floats, Floats]
"""Log bytes, rising, and log seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Measured curves of some devices by operation and ranks."""

    curves: Mapping[tuple[str, str, int], Curve]

    def devices(self) -> list[str]:
        """Names of devices with curves, in the order of the table."""
        return list(dict.fromkeys(device for device, _, _ in self.curves))

    def without(self, *, device: str = "", ranks: int = 0) -> Table:
        """The table without a device, or without a number of ranks of every device."""
        kept = {k: c for k, c in self.curves.items() if k[0] != device and k[2] != ranks}
        return Table(curves=kept)

    def own(self, device: str, op: str, ranks: int, size: float) -> tuple[float, bool] | None:
        """Log seconds on a device with curves, and whether just so many ranks were measured."""
        counts = sorted(n for d, o, n in self.curves if (d, o) == (device, op))
        if ranks in counts:
            return _read(self.curves[device, op, ranks], size), True
        below = max((n for n in counts if n < ranks), default=None)
        above = min((n for n in counts if n > ranks), default=None)
        if below is None or above is None:
            return None
        low, high = (self._parts(device, op, n, size) for n in (below, above))
        steps = (ranks - below) / (above - below)
        floor = low[0] + steps * (high[0] - low[0])
        facts = facts_of(device)
        if facts is not None and _multicast(facts, op, above) and not _multicast(facts, op, below):
            rest = (
                high[1] * _traffic(op, ranks, multicast=True) / _traffic(op, above, multicast=True)
            )
        else:
            at, start, end = (_traffic(op, n, multicast=False) for n in (ranks, below, above))
            rest = low[1] + (at - start) / (end - start) * (high[1] - low[1])
        return math.log(floor + rest), False

    def _parts(self, device: str, op: str, ranks: int, size: float) -> tuple[float, float]:
        """Seconds of a measured curve's floor, and what a size takes beyond it."""
        curve = self.curves[device, op, ranks]
        floor = math.exp(float(curve[1][0]))
        return floor, max(math.exp(_read(curve, size)) - floor, 0.0)

    def moved(self, facts: DeviceFacts, op: str, ranks: int, size: float) -> float | None:
        """Log seconds on a device without curves, from those of others on its fabric."""
        total, weights = 0.0, 0.0
        for name in self.devices():
            donor = facts_of(name)
            if donor is None or donor.fabric != facts.fabric or donor.device == facts.device:
                continue
            if donor.link_bytes_per_s is None or facts.link_bytes_per_s is None:
                continue
            ratio = donor.link_bytes_per_s / facts.link_bytes_per_s
            found = self.own(name, op, ranks, size * ratio)
            floor = self.own(name, op, ranks, 1.0)
            if found is not None and floor is not None:
                least = math.exp(floor[0])
                rest = max(math.exp(found[0]) - least, 0.0)
                rest *= _traffic(op, ranks, multicast=_multicast(facts, op, ranks))
                rest /= _traffic(op, ranks, multicast=_multicast(donor, op, ranks))
                moved = math.log(least * _slower(facts, donor) + rest)
                weight = math.exp(-abs(math.log(ratio)) / _LIKE_LINKS)
                weight *= 1.0 if donor.arch == facts.arch else _OTHER_GENERATION
                total, weights = total + weight * moved, weights + weight
        return total / weights if weights else None


def _multicast(facts: DeviceFacts, op: str, ranks: int) -> bool:
    """Whether the switch adds up and multicasts (NVLS): all-reduces of three ranks or more."""
    able = facts.arch in _MULTICAST and facts.fabric == "nvswitch"
    return able and op == "all_reduce" and ranks > 2


def _traffic(op: str, ranks: int, *, multicast: bool) -> float:
    """Bytes that a rank's link carries each way, over those of the buffer."""
    if multicast:
        return 1.0 + 1.0 / ranks
    return (2.0 if op == "all_reduce" else 1.0) * (ranks - 1.0) / ranks


def _slower(facts: DeviceFacts, donor: DeviceFacts) -> float:
    """A floor over that of a donor, by what a load waits for beyond the cache.

    Steps of a protocol are chains of loads and stores of what other GPUs wrote. The clock does not
    order the measured floors: that of B200 is the longest.
    """
    waits = [_beyond_cache_s(f) for f in (facts, donor)]
    return 1.0 if waits[0] is None or waits[1] is None else waits[0] / waits[1]


def _beyond_cache_s(facts: DeviceFacts) -> float | None:
    if facts.memory_latency_s is None or facts.cache_latency_s is None:
        return None
    return facts.memory_latency_s - facts.cache_latency_s


def _read(curve: Curve, size: float) -> float:
    """Log seconds at a size: the floor below the curve, its last rate beyond."""
    sizes, seconds = curve
    at = math.log(max(size, 1.0))
    return float(np.interp(at, sizes, seconds)) + max(at - float(sizes[-1]), 0.0)


def is_collective_table(text: str) -> bool:
    """Whether a CSV is a table of collectives inside a host."""
    return set(next(csv.reader(io.StringIO(text)), [])) >= COLUMNS


def read_table(text: str) -> tuple[Table, dict[str, int]]:
    """A table of collectives; several versions of NCCL are one, by the median. Rows left out."""
    times: dict[tuple[str, str, int], dict[float, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    left_out: dict[str, int] = defaultdict(int)
    for row in csv.DictReader(io.StringIO(text)):
        facts = facts_of(row["device"])
        if facts is None:
            left_out[f"device {row['device']}: no facts"] += 1
            continue
        op = _NAME.get(row["op_name"], row["op_name"])
        key = facts.device, op, int(float(row["num_gpus"]))
        times[key][float(row["bytes"])].append(float(row["seconds"]))
    curves = {}
    for key, by_size in times.items():
        sizes = sorted(by_size)
        medians = [statistics.median(by_size[size]) for size in sizes]
        curves[key] = np.log(sizes), np.log(medians)
    return Table(curves=curves), dict(left_out)


@cache
def shipped_table() -> Table:
    """The table that the catalogue holds."""
    return read_table(read_text("collectives.csv"))[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of a collective, the rung they rest on and the radius that it earned."""

    seconds: float
    grade: str
    radius: float


@cache
def _radii() -> dict[str, float]:
    """90 % radius of what was left out of the shipped table: sizes by device, ranks, devices."""
    table = shipped_table()
    found = {j.device: conformal_radius(j.errors) for j in leave_sizes_out(table)}
    for name, judged in (("ranks", leave_ranks_out(table)), ("device", leave_devices_out(table))):
        found[name] = conformal_radius(np.concatenate([j.errors for j in judged]))
    return found


@cache
def collective_time(
    device: str, op: str, ranks: int, size: float, link_bytes_per_s: float = 0.0
) -> Timed | None:
    """Seconds of a collective inside a host of such devices; None: nothing to anchor them on.

    Args:
        device: its name.
        op: kind of the collective.
        ranks: of the group, all on the host.
        size: bytes of the whole buffer.
        link_bytes_per_s: what a device's link sustains, where the host states it. A rate other than
            that of the hosts of the tables moves their curves; one far from it is another fabric.
    """
    facts = facts_of(device)
    if facts is None:
        return None
    if link_bytes_per_s and facts.link_bytes_per_s:
        ratio = _SUSTAINED * facts.link_bytes_per_s / link_bytes_per_s
        if not 1.0 / _OTHER_FABRIC < ratio < _OTHER_FABRIC:
            return None
        if abs(math.log(ratio)) > _SAME_LINK:
            found = collective_time(device, op, ranks, size * ratio)
            rung = "transferred"
            return None if found is None else dataclasses.replace(found, grade=rung)
    table = shipped_table()
    own = table.own(facts.device, op, ranks, size)
    if own is not None:
        where, just_so = own
        grade = "measured elsewhere" if just_so else "transferred"
        radius = _radii()[facts.device]
        radius = radius if just_so else max(radius, _radii()["ranks"])
        return Timed(seconds=math.exp(where), grade=grade, radius=radius)
    # One host of a fabric earns no interval for another.
    donors = [d for d in table.devices() if (f := facts_of(d)) and f.fabric == facts.fabric]
    moved = table.moved(facts, op, ranks, size) if len(donors) > 1 else None
    if moved is None:
        return None
    return Timed(seconds=math.exp(moved), grade="transferred", radius=_radii()["device"])


# -- what is left out ---


def leave_sizes_out(table: Table) -> list[Judged]:
    """Judge each size by its two neighbours; the ends of a curve are judged by one."""
    errors: dict[str, list[float]] = defaultdict(list)
    for (device, _, _), (sizes, seconds) in table.curves.items():
        for place in range(len(sizes)):
            rest = np.delete(sizes, place), np.delete(seconds, place)
            errors[device].append(float(seconds[place]) - _read(rest, math.exp(sizes[place])))
    return _judged(errors, "size")


def leave_ranks_out(table: Table) -> list[Judged]:
    """Judge the counts of ranks that lie between two measured ones."""
    errors: dict[str, list[float]] = defaultdict(list)
    for (device, op, ranks), (sizes, seconds) in table.curves.items():
        rest = table.without(ranks=ranks)
        for size, measured in zip(sizes, seconds, strict=True):
            found = rest.own(device, op, ranks, math.exp(size))
            if found is not None:
                errors[device].append(float(measured) - found[0])
    return _judged(errors, "ranks")


def leave_devices_out(table: Table) -> list[Judged]:
    """Judge each device by the curves of the others on its fabric."""
    errors: dict[str, list[float]] = defaultdict(list)
    for (device, op, ranks), (sizes, seconds) in table.curves.items():
        facts, rest = facts_of(device), table.without(device=device)
        assert facts is not None
        for size, measured in zip(sizes, seconds, strict=True):
            found = rest.moved(facts, op, ranks, math.exp(size))
            if found is not None:
                errors[device].append(float(measured) - found)
    return _judged(errors, "device")


def _judged(errors: Mapping[str, Sequence[float]], left_out: str) -> list[Judged]:
    """A left-out device's interval is earned on the other devices.

    That of sizes or ranks is earned on the device itself: each half of its points on the other.
    """
    arrays = {device: np.array(values) for device, values in errors.items()}
    judged = []
    for device, own in arrays.items():
        others = [values for name, values in arrays.items() if name != device]
        if left_out == "device" and others:
            radius = np.full(len(own), conformal_radius(np.concatenate(others)))
        else:
            odd = np.arange(len(own)) % 2 == 1
            radius = np.where(odd, conformal_radius(own[~odd]), conformal_radius(own[odd]))
        inside = (np.abs(own) <= radius).astype(float)
        judged.append(
            Judged(kernel="nccl", device=device, left_out=left_out, errors=own, inside=inside)
        )
    return judged
