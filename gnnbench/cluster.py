"""The cluster: hardware constants of runtime and simulator, in SI units, each with its source.

    schema = 1
    name = "desk"
    transport = "gloo"

    [host]                                   counts are plain numbers
    devices_per_host = 2
    cores = 2

    [device]
    kind = "cpu"
    memory_bytes_per_s = { value = 1.2e10, status = "measured", source = "calibrate" }

    [[ops]]                                  one calibrated operation, see `OpModel`
    [[iterations]]                           sums of operations, see `IterationModel`
    [[collectives]]                          one calibrated collective, see `CollectiveModel`

A status tells how a constant is known, see `gnnbench.ladder`; a prediction is graded by the weakest
constant that matters to it. Instead of host, device and links a file may name hosts of several
kinds, and what they share, see `gnnbench.fabric`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from gnnbench.errors import SpecError, UnknownName
from gnnbench.fabric import Fabric, check_kinds, expanded
from gnnbench.hardware import (
    ARCHITECTURES,
    Constant,
    Device,
    DiskPoint,
    Host,
    Link,
    Links,
    Nccl,
    PeakFlops,
    Power,
    Price,
    Storage,
)
from gnnbench.ladder import STATUSES
from gnnbench.strict import bounds, build, choices, raise_all, read_toml
from gnnbench.tomlwriter import format_toml, replace_section

__all__ = [
    "ARCHITECTURES",
    "DEFAULT",
    "LAYOUTS",
    "SCHEMA",
    "TRANSFER",
    "TRANSPORTS",
    "Cluster",
    "CollectiveModel",
    "Constant",
    "Device",
    "DiskPoint",
    "Host",
    "Link",
    "Links",
    "Nccl",
    "Node",
    "OpModel",
    "PeakFlops",
    "Power",
    "Price",
    "Storage",
    "choose_cluster",
    "cluster_text",
    "list_clusters",
    "load_cluster",
    "parse_cluster",
    "probe_script",
    "save_cluster",
    "save_storage",
]

SCHEMA = 1
TRANSPORTS = ("gloo", "nccl", "gloo_staged")
LAYOUTS = ("intra", "inter")
UNJUDGED = 0.5
"""Log error, and so radius, of samples of a single source: nothing is left to judge them by."""
TRANSFER = "_transfer"
"""Ends the name of a collective's model that holds the transfer alone, without what ranks wait for
one another: to judge bandwidth by, not to predict with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpModel:
    """Seconds of one operation from its step's facts: a physics form, then a bounded residual.

    op            cost class, as `steps.Work.op`
    kind          kind of step
    co_located    ranks that worked on one host at the same time during calibration
    form, params  a form of `gnnbench.costs.forms` and its parameters (SI units)
    residuals     rows of (log features of the form ..., log of measured / form)
    radius        conformal radius r: 90 % of held-out points within exp(+-r)
    blind_radius  the same if the order of a graph's vertices is not known; 0: as `radius`
    range         lowest and highest log feature of the samples, by feature of the form
    stretch       what a unit of log distance beyond that range adds to the radius
    held_out      what was left out for the radius: "kinds of graph" or "workloads"
    shared        share of the variance of held-out errors that the samples of one workload have in
                  common; None: not known
    """

    op: str
    kind: str
    form: str
    params: dict[str, float]
    co_located: int = field(default=1, metadata=bounds(1))
    residuals: tuple[tuple[float, ...], ...] = ()
    radius: float = field(default=0.5, metadata=bounds(0, 10))
    blind_radius: float = field(default=0.0, metadata=bounds(0, 10))
    range: tuple[tuple[float, ...], ...] = ()
    stretch: float = field(default=0.0, metadata=bounds(0, 10))
    held_out: str = ""
    shared: float | None = field(default=None, metadata=bounds(0, 1))
    mape: float = field(default=0.0, metadata=bounds(0))
    points: int = field(default=0, metadata=bounds(0))
    status: str = field(default="measured", metadata=choices(*STATUSES))
    source: str = ""

    @property
    def judged(self) -> bool:
        """Whether the radius was earned; False where all samples were of a single source."""
        constant = math.isclose(self.mape, -math.expm1(-UNJUDGED), abs_tol=1e-6)
        return not (constant and self.radius == UNJUDGED)

    def __post_init__(self) -> None:
        # A coefficient below zero would let a large shape take negative time.
        for name, value in self.params.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise SpecError(f"params.{name}: found {value!r}, allowed a number >= 0")
        # Integers of a TOML file become floats, so that arithmetic does not depend on how a file
        # was written.
        object.__setattr__(self, "params", {k: float(v) for k, v in self.params.items()})
        # Rows of features are stacked into one array.
        if len({len(row) for row in self.residuals}) > 1:
            lengths = sorted({len(row) for row in self.residuals})
            raise SpecError(f"residuals: found rows of lengths {lengths}, allowed one length")


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationModel:
    """How far sums of operations were off on the probes, see `gnnbench.costs.iterations`.

    co_located   ranks that worked on one host at the same time during calibration
    common       share of the variance that the operations of an iteration have in common
    factor       on the radii of operations, so that nine of ten held-out iterations lie inside
    radius       90 % of held-out iterations lie within exp(+-radius) of their predicted sum
    median       median error of those sums
    inside       share of iterations inside, by the factor of other kinds of graph; None: one kind
    iterations   how many were judged
    """

    co_located: int = field(default=1, metadata=bounds(1))
    common: float = field(default=0.0, metadata=bounds(0, 1))
    factor: float = field(default=1.0, metadata=bounds(0, 100))
    radius: float = field(default=0.5, metadata=bounds(0, 10))
    median: float = field(default=0.0, metadata=bounds(0))
    inside: float | None = field(default=None, metadata=bounds(0, 1))
    iterations: int = field(default=0, metadata=bounds(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveModel:
    """Seconds of a collective: latency_s + bytes / bytes_per_s, then a bounded residual.

    `bytes` is the most that any rank sends (`steps.Work.bytes`), for broadcast the buffer. `ranks`
    are those of the group, `co_located` those that used the host meanwhile (0: the group's).
    `residuals` are pairs (log bytes, log of measured / form), by rising size.
    """

    op: str
    ranks: int = field(metadata=bounds(1))
    layout: str = field(metadata=choices(*LAYOUTS))
    co_located: int = field(default=0, metadata=bounds(0))
    latency_s: float = field(metadata=bounds(0))
    bytes_per_s: float = field(metadata=bounds(1e-3))
    residuals: tuple[tuple[float, ...], ...] = ()
    radius: float = field(default=0.5, metadata=bounds(0, 10))
    mape: float = field(default=0.0, metadata=bounds(0))
    points: int = field(default=0, metadata=bounds(0))
    status: str = field(default="measured", metadata=choices(*STATUSES))
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Hosts of one kind in a cluster of several, see `gnnbench.fabric`.

    type      a built-in cluster, or a cluster file
    count     hosts; devices: of each in use, 0: all
    cluster   the type written out, with what was changed of it
    """

    type: str
    count: int = field(metadata=bounds(1, 1_000_000))
    devices: int = field(default=0, metadata=bounds(0, 4096))
    cluster: Cluster | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Devices, hosts, links, storage and prices, with the calibrations made on them.

    speed_probe_s is the time of the fixed probe kernel when the calibration was made (0: none), so
    that drift of the machine can be distinguished from a wrong prediction.
    """

    name: str
    transport: str = field(metadata=choices(*TRANSPORTS))
    host: Host
    device: Device
    links: Links
    schema: int = SCHEMA
    description: str = ""
    date: str = ""
    software: dict[str, str] = field(default_factory=dict)
    storage: Storage | None = None
    price: Price | None = None
    power: Power | None = None
    nccl: Nccl | None = None
    speed_probe_s: float = field(default=0.0, metadata=bounds(0))
    ops: tuple[OpModel, ...] = ()
    iterations: tuple[IterationModel, ...] = ()
    collectives: tuple[CollectiveModel, ...] = ()
    fabric: Fabric | None = None
    nodes: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.schema != SCHEMA:
            problems.append(f"schema: found {self.schema}, allowed: {SCHEMA}")
        # NCCL's times come from its tuner or from a calibration; a lone GPU has no peer to talk to.
        timed = self.nccl is not None or self.collectives or self.host.devices_per_host == 1
        if self.transport == "nccl" and (self.device.kind != "gpu" or not timed):
            problems.append(
                "transport: 'nccl' needs a gpu device, and an [nccl] table or calibrated "
                "[[collectives]]"
            )
        if self.transport == "gloo_staged" and self.links.host is None:
            problems.append("links.host: missing; 'gloo_staged' copies over it")
        seen: set[tuple[object, ...]] = set()
        for model in self.ops:
            # Two models of one operation and contention: which of them predicts would depend on
            # their order.
            seen_key = (model.op, model.co_located)
            if seen_key in seen:
                problems.append(f"ops: {model.op!r} for {model.co_located} co-located ranks twice")
            seen.add(seen_key)
        if self.nodes:
            kinds = [(n.type, n.cluster) for n in self.nodes if n.cluster is not None]
            problems += check_kinds(kinds, self.fabric)
        if problems:
            raise SpecError(problems)

    @property
    def kinds(self) -> tuple[Cluster, ...]:
        """The kinds of hosts: of a cluster without nodes, itself."""
        return tuple(n.cluster for n in self.nodes if n.cluster is not None) or (self,)

    def kind_of(self, host: int) -> int:
        """The kind of a host, counted from zero; hosts beyond the last are as the last."""
        for number, node in enumerate(self.nodes[:-1]):
            if host < node.count:
                return number
            host -= node.count
        return max(len(self.nodes) - 1, 0)

    def of_host(self, host: int) -> Cluster:
        """The constants of a host."""
        return self.kinds[self.kind_of(host)]

    def ranks_per_host(self, world_size: int) -> int:
        """Ranks on a full host when ranks fill one host after the other."""
        # Ranks fill hosts in turn, as launchers place them.
        return min(world_size, self.host.devices_per_host)

    def iteration_errors(self, co_located: int) -> IterationModel | None:
        """What sums of operations were off by with this many co-located ranks.

        As operations do, it takes the next lower number of ranks, else the next higher.
        """
        below = [m for m in self.iterations if m.co_located <= co_located]
        if below:
            return max(below, key=lambda m: m.co_located)
        return min(self.iterations, key=lambda m: m.co_located, default=None)

    def to_table(self) -> dict[str, Any]:
        """Plain nested tables, as the file holds them."""
        table = dataclasses.asdict(self)
        if not self.nodes:
            del table["nodes"]
            return {"schema": table.pop("schema"), **table}
        nodes = [
            {**dataclasses.asdict(n), "cluster": n.cluster and n.cluster.to_table()}
            for n in self.nodes
        ]
        own = ("schema", "name", "description", "date", "fabric")
        return {**{key: table[key] for key in own}, "nodes": nodes}


def list_clusters() -> list[str]:
    """Names of the built-in clusters."""
    folder = resources.files("gnnbench") / "catalogue" / "clusters"
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def load_cluster(name_or_path: str | Path) -> Cluster:
    """Read a cluster file, or a built-in by name.

    Raises:
        UnknownName: no such built-in (with a suggestion).
        SpecError: every problem of the file in one go.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        return parse_cluster(read_toml(Path(name_or_path)), text)
    if text not in list_clusters():
        raise UnknownName("cluster", text, list_clusters())
    with resources.as_file(
        resources.files("gnnbench") / "catalogue/clusters" / f"{text}.toml"
    ) as path:
        return parse_cluster(read_toml(path), text)


def cluster_text(name_or_path: str | Path) -> str:
    """The file of a cluster that is put together from nodes, as it is written; "" of others."""
    text = str(name_or_path)
    folder = resources.files("gnnbench") / "catalogue/clusters"
    path: Any = folder / f"{text}.toml" if text in list_clusters() else Path(text)
    written = str(path.read_text(encoding="utf-8")) if path.is_file() else ""
    return written if "[[nodes]]" in written else ""


def parse_cluster(table: Mapping[str, Any], where: str) -> Cluster:
    """Turn a parsed TOML table into a cluster; SpecError lists every problem."""
    problems: list[str] = []
    if "nodes" in table:
        table = expanded(table, where, lambda name: load_cluster(name).to_table(), problems)
        raise_all(problems)
    cluster = build(Cluster, table, where, problems)
    if cluster is not None and not _is_plain(cluster.name):
        problems.append(
            f"{where}: name: found {cluster.name[:60]!r}; it names folders: allowed are up to 200 "
            "printable characters without / and \\, the first no point"
        )
    if cluster is not None:
        problems += _rates_without_speed(table, f"{where}: ")
    raise_all(problems)
    assert cluster is not None
    return cluster


def _rates_without_speed(table: Mapping[str, Any], where: str, rate: bool = False) -> list[str]:
    """Rates that are 0, at which nothing would ever end."""
    found = []
    for key, entry in table.items():
        is_rate = rate or "_per_s" in key or key.endswith("iops")
        if isinstance(entry, Mapping) and "value" in entry:
            if is_rate and not entry["value"] > 0:
                found.append(f"{where}{key}: found {entry['value']}, a rate is above 0")
        elif isinstance(entry, Mapping):
            found += _rates_without_speed(entry, f"{where}{key}.", is_rate)
    return found


def _is_plain(name: str) -> bool:
    return (
        0 < len(name.encode()) <= 200
        and name[0] != "."
        and name.isprintable()
        and not set(name) & set("/\\")
    )


def save_cluster(cluster: Cluster, path: Path) -> None:
    """Write a cluster file whole or not at all; `load_cluster` reads back an equal cluster."""
    from gnnbench.atomic import write_text

    write_text(path, format_toml(cluster.to_table()))


def save_storage(storage: Storage, path: Path) -> None:
    """Put a [storage] section into a cluster file, in place of the one it has, if any.

    The rest of the file, comments included, stays as it is.
    """
    from gnnbench.atomic import write_text

    text = path.read_text(encoding="utf-8")
    write_text(path, replace_section(text, "storage", dataclasses.asdict(storage)))


def probe_script(cluster: Cluster, question: str, ops: Sequence[str]) -> str:
    """A script of one file that measures some operations and writes this cluster with them.

    Args:
        cluster: as it is known.
        question: JSON: operations with their shapes, see `gnnbench_simulator.probing`.
        ops: their names; what the cluster knows of them is replaced.
    """
    kept = dataclasses.replace(
        cluster,
        name=f"{cluster.name}-probed",
        date="@DATE@",
        ops=tuple(m for m in cluster.ops if m.op not in ops),
        collectives=tuple(m for m in cluster.collectives if m.op not in ops),
    )
    table = kept.to_table()
    for name in ("ops", "collectives"):
        if not table[name]:
            del table[name]  # the script adds entries, which an empty list would forbid
    path = resources.files("gnnbench") / "catalogue/probe.py.txt"
    script = path.read_text(encoding="utf-8")
    text = format_toml(table)
    if '"""' in text or '"""' in question:
        raise SpecError(f"cluster {cluster.name}: three quotes in a text; a script cannot hold it")
    return script.replace("@QUESTION@", question).replace("@CLUSTER@", text)


DEFAULT = "cpu-2core"
"""The cluster of predictions that name none: a generic two-core desktop."""


def choose_cluster(name: str | None, folder: Path | None = None) -> Cluster:
    """The cluster asked for, else the cluster.toml of a results folder, else a generic one."""
    if name:
        return load_cluster(name)
    if folder is not None and (folder / "cluster.toml").is_file():
        return load_cluster(folder / "cluster.toml")
    return load_cluster(DEFAULT)
