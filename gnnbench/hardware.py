"""The parts of a machine: host, device, links, disk, price, power and NCCL, in SI units.

A cluster file has one table of each, see `gnnbench.cluster`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gnnbench.ladder import STATUSES
from gnnbench.strict import bounds, choices

ARCHITECTURES = (
    "cpu",
    "maxwell",
    "volta",
    "turing",
    "ampere",
    "ada",
    "hopper",
    "blackwell",
    "cdna",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A constant of a machine, with status and source."""

    value: float = field(metadata=bounds(0))
    status: str = field(metadata=choices(*STATUSES))
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One machine. `cores` are physical cores that ranks, samplers and staging share."""

    devices_per_host: int = field(metadata=bounds(1, 4096))
    cores: int = field(metadata=bounds(1, 65536))
    memory_bytes: Constant
    memory_bytes_per_s: Constant
    hosts_max: int = field(default=1, metadata=bounds(1, 1_000_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakFlops:
    """Peak multiply-and-add rates by precision, multiply and add counted apart, dense."""

    float32: Constant
    float64: Constant | None = None
    tf32: Constant | None = None
    bfloat16: Constant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The device of one rank.

    cache_bytes     last cache before memory (L2 of a GPU, last level of a CPU)
    launch_s        fixed cost of one operation as a framework issues it
    context_bytes   memory of a process or device context before any data, of the approach with the
                    least code
    code_bytes      what the code of an approach adds to that, by its name; of approaches that are
                    not listed, by the name of their family, such as "temporal", else nothing
    threads         CPU threads of a rank (1 on a GPU: the issuing thread)
    arch            "cpu", or the GPU generation: sets the defaults of uncalibrated operations
    """

    name: str
    kind: str = field(metadata=choices("cpu", "gpu"))
    arch: str = field(default="cpu", metadata=choices(*ARCHITECTURES))
    peak_flops_per_s: PeakFlops
    memory_bytes_per_s: Constant
    cache_bytes: Constant
    memory_bytes: Constant
    launch_s: Constant
    context_bytes: Constant
    code_bytes: dict[str, Constant] | None = None
    threads: int = field(default=1, metadata=bounds(1, 4096))

    def baseline_bytes(self, *names: str) -> int:
        """What a rank holds before any data; `names` of its approach and of the family, in turn."""
        known = self.code_bytes or {}
        more = next((known[name].value for name in names if name in known), 0.0)
        return round(self.context_bytes.value + more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link per rank and direction, or one that all ranks of a host share (`shared`)."""

    bytes_per_s: Constant
    latency_s: Constant
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Between ranks of one host, between hosts, and between a device and its host's memory."""

    intra: Link
    inter: Link
    host: Link | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPoint:
    """One point of a sweep of the disk: all lanes' bytes per second together.

    `depth` lanes work at a time, each with one request of `block_bytes` in flight; in direction
    "mixed" every second lane writes (at depth 1, every second request).
    """

    direction: str = field(metadata=choices("read", "write", "mixed"))
    block_bytes: int = field(metadata=bounds(1))
    depth: int = field(metadata=bounds(1))
    bytes_per_s: float = field(metadata=bounds(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The disk of a host: one resource, shared by all its ranks and by both directions.

    A lane that waits for each request before it issues the next is slowed by latency; several lanes
    overlap their latencies until the disk is busy all the time. See `disk_seconds`.

    read_bytes_per_s   bandwidth with many large requests in flight; write_bytes_per_s: of writes
    iops               small reads per second with many in flight
    latency_s          of one small read while the disk is idle
    write_iops, write_latency_s   of writes; as reads where absent
    volume             whether requests and bytes have limits of their own, as a rented volume has
                       and as data sheets state them: the one that is reached first decides, and
                       they do not add up
    method             how a sweep kept the page cache out: "O_DIRECT" or "fadvise"; "" without one
    radius             90 % of the sweep's points lie within exp(+-radius) of `disk_seconds`
    sweep              what was measured
    """

    read_bytes_per_s: Constant
    write_bytes_per_s: Constant
    iops: Constant
    latency_s: Constant
    write_iops: Constant | None = None
    write_latency_s: Constant | None = None
    volume: bool = False
    method: str = field(default="", metadata=choices("", "O_DIRECT", "fadvise"))
    radius: float = field(default=0.8, metadata=bounds(0, 10))
    sweep: tuple[DiskPoint, ...] = ()

    def constants(self, *, write: bool) -> tuple[Constant, Constant, Constant]:
        """Bandwidth, latency and requests per second of a direction."""
        if not write:
            return self.read_bytes_per_s, self.latency_s, self.iops
        # Disks that state one rate are taken to write as they read.
        latency = self.latency_s if self.write_latency_s is None else self.write_latency_s
        return self.write_bytes_per_s, latency, self.write_iops or self.iops


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Rent of one host, on demand and on spot; `date` is the date of the rates.

    instance   name of the host at the provider, such as "p4d.24xlarge"
    """

    usd_per_hour: Constant
    date: str
    region: str = ""
    instance: str = ""
    spot_usd_per_hour: Constant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Power of one device in watts, and joules of what it computes and moves (simulation 8).

    idle_w, limit_w         of an idle device; the most that the board draws
    training_w              mean during training: a reading of this device; absent without one
    joules_per_flop         multiply and add counted apart
    joules_per_byte         of device memory; *_cache_byte: of the last cache; *_link_byte: between
                            devices; *_host_byte: between a device and its host
    overhead                energy of the site over that of its devices (PUE)
    """

    idle_w: Constant
    limit_w: Constant
    training_w: Constant | None = None
    joules_per_flop: Constant
    joules_per_byte: Constant
    joules_per_cache_byte: Constant
    joules_per_link_byte: Constant
    joules_per_host_byte: Constant
    overhead: Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Nccl:
    """Constants of NCCL's tuner. `*_bytes_per_s_per_channel` as its topology search prints.

    host_s and factor correct the tuner: seconds = host_s + factor * tuner (simulation 4.3).
    """

    version: str
    channels: int = field(metadata=bounds(1, 64))
    intra_bytes_per_s_per_channel: Constant
    inter_bytes_per_s_per_channel: Constant
    host_s: Constant
    factor: Constant
    cpu: str = field(default="intel", metadata=choices("intel", "amd", "mixed"))
    nvls: bool = False
