"""Facts of accelerators: datasheet figures, and the bandwidths that others measured on them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import cache
from importlib import resources

FOLDER = "catalogue/measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What kernel forms need of a device; None: nobody has measured it, or no source states it.

    memory_bytes_per_s   datasheet; stream_bytes_per_s: the most that a streaming kernel sustained
    cache_bytes_per_s    reads that hit the last cache, measured on `cache_from`
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
    def own_cache(self) -> bool:
        """Whether cache and launch were measured on a device of this model."""
        return self.device == self.cache_from == self.launch_from


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
    return found


@cache
def facts_of(name: str) -> DeviceFacts | None:
    """Facts of a device by its name or an alias, as cluster files and public tables write them."""
    for facts in devices().values():
        if name == facts.device or name in facts.aliases:
            return facts
    return None
