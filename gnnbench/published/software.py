"""What a published system's code does besides the approach it implements, and on which links.

The code of PipeGCN and BNS-GCN (fullgraph sections 5-7, 16) moves rows through pinned host memory
and gloo, reduces one tensor per message, exchanges the *input* of an attention layer and averages
its heads, normalises every hidden layer, and issues every operation eagerly. These are properties
of the software, equal for all of its rows. What gloo and staging cost is a property of the cluster
(transport `gloo_staged`). `published.released` writes the rest into the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gnnbench.cluster import Cluster, Constant
from gnnbench.plan import Plan
from gnnbench.steps import Engine, Kind, Lane

ISSUE = Lane.COMPUTE.at(2)
"""The process that issues the operations of training, one after the other and ahead of the device.

A batch's training takes about the longer of what is issued and what the device computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """How a mini-batch system draws a batch and brings it to the device that trains.

    sampler    who draws, and from where: the device from its own memory ("device") or from pinned
               host memory ("uva"), or threads of the host ("host")
    features   where input rows come from that no cache holds: the device's own memory ("device"),
               pinned host memory that the device reads ("uva"), or a buffer into which the host
               gathers rows and which is then copied ("staged", with all cores of the rank's share;
               "staged_alone", with `slicers` threads of the training process; "staged_pageable",
               with those and a buffer that is not pinned)
    hits       share of the input rows that a cache on the device holds
    launches   operations that its code issues per hop besides the plan's
    workers    threads that draw, of sampler "host", and that gather rows into pinned memory
    slicers    threads of the training process that gather rows
    samplers   devices that only draw, for `trainers` that only train; 0: every device does both
    subgraph_bytes of the next subgraph that come during a batch: a thread reads them from files in
               the page cache, and the process that trains copies them from pageable memory
    stored_bytes   of an element of the stored features, which are copied so; 0: as they train
    framework  "dgl"; "pyg", whose sparse product is `PYG_SPMM` times as slow; or "edges": PyG over
               lists of edges, which gathers a row for each edge and adds the rows up
    untrimmed  whether every layer is computed on all vertices and edges of a batch
    by_columns whether DGL is before 0.9 with CUDA 10, whose product is written by columns and then
               transposed, and which allocates every array anew
    """

    sampler: str = "device"
    features: str = "device"
    hits: float = 0.0
    launches: int = 0
    workers: int = 1
    slicers: int = 1
    samplers: int = 0
    trainers: int = 0
    subgraph_bytes: int = 0
    stored_bytes: int = 0
    framework: str = "dgl"
    untrimmed: bool = False
    by_columns: bool = False

    @property
    def disaggregated(self) -> bool:
        return self.samplers > 0

    @property
    def workers_slice(self) -> bool:
        """Whether the threads that draw a batch also gather its rows."""
        return self.sampler == "host" and self.features == "staged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """Threads that bring rows from static caches and from the disk: see `published.ahead`.

    device   share of the input rows that a cache on the device holds
    missed   share of them that no cache holds: they are read from the disk
    apart    missing rows are read one by one; otherwise a batch has them in a file, in order
    drawn    batches are drawn while others train; otherwise an earlier run wrote them to files
    """

    device: float = 0.0
    missed: float = 1.0
    apart: bool = False
    drawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """Properties of a published system's code.

    released     the released partition-parallel code: see the top of this file
    precompute   the first aggregation or, with attention, the first layer's halo, is made once
    rebuilds     the graph is made anew in every epoch, also on one rank
    pipelined    exchanges run behind computation, in a pool of threads
    loader       mini-batches in DGL's layers: heads averaged and operations issued eagerly, as in
                 the released code, but gradients in one bucket over the devices' own links
    workers      threads of the host that draw and gather, of systems that train from the disk
    depth        requests of the disk that they keep in flight
    sorts        the graph of a buffer is made by sorting all of its edges, not by counting
    batches      "": drawn in memory; "traces": drawn, written to the disk and read again batch by
                 batch; "files": read from files that an earlier run wrote, and nothing overlaps.
                 With either, every row that is not in memory is a request of its own
    ahead        threads that fetch ahead of training, of systems with static caches before a disk
    framework    whose layers train, of systems that train from the disk: "dgl" or "pyg" as in
                 `Loader`; "torch": rows of neighbours are gathered and then summed (MariusGNN)
    """

    released: bool = False
    precompute: bool = False
    rebuilds: bool = False
    pipelined: bool = False
    loader: Loader | None = None
    workers: int = 1
    depth: int = 1
    sorts: bool = False
    batches: str = ""
    ahead: Ahead | None = None
    framework: str = ""

    @property
    def rewrites(self) -> bool:
        """Whether the code takes other steps than the plan."""
        plain = replace(self, workers=1, depth=1, sorts=False, batches="", ahead=None, framework="")
        return plain != NATIVE


NATIVE = Software()
"""Code that does what our plan says and nothing else."""


def cluster_used(cluster: Cluster, plan: Plan, software: Software, ranks_per_host: int) -> Cluster:
    """The cluster as the transfers of the software use its links."""
    if software.loader is not None:
        return direct(cluster)
    return concurrent(cluster, plan, ranks_per_host) if software.pipelined else cluster


def concurrent(cluster: Cluster, plan: Plan, ranks_per_host: int) -> Cluster:
    """The cluster with the link that several background transfers at once have together.

    PipeGCN's code has a pool of 2 L threads and streams, so `gloo_async` is not the serial chain of
    `gloo_sync` (fullgraph section 7 and 16.2): as many chains run at once as an epoch has transfers
    and a rank has cores, and together they reach at most the device's link to its host. The plan
    keeps transfers in one lane, so that this sum is the rate of the lane.
    """
    link, host = cluster.links.intra, cluster.links.host
    if cluster.transport != "gloo_staged" or host is None or cluster.collectives:
        return cluster
    transfers = sum(
        step.kind is Kind.ALL_TO_ALL and step.lane.engine is Engine.BACKGROUND
        for step in plan.iterations[0].classes[0].steps
    )
    chains = max(1, min(transfers, cluster.host.cores // ranks_per_host))
    chain_rate = 1 / (1 / link.bytes_per_s.value + 2 / host.bytes_per_s.value)
    rate = min(chains * chain_rate, host.bytes_per_s.value)
    source = f"{chains} staged chains at once, at most the host link"
    faster = replace(link, bytes_per_s=Constant(value=rate, status="assumed", source=source))
    return replace(cluster, transport="gloo", links=replace(cluster.links, intra=faster))


def direct(cluster: Cluster) -> Cluster:
    """The cluster without gloo: devices of a host reach each other over their host links (NCCL)."""
    host = cluster.links.host
    if cluster.transport != "gloo_staged" or host is None:
        return cluster
    return replace(cluster, transport="gloo", links=replace(cluster.links, intra=host))
