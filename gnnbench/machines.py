"""Machines as people ask for them: so many devices of a kind, so many of them on a host.

    p4de.24xlarge       a built-in cluster or a cluster file, at several sizes
    8xp4de.24xlarge     eight devices on hosts of that kind
    8xa100-80:4         eight A100-80GB, four on a host: every built-in cluster that can do it

A cluster file describes one kind of host and the fabric between hosts; a machine is a number of
those hosts. Whole hosts are paid for, also where ranks use only some of their devices.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from gnnbench.cluster import Cluster, list_clusters, load_cluster, parse_cluster
from gnnbench.errors import SpecError, UnknownName, suggest

HOSTS = (1, 2, 4, 8)
"""Numbers of hosts that are tried where none is asked for."""
MOST_RANKS = 32
"""Ranks that are tried at most where no number is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Hosts of one cluster: `ranks` devices in use, `per_host` of them on each host."""

    cluster: Cluster
    ranks: int
    per_host: int

    @property
    def hosts(self) -> int:
        return -(-self.ranks // self.per_host)

    @property
    def name(self) -> str:
        """Such as "2 x p4de.24xlarge", or with idle devices "2 x p4de.24xlarge:4"."""
        used = "" if self.per_host == self.cluster.host.devices_per_host else f":{self.per_host}"
        return f"{self.hosts} x {plain_name(self.cluster)}{used}"

    @property
    def devices(self) -> str:
        """Such as "8 A100-SXM4-80GB"."""
        counts: dict[str, int] = {}
        for host in range(self.hosts):
            used = min(self.per_host, self.ranks - host * self.per_host)
            name = self.cluster.of_host(host).device.name
            counts[name] = counts.get(name, 0) + used
        return " + ".join(f"{number} {name}" for name, number in counts.items())

    def usd_per_hour(self, *, spot: bool = False) -> float | None:
        """Rent of all hosts; None where the rate is not known."""
        if not self.cluster.nodes:
            rate = self._rate(self.cluster, spot=spot)
            return None if rate is None else rate * self.hosts
        rates = [self._rate(self.cluster.of_host(host), spot=spot) for host in range(self.hosts)]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if len(known) == self.hosts else None

    @staticmethod
    def _rate(kind: Cluster, *, spot: bool) -> float | None:
        if kind.price is None:
            return None
        rate = kind.price.spot_usd_per_hour if spot else kind.price.usd_per_hour
        return None if rate is None else rate.value


def plain_name(cluster: Cluster) -> str:
    """The name of a cluster without the constants that were changed."""
    return cluster.name.partition("+")[0]


@cache
def _gpu_hosts() -> tuple[Cluster, ...]:
    """The built-in clusters of GPUs; those with several kinds of hosts or switches are left out."""
    found = [load_cluster(name) for name in list_clusters()]
    # A cluster with switches above its hosts is made of hosts that are listed themselves.
    plain = [c for c in found if not c.nodes and (c.fabric is None or c.fabric.leaf is None)]
    return tuple(c for c in plain if c.device.kind == "gpu")


def catalogue() -> tuple[Cluster, ...]:
    """The built-in clusters that can be rented: of GPUs, and with a price."""
    return tuple(c for c in _gpu_hosts() if c.price is not None)


def _owned() -> tuple[Cluster, ...]:
    """The built-in clusters of GPUs that cannot be rented."""
    return tuple(c for c in _gpu_hosts() if c.price is None)


def find_machines(
    words: Sequence[str],
    *,
    ranks: Sequence[int] | None = None,
    per_host: Sequence[int] | None = None,
    constants: Mapping[str, str] | None = None,
) -> list[Machine]:
    """Return the machines that are asked for, each once.

    Args:
        words: as this file's head shows; all of the catalogue if empty.
        ranks: numbers of devices where a word says none, instead of several sizes.
        per_host: devices used of a host where a word says none, instead of all.
        constants: "KEY" or "NAME:KEY" with a value, see `with_constants`; NAME is a cluster's.

    Raises:
        UnknownName: a word is neither a cluster nor a device of one.
        SpecError: a word cannot be built from its hosts, or a constant is wrong.
    """
    changes = _split(constants or {})
    found: dict[tuple[str, int, int], Machine] = {}
    named: set[str] = set()
    for word in words or [cluster.name for cluster in catalogue()]:
        count, name, used = _parse(word)
        exact, clusters = _clusters(name, count)
        problems: list[str] = []
        before = len(found)
        for cluster in clusters:
            named.add(cluster.name)
            own = {**changes.get("", {}), **changes.get(cluster.name, {})}
            changed = with_constants(cluster, own)
            for size in [count] if count else ranks or _sizes(changed, used):
                for on_host in [used] if used else per_host or [0]:
                    machine = _compose(changed, size, on_host, problems)
                    if machine is not None:
                        found[changed.name, machine.ranks, machine.per_host] = machine
        # Of the whole catalogue, hosts that cannot make up a number are passed over.
        if len(found) == before and problems and words and (exact or count):
            # A number that fills no hosts is a mistake on every kind of host.
            uneven = (problem for problem in problems if " do not fill " in problem)
            raise SpecError(next(uneven, problems[0]))
    unused = [name for name in changes if name and name not in named]
    if unused:
        raise SpecError(f"--set {unused[0]}:...: no such machine here, {suggest(unused[0], named)}")
    if not found:
        raise SpecError(
            f"no machine has {list(ranks or ())} devices, {list(per_host or ())} a host"
        )
    return list(found.values())


def _parse(word: str) -> tuple[int, str, int]:
    """Number of devices (0: not said), name, and devices of a host (0: not said)."""
    match = re.fullmatch(r"(?:(\d+)x)?(.+?)(?::(\d+))?", word.strip())
    if match is None or match[1] == "0" or match[3] == "0":
        raise SpecError(f"machine {word!r}: expected [DEVICESx]NAME[:PER_HOST], such as 8xt4:4")
    return int(match[1] or 0), match[2], int(match[3] or 0)


def _clusters(name: str, count: int) -> tuple[bool, list[Cluster]]:
    """The cluster of a name or file, else all of the catalogue with a device of that name."""
    known = list_clusters()
    words = re.split(r"[-_ ]", name.lower())
    rented = {cluster.name: cluster for cluster in catalogue()}
    found = [c for c in rented.values() if _is_device(c.device.name, words)]
    if name in known or name.endswith(".toml") or "/" in name:
        cluster = rented.get(name) or load_cluster(name)
        # A name may be a cluster's and a device's: hosts that cannot make up the number are passed.
        if not found or count <= cluster.host.devices_per_host * cluster.host.hosts_max:
            return True, [cluster]
    # A device that nobody rents out can still be owned.
    found = found or [c for c in _owned() if _is_device(c.device.name, words)]
    if not found:
        devices = {c.device.name for c in (*catalogue(), *_owned())}
        raise UnknownName("machine or device", name, [*known, *devices])
    return False, found


def _is_device(name: str, words: Iterable[str]) -> bool:
    """Whether each word is a part of a device's name, or such a part less its last letters."""
    parts = re.split(r"[-_ ]", name.lower())
    # "rtx3090" is what people write of the RTX-3090.
    runs = ["".join(parts[a:b]) for a in range(len(parts)) for b in range(a + 1, len(parts) + 1)]
    return all(any(re.fullmatch(re.escape(w) + r"[a-z]*", run) for run in runs) for w in words)


def _sizes(cluster: Cluster, used: int) -> list[int]:
    """Full hosts, up to what is tried without being asked for."""
    full = used or cluster.host.devices_per_host
    if cluster.nodes:  # put together as a whole, so asked for as a whole
        return [full * cluster.host.hosts_max]
    sizes = [full * hosts for hosts in HOSTS if hosts <= cluster.host.hosts_max]
    return [size for size in sizes if size <= MOST_RANKS] or sizes[:1]


def _compose(cluster: Cluster, ranks: int, used: int, problems: list[str]) -> Machine | None:
    """So many devices of a cluster; None, and why, where its hosts cannot make them up."""
    full, most = cluster.host.devices_per_host, cluster.host.hosts_max
    on_host = min(used or full, ranks)
    hosts = -(-ranks // on_host)
    name = plain_name(cluster)
    if on_host > full:
        problems.append(f"{name} has {full} devices on a host, {on_host} asked for")
    elif ranks % on_host:
        problems.append(
            f"{ranks} devices do not fill hosts of {name} with {on_host} each: ask for "
            f"{ranks // on_host * on_host} or {hosts * on_host}"
        )
    elif hosts > most:
        problems.append(f"{ranks} devices need {hosts} hosts; {name} is described for {most}")
    else:
        return Machine(cluster=cluster, ranks=ranks, per_host=on_host)
    return None


def with_constants(cluster: Cluster, changes: Mapping[str, str]) -> Cluster:
    """The cluster with other constants, such as {"price.usd_per_hour": "20"}.

    Keys are those of a cluster file. The name says what was changed, so that predictions for it
    replace no others.

    Raises:
        SpecError: an unknown key, or a value that is not allowed.
    """
    if not changes:
        return cluster
    if cluster.nodes:
        return _with_constants_of_kinds(cluster, changes)
    table = cluster.to_table()
    for key, text in changes.items():
        *path, leaf = key.split(".")
        place: dict[str, Any] = table
        for part in path:
            if place.get(part) is None:
                place[part] = {"date": "given"} if part == "price" else {}
            if not isinstance(place[part], dict):
                raise SpecError(f"--set {key}: {part} is no section of a cluster")
            place = place[part]
        value = _value(text)
        if leaf.endswith("_per_s") and isinstance(value, int | float) and value <= 0:
            raise SpecError(f"--set {key}={text}: a rate is a number above 0")
        listed = path[-1:] == ["code_bytes"]  # constants by names of approaches
        constant = isinstance(place.get(leaf), dict) or leaf.endswith(_CONSTANT_ENDS) or listed
        place[leaf] = (
            {"value": value, "status": "assumed", "source": "given with --set"}
            if constant
            else value
        )
    table["name"] = _changed_name(cluster, changes)
    return parse_cluster(table, "--set")


def _changed_name(cluster: Cluster, changes: Mapping[str, str]) -> str:
    said = ",".join(f"{key}={text}" for key, text in sorted(changes.items()))
    return f"{cluster.name}+{re.sub(r'[^A-Za-z0-9.,=_-]', '_', said)}"


def _with_constants_of_kinds(cluster: Cluster, changes: Mapping[str, str]) -> Cluster:
    """The changes in every kind of host; those of the fabric above hosts, in the cluster."""
    tops = ("fabric.leaf", "fabric.spine")
    top = {key: text for key, text in changes.items() if key.startswith(tops)}
    own = {key: text for key, text in changes.items() if key not in top}
    if top:
        plain = with_constants(dataclasses.replace(cluster, nodes=()), top)
        cluster = dataclasses.replace(cluster, fabric=plain.fabric)
    nodes = [
        dataclasses.replace(node, cluster=with_constants(node.cluster, own))
        for node in cluster.nodes
        if node.cluster is not None
    ]
    name = _changed_name(cluster, changes)
    return dataclasses.replace(cluster, nodes=tuple(nodes), name=name)


_CONSTANT_ENDS = ("_per_hour", "_per_s", "_bytes", "_s", "_w", "iops")


def _value(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _split(constants: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Constants by the cluster that they are for; "" is all."""
    found: dict[str, dict[str, str]] = {}
    for key, text in constants.items():
        name, colon, path = key.rpartition(":")
        found.setdefault(name if colon else "", {})[path] = text
    return found
