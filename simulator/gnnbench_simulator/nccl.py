"""NCCL's tuner: which algorithm and protocol it picks, and the seconds it expects of them.

Right about shape and choice, wrong about scale (simulation 4.3): callers correct the result with a
cluster's `nccl.host_s` and `nccl.factor`. Units in this file: microseconds and GB/s, as in NCCL's
own tables; `tuner_s` returns seconds. Source: NCCL 2.30.7 `src/graph/tuning.cc` and `topo.h`, as
condensed in simulation 4.2. All GPUs of a host are taken to be on NVLink.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gnnbench.cluster import Nccl

PROTOCOLS = ("LL", "LL128", "Simple")
_BASE_US = {"ring": (6.6, 14.0, 8.4), "tree": (6.8, 14.0, 8.4), "pat": (8.0, 8.0, 8.0)}
_HOP_NVLINK_US = {"ring": (0.6, 1.9, 3.4), "tree": (0.6, 1.25, 4.0), "pat": (4.0, 4.0, 4.0)}
_HOP_NETWORK_US = {"ring": (2.7, 4.0, 14.0), "tree": (5.0, 8.5, 14.0), "pat": (14.0, 14.0, 14.0)}
_NVLS_HOP_US, _NVLS_TREE_HOP_NETWORK_US = 25.0, 20.9
_NVLS_EFFICIENCY = {"hopper": 0.85, "blackwell": 0.74}

# Caps in GB/s for N = 1, 2, more; per channel except ll_max.
_LL_MAX = {"volta": 39.0, "ampere": 87.7, "hopper": 141.0, "blackwell": 282.0}
_LL_MAX_NETWORK = {"intel": (39.0, 20.4), "amd": (22.5, 19.0), "mixed": (22.5, 19.0)}
_R128 = {"volta": 20.0, "ampere": 20.0, "hopper": 36.7, "blackwell": 40.0}
_T128 = {
    "volta": (20.0, 20.0, 20.0),
    "ampere": (20.0, 20.0, 20.0),
    "hopper": (36.7, 36.7, 29.0),
    "blackwell": (55.6, 31.67, 20.0),
}
_TREE_MAX = {
    "volta": (26.5, 18.5, 10.0),
    "ampere": (24.0, 23.6, 17.8),
    "hopper": (38.7, 41.4, 36.0),
    "blackwell": (70.0, 42.8, 24.0),
}
_NVLS_TREE_MAX = {"hopper": (57.7, 57.7, 45.5), "blackwell": (96.0, 96.0, 80.0)}

_LIKE = {"maxwell": "volta", "turing": "volta", "ada": "ampere", "cdna": "ampere"}
"""The tuner's tables begin with Volta; it takes them for older GPUs and for Turing, and those of
Ampere for Ada. AMD's RCCL is a fork of it, whose own constants are not known here."""

# Share of tree bandwidth reached at S/64 bytes = 2^0, 2^1, ..., 2^22.
_TREE_SHARE = {
    "LL": "1 1 1 1 .9 .8 .7 .7 .7 .7 .6 .5 .4 .4 .5 .6 .7 .8 .9 1 1 1 1",
    "LL128": "1 1 1 1 1 .9 .8 .8 .8 .7 .6 .6 .6 .6 .6 .6 .8 .9 .9 .9 .9 1 1",
    "Simple": ".9 .9 .9 .9 .9 .9 .9 .8 .7 .6 .6 .5 .5 .5 .5 .6 .7 .8 .7 .7 .8 .9 .9",
}
_TREE_SHARES = {k: tuple(float(x) for x in v.split()) for k, v in _TREE_SHARE.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Ranks n over N hosts; per-channel speeds in GB/s."""

    ranks: int
    hosts: int
    arch: str
    channels: int
    intra: float
    inter: float
    cpu: str
    nvls: bool

    @classmethod
    def of(cls, nccl: Nccl, arch: str, ranks: int, hosts: int) -> Shape:
        return cls(
            ranks=ranks,
            hosts=hosts,
            arch=_LIKE.get(arch, arch),
            channels=nccl.channels,
            intra=nccl.intra_bytes_per_s_per_channel.value / 1e9,
            inter=nccl.inter_bytes_per_s_per_channel.value / 1e9,
            cpu=nccl.cpu,
            nvls=nccl.nvls,
        )

    @property
    def per_host(self) -> int:
        return -(-self.ranks // self.hosts)

    @property
    def tier(self) -> int:
        """Column of a table for N = 1, 2, more."""
        return min(self.hosts, 3) - 1

    @property
    def bandwidth(self) -> float:
        """Bandwidth of all channels of a ring, GB/s: the slower of links inside and between."""
        speed = self.intra if self.hosts == 1 else min(self.intra, self.inter)
        return self.channels * speed

    @property
    def ll_max(self) -> float:
        if self.hosts == 1:
            return _LL_MAX[self.arch]
        return _LL_MAX_NETWORK[self.cpu][0 if self.hosts == 2 else 1]


def tuner_s(op: str, size_bytes: float, shape: Shape) -> tuple[float, str]:
    """Seconds the tuner expects of its choice, and the choice as "algorithm/protocol".

    Args:
        op: all_reduce, all_gather, reduce_scatter or broadcast.
        size_bytes: S of the tuner: the whole buffer (all-gather: of all ranks together).
        shape: ranks, hosts and channel speeds.
    """
    if shape.ranks == 1:
        return 0.0, "none"
    best, choice = math.inf, "none"
    for algorithm in ("ring", "tree", "nvls", "nvls_tree", "pat"):
        for protocol in PROTOCOLS:
            timing = _timing(algorithm, protocol, op, size_bytes, shape)
            if timing is None:
                continue
            latency_us, algbw = timing
            time_us = latency_us + size_bytes / (1000.0 * algbw)
            if time_us < best:
                best, choice = time_us, f"{algorithm}/{protocol}"
    return best * 1e-6, choice


def _timing(
    algorithm: str, protocol: str, op: str, size: float, shape: Shape
) -> tuple[float, float] | None:
    """Latency in us and algorithm bandwidth in GB/s, or None if not available."""
    if algorithm == "ring":
        return _ring(protocol, op, size, shape)
    if algorithm == "tree" and op == "all_reduce":
        return _tree(protocol, size, shape)
    if algorithm == "pat" and protocol == "Simple" and shape.per_host == 1:
        return _pat(shape) if op in ("all_gather", "reduce_scatter") else None
    nvls = shape.nvls and protocol == "Simple" and op != "broadcast"
    if algorithm == "nvls" and nvls and shape.hosts == 1 and shape.per_host > 2:
        return _nvls(op, shape)
    if algorithm == "nvls_tree" and nvls and shape.hosts > 1 and op == "all_reduce":
        return _nvls_tree(shape)
    return None


def _network_hop(algorithm: str, protocol: int, shape: Shape) -> float:
    row = "tree" if shape.per_host == 1 else algorithm
    return _HOP_NETWORK_US[row][protocol]


def _post_overhead(protocol: str, shape: Shape) -> float:
    if shape.hosts == 1:
        return 0.0
    overhead = 2.0 if shape.cpu == "amd" else 1.0
    return 3.0 * overhead if protocol == "Simple" else overhead


def _ring(protocol: str, op: str, size: float, shape: Shape) -> tuple[float, float]:
    p, n, hosts = PROTOCOLS.index(protocol), shape.ranks, shape.hosts
    full = shape.bandwidth
    bus = {
        "Simple": full,
        "LL": min(0.5 * full, shape.ll_max),
        "LL128": min(0.92 * full, shape.channels * _R128[shape.arch]),
    }[protocol]
    hop, base = _HOP_NVLINK_US["ring"][p], _BASE_US["ring"][p]
    if op == "broadcast":
        tree_hop = _HOP_NVLINK_US["tree"][p] if protocol == "Simple" else hop
        return base + n * tree_hop, bus
    twice = 2 if op == "all_reduce" else 1
    steps = twice * (n - 1)
    crossings = twice * (hosts - 1)
    inside = (steps - crossings) * max(hop, _post_overhead(protocol, shape))
    latency = base + inside + crossings * _network_hop("ring", p, shape)
    if hosts > 1 and op == "all_reduce" and protocol == "Simple":
        long = size / (shape.channels * n) >= 64
        latency *= (1.9 if shape.arch == "volta" else 1.4) if long else 1.0
    return latency, bus * n / steps


def _tree(protocol: str, size: float, shape: Shape) -> tuple[float, float]:
    p, tier = PROTOCOLS.index(protocol), shape.tier
    # Over two hosts both directions of a NIC carry data at once: up to twice the ring's rate.
    full = shape.bandwidth * (2.0 if shape.hosts == 2 else 1.0)
    full = min(full, shape.channels * shape.intra)
    top = min(0.92 * full, shape.channels * _TREE_MAX[shape.arch][tier])
    bus = {
        "Simple": top,
        "LL": min(top / 3.8, shape.ll_max),
        "LL128": min(
            top * (7 / 9 if shape.hosts == 1 else 120 / 128),
            shape.channels * _T128[shape.arch][tier],
        ),
    }[protocol]
    place = int(math.log2(max(size / 64.0, 1.0)))
    shares = _TREE_SHARES[protocol]
    bus *= shares[place] if place < len(shares) else 1.0
    depth = math.floor(math.log2(shape.hosts)) if shape.hosts > 1 else 0
    hops = (shape.per_host - 1) * _HOP_NVLINK_US["tree"][p]
    hops += depth * _network_hop("tree", p, shape)
    return _BASE_US["tree"][p] + 2 * hops, bus * 0.5


def _pat(shape: Shape) -> tuple[float, float]:
    depth = math.floor(math.log2(shape.hosts))
    latency = 8.0 + depth * _HOP_NETWORK_US["pat"][2] / 3.5 + 2.8 * shape.ranks
    return latency, 0.75 * shape.bandwidth


def _nvls(op: str, shape: Shape) -> tuple[float, float] | None:
    efficiency = _NVLS_EFFICIENCY.get(shape.arch)
    if efficiency is None:
        return None
    channels = max(shape.channels, 2)
    g = shape.per_host
    factor = 2.0 if op == "all_reduce" else (g - 1) / g
    bus = channels * shape.intra * efficiency * (channels - 1) / channels * factor
    steps = (2 if op == "all_reduce" else 1) * (shape.ranks - 1)
    return _NVLS_HOP_US, bus * shape.ranks / steps


def _nvls_tree(shape: Shape) -> tuple[float, float] | None:
    efficiency = _NVLS_EFFICIENCY.get(shape.arch)
    if efficiency is None:
        return None
    channels = max(shape.channels, 2)
    inside = shape.intra * efficiency * (channels - 1) / channels * 2.0
    between = shape.inter * (2.0 if shape.hosts == 2 else 1.0)
    bus = channels * min(inside, between, _NVLS_TREE_MAX[shape.arch][shape.tier])
    latency = _NVLS_HOP_US + 2 * math.floor(math.log2(shape.hosts)) * _NVLS_TREE_HOP_NETWORK_US
    return latency, bus * shape.ranks / (2 * (shape.ranks - 1))
