"""The fabric of a cluster: links that several devices or hosts share, and hosts of several kinds.

    [[nodes]]                       hosts of one kind; ranks fill them in this order
    type = "dgx-a100"               a built-in cluster, or a cluster file beside this one
    count = 2

    [nodes.fabric]                  what devices of such a host share; every part is optional
    peers = "nvlink"                how devices of a host reach each other: "nvlink" or "pcie"
    switch = { devices = 2, bytes_per_s = { value = 2.5e10, status = "datasheet", source = "..." } }

    [fabric]                        switches above the hosts
    leaf = { hosts = 4, oversubscription = { value = 2, status = "assumed", source = "..." } }

A fabric only adds limits: what the file says of `links` stays, and a link that no fabric declares
limits nothing. Rates are those of one direction; both directions have them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from gnnbench.errors import SpecError, suggest
from gnnbench.hardware import Constant
from gnnbench.strict import bounds, choices

NVLINK, PCIE = "nvlink", "pcie"
Place = tuple[str | int, ...]
"""A node of the graph, such as ("switch", host, number) or ("leaf", number)."""
CORE: Place = ("core",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A link that so many neighbouring devices of a host share."""

    devices: int = field(metadata=bounds(1, 4096))
    bytes_per_s: Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Switches with so many hosts below each.

    `oversubscription` is the bandwidth of all links from below over that of the links upwards.
    """

    hosts: int = field(metadata=bounds(1, 1_000_000))
    oversubscription: Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """Shared links inside hosts and between them.

    peers    how devices of one host reach each other: over "nvlink", which loads no switch and no
             socket, or over "pcie"
    switch   PCIe switch: the link to its socket
    socket   the link to the other sockets of the host
    nic      network adapter of so many devices
    memory   DRAM of a socket (of the host where no socket is declared): copies to and from devices
    leaf     switch above hosts: its links upwards
    spine    switch above leaves
    """

    peers: str = field(default="", metadata=choices("", NVLINK, PCIE))
    switch: Shared | None = None
    socket: Shared | None = None
    nic: Shared | None = None
    memory: Constant | None = None
    leaf: Tier | None = None
    spine: Tier | None = None

    def __post_init__(self) -> None:
        problems = []
        if (self.switch or self.socket) and not self.peers:
            problems.append(
                'peers: missing, expected "nvlink" or "pcie": whether traffic between devices of a '
                "host crosses its switches and sockets"
            )
        for name in ("switch", "socket", "nic"):
            part = getattr(self, name)
            if part is not None and part.bytes_per_s.value <= 0:
                problems.append(f"{name}.bytes_per_s: found 0, allowed > 0")
        if self.memory is not None and self.memory.value <= 0:
            problems.append("memory: found 0, allowed > 0")
        for name in ("leaf", "spine"):
            tier = getattr(self, name)
            if tier is not None and tier.oversubscription.value < 1:
                problems.append(
                    f"{name}.oversubscription: found {tier.oversubscription.value:g}, allowed >= 1 "
                    "(1: as much bandwidth upwards as from below)"
                )
        problems += _nested("socket", self.socket, "switch", self.switch, "devices")
        problems += _nested("spine", self.spine, "leaf", self.leaf, "hosts")
        if self.spine is not None and self.leaf is None:
            problems.append("spine: needs a leaf below it")
        if problems:
            raise SpecError(problems)

    @property
    def inside(self) -> tuple[str, ...]:
        """The parts of a host that are declared."""
        names = ("peers", "switch", "socket", "nic", "memory")
        return tuple(name for name in names if getattr(self, name))

    @property
    def limits_copies(self) -> bool:
        """Whether copies between devices and their host share a declared link."""
        return bool(self.switch or self.socket or self.memory)


def _nested(
    outer: str, above: Shared | Tier | None, inner: str, below: Shared | Tier | None, what: str
) -> list[str]:
    """A problem if what is above does not hold whole ones of what is below."""
    if above is None or below is None or getattr(above, what) % getattr(below, what) == 0:
        return []
    return [
        f"{outer}.{what}: found {getattr(above, what)}, allowed a multiple of the "
        f"{getattr(below, what)} of {inner}.{what}"
    ]


# -- hosts of several kinds ----------------------------------------------------------------------

_OWN = ("schema", "name", "description", "date", "nodes", "fabric")
_OF_NODE = ("type", "count", "devices", "fabric", "cluster")
_OF_TYPES = [
    "transport",
    "host",
    "device",
    "links",
    "storage",
    "power",
    "nccl",
    "price",
    "software",
    "speed_probe_s",
    "ops",
    "collectives",
]


def expanded(
    table: Mapping[str, Any],
    where: str,
    load: Callable[[str], Mapping[str, Any]],
    problems: list[str],
) -> dict[str, Any]:
    """The table of a cluster with each node's type written out under `nodes.cluster`.

    Args:
        table: of a cluster file that has nodes.
        where: its path; other files are looked for beside it.
        load: the whole table of a cluster, by name or path.
        problems: gets a line for each mistake.
    """
    found = dict(table)
    for key in _OF_TYPES:
        if found.pop(key, None) is not None:
            problems.append(
                f"{where}.{key}: not allowed beside nodes, whose types state it; to change it, "
                "write a type as a file (gnnbench info NAME --toml)"
            )
    for key in found:
        if key not in _OWN:
            problems.append(f"{where}.{key}: unknown key, {suggest(str(key), _OWN)}")
    nodes = table["nodes"]
    if not isinstance(nodes, list | tuple) or not nodes:
        problems.append(f"{where}.nodes: found {nodes!r}, expected [[nodes]] with type and count")
        return found
    found["nodes"] = [
        _node(node, f"{where}.nodes[{at}]", where, load, problems) for at, node in enumerate(nodes)
    ]
    first = found["nodes"][0].get("cluster") if isinstance(found["nodes"][0], Mapping) else None
    if isinstance(first, Mapping):
        if len(nodes) == 1:
            # Hosts of one kind are a plain cluster with so many of them.
            fabric = {**(first.get("fabric") or {}), **_table(found.get("fabric"))}
            named = {key: found[key] for key in _OWN if key in found and key != "nodes"}
            return {**first, **named, **({"fabric": fabric} if fabric else {})}
        # Where one value is needed for the whole cluster, it is that of the first kind of host.
        # Rent and power are kept for each kind.
        shared = [key for key in _OF_TYPES if key in first and key not in ("price", "power")]
        found |= {key: first[key] for key in shared}
        counts = [node.get("count") for node in found["nodes"] if isinstance(node, Mapping)]
        hosts = sum(count for count in counts if isinstance(count, int))
        if isinstance(first.get("host"), Mapping):
            found["host"] = {**first["host"], "hosts_max": max(hosts, 1)}
    return found


def _node(
    node: Any,
    at: str,
    where: str,
    load: Callable[[str], Mapping[str, Any]],
    problems: list[str],
) -> Any:
    if not isinstance(node, Mapping) or not isinstance(node.get("type"), str):
        problems.append(f"{at}.type: missing, expected a cluster such as dgx-a100 or a file")
        return node
    for key in node:
        if key not in _OF_NODE:
            problems.append(f"{at}.{key}: unknown key, {suggest(str(key), _OF_NODE)}")
    count = node.get("count")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        problems.append(f"{at}.count: found {count!r}, expected a whole number of hosts >= 1")
        return node
    if "cluster" in node:
        return dict(node)
    name = node["type"]
    path = Path(where).parent / name if name.endswith(".toml") or "/" in name else None
    kind = dict(load(name if path is None else str(path)))
    if kind.get("nodes"):
        problems.append(f"{at}.type: {name} has nodes itself, expected a cluster of one kind")
        return node
    host, devices = dict(kind["host"]), node.get("devices", 0)
    if isinstance(devices, int) and devices:
        if devices > host["devices_per_host"]:
            problems.append(
                f"{at}.devices: found {devices}, allowed <= {host['devices_per_host']}, the "
                f"devices of a host of {name}"
            )
        host["devices_per_host"] = devices
    host["hosts_max"] = count
    kind["host"] = host
    given = {key: value for key, value in node.items() if key != "fabric"}
    if "fabric" in node:
        kind["fabric"] = node["fabric"]
    return {**given, "cluster": {k: v for k, v in kind.items() if v is not None}}


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def check_kinds(kinds: Sequence[tuple[str, Any]], top: Fabric | None) -> list[str]:
    """What keeps hosts of several kinds from forming one cluster; kinds are (type, cluster)."""
    problems = []
    if top is not None and top.inside:
        problems.append(
            f"fabric.{top.inside[0]}: not allowed beside nodes: say it in [nodes.fabric] of each "
            "type that has it"
        )
    first_name, first = kinds[0]
    for name, kind in kinds:
        if kind.fabric is not None and (kind.fabric.leaf or kind.fabric.spine):
            problems.append(f"nodes {name}: leaf and spine belong under [fabric] of the cluster")
        for what, mine, its in (
            ("transport", first.transport, kind.transport),
            ("device.kind", first.device.kind, kind.device.kind),
        ):
            if mine != its:
                problems.append(
                    f"nodes: {first_name} has {what} {mine!r} and {name} {its!r}; ranks of one run "
                    "need the same"
                )
        mine, its = first.host.devices_per_host, kind.host.devices_per_host
        if mine != its:
            problems.append(
                f"nodes: {first_name} has {mine} devices on a host and {name} {its}; every host "
                f"gives as many ranks: set devices = {min(mine, its)} for both"
            )
    return problems


# -- the graph -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPart:
    """One host of the graph: devices in use, shared links, and bytes per second to the network."""

    devices: int
    fabric: Fabric
    out_bytes_per_s: float


def fabric_graph(
    hosts: Sequence[HostPart], leaf: Tier | None, spine: Tier | None, total: int
) -> Any:
    """Devices, switches, sockets, memories, adapters, leaves and spines as a networkx.DiGraph.

    Every edge has `bytes_per_s` of its direction, infinite where nothing declares it.

    Args:
        hosts: the hosts that a run uses, the first ones of the cluster.
        leaf, spine: the tiers above hosts.
        total: hosts of the cluster; those that a run leaves idle lend it their leaf's uplinks.
    """
    import networkx as nx

    graph = nx.DiGraph()
    for host, part in enumerate(hosts):
        for nic in _host_graph(graph, host, part):
            rate = inf if part.fabric.nic is None else part.fabric.nic.bytes_per_s.value
            above: Place = CORE if leaf is None else ("leaf", host // leaf.hosts)
            _join(graph, nic, above, rate)
    if leaf is None:
        return graph
    for number in range(-(-len(hosts) // leaf.hosts)):
        up = _below(hosts, number * leaf.hosts, leaf.hosts, total) / leaf.oversubscription.value
        at: Place = ("leaf", number)
        above = CORE if spine is None else ("spine", number * leaf.hosts // spine.hosts)
        _join(graph, at, above, up)
    if spine is not None:
        less = leaf.oversubscription.value * spine.oversubscription.value
        for number in range(-(-len(hosts) // spine.hosts)):
            up = _below(hosts, number * spine.hosts, spine.hosts, total) / less
            _join(graph, ("spine", number), CORE, up)
    return graph


def _below(hosts: Sequence[HostPart], start: int, count: int, total: int) -> float:
    """Bytes per second of the hosts below a switch to the network; idle hosts are as the last."""
    last = min(start + count, max(total, len(hosts)))
    return sum(hosts[min(at, len(hosts) - 1)].out_bytes_per_s for at in range(start, last))


def _host_graph(graph: Any, host: int, part: HostPart) -> list[Place]:
    """Add a host; return its network adapters."""
    fabric, root = part.fabric, ("host", host)
    sockets = 1 if fabric.socket is None else -(-part.devices // fabric.socket.devices)

    def socket_of(device: int) -> Place:
        return root if fabric.socket is None else ("socket", host, device // fabric.socket.devices)

    def switch_of(device: int) -> Place:
        if fabric.switch is None:
            return socket_of(device)
        return ("switch", host, device // fabric.switch.devices)

    for device in range(part.devices):
        _join(graph, ("device", host, device), switch_of(device), inf)
        if fabric.switch is not None:
            rate = fabric.switch.bytes_per_s.value
            _join(graph, switch_of(device), socket_of(device), rate)
        if fabric.socket is not None:
            # A single socket has no other to send to.
            rate = fabric.socket.bytes_per_s.value if sockets > 1 else inf
            _join(graph, socket_of(device), root, rate)
        socket = socket_of(device)
        rate = inf if fabric.memory is None else fabric.memory.value
        _join(graph, socket, ("memory", host, socket[2] if len(socket) > 2 else 0), rate)
    reach = part.devices if fabric.nic is None else fabric.nic.devices
    nics: list[Place] = []
    for number in range(-(-part.devices // reach)):
        nic: Place = ("nic", host, number)
        first = number * reach
        at: Place = root
        # An adapter is at the lowest place above all of its devices.
        if fabric.switch is not None and reach <= fabric.switch.devices:
            at = switch_of(first)
        elif fabric.socket is not None and reach <= fabric.socket.devices:
            at = socket_of(first)
        _join(graph, at, nic, inf)
        nics.append(nic)
    return nics


def _join(graph: Any, below: Place, above: Place, bytes_per_s: float) -> None:
    graph.add_edge(below, above, bytes_per_s=bytes_per_s)
    graph.add_edge(above, below, bytes_per_s=bytes_per_s)


def host_part(cluster: Any, host: int, ranks_per_host: int) -> HostPart:
    """A host of a cluster in which so many devices are used."""
    kind = cluster.of_host(host)
    fabric, inter = kind.fabric or Fabric(), kind.links.inter
    out = inter.bytes_per_s.value * (1 if inter.shared else ranks_per_host)
    if fabric.nic is not None:
        out = fabric.nic.bytes_per_s.value * -(-ranks_per_host // fabric.nic.devices)
    return HostPart(devices=ranks_per_host, fabric=fabric, out_bytes_per_s=out)


_LISTED_HOSTS = 256


def shared_links(cluster: Any) -> list[dict[str, object]]:
    """The declared links of a cluster, alike ones together: how many, how fast, who shares them.

    Of a cluster with more hosts, the first 256 are looked at.
    """
    if all(kind.fabric is None for kind in (cluster, *cluster.kinds)):
        return []
    hosts = min(cluster.host.hosts_max, _LISTED_HOSTS)
    top, per_host = cluster.fabric or Fabric(), cluster.host.devices_per_host
    parts = [host_part(cluster, host, per_host) for host in range(hosts)]
    graph = fabric_graph(parts, top.leaf, top.spine, cluster.host.hosts_max)
    found: dict[tuple[str, str, float, int], int] = {}
    for below, above, rate in graph.edges(data="bytes_per_s"):
        if rate == inf or _ORDER.index(below[0]) >= _ORDER.index(above[0]):
            continue
        of = cluster.of_host(below[1]).name if below[0] in _IN_HOST else cluster.name
        share = getattr(top, below[0]).hosts * per_host if below[0] not in _IN_HOST else None
        if share is None:
            part = getattr(cluster.of_host(below[1]).fabric, below[0], None)
            share = min(part.devices, per_host) if isinstance(part, Shared) else per_host
        found[below[0], of, rate, share] = found.get((below[0], of, rate, share), 0) + 1
    return [
        {
            "link": f"{sort} of {of}",
            "number": number,
            "GB/s each way": f"{rate / 1e9:.3g}",
            "devices that share it": share,
        }
        for (sort, of, rate, share), number in found.items()
    ]


_IN_HOST = ("memory", "device", "switch", "socket", "host", "nic")
_ORDER = ("memory", "device", "switch", "socket", "host", "nic", "leaf", "spine", "core")
"""Places from the lowest to the highest; a link belongs to the lower of its ends."""
