"""Recipes of systems that train on sampled batches: who draws, where features lie, what is cached.

What a row says of these comes first (a cached share, a hit rate, the devices that sample), then
what the system's published code does. Fan-outs are listed input layer first by DGL and by GNNLab's
configuration, and seeds first by Quiver and PyG (sampling section 2).
"""

from __future__ import annotations

import re

from gnnbench.cluster import load_cluster
from gnnbench.published.hits import degree_hits, presampled_hits
from gnnbench.published.metrics import phases_of
from gnnbench.published.places import cluster_of, profile_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.recipes import Recipe
from gnnbench.published.rows import PublishedRow, whole_number
from gnnbench.published.software import Loader, Software
from gnnbench.spec import BatchSpec

LOADER_LAUNCHES = 95
"""Operations of DGL's data loading per hop, each a launch of 10 us.

From the time of its batches of 512 and 1,024 seeds on a V100 (rapidsai/cugraph PR 3660): continued
to no seeds, they take 2.0 ms with two hops and 2.8 ms with three."""
COMPILED_LAUNCHES = 10
"""The same where one call into compiled code draws a hop (assumed)."""
QUIVER_CACHE_BYTES = 2.0e8
"""`device_cache_size` of Quiver's example scripts."""
CACHE_OF_MEMORY = 0.75
"""Of a device's memory that GNNLab's trainers fill with features where a row does not say: 21 % of
ogbn-papers100M on 16 GB (exp/fig12 of its artefact)."""
_HOST_SHARE = 6
"""Cores of a host of eight devices and 48 cores that gather rows for each device."""
_LATER = ("distdgl", "wholegraph", "cugraph", "graphbolt", "dgl + ", "disk")


def dgl(row: PublishedRow) -> Recipe:
    """DGL's examples: the device draws from pinned memory and reads features there (UVA).

    A row that says where sampling happens or where features lie is taken at its word.
    """
    name = f"{row.system} {row.notes}".lower()
    if any(word in row.system.lower() for word in _LATER):
        raise NotModelled("software path not modelled", f"how {row.system} fetches features")
    sampler, features, hits = "uva", "uva", 0.0
    if re.search(r"sampl\w* (on |= ?)?cpu|cpu sampling|sampler=cpu|num_workers=[1-9]", name):
        raise NotModelled("software path not modelled", "sampling by an unstated number of threads")
    if re.search(r"gpu sampling|sampler=gpu|sampling on gpu", name) or _is_gnnlab(row):
        sampler = "device"
    stated = re.search(r"features?(?:=| on )(cpu|gpu|uva|unifiedtensor|cache \d+%)", name)
    if stated:
        features = {"cpu": "staged_pageable", "gpu": "device"}.get(stated[1], "uva")
        if stated[1].startswith("cache"):
            hits = _cached(row, float(stated[1][6:-1]) / 100.0)
    elif _is_gnnlab(row):
        features = "staged_pageable"
    loader = Loader(sampler=sampler, features=features, hits=hits, launches=LOADER_LAUNCHES)
    return _recipe(row, loader, input_first=True)


def pyg(row: PublishedRow) -> Recipe:
    """PyG's loader: the host draws, indexes rows there and copies them.

    On one device the training process does so itself unless a row states workers, which is the
    loader's default. Scripts for several devices, and times that loading leaves exposed, have
    workers: they are predicted only where a row says how many.
    """
    name = f"{row.system} {row.notes}".lower()
    if re.search(r"\buva\b|gpu sampl|sampl\w* (?:on |= ?)?gpu|pyg-?lib|cugraph", name):
        raise NotModelled("software path not modelled", f"how {row.system} draws on the device")
    stated = re.search(r"num_workers ?= ?(\d+)|(\d+) (?:sampling )?workers", name)
    if not stated and (row.ranks != 1 or "exposed" in name):
        raise NotModelled("software path not modelled", "loading by an unstated number of workers")
    workers = int(stated[1] or stated[2]) if stated else 1
    loader = Loader(
        sampler="host",
        features="staged_pageable",
        workers=min(max(workers, 1), 1024),
        launches=COMPILED_LAUNCHES,
    )
    return _recipe(row, loader, input_first=False)


def quiver(row: PublishedRow) -> Recipe:
    """Quiver: draws from pinned host memory, hottest rows by degree in a cache on each device."""
    name = row.system.lower()
    if "sampler" in name and "cpu" in name:
        raise NotModelled("software path not modelled", "sampling by an unstated number of threads")
    profile = profile_of(row)
    share = min(1.0, QUIVER_CACHE_BYTES / max(4.0 * profile.num_nodes * profile.num_features, 1.0))
    hits = _cached(row, share)
    loader = Loader(sampler="uva", features="uva", hits=hits, launches=COMPILED_LAUNCHES)
    return _recipe(row, loader, input_first=False)


def gnnlab(row: PublishedRow) -> Recipe:
    """GNNLab and its time-sharing baseline SGNN: devices draw from their own memory.

    Rows that the cache misses are gathered by the host's cores into pinned memory. GNNLab gives
    some devices to sampling and the others to training, which fetch behind training unless a row
    says that nothing is pipelined.
    """
    name, notes = row.system.lower(), row.notes.lower()
    if "cpu sampling" in name:
        raise NotModelled("software path not modelled", "sampling by an unstated number of threads")
    samplers = trainers = 0
    pipelined = False
    if not name.startswith("sgnn"):
        samplers, trainers = _split(row)
        pipelined = "not pipelined" not in notes and row.metric == "epoch_time"
    loader = Loader(
        features="staged",
        hits=_hits(row),
        launches=COMPILED_LAUNCHES,
        workers=_HOST_SHARE,
        samplers=samplers,
        trainers=trainers,
    )
    return _recipe(row, loader, input_first=True, trainers=trainers, pipelined=pipelined)


def push_pull(row: PublishedRow) -> Recipe:
    """P3, and NFP of APT: built on DGL; feature columns lie on the devices, and none is fetched."""
    loader = Loader(sampler="uva", features="device", hits=0.0, launches=LOADER_LAUNCHES)
    return _recipe(row, loader, input_first=True)


def _recipe(
    row: PublishedRow,
    loader: Loader,
    *,
    input_first: bool,
    trainers: int = 0,
    pipelined: bool = False,
) -> Recipe:
    ranks = trainers or row.ranks or 1
    return Recipe(
        software=Software(loader=loader),
        knobs={"order": "aggregate_first", "prefetch": 2 if pipelined else 0},
        batch=_batch(row, ranks, input_first=input_first),
        native_hosts=True,
        ranks=trainers,
    )


def _batch(row: PublishedRow, ranks: int, *, input_first: bool) -> BatchSpec:
    """The seeds of all ranks and the fan-outs, seeds first."""
    if not row.fanout or not row.batch:
        raise NotModelled("configuration not stated", "fan-outs and batch of mini-batch training")
    words = re.sub(r"\([^)]*\)", "", row.fanout).strip()
    listed = [whole_number(word) for word in re.split(r"[-,; ]+", words)]
    fanouts = [number for number in listed if number is not None]
    batch = re.fullmatch(r"(\d+)(?:\.0)?\s*(/gpu|/trainer|global)?", row.batch.lower())
    each = whole_number(batch[1]) if batch else None
    if batch is None or each is None or not len(fanouts) == len(listed) == row.num_layers:
        found = f"fan-outs {row.fanout}, batch {row.batch}"
        raise NotModelled("configuration not stated", found)
    if input_first:
        fanouts.reverse()
    if batch[2] == "global":
        return BatchSpec(size=each, fanouts_from_seeds=tuple(fanouts))
    if not batch[2] and row.ranks != 1 and not _is_gnnlab(row):
        found = f"whether batch {row.batch} is of one device"
        raise NotModelled("configuration not stated", found)
    return BatchSpec(size=each * ranks, fanouts_from_seeds=tuple(fanouts))


def _is_gnnlab(row: PublishedRow) -> bool:
    """Whether a row is of GNNLab's artefact, whose batch is that of each device that trains."""
    return "run_config order" in row.fanout


def _split(row: PublishedRow) -> tuple[int, int]:
    """Devices that sample and devices that train."""
    found = re.search(r"(\d+) sampler(?: GPUs?)? \+ (\d+) trainer", row.notes)
    if found:
        return int(found[1]), int(found[2])
    named = re.search(r"(\d+) sampler", row.system)
    if row.ranks is None or row.ranks < 2:
        raise NotModelled("configuration not stated", "devices that sample, and that train")
    samplers = int(named[1]) if named else 1
    if not named and row.ranks > 2:
        raise NotModelled("configuration not stated", "devices that sample, and that train")
    return samplers, row.ranks - samplers


def _hits(row: PublishedRow) -> float:
    """Share of the input rows that a cache holds: stated, or of the stated share of vertices."""
    if phases_of(row) and "fetch" not in phases_of(row):
        return 0.0  # neither sampling nor training reads the cache
    notes, name = row.notes.lower(), row.system.lower()
    stated = re.search(r"\bhit(?: rate)? (\d+(?:\.\d+)?)\s?%", notes)
    if stated:
        return float(stated[1]) / 100.0
    if "no feature cache" in notes or "no cache" in name:
        return 0.0
    table = re.search(r"cache \d+% with cpu sampling, (\d+)% with gpu sampling", notes)
    if table is not None and not ("cache" in name or "both" in name):
        return 0.0  # this table names the systems that have the cache
    share = table or re.search(r"(\d+(?:\.\d+)?)% (?:of vertices )?cached", notes)
    if share is None and not name.startswith("gnnlab"):
        raise NotModelled("configuration not stated", "share of the vertices in the cache")
    cached = _left_for_cache(row) if share is None else float(share[1]) / 100.0
    if "random" in name:
        return cached
    if "degree" in notes or "degree" in name:
        return _cached(row, cached)
    found = presampled_hits(profile_of(row), cached)
    if found is None:
        raise NotModelled("software path not modelled", "hit rate of a cache by pre-sampling")
    return found


def _left_for_cache(row: PublishedRow) -> float:
    """Share of the vertices whose features fill what training leaves of a device's memory."""
    memory = load_cluster(cluster_of(row, native=True)).device.memory_bytes.value
    stated = re.search(r"-(\d+)gb", row.hardware.lower())
    if stated:
        memory = float(stated[1]) * 1e9
    profile = profile_of(row)
    size = 4.0 * profile.num_nodes * profile.num_features
    return min(1.0, CACHE_OF_MEMORY * memory / max(size, 1.0))


def _cached(row: PublishedRow, share: float) -> float:
    """Hit rate of a cache of the vertices of highest degree."""
    return 1.0 if share >= 1.0 else degree_hits(profile_of(row), share)
