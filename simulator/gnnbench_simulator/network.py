"""Seconds of collectives: calibrated, by NCCL's tuner, or in closed form.

Ranks fill one host after the other: rank r is on host r // ranks_per_host. A calibrated collective
is used where its operation, ranks and layout were measured. From there, other rank counts are
reached by physics: latency grows with the steps of the algorithm, and the rate per rank stays
(simulation 2.5, 4.5, 4.6; vTrain's lesson in section 15: keep a latency term everywhere).

Volumes are those of the plan's steps: `bytes` and, for all-to-all, the bytes to each peer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gnnbench.cluster import TRANSFER, Cluster, CollectiveModel, Link, Nccl
from gnnbench.costs.between_hosts import between_time
from gnnbench.costs.collective_tables import collective_time
from gnnbench.costs.facts import Floats
from gnnbench.costs.model import collective_seconds
from gnnbench.ladder import grade, weakest
from gnnbench.steps import Kind, Size, Step, Work
from gnnbench_simulator.compute import CostClass
from gnnbench_simulator.nccl import Shape, tuner_s
from gnnbench_simulator.traffic import busiest_host, busiest_rank, through_one_loop
from gnnbench_simulator.tree import tree_of

CLOSED_FORM_RADIUS = 0.6
_TUNER_RADIUS = 0.45
_EXTRAPOLATED_RADIUS = 0.5


_REMEMBERED = 50_000
"""Collectives of one shape whose times are remembered."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Duration of a collective.

    seconds   from the last arrival to the end
    label     of the cost class
    idle_s    part of the seconds in which ranks wait for one another and occupy no core
    """

    seconds: float
    label: str
    idle_s: float = 0.0


class Member(Protocol):
    """Ranks of one class that take part in a collective."""

    @property
    def columns(self) -> npt.NDArray[np.intp]:
        """Index of each rank in arrays of its class."""

    @property
    def members(self) -> npt.NDArray[np.intp]:
        """Index of each rank in the group."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One collective with the sizes of every rank of its group, in the order of the group.

    bytes, buffer_bytes   [ranks], as in `steps.Work`, of one call
    matrix                bytes from member i to member j, where the steps state it; of one call
    calls                 how many times it runs, one after the other
    key                   equal for calls of the same sizes
    """

    kind: Kind
    group: tuple[int, ...]
    bytes: Floats
    buffer_bytes: Floats
    matrix: Floats | None = None
    calls: int = 1
    key: tuple[object, ...] = ()

    @classmethod
    def of(cls, steps: Sequence[Step], group: Sequence[int]) -> Call:
        """Build a call from one step per rank of the group."""
        parts = [_Alone(place) for place in range(len(steps))]
        works = [step.work for step in steps]
        return cls.gathered(steps[0].kind, tuple(group), list(zip(works, parts, strict=True)))

    @classmethod
    def gathered(
        cls, kind: Kind, group: tuple[int, ...], works: Sequence[tuple[Work, Member]]
    ) -> Call:
        """Build a call from the work of each class, whose sizes are over the ranks of the class."""
        calls = max(int(np.max(work.calls)) for work, _ in works)
        sent, buffers = np.empty(len(group)), np.empty(len(group))
        for work, part in works:
            sent[part.members] = _column(work.bytes, part)
            buffers[part.members] = _column(work.buffer_bytes, part)
        matrix, key = _matrix(len(group), works)
        # Bytes of a step are totals over its calls; a model takes one call's.
        if calls > 1:
            sent, buffers = sent / calls, buffers / calls
            matrix = None if matrix is None else matrix / calls
        return cls(
            kind=kind,
            group=group,
            bytes=sent,
            buffer_bytes=buffers,
            matrix=matrix,
            calls=calls,
            key=(kind, calls, sent.tobytes(), buffers.tobytes(), *key),
        )


@dataclass(frozen=True, slots=True)
class _Alone:
    place: int

    @property
    def columns(self) -> npt.NDArray[np.intp]:
        return np.zeros(1, np.intp)

    @property
    def members(self) -> npt.NDArray[np.intp]:
        return np.array([self.place])


def _column(size: Size, part: Member) -> Size:
    return size if isinstance(size, int) else size[part.columns]


def _matrix(
    ranks: int, works: Sequence[tuple[Work, Member]]
) -> tuple[Floats | None, tuple[object, ...]]:
    """Bytes from member to member and a key of them; None where the steps do not state them."""
    if any(work.send is None or work.send.shape[-1] != ranks for work, _ in works):
        return None, ()
    matrix, content = np.empty((ranks, ranks)), hashlib.sha1(usedforsecurity=False)
    for work, part in works:
        assert work.send is not None
        rows = work.send if work.send.ndim == 1 else work.send[part.columns]
        matrix[part.members] = rows * float(work.unit_bytes)
        # What a class sends is one row where all of its ranks send the same.
        for array in (part.members, rows):
            content.update(array.tobytes())
        content.update(str(work.unit_bytes).encode())
    # What stays on the rank crosses no link.
    np.fill_diagonal(matrix, 0.0)
    return matrix, (content.digest(),)


def latency_steps(kind: Kind, ranks: int) -> int:
    """Number of sequential messages in gloo's algorithm (simulation 4.5)."""
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
        self._known: dict[tuple[object, ...], Timing] = {}
        self._shapes: dict[tuple[int, ...], tuple[object, ...]] = {}

    def host_of(self, rank: int) -> int:
        return rank // self.ranks_per_host

    def collective(self, call: Call) -> Timing:
        """Time a collective; equal calls between ranks placed alike on hosts are timed once."""
        # Thousands of collectives of a plan have few distinct sizes: each is timed once.
        key = (*self._shape(call.group), *call.key)
        timing = self._known.get(key) if call.key else None
        if timing is None:
            timing = self._timed(call)
            # A stream's sizes rarely repeat: the memory is bounded, whatever the number of calls.
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            self._known[key] = timing
        return timing

    def _shape(self, group: tuple[int, ...]) -> tuple[object, ...]:
        """What of a group its collectives' time can rest on: which of its ranks share hosts."""
        found = self._shapes.get(group)
        if found is None:
            # Only which ranks share hosts matters, not which hosts they are.
            hosts = np.array([self.host_of(rank) for rank in group])
            found = len(group), (hosts - hosts[0]).tobytes(), np.argsort(group).tobytes()
            self._shapes[group] = found
        return found

    def _timed(self, call: Call) -> Timing:
        kind, ranks = call.kind, len(call.group)
        if ranks == 1:
            return Timing(0.0, self._label(kind, "measured", 0.01))
        hosts = len({self.host_of(rank) for rank in call.group})
        layout = "intra" if hosts == 1 else "inter"
        model = self._measured(kind, ranks, layout)
        nccl = self.cluster.nccl if self.cluster.transport == "nccl" else None
        if model is None and nccl is not None:
            return self._nccl(call, nccl, hosts)
        if model is not None:
            volume = _volume(call)
            # Gloo's ranks of one host share the loopback device, so that the sum over all pairs
            # counts.
            if kind is Kind.ALL_TO_ALL and self.cluster.transport == "gloo" and layout == "intra":
                volume = through_one_loop(pair_bytes(call))
            seconds = float(collective_seconds(model, np.array([volume]))[0])
            label = self._label(kind, grade(model.status), model.radius)
        else:
            model = self._nearest(kind, "intra", min(self.ranks_per_host, ranks))
            seconds, label = self._closed_form(call, layout)
        # Waiting cannot exceed the whole.
        idle_s = min(self._meeting_s(model), seconds)
        return Timing(call.calls * seconds, label, call.calls * idle_s)

    def point_to_point(
        self, sender: int, receiver: int
    ) -> tuple[float, float, tuple[tuple[str, int], ...]]:
        """Return latency (s), bandwidth of one flow (bytes/s), and the resources on its path."""
        links = self.cluster.links
        a, b = self.host_of(sender), self.host_of(receiver)
        if a == b:
            path: tuple[tuple[str, int], ...] = (("out", sender), ("in", receiver))
            model = self._measured(Kind.SEND, 2, "intra")
            if model is not None:
                return model.latency_s, model.bytes_per_s, path
            return links.intra.latency_s.value, links.intra.bytes_per_s.value, path
        # A shared network adapter is one resource per host, otherwise each rank has its own.
        rate = links.inter.bytes_per_s.value
        if links.inter.shared:
            return links.inter.latency_s.value, rate, (("nic_out", a), ("nic_in", b))
        path = (("rank_nic_out", sender), ("rank_nic_in", receiver))
        return links.inter.latency_s.value, rate, path

    def capacity(self, resource: tuple[str, int]) -> float:
        """Return the bandwidth of a resource on a path of `point_to_point`, in bytes per second."""
        inside = resource[0] in ("out", "in")
        links = self.cluster.links
        model = self._measured(Kind.SEND, 2, "intra") if inside else None
        if model is not None:
            return model.bytes_per_s
        return (links.intra if inside else links.inter).bytes_per_s.value

    def _label(self, kind: Kind, how: str, radius: float) -> str:
        known = self.classes.get(kind.value)
        if known is not None:
            # The weakest evidence and the widest interval of all calls of a class are reported.
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
        # Ratios of ranks count, so the distance is taken in logarithms.
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
        """Time in which ranks that come from computing wait for one another, once per call.

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
        # A group of a size that was not measured takes the nearest measured one.
        if model is None and layout == "intra":
            model = self._nearest(kind, layout, 2)
        if model is not None:
            steps = max(latency_steps(kind, model.ranks), 1)
            how = "transferred" if grade(model.status) == "measured" else "datasheet"
            # Extrapolation to another size is never surer than this.
            radius = max(model.radius, _EXTRAPOLATED_RADIUS)
            latency_s = model.latency_s - self._meeting_s(model)
            # A tree sends the whole buffer in each of its rounds, which the fitted rate holds.
            rounds = steps if kind is Kind.BROADCAST else 1
            return latency_s / steps, rounds * model.bytes_per_s, how, radius
        link = self.cluster.links.intra if layout == "intra" else self.cluster.links.inter
        how = weakest([grade(link.latency_s.status), grade(link.bytes_per_s.status)])
        return link.latency_s.value, link.bytes_per_s.value, how, CLOSED_FORM_RADIUS

    def _closed_form(self, call: Call, layout: str) -> tuple[float, str]:
        """Gloo's algorithms over the slowest link on the way (simulation 4.5, 4.6)."""
        kind, group, ranks = call.kind, call.group, len(call.group)
        on_host = min(self.ranks_per_host, ranks)
        alpha, rate, how, radius = self._link(kind, "intra", on_host)
        far_alpha, far_rate = alpha, rate
        if layout == "inter":
            far_alpha, far_rate, far, far_radius = self._link(kind, "inter", ranks)
            far_alpha = max(alpha, far_alpha)
            how, radius = weakest([how, far]), max(radius, far_radius)
        if kind is Kind.ALL_TO_ALL:
            # Latency of each rank's peers in turn, and the busiest link.
            busiest = self.link_bounds(pair_bytes(call), group, rate)
            seconds = latency_steps(kind, ranks) * far_alpha + busiest
        elif kind is Kind.BROADCAST:
            size = _volume(call)
            seconds = self._broadcast(size, group, (alpha, rate), (far_alpha, far_rate))
        else:
            # Neighbours in a ring are on the same host but for one pair per host, so a shared NIC
            # carries one flow each way and needs no division.
            slowest = min(rate, far_rate)
            seconds = latency_steps(kind, ranks) * far_alpha + _volume(call) / slowest
        seconds += self._staging(call)
        seconds += self._meeting_s(self._nearest(kind, "intra", on_host))
        return seconds, self._label(kind, how, radius)

    def _broadcast(
        self, size: float, group: Sequence[int], near: tuple[float, float], far: tuple[float, float]
    ) -> float:
        """The rounds of gloo's tree, one after the other, each sending the whole buffer.

        In a round that crosses hosts all senders of a host share its card, if it has just one.

        Args:
            size: of the buffer, in bytes.
            group: the ranks.
            near, far: latency and bytes per second on a host and between hosts.
        """
        hosts = np.array([self.host_of(rank) for rank in group])
        seconds = 0.0
        for step in (1 << at for at in range(tree_of(len(group)).depth)):
            out, into = hosts[: len(group) - step][:step], hosts[step : 2 * step]
            away = out != into
            if not np.any(away):
                seconds += near[0] + size / near[1]
                continue
            flows = 1
            if self.cluster.links.inter.shared:
                flows = max(np.unique(h[away], return_counts=True)[1].max() for h in (out, into))
            seconds += far[0] + size / min(near[1], far[1] / flows)
        return seconds

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
        busiest = busiest_rank(inside) / intra_rate
        if np.any(away):
            link = self.cluster.links.inter
            rate = self._link(Kind.ALL_TO_ALL, "inter", ranks)[1]
            if link.shared:
                out = np.bincount(hosts - hosts.min(), weights=outside.sum(axis=1))
                into = np.bincount(hosts - hosts.min(), weights=outside.sum(axis=0))
                busiest = max(busiest, max(out.max(), into.max()) / rate)
            else:
                busiest = max(busiest, busiest_rank(outside) / rate)
        return float(busiest)

    def _staging(self, call: Call) -> float:
        """Copies to and from pinned memory on both sides (simulation 4.7, fullgraph 16.1)."""
        link = self.cluster.links.host
        if self.cluster.transport != "gloo_staged" or link is None or call.kind is Kind.BARRIER:
            return 0.0
        return 2 * _transfer(link, float(max(call.buffer_bytes.max(), call.bytes.max())))

    def _nccl(self, call: Call, nccl: Nccl, hosts: int) -> Timing:
        links, kind, group = self.cluster.links, call.kind, call.group
        timing = self._by_table(call) if hosts == 1 else self._between(call, hosts)
        if timing is not None:
            return timing
        if kind is Kind.ALL_TO_ALL:
            matrix = pair_bytes(call)
            busiest = self.link_bounds(matrix, group, links.intra.bytes_per_s.value)
            # Empty messages are not sent at all.
            messages = int(max((matrix > 0).sum(axis=0).max(), (matrix > 0).sum(axis=1).max()))
            link = links.intra if hosts == 1 else links.inter
            # Point-to-point operations of one call share a launch; eight share a work batch.
            seconds = nccl.host_s.value + math.ceil(messages / 8) * link.latency_s.value + busiest
            label = self._label(kind, "datasheet", CLOSED_FORM_RADIUS)
            return Timing(call.calls * seconds, label)
        shape = Shape.of(nccl, self.cluster.device.arch, len(group), hosts)
        if kind is Kind.BARRIER:
            op, size = "all_reduce", 4.0
        else:
            op, size = kind.value, float(call.buffer_bytes.max())
        expected, _ = tuner_s(op, size, shape)
        seconds = nccl.host_s.value + nccl.factor.value * expected
        return Timing(call.calls * seconds, self._label(kind, "datasheet", _TUNER_RADIUS))

    def _between(self, call: Call, hosts: int) -> Timing | None:
        """Seconds by what others measured between hosts of another network, at this one's rate.

        A ragged all-to-all takes what an even one does whose hosts all send, or receive, as much as
        the busiest; bytes within hosts bound it from below.
        """
        kind, ranks, inter = call.kind, len(call.group), self.cluster.links.inter
        per_host = -(-ranks // hosts)
        rate = inter.bytes_per_s.value * (1 if inter.shared else per_host)
        op, size, bound = kind.value, float(call.buffer_bytes.max()), 0.0
        if kind is Kind.BARRIER:
            op, size = Kind.ALL_REDUCE.value, 4.0
        elif kind is Kind.REDUCE_SCATTER:  # a ring the other way round
            op = Kind.ALL_GATHER.value
        elif kind is Kind.ALL_TO_ALL:
            matrix = pair_bytes(call)
            at = np.array([self.host_of(rank) for rank in call.group])
            size = busiest_host(matrix, at) * hosts / ((hosts - 1) * per_host)
            bound = self.link_bounds(matrix, call.group, self.cluster.links.intra.bytes_per_s.value)
        found = between_time(op, hosts, per_host, size, rate)
        if found is None:
            return None
        seconds = max(found.seconds, self.cluster.device.launch_s.value, bound)
        label = self._label(kind, found.grade, found.radius)
        return Timing(call.calls * seconds, label)

    def _by_table(self, call: Call) -> Timing | None:
        """Seconds by what others measured inside hosts of such devices, or of like ones.

        Tables time looped calls: issuing one works ahead, and bounds its time from below. A ragged
        all-to-all takes what an even one does whose ranks all send as much as the busiest.
        """
        kind, ranks = call.kind, len(call.group)
        op, size = kind.value, float(call.buffer_bytes.max())
        if kind is Kind.BARRIER:
            op, size = Kind.ALL_REDUCE.value, 4.0
        elif kind is Kind.ALL_TO_ALL:
            size = busiest_rank(pair_bytes(call)) * ranks / (ranks - 1)
        device = self.cluster.device
        rate = self.cluster.links.intra.bytes_per_s.value
        found = collective_time(device.name, op, ranks, size, rate)
        if found is None:
            return None
        seconds = max(found.seconds, device.launch_s.value)
        label = self._label(kind, found.grade, found.radius)
        return Timing(call.calls * seconds, label)


def _transfer(link: Link, size: float) -> float:
    return link.latency_s.value + size / link.bytes_per_s.value


def _volume(call: Call) -> float:
    """Bytes that decide a collective's time: the most any rank sends or, ragged, receives.

    Of a broadcast it is the buffer, by which broadcasts are calibrated: the root sends it to every
    other rank, so its `bytes` are P - 1 buffers.
    """
    if call.kind is Kind.BROADCAST:
        return float(call.buffer_bytes.max())
    if call.kind is Kind.ALL_TO_ALL:
        return busiest_rank(pair_bytes(call))
    return float(call.bytes.max())


def pair_bytes(call: Call) -> Floats:
    """Bytes from sender to receiver; where the steps do not state them, spread evenly."""
    if call.matrix is not None:
        return call.matrix
    ranks = len(call.group)
    matrix: Floats = np.repeat(call.bytes[:, None] / max(ranks - 1, 1), ranks, axis=1)
    np.fill_diagonal(matrix, 0.0)
    return matrix
