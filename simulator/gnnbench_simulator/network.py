"""Seconds of collectives: calibrated, by NCCL's tuner, or in closed form.

Ranks fill one host after the other: rank r is on host r // ranks_per_host. A calibrated collective
is used where its operation, ranks and layout were measured. From there, other rank counts are
reached by physics: latency grows with the steps of the algorithm, and the rate per rank stays
(simulation 2.5, 4.5, 4.6; vTrain's lesson in section 15: keep a latency term everywhere).

Volumes are what the plan's steps say: `bytes` and, for all-to-all, `send_bytes` per peer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gnnbench.cluster import TRANSFER, Cluster, CollectiveModel, Link, grade, weakest
from gnnbench.costs.model import collective_seconds
from gnnbench.plan import Kind, Step
from gnnbench_simulator.compute import CostClass
from gnnbench_simulator.nccl import Shape, tuner_s
from gnnbench_simulator.tree import LEAST_MEMBERS

_CLOSED_FORM_RADIUS = 0.6
_TUNER_RADIUS = 0.45
_EXTRAPOLATED_RADIUS = 0.5


def latency_steps(kind: Kind, ranks: int) -> int:
    """Messages one after the other in gloo's algorithm (simulation 4.5)."""
    if kind is Kind.ALL_REDUCE:
        return 2 * (ranks - 1)
    if kind in (Kind.BROADCAST, Kind.BARRIER):
        return math.ceil(math.log2(ranks)) if ranks > 1 else 0
    return ranks - 1


class Network:
    """Seconds of a collective on a cluster, `ranks_per_host` ranks on each host."""

    def __init__(self, cluster: Cluster, ranks_per_host: int) -> None:
        self.cluster, self.ranks_per_host = cluster, max(ranks_per_host, 1)
        self.classes: dict[str, CostClass] = {}

    def host_of(self, rank: int) -> int:
        return rank // self.ranks_per_host

    def collective(self, steps: Sequence[Step], group: Sequence[int]) -> tuple[float, str]:
        """Seconds from the last arrival to the end, and the cost class.

        Args:
            steps: the step of every rank of the group, in the order of the group.
            group: the ranks.
        """
        kind, ranks = steps[0].kind, len(group)
        if ranks == 1:
            return 0.0, self._label(kind, "measured", 0.01)
        hosts = len({self.host_of(rank) for rank in group})
        layout = "intra" if hosts == 1 else "inter"
        model = self._measured(kind, ranks, layout)
        if model is not None:
            volume = _volume(kind, steps)
            if kind is Kind.ALL_TO_ALL and self.cluster.transport == "gloo" and layout == "intra":
                volume = _through_one_loop(_pair_bytes(steps))
            seconds = float(collective_seconds(model, np.array([volume]))[0])
            return seconds, self._label(kind, grade(model.status), model.radius)
        if self.cluster.transport == "nccl":
            return self._nccl(kind, steps, group, hosts)
        return self._closed_form(kind, steps, group, layout)

    def meeting_s(self, kind: Kind, group: Sequence[int]) -> float:
        """Seconds of a collective in which ranks wait for one another and need no core for it."""
        hosts = {self.host_of(rank) for rank in group}
        model = self._measured(kind, len(group), "intra") if len(hosts) == 1 else None
        if model is None and self.cluster.transport != "nccl":
            model = self._nearest(kind, "intra", min(self.ranks_per_host, len(group)))
        return self._meeting_s(model)

    def descends(self, steps: Sequence[Step]) -> int:
        """Place in its group of the root of a broadcast down gloo's tree; -1: all leave together.

        The root is the one that sends. NCCL's pipelined ring holds all ranks to the end.
        """
        if steps[0].kind is not Kind.BROADCAST or len(steps) < LEAST_MEMBERS:
            return -1
        roots = [place for place, step in enumerate(steps) if step.bytes]
        return roots[0] if len(roots) == 1 and self.cluster.transport != "nccl" else -1

    def point_to_point(
        self, sender: int, receiver: int
    ) -> tuple[float, float, tuple[tuple[str, int], ...]]:
        """Latency, rate of one flow, and the resources on its way."""
        links = self.cluster.links
        a, b = self.host_of(sender), self.host_of(receiver)
        if a == b:
            path: tuple[tuple[str, int], ...] = (("out", sender), ("in", receiver))
            model = self._measured(Kind.SEND, 2, "intra")
            if model is not None:
                return model.latency_s, model.bytes_per_s, path
            return links.intra.latency_s.value, links.intra.bytes_per_s.value, path
        rate = links.inter.bytes_per_s.value
        if links.inter.shared:
            return links.inter.latency_s.value, rate, (("nic_out", a), ("nic_in", b))
        path = (("rank_nic_out", sender), ("rank_nic_in", receiver))
        return links.inter.latency_s.value, rate, path

    def capacity(self, resource: tuple[str, int]) -> float:
        """Bytes per second of a resource named by `point_to_point`."""
        inside = resource[0] in ("out", "in")
        links = self.cluster.links
        model = self._measured(Kind.SEND, 2, "intra") if inside else None
        if model is not None:
            return model.bytes_per_s
        return (links.intra if inside else links.inter).bytes_per_s.value

    def _label(self, kind: Kind, how: str, radius: float) -> str:
        known = self.classes.get(kind.value)
        if known is not None:
            how, radius = weakest([how, known.grade]), max(radius, known.radius)
        self.classes[kind.value] = CostClass(kind.value, how, radius)
        return kind.value

    def _measured(self, kind: Kind, ranks: int, layout: str) -> CollectiveModel | None:
        found = [
            m
            for m in self.cluster.collectives
            if (m.op, m.ranks, m.layout) == (kind.value, ranks, layout)
        ]
        return min(found, key=self._crowd, default=None)

    def _crowd(self, model: CollectiveModel) -> float:
        """How far the ranks that used the host at calibration are from those of this run."""
        return abs(math.log((model.co_located or model.ranks) / self.ranks_per_host))

    def _nearest(self, kind: Kind, layout: str, ranks: int) -> CollectiveModel | None:
        found = [
            m
            for m in self.cluster.collectives
            if m.op == kind.value and m.layout == layout and m.ranks > 1
        ]
        return min(
            found, key=lambda m: (abs(math.log(m.ranks / ranks)), self._crowd(m)), default=None
        )

    def _meeting_s(self, model: CollectiveModel | None) -> float:
        """What ranks that come from their work wait for one another: once, not with each message.

        The rest of a measured latency is that of the transfer alone, which grows with messages.
        """
        if model is None:
            return 0.0
        alone = [
            m.latency_s
            for m in self.cluster.collectives
            if m.op == model.op + TRANSFER
            and (m.ranks, m.layout, m.co_located) == (model.ranks, model.layout, model.co_located)
        ]
        return max(model.latency_s - alone[0], 0.0) if alone else 0.0

    def _link(self, kind: Kind, layout: str, ranks: int) -> tuple[float, float, str, float]:
        """Latency per message, bytes per second, grade and radius of one layout."""
        model = self._nearest(kind, layout, ranks)
        if model is None and layout == "intra":
            model = self._nearest(kind, layout, 2)
        if model is not None:
            steps = max(latency_steps(kind, model.ranks), 1)
            how = "probed" if grade(model.status) == "measured" else "datasheet"
            radius = max(model.radius, _EXTRAPOLATED_RADIUS)
            latency_s = model.latency_s - self._meeting_s(model)
            # A tree sends the whole buffer in each of its rounds, which the fitted rate holds.
            rounds = steps if kind is Kind.BROADCAST else 1
            return latency_s / steps, rounds * model.bytes_per_s, how, radius
        link = self.cluster.links.intra if layout == "intra" else self.cluster.links.inter
        how = weakest([grade(link.latency_s.status), grade(link.bytes_per_s.status)])
        return link.latency_s.value, link.bytes_per_s.value, how, _CLOSED_FORM_RADIUS

    def _closed_form(
        self, kind: Kind, steps: Sequence[Step], group: Sequence[int], layout: str
    ) -> tuple[float, str]:
        """Gloo's algorithms over the slowest link on the way (simulation 4.5, 4.6)."""
        ranks = len(group)
        on_host = min(self.ranks_per_host, ranks)
        alpha, rate, how, radius = self._link(kind, "intra", on_host)
        if kind is Kind.ALL_TO_ALL:
            seconds = self._all_to_all(steps, group, layout, alpha, rate)
        elif kind is Kind.BROADCAST:
            seconds = self._broadcast(_volume(kind, steps), group, alpha, rate)
        else:
            # Neighbours in a ring are on the same host but for one pair per host, so a shared NIC
            # carries one flow each way and needs no division.
            if layout == "inter":
                far_alpha, far_rate, far, far_radius = self._link(kind, "inter", ranks)
                alpha, rate = max(alpha, far_alpha), min(rate, far_rate)
                how, radius = weakest([how, far]), max(radius, far_radius)
            seconds = latency_steps(kind, ranks) * alpha + _volume(kind, steps) / rate
        if kind in (Kind.ALL_TO_ALL, Kind.BROADCAST) and layout == "inter":
            _, _, far, far_radius = self._link(kind, "inter", ranks)
            how, radius = weakest([how, far]), max(radius, far_radius)
        seconds += self._staging(kind, steps)
        seconds += self._meeting_s(self._nearest(kind, "intra", on_host))
        return seconds, self._label(kind, how, radius)

    def _broadcast(self, size: float, group: Sequence[int], alpha: float, rate: float) -> float:
        """The rounds of gloo's tree, one after the other, each sending the whole buffer.

        In a round that crosses hosts all senders of a host share its card, if it has just one.
        """
        link = self.cluster.links.inter
        far_alpha, far_rate, _, _ = self._link(Kind.BROADCAST, "inter", len(group))
        hosts = np.array([self.host_of(rank) for rank in group])
        seconds = 0.0
        for step in (1 << at for at in range((len(group) - 1).bit_length())):
            senders = np.arange(min(step, len(group) - step))
            out, into = hosts[senders], hosts[senders + step]
            away = out != into
            if not np.any(away):
                seconds += alpha + size / rate
                continue
            flows = 1
            if link.shared:
                flows = max(np.unique(h[away], return_counts=True)[1].max() for h in (out, into))
            seconds += max(alpha, far_alpha) + size * flows / min(rate * flows, far_rate)
        return seconds

    def _all_to_all(
        self, steps: Sequence[Step], group: Sequence[int], layout: str, alpha: float, rate: float
    ) -> float:
        """Latency of each rank's peers in turn, and the busiest link (simulation 4.6)."""
        matrix = _pair_bytes(steps)
        busiest = self.link_bounds(matrix, group, rate)
        if layout == "inter":
            alpha = max(alpha, self._link(Kind.ALL_TO_ALL, "inter", len(group))[0])
        return latency_steps(Kind.ALL_TO_ALL, len(group)) * alpha + busiest

    def link_bounds(
        self, matrix: npt.NDArray[np.float64], group: Sequence[int], intra_rate: float
    ) -> float:
        """Seconds of the busiest link of an all-to-all: a lower bound (simulation 4.6).

        Args:
            matrix: bytes from member i to member j of the group.
            group: the ranks.
            intra_rate: bytes per second of a rank to ranks of its host, each way.
        """
        ranks = len(group)
        hosts = np.array([self.host_of(rank) for rank in group])
        away = hosts[:, None] != hosts[None, :]
        inside, outside = np.where(away, 0.0, matrix), np.where(away, matrix, 0.0)
        busiest = _busiest(inside) / intra_rate
        if np.any(away):
            link = self.cluster.links.inter
            rate = self._link(Kind.ALL_TO_ALL, "inter", ranks)[1]
            if link.shared:
                out = np.bincount(hosts - hosts.min(), weights=outside.sum(axis=1))
                into = np.bincount(hosts - hosts.min(), weights=outside.sum(axis=0))
                busiest = max(busiest, max(out.max(), into.max()) / rate)
            else:
                busiest = max(busiest, _busiest(outside) / rate)
        return float(busiest)

    def _staging(self, kind: Kind, steps: Sequence[Step]) -> float:
        """Copies to and from pinned memory on both sides (simulation 4.7, fullgraph 16.1)."""
        link = self.cluster.links.host
        if self.cluster.transport != "gloo_staged" or link is None or kind is Kind.BARRIER:
            return 0.0
        buffer = max(max(step.buffer_bytes, step.bytes) for step in steps)
        return 2 * _transfer(link, buffer)

    def _nccl(
        self, kind: Kind, steps: Sequence[Step], group: Sequence[int], hosts: int
    ) -> tuple[float, str]:
        nccl = self.cluster.nccl
        assert nccl is not None
        links = self.cluster.links
        if kind is Kind.ALL_TO_ALL:
            matrix = _pair_bytes(steps)
            busiest = self.link_bounds(matrix, group, links.intra.bytes_per_s.value)
            # Empty messages are not sent at all.
            messages = int(max((matrix > 0).sum(axis=0).max(), (matrix > 0).sum(axis=1).max()))
            link = links.intra if hosts == 1 else links.inter
            # Point-to-point operations of one call share a launch; eight share a work batch.
            seconds = nccl.host_s.value + math.ceil(messages / 8) * link.latency_s.value + busiest
            return seconds, self._label(kind, "datasheet", _CLOSED_FORM_RADIUS)
        shape = Shape.of(nccl, self.cluster.device.arch, len(group), hosts)
        if kind is Kind.BARRIER:
            op, size = "all_reduce", 4.0
        else:
            op, size = kind.value, max(float(step.buffer_bytes) for step in steps)
        expected, _ = tuner_s(op, size, shape)
        seconds = nccl.host_s.value + nccl.factor.value * expected
        return seconds, self._label(kind, "datasheet", _TUNER_RADIUS)


def _transfer(link: Link, size: float) -> float:
    return link.latency_s.value + size / link.bytes_per_s.value


def _volume(kind: Kind, steps: Sequence[Step]) -> float:
    """Bytes that decide a collective's time: the most any rank sends or, ragged, receives.

    Of a broadcast, calibrated by its buffer, the buffer: the root sends it to every other rank, so
    its `bytes` are P - 1 of them.
    """
    if kind is Kind.BROADCAST:
        return float(max(step.buffer_bytes for step in steps))
    if kind is Kind.ALL_TO_ALL:
        return _busiest(_pair_bytes(steps))
    return float(max(step.bytes for step in steps))


def _pair_bytes(steps: Sequence[Step]) -> npt.NDArray[np.float64]:
    """Matrix of bytes from sender to receiver; without `send_bytes`, `bytes` spread evenly."""
    ranks = len(steps)
    if all(len(step.send_bytes) == ranks for step in steps):
        # Ranks that send alike share the tuple: each is converted once.
        rows = {id(step.send_bytes): step.send_bytes for step in steps}
        table = {key: np.array(sent, dtype=np.float64) for key, sent in rows.items()}
        matrix = np.array([table[id(step.send_bytes)] for step in steps])
        np.fill_diagonal(matrix, 0.0)
        return matrix
    sent = np.array([step.bytes for step in steps], dtype=np.float64)
    matrix = np.repeat(sent[:, None] / max(ranks - 1, 1), ranks, axis=1)
    np.fill_diagonal(matrix, 0.0)
    return matrix


def _through_one_loop(matrix: npt.NDArray[np.float64]) -> float:
    """Bytes of an even exchange that keeps gloo's event loops as busy as this one.

    A process reads and writes all its sockets in one thread, and on one host no wire limits either
    way: what is sent and what is received add up. An exchange one way is half of one both ways.
    """
    return float((matrix.sum(axis=1) + matrix.sum(axis=0)).max() / 2)


def _busiest(matrix: npt.NDArray[np.float64]) -> float:
    return float(max(matrix.sum(axis=1).max(), matrix.sum(axis=0).max()))
