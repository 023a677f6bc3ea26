"""Recipes of GNNLab's artefact: GNNLab, its time-sharing baseline SGNN, and how it runs others.

What a row does not state of threads and of cached shares is what the artefact's scripts set; they
are the same for all rows of an experiment (SJTU-IPADS/gnnlab exp/table1/run.py, exp/table4/run.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gnnbench.cluster import load_cluster
from gnnbench.published.batches import COMPILED_LAUNCHES, batch_recipe
from gnnbench.published.hits import degree_hits, presampled_hits
from gnnbench.published.metrics import phases_of
from gnnbench.published.places import cluster_of, profile_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.recipes import Recipe
from gnnbench.published.rows import PublishedRow
from gnnbench.published.software import Loader

DRAWING_PROCESSES = 24
"""Of DGL where the host draws (`num_sampling_worker`)."""
LOADING_PROCESSES = 40
"""Of PyG, over all devices."""
THREADS = 40
"""Of SGNN and GNNLab (`omp_thread_num`), over all devices that train: they gather rows, and draw
where the host draws."""
CACHE_OF_MEMORY = 0.75
"""Of a device's memory that GNNLab's trainers fill with features where a row does not say: 21 % of
ogbn-papers100M on 16 GB (exp/fig12 of its artefact)."""
SGNN_CACHED: Mapping[tuple[str, str], float] = {
    ("ogbn-products", "gcn"): 1.0,
    ("ogbn-papers100m", "gcn"): 0.04,
    ("twitter-2010", "gcn"): 0.01,
    ("uk-2006-05", "gcn"): 0.0,
    ("ogbn-products", "graphsage"): 1.0,
    ("ogbn-papers100m", "graphsage"): 0.11,
    ("twitter-2010", "graphsage"): 0.15,
    ("uk-2006-05", "graphsage"): 0.0,
}
"""Share of the vertices, those of highest degree, that SGNN's devices cache, by graph and model
(`cache_percentage`); a setting, which the row does not repeat."""


def gnnlab(row: PublishedRow) -> Recipe:
    """GNNLab and its time-sharing baseline SGNN: devices draw from their own memory.

    Rows that the cache misses are gathered by the host's cores into pinned memory. GNNLab gives
    some devices to sampling and the others to training, which fetch behind training unless a row
    says that nothing is pipelined.
    """
    name, notes = row.system.lower(), row.notes.lower()
    samplers = trainers = 0
    pipelined = False
    if not name.startswith("sgnn"):
        samplers, trainers = _split(row)
        pipelined = "not pipelined" not in notes and row.metric == "epoch_time"
    loader = Loader(
        sampler="host" if "cpu sampling" in name else "device",
        features="staged",
        hits=_hits(row),
        launches=COMPILED_LAUNCHES,
        workers=max(THREADS // (trainers or row.ranks or 1), 1),
        samplers=samplers,
        trainers=trainers,
        by_columns=True,
    )
    return batch_recipe(row, loader, input_first=True, trainers=trainers, pipelined=pipelined)


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
    if samplers >= row.ranks:
        raise NotModelled("configuration out of range", f"{samplers} samplers of {row.ranks}")
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
    table = re.search(r"cache (\d+)% with cpu sampling, (\d+)% with gpu sampling", notes)
    if table is not None and not ("cache" in name or "both" in name):
        return 0.0  # this table names the systems that have the cache
    if table is not None:  # its caches are by degree (exp/table1/run.py)
        return _cached(row, float(table[1 if "cpu sampling" in name else 2]) / 100.0)
    share = re.search(r"(\d+(?:\.\d+)?)% (?:of vertices )?cached", notes)
    if share is None and name.startswith("sgnn"):
        return _cached(row, _set_share(row))
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


def _set_share(row: PublishedRow) -> float:
    """Share of the vertices that the artefact's scripts let SGNN cache."""
    found = SGNN_CACHED.get((profile_of(row).name, row.model.lower()))
    if found is None:
        raise NotModelled("configuration not stated", "share of the vertices in the cache")
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
