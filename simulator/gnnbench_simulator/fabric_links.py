"""Which links of a fabric a transfer loads, and with how many bytes.

A fabric is a tree (`gnnbench.fabric.fabric_graph`): a message climbs from its sender to the first
place above both ends and comes down to its receiver. Three ways leave a device: to the network, to
devices of its host (over PCIe), and to the memory of its host. Where transfers are staged in the
host's memory, the way to the network leads through it.

A link that no fabric declares limits nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np

from gnnbench.cluster import Cluster
from gnnbench.costs.facts import Floats
from gnnbench.fabric import CORE, PCIE, Fabric, HostPart, Place, fabric_graph, host_part
from gnnbench_simulator.water_filling import Ints

Edge = tuple[Place, Place]


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """What a transfer takes of each link: `usage` units for a unit of its work, see `fair_rates`.

    A message's work is its bytes. A collective's work is 1, and its usage the bytes on each link.
    """

    links: Ints
    usage: Floats
    weight: float = 1.0


NOTHING = Demand(np.zeros(0, np.int64), np.zeros(0))


class FabricLinks:
    """The declared links of a cluster, for ranks that fill one host after the other."""

    def __init__(self, cluster: Cluster, ranks_per_host: int) -> None:
        self.cluster, self.per_host = cluster, ranks_per_host
        self.capacities: list[float] = []
        self.names: list[Edge] = []
        self._numbers: dict[object, int] = {}
        self._hosts = 0
        self._graph: Any = None
        self._out: list[list[Edge]] = []
        self._peer: list[list[Edge]] = []
        self._memory: list[list[Edge]] = []

    def number(self, name: object, capacity: float) -> int:
        """The number of a link, which is new or has this capacity already."""
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self.capacities)
            self.capacities.append(capacity)
        return found

    # -- what transfers load ---------------------------------------------------------------------

    def load(self, matrix: Floats, group: Sequence[int]) -> Demand:
        """The links that messages between the ranks of a group load; work 1 is all of them.

        Args:
            matrix: bytes from member i to member j.
            group: the ranks.
        """
        self._reach(max(group) // self.per_host + 1)
        ranks = np.asarray(group)
        hosts = ranks // self.per_host
        same = hosts[:, None] == hosts[None, :]
        loads: dict[int, float] = {}
        for ways, bytes_of in (
            (self._out, np.where(same, 0.0, matrix)),
            (self._peer, np.where(same, matrix, 0.0)),
        ):
            if bytes_of.any():
                for up in _levels(ways, ranks):
                    self._climb(up, bytes_of, loads)
        if not loads:
            return NOTHING
        links = np.fromiter(loads, np.int64, len(loads))
        sizes = matrix[matrix > 0]
        usage = np.fromiter(loads.values(), np.float64, len(loads))
        return Demand(links, usage, 1.0 / float(sizes.mean()))

    def _climb(self, up: list[Edge | None], matrix: Floats, loads: dict[int, float]) -> None:
        """Add the bytes that climb each of these links, and those that come down beside them."""
        places: dict[Place, int] = {}
        below = np.array([-1 if e is None else places.setdefault(e[0], len(places)) for e in up])
        edges = {places[edge[0]]: edge for edge in up if edge is not None}
        # A message climbs a link if its receiver is not below the same place.
        away = np.where(below[:, None] == below[None, :], 0.0, matrix)
        on = below >= 0
        climbing = np.bincount(below[on], away[on].sum(axis=1), len(places))
        descending = np.bincount(below[on], away[:, on].sum(axis=0), len(places))
        for number, edge in edges.items():
            for way, size in ((edge, climbing[number]), (edge[::-1], descending[number])):
                rate = self._graph.edges[way]["bytes_per_s"]
                if size > 0 and isfinite(rate):
                    at = self.number(way, rate)
                    loads[at] = loads.get(at, 0.0) + float(size)

    def route(self, sender: int, receiver: int) -> list[int]:
        """The declared links from one rank to another."""
        self._reach(max(sender, receiver) // self.per_host + 1)
        near = sender // self.per_host == receiver // self.per_host
        ways = self._peer if near else self._out
        up, down = ways[sender], ways[receiver]
        common = {edge[0] for edge in up} & {edge[0] for edge in down}
        climbed = [edge for edge in up if edge[0] not in common]
        descended = [edge[::-1] for edge in down if edge[0] not in common]
        return self._declared([*climbed, *descended])

    def copy_route(self, rank: int, *, to_host: bool) -> list[int]:
        """The declared links between a device and the memory of its host."""
        self._reach(rank // self.per_host + 1)
        way = self._memory[rank]
        return self._declared(way if to_host else [edge[::-1] for edge in way])

    def _declared(self, edges: Iterable[Edge]) -> list[int]:
        rates = [(edge, self._graph.edges[edge]["bytes_per_s"]) for edge in edges]
        return list(dict.fromkeys(self.number(e, rate) for e, rate in rates if isfinite(rate)))

    # -- ways of the ranks -----------------------------------------------------------------------

    def _reach(self, hosts: int) -> None:
        """Make the graph and the ways of the first so many hosts."""
        if hosts <= self._hosts:
            return
        top = self.cluster.fabric or Fabric()
        parts = [host_part(self.cluster, host, self.per_host) for host in range(hosts)]
        total = max(self.cluster.host.hosts_max, hosts)
        self._graph = fabric_graph(parts, top.leaf, top.spine, total)
        staged = self.cluster.transport == "gloo_staged"
        for host in range(self._hosts, hosts):
            self._add_host(host, parts[host], staged=staged)
        self._hosts = hosts

    def _add_host(self, host: int, part: HostPart, *, staged: bool) -> None:
        fabric = part.fabric
        reach = part.devices if fabric.nic is None else fabric.nic.devices
        for device in range(part.devices):
            here: Place = ("device", host, device)
            socket = 0 if fabric.socket is None else device // fabric.socket.devices
            memory: Place = ("memory", host, socket)
            nic: Place = ("nic", host, device // reach)
            to_memory = self._way(here, memory)
            stops = [here, memory, nic, CORE] if staged else [here, nic, CORE]
            self._out.append([e for a, b in pairwise(stops) for e in self._way(a, b)])
            pcie = fabric.peers == PCIE and not staged
            self._peer.append(self._way(here, ("host", host)) if pcie else [])
            self._memory.append(to_memory)

    def _way(self, start: Place, end: Place) -> list[Edge]:
        import networkx as nx

        path = nx.shortest_path(self._graph, start, end)
        return list(pairwise(path))


def _levels(ways: Sequence[list[Edge]], ranks: Ints) -> Iterable[list[Edge | None]]:
    """For each sort of link on the ways of some ranks: the link of each rank, or None."""
    sorts: dict[tuple[object, object], None] = {}
    by_rank: list[dict[tuple[object, object], Edge]] = []
    for rank in ranks.tolist():
        own = {(edge[0][0], edge[1][0]): edge for edge in ways[rank]}
        by_rank.append(own)
        sorts |= dict.fromkeys(own)
    return [[own.get(sort) for own in by_rank] for sort in sorts]
