"""Recipes of systems that train from the disk: what fits in memory, who works, what is in flight.

What a row says of these comes first, then what the system's published code and configurations do
(out-of-core reference sections 6, 9 and 12). A row that does not say what fits in memory, or which
disk it read, is not predicted.

Not modelled: Ginex' neighbour cache (our topology is in memory), so that its times of superbatch
sampling are left out; graphs whose topology is mapped as well.
"""

from __future__ import annotations

import re
from typing import Any

from gnnbench.cluster import load_cluster
from gnnbench.data.profile import GraphProfile
from gnnbench.published.disk_epochs import STUDY_SHARE
from gnnbench.published.disk_places import disk_of
from gnnbench.published.metrics import IN_MEMORY
from gnnbench.published.places import cluster_of, profile_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.recipes import Recipe
from gnnbench.published.rows import PublishedRow, whole_number
from gnnbench.published.software import Software
from gnnbench.spec import BatchSpec

PARTITIONS = 8192
"""Physical partitions of MariusGNN's configurations of node classification."""
IN_FLIGHT, IN_MEMORY_FLIGHT, LINKS_IN_FLIGHT = 8, 64, 4
"""Batches in flight in its configurations: node classification from disk and in memory, and link
prediction."""
SUPERBATCH = 1000
"""Batches that Ginex draws ahead by default."""
READERS = 128
"""Threads that gather, each with a request: Ginex' scripts have eight per logical processor, and
their baseline PyG+ 128."""
DIRECT_READERS = 64
"""Threads of DiskGNN's gathering (its source, gather.cc)."""
PAGE_CACHE = "page-cache"
"""The disk of files that the host's memory holds and that are read through its page cache."""
CACHED_SHARE = 0.5
"""Of the host's memory, up to which files are taken to stay in its page cache (assumed)."""
CAPSULE_BUFFER = 5
"""Partitions in MariusGNN's buffer, in Capsule's example configuration of it (PA_disk.yaml): they
are dispersed, read ahead, and trained synchronously."""
LINK_BATCH, LINK_NEGATIVES = 50_000, 500
"""Edges of a batch, and corrupted nodes that a chunk shares, in Marius's configurations."""
THREAD_BYTES_PER_S = 1.0e10
"""What one thread of a host moves; more threads than the host's memory feeds do not help."""
_POLICIES = ("comet", "beta", "sequential", "dispersed")


def marius(row: PublishedRow) -> Recipe:
    """MariusGNN and Marius: partitions in a buffer, batches drawn ahead.

    Four threads load batches, and each operation of a batch uses all cores already: an epoch with
    the pipeline takes what drawing and gathering take in a row (DiskGNN's breakdown, 205 of 254 s).
    So a batch costs a thread's time, and batches ahead overlap with training and copies only.
    """
    links, words = row.model.lower() in LINK_MODELS, _words(row)
    of_capsule = "capsule" in row.source.lower()
    in_memory = IN_MEMORY.search(f"{row.system} {row.storage}".lower()) is not None
    # All in memory, the table is read once, before the first epoch: see `metrics.without_load`.
    partitions, buffer = (1, 1) if in_memory else _buffer(row)
    policy = next((name for name in _POLICIES if name in words), "auto")
    ahead = "prefetch" in words and not re.search(r"prefetch(?: is)? off|no prefetch", words)
    in_flight = LINKS_IN_FLIGHT if links else IN_MEMORY_FLIGHT if in_memory else IN_FLIGHT
    if of_capsule:
        policy, ahead, in_flight = "dispersed", True, 1
    knobs: dict[str, Any] = {
        "partitions": partitions,
        "buffer": buffer,
        "policy": policy,
        "read_ahead": int(ahead),
        "staleness": _in_flight(row, in_flight) - 1,
    }
    logical = re.search(r"\bl\s*=\s*(\d+)", words)
    if logical:
        knobs["logical"] = int(logical[1])
    return Recipe(
        software=Software(sorts=True, framework="torch"),
        knobs=knobs,
        batch=_link_batch(row) if links else batch_of(row, per_direction=True),
        native_hosts=True,
        disk="nvme-pcie3" if in_memory else _read_through_cache(row),
        optimizer="adagrad" if links else "adam",
    )


def ginex(row: PublishedRow) -> Recipe:
    """Ginex: rows behind an optimal cache of a superbatch, read by as many threads as fit."""
    named = re.search(r"ginex (\d+(?:\.\d+)?) ?gb", _words(row))
    named = named or re.search(r"(\d+(?:\.\d+)?) ?gb feature cache", _words(row))
    named = named or re.search(r"cache size (\d+(?:\.\d+)?) gb", _words(row))
    share, profile = _stated_share(row), profile_of(row)
    row_bytes = max(4.0 * profile.num_features, 1.0)
    if named is None and share is None:
        raise NotModelled("configuration not stated", "feature cache of Ginex")
    budget = float(named[1]) * 1e9 if named else (share or 0.0) * profile.num_nodes * row_bytes
    # A table of slots, four bytes for every vertex, is part of the budget.
    rows = (budget - 4.0 * profile.num_nodes) / row_bytes
    superbatch = re.search(r"superbatch (\d+)", _words(row))
    return Recipe(
        software=Software(
            workers=workers_of(row), depth=READERS, batches="traces", framework="pyg"
        ),
        knobs={
            "cache": min(max(rows / max(profile.num_nodes, 1), 0.0), 1.0),
            "superbatch": int(superbatch[1]) if superbatch else SUPERBATCH,
        },
        batch=batch_of(row),
        native_hosts=True,
        disk=disk_of(row),
    )


def by_rows(row: PublishedRow) -> Recipe:
    """The baseline "DGL on disk" of DiskGNN's study (examples/dgl_baseline/dgl_on_disk.py).

    Its batches were drawn before and are read from files, each input row is read past the page
    cache, nothing is cached, and nothing overlaps.
    """
    return Recipe(
        software=Software(
            workers=workers_of(row), depth=DIRECT_READERS, batches="files", framework="dgl"
        ),
        knobs={"cache": 0.0, "superbatch": SUPERBATCH},
        batch=batch_of(row),
        native_hosts=True,
        disk=disk_of(row),
    )


def mapped(row: PublishedRow) -> Recipe:
    """Features in a mapped file: threads of the host gather, and wait for their page faults."""
    profile, words = profile_of(row), f"{_words(row)} {row.hardware}".lower()
    size = max(4.0 * profile.num_nodes * profile.num_features, 1.0)
    capped = re.search(r"cgroup (\d+(?:\.\d+)?) ?gb", words)
    share = float(capped[1]) * 1e9 / size if capped else _stated_share(row)
    if share is None:
        raise NotModelled("configuration not stated", "memory for mapped pages")
    return Recipe(
        software=Software(workers=workers_of(row), depth=READERS, framework="pyg"),
        knobs={"cache": min(share, 1.0)},
        batch=batch_of(row),
        native_hosts=True,
        disk=disk_of(row),
    )


LINK_MODELS = {"distmult": "distmult", "complex": "complex", "dot": "dot"}
"""Models of link prediction without layers, and their decoders."""


def _read_through_cache(row: PublishedRow) -> str:
    """The disk of a row; the page cache where it names none, and files fit there.

    A row that says which share of the features is in memory is about a disk.
    """
    try:
        return disk_of(row)
    except NotModelled:
        profile: object = profile_of(row)
        if not isinstance(profile, GraphProfile) or _stated_share(row) is not None:
            raise
        held = 4.0 * profile.num_nodes * profile.num_features + 8.0 * profile.num_edges
        host = load_cluster(cluster_of(row, native=True)).host
        if not profile.num_features or held > CACHED_SHARE * host.memory_bytes.value:
            raise
        return PAGE_CACHE


# -- what a row says -----------------------------------------------------------------------------


def _words(row: PublishedRow) -> str:
    return f"{row.system} {row.storage} {row.notes}".lower()


def _buffer(row: PublishedRow) -> tuple[int, int]:
    """Partitions, and how many of them are in the buffer."""
    words = _words(row)
    stated = re.search(r"\bp\s*=\s*(\d+)[ ,;/]*(?:buffer )?c\s*=\s*(?:p/)?(\d+)", words)
    if stated:
        partitions, second = int(stated[1]), int(stated[2])
        return partitions, partitions // second if "c=p/" in words else second
    named = re.search(r"\bp\s*=\s*(\d+)|mariusgnn with (\d+) partitions", words)
    partitions = int(named[1] or named[2]) if named else PARTITIONS
    if "capsule" in row.source.lower():
        return partitions, min(CAPSULE_BUFFER, partitions)
    counted = re.search(r"buffer about (\d+)(?: of (\d+))? partitions", words)
    if counted:
        return int(counted[2] or partitions), int(counted[1])
    share = _stated_share(row)
    if share is None:
        raise NotModelled("configuration not stated", "partitions in MariusGNN's buffer")
    return partitions, max(1, round(share * partitions))


def _stated_share(row: PublishedRow) -> float | None:
    """Share of the features that are in memory."""
    words = _words(row)
    for pattern in (
        r"cache ratio (\d+(?:\.\d+)?)%",
        r"\((\d+(?:\.\d+)?) percent\)",
        r"buffer about (\d+(?:\.\d+)?)% of",
        r"\bcache (\d+(?:\.\d+)?)%",
    ):
        found = re.search(pattern, words)
        if found:
            return float(found[1]) / 100.0
    return STUDY_SHARE if "diskgnn" in row.source.lower() else None


def _in_flight(row: PublishedRow, default: int) -> int:
    """Batches in flight: the staleness bound B of a row, one where it is synchronous."""
    words = _words(row)
    found = re.search(r"(?:staleness bound|in flight)[ =:]*(\d+)", words)
    if found and 0 < int(found[1]) <= 64:
        return int(found[1])
    return 1 if re.search(r"\bsynchronous\b|pipeline off|unpipelined", words) else default


def batch_of(row: PublishedRow, *, per_direction: bool = False) -> BatchSpec:
    """Seeds and fan-outs, seeds first.

    MariusGNN states fan-outs per direction and seeds first, "15;10;5 in + 15;10;5 out": our graphs
    have every edge both ways, so that they add up. Tables that compare systems list them as DGL
    does, input layer first.

    Args:
        row: with fan-outs and batch.
        per_direction: whether the code draws so many neighbours along and so many against edges,
            as MariusGNN's does unless its configuration switches a direction off.
    """
    size = whole_number(row.batch)
    ways = re.fullmatch(r"([\d;,\- ]+)(?: in \+ ([\d;,\- ]+) out| per direction)?", row.fanout)
    if size is None or ways is None:
        found = f"fan-outs {row.fanout!r}, batch {row.batch!r}"
        raise NotModelled("configuration not stated", found)
    listed = [int(word) for word in re.findall(r"\d+", ways[1])]
    if "out" in row.fanout or "per direction" in row.fanout:
        other = [int(word) for word in re.findall(r"\d+", ways[2] or ways[1])]
        fanouts = [a + b for a, b in zip(listed, other, strict=False)]
    else:
        fanouts = [(2 if per_direction else 1) * fanout for fanout in reversed(listed)]
    if len(fanouts) != row.num_layers or not all(0 < f <= 10_000 for f in fanouts):
        found = f"fan-outs {row.fanout!r} of {row.layers} layers"
        raise NotModelled("configuration not stated", found)
    return BatchSpec(size=size, fanouts_from_seeds=tuple(fanouts))


def _link_batch(row: PublishedRow) -> BatchSpec:
    """Positive edges of a batch, and corrupted nodes per batch."""
    size = whole_number(row.batch) if row.batch else LINK_BATCH
    if size is None:
        raise NotModelled("configuration not stated", f"batch {row.batch!r}")
    negatives = re.search(r"(\d+) negatives", row.notes)
    return BatchSpec(size=size, negatives=int(negatives[1]) if negatives else LINK_NEGATIVES)


def _cores(row: PublishedRow) -> int:
    """Cores of the host: stated, such as "8c/16t" or "32 cores", else those of its cluster."""
    found = re.search(r"\b(\d+)(?:c/\d+t| cores)\b", row.hardware.lower())
    if found and 0 < int(found[1]) <= 1024:
        return int(found[1])
    return load_cluster(cluster_of(row, native=True)).host.cores


def workers_of(row: PublishedRow) -> int:
    """Threads of the host that draw and gather: its cores, as far as its memory feeds them."""
    host = load_cluster(cluster_of(row, native=True)).host
    return max(1, min(_cores(row), int(host.memory_bytes_per_s.value / THREAD_BYTES_PER_S)))
