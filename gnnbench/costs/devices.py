"""Facts of accelerators: datasheet figures, and the bandwidths that others measured on them."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

FOLDER = "catalogue/measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What kernel forms need of a device; None: nobody has measured it, or no source states it.

    memory_bytes_per_s   datasheet; stream_bytes_per_s: the most that a streaming kernel sustained
    cache_bytes_per_s    reads that hit the last cache, measured on `cache_from`: there as it is, or
                         per processor and clock (which meets H200 from H100 PCIe within 2 %, L40
                         from A40 within 8 %)
    cache_latency_s      a load whose address is what the load before it found, in a table that fits
    memory_latency_s     the last cache, and in one that does not; else those of `cache_from`
    launch_s             one small kernel after another in a stream, measured on `launch_from`
    lanes                fp32 multiply-adds per processor and clock
    link_bytes_per_s     per device and direction, datasheet; `fabric` says between whom:
                         "nvswitch", "mesh" (NVLinks between pairs), "pcie" or "" (none stated)
    """

    device: str
    aliases: tuple[str, ...]
    arch: str
    fabric: str
    memory_bytes_per_s: float
    stream_bytes_per_s: float | None
    cache_bytes: float
    cache_bytes_per_s: float | None
    cache_from: str
    cache_latency_s: float | None
    memory_latency_s: float | None
    processors: float
    fp32_flops_per_s: float
    bf16_flops_per_s: float | None
    lanes: float
    launch_s: float | None
    launch_from: str
    link_bytes_per_s: float | None
    source: str

    @property
    def issue_per_s(self) -> float:
        """Processors times clock: instructions per second of one scheduler slot of each."""
        return self.fp32_flops_per_s / (2.0 * self.lanes)

    @property
    def clock_hz(self) -> float:
        """Clock at which the datasheet's peak is reached."""
        return self.issue_per_s / self.processors


_TEXT = ("device", "arch", "fabric", "cache_from", "launch_from", "source")


def read_text(name: str) -> str:
    """A file of the folder of measured constants, as text."""
    return (resources.files("gnnbench") / FOLDER / name).read_text(encoding="utf-8")


@cache
def devices() -> dict[str, DeviceFacts]:
    """Every device of `catalogue/measured/devices.csv`, by its own name."""
    found = {}
    for row in csv.DictReader(io.StringIO(read_text("devices.csv"))):
        numbers = {
            key: float(value) if value else None
            for key, value in row.items()
            if key not in _TEXT and key != "aliases"
        }
        aliases = tuple(row["aliases"].split(";"))
        texts = {key: row[key] for key in _TEXT}
        found[row["device"]] = DeviceFacts(aliases=aliases, **texts, **numbers)  # type: ignore[arg-type]
    return {name: _completed(facts, found) for name, facts in found.items()}


def _completed(facts: DeviceFacts, known: Mapping[str, DeviceFacts]) -> DeviceFacts:
    """Cache and launch of a device that has none of its own, from those that its row names."""
    cache, launch = known.get(facts.cache_from), known.get(facts.launch_from)
    rate, seconds = facts.cache_bytes_per_s, facts.launch_s
    near, far = facts.cache_latency_s, facts.memory_latency_s
    if cache is not None:
        near, far = near or cache.cache_latency_s, far or cache.memory_latency_s
    if rate is None and cache is not None and cache.cache_bytes_per_s is not None:
        rate = cache.cache_bytes_per_s * facts.issue_per_s / cache.issue_per_s
    if seconds is None and launch is not None:
        seconds = launch.launch_s
    return dataclasses.replace(
        facts,
        cache_bytes_per_s=rate,
        launch_s=seconds,
        cache_latency_s=near,
        memory_latency_s=far,
    )


@cache
def facts_of(name: str) -> DeviceFacts | None:
    """Facts of a device by its name or an alias, as cluster files and public tables write them."""
    for facts in devices().values():
        if name == facts.device or name in facts.aliases:
            return facts
    return None
