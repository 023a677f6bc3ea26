"""Seconds of communication on hosts of several kinds, and over the shared links of a fabric.

A collective takes as long as on hosts that are all of the slowest kind in its group, and at least
as long as the busiest declared link needs for its bytes. Where several transfers can be under way
at once, the event loop shares the links among them (`traffic_flows`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnnbench.cluster import Cluster
from gnnbench.costs.facts import Floats
from gnnbench.ladder import grade, weakest
from gnnbench.steps import Kind
from gnnbench.work.moving import to_host
from gnnbench_simulator.fabric_links import NOTHING, Demand, FabricLinks
from gnnbench_simulator.network import CLOSED_FORM_RADIUS, Call, Network, Timing, pair_bytes
from gnnbench_simulator.tree import tree_of

Resource = tuple[str, int]
_LINK = "fabric"
_REMEMBERED = 20_000
TO_HOST = to_host(0).op
"""The operation of copies from a device to its host; other copies come from there."""


def network_of(cluster: Cluster, ranks_per_host: int) -> Network:
    """The network of a cluster, which has hosts of one kind or of several."""
    kinds = cluster.kinds
    if len(kinds) == 1 and cluster.fabric is None:
        return Network(cluster, ranks_per_host)
    return FabricNetwork(cluster, ranks_per_host)


class FabricNetwork(Network):
    """A network whose hosts differ, or share links that are declared in a fabric."""

    def __init__(self, cluster: Cluster, ranks_per_host: int) -> None:
        super().__init__(cluster, ranks_per_host)
        self.links = FabricLinks(cluster, self.ranks_per_host)
        self._kinds = [Network(kind, ranks_per_host) for kind in cluster.kinds]
        self._grade = _grade(cluster)
        self._demands: dict[tuple[object, ...], Demand] = {}
        self._known_messages: dict[tuple[int, int], tuple[float, float, Demand]] = {}
        self._copies: dict[tuple[int, bool], Demand] = {}

    def collective(self, call: Call) -> Timing:
        """Time a collective, see the head of this file."""
        kinds = {self.cluster.kind_of(self.host_of(rank)) for rank in call.group}
        timings = [(self._kinds[kind].collective(call), self._kinds[kind]) for kind in kinds]
        found, of = max(timings, key=lambda timed: timed[0].seconds)
        known = of.classes[found.label]
        self._label(call.kind, known.grade, known.radius)
        least = self._busiest_s(self.demand(call))
        if least <= found.seconds:
            return found
        label = self._label(call.kind, self._grade, CLOSED_FORM_RADIUS)
        return Timing(least, label)

    def demand(self, call: Call) -> Demand:
        """What all calls of a collective together take of the declared links."""
        if len(call.group) == 1 or call.kind is Kind.BARRIER:
            return NOTHING
        key = (call.group, *call.key)
        found = self._demands.get(key) if call.key else None
        if found is None:
            matrix = call.calls * self._messages(call)
            # A stream's sizes rarely repeat.
            if len(self._demands) > _REMEMBERED:
                self._demands.clear()
            found = self._demands[key] = self.links.load(matrix, call.group)
        return found

    def _busiest_s(self, demand: Demand) -> float:
        if not len(demand.links):
            return 0.0
        rates = np.array([self.links.capacities[link] for link in demand.links.tolist()])
        return float((demand.usage / rates).max())

    def _messages(self, call: Call) -> Floats:
        """Bytes from member to member of the algorithm that performs a collective.

        Rings send from each member to the next, NCCL over all adapters of a host at once; a
        broadcast that NCCL does not perform goes down a tree.
        """
        if call.kind is Kind.ALL_TO_ALL:
            return pair_bytes(call)
        ranks = len(call.group)
        matrix = np.zeros((ranks, ranks))
        if call.kind is Kind.BROADCAST and self.cluster.transport != "nccl":
            size = float(call.buffer_bytes.max())
            for member, parent in enumerate(tree_of(ranks).parents):
                if member != parent:
                    matrix[parent, member] = size
            return matrix
        size = float(call.bytes.max())
        if call.kind is Kind.BROADCAST:
            size = float(call.buffer_bytes.max())
        members = np.arange(ranks)
        matrix[members, (members + 1) % ranks] = size
        if self.cluster.transport != "nccl":
            return matrix
        hosts = [self.host_of(rank) for rank in call.group]
        return _over_all_adapters(matrix, hosts)

    # -- messages between two ranks --------------------------------------------------------------

    def point_to_point(
        self, sender: int, receiver: int
    ) -> tuple[float, float, tuple[Resource, ...]]:
        """As of the slower end, with the declared links on the way."""
        ends = [self._kinds[self.cluster.kind_of(self.host_of(r))] for r in (sender, receiver)]
        found = [network.point_to_point(sender, receiver) for network in ends]
        latency_s = max(latency for latency, _, _ in found)
        _, rate, path = min(found, key=lambda one: one[1])
        more = tuple((_LINK, link) for link in self.links.route(sender, receiver))
        return latency_s, rate, (*path, *more)

    def capacity(self, resource: Resource) -> float:
        """As `Network.capacity`; a port is that of the kind of its host."""
        name, number = resource
        if name == _LINK:
            return self.links.capacities[number]
        host = number if name.startswith("nic_") else self.host_of(number)
        return self._kinds[self.cluster.kind_of(host)].capacity(resource)

    def message(self, sender: int, receiver: int) -> tuple[float, float, Demand]:
        """Latency (s), highest bytes per second, and what each byte takes of the links."""
        known = self._known_messages.get((sender, receiver))
        if known is not None:
            return known
        latency_s, rate, path = self.point_to_point(sender, receiver)
        links = [
            number if name == _LINK else self.links.number((name, number), self.capacity(resource))
            for resource in path
            for name, number in [resource]
        ]
        self._known_messages[sender, receiver] = latency_s, rate, _of_bytes(links)
        return self._known_messages[sender, receiver]

    def copy(self, rank: int, *, to_host: bool) -> Demand:
        """What each byte of a copy between a device and its host takes of the links."""
        known = self._copies.get((rank, to_host))
        if known is not None:
            return known
        links = self.links.copy_route(rank, to_host=to_host)
        host = self.host_of(rank)
        link = self.cluster.of_host(host).links.host
        if link is not None and link.shared:
            links.append(self.links.number(("host_link", host), link.bytes_per_s.value))
        found = self._copies[rank, to_host] = _of_bytes(links)
        return found


def _of_bytes(links: Sequence[int]) -> Demand:
    return Demand(np.array(links, np.int64), np.ones(len(links)))


def _over_all_adapters(matrix: Floats, hosts: Sequence[int]) -> Floats:
    """Spread what a host sends to another evenly over the pairs of their members."""
    places = np.asarray(hosts)
    found = np.where(places[:, None] == places[None, :], matrix, 0.0)
    for sender, receiver in zip(*np.nonzero(matrix), strict=True):
        if places[sender] != places[receiver]:
            out = np.flatnonzero(places == places[sender])
            into = np.flatnonzero(places == places[receiver])
            found[np.ix_(out, into)] += matrix[sender, receiver] / (len(out) * len(into))
    return found


def _grade(cluster: Cluster) -> str:
    """The weakest grade among the constants of the fabrics."""
    found = ["measured"]
    for fabric in (cluster.fabric, *(kind.fabric for kind in cluster.kinds)):
        if fabric is None:
            continue
        shared = [part.bytes_per_s for part in (fabric.switch, fabric.socket, fabric.nic) if part]
        tiers = [tier.oversubscription for tier in (fabric.leaf, fabric.spine) if tier]
        memory = [fabric.memory] if fabric.memory else []
        found += [grade(constant.status) for constant in (*shared, *tiers, *memory)]
    return weakest(found)
