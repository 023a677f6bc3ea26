"""Recipes of systems that train on sampled batches: who draws, where features lie, what is cached.

What a row says of these comes first (a cached share, a hit rate, the threads that sample), then
what the system's published code does. GNNLab's artefact has a file of its own.
"""

from __future__ import annotations

import re

from gnnbench.published.batches import (
    COMPILED_LAUNCHES,
    LOADER_LAUNCHES,
    batch_recipe,
    gathering_threads,
    of_gnnlab,
)
from gnnbench.published.gnnlab import DRAWING_PROCESSES, LOADING_PROCESSES
from gnnbench.published.hits import degree_hits
from gnnbench.published.places import profile_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.recipes import Recipe
from gnnbench.published.rows import PublishedRow, whole_number
from gnnbench.published.software import Loader

QUIVER_CACHE_BYTES = 2.0e8
"""`device_cache_size` of Quiver's example scripts."""
CAPSULE_LAUNCHES = 30
"""Operations of Capsule's loader per hop (counted in src/load/loader.py): slices, copies of
buffers, maxima, and making a block."""
CAPSULE_NODE_BYTES, CAPSULE_EDGE_BYTES = 20, 4
"""Bytes of its files besides features: offset, label, and its old and new place of a vertex; the
head of an edge."""
SALIENT_WORKERS = 20
"""Of the artefact's scripts (`num_workers`), for its PyG baseline as well."""
HALF = 2
"""Bytes of a stored feature in half precision."""
_LATER = ("distdgl", "wholegraph", "cugraph", "graphbolt", "dgl + ", "disk")


def dgl(row: PublishedRow) -> Recipe:
    """DGL's examples: the device draws from pinned memory and reads features there (UVA).

    A row that says where sampling happens or where features lie is taken at its word. Processes
    that draw on the host run ahead of training, unless a row times them apart.
    """
    name = f"{row.system} {row.notes}".lower()
    if any(word in row.system.lower() for word in _LATER):
        raise NotModelled("software path not modelled", f"how {row.system} fetches features")
    sampler, features, hits, workers = "uva", "uva", 0.0, 1
    if re.search(r"gpu sampling|sampler=gpu|sampling on gpu", row.system.lower()) or of_gnnlab(row):
        sampler = "device"
    host = r"sampl\w* (on |= ?)?cpu|cpu sampling|sampler=cpu|num_workers=[1-9]"
    if re.search(host, row.system.lower() if of_gnnlab(row) else name):
        sampler, workers = "host", _processes(row)
        features = "staged_pageable"
    stated = re.search(r"features?(?:=| on )(cpu|gpu|uva|unifiedtensor|cache \d+%)", name)
    if stated:
        features = {"cpu": "staged_pageable", "gpu": "device"}.get(stated[1], "uva")
        if stated[1].startswith("cache"):
            hits = _cached(row, float(stated[1][6:-1]) / 100.0)
    elif of_gnnlab(row) or "capsule" in row.source.lower():
        # Capsule's script names no features to prefetch: DGL up to 1.0 then gathers the rows of a
        # frame in the host's memory, and copies them.
        features = "staged_pageable"
    loader = Loader(
        sampler=sampler,
        features=features,
        hits=hits,
        launches=LOADER_LAUNCHES if sampler != "host" else COMPILED_LAUNCHES,
        workers=workers,
        slicers=gathering_threads(row),
        by_columns=of_gnnlab(row),
    )
    ahead = sampler == "host" and not of_gnnlab(row)
    return batch_recipe(row, loader, input_first=True, pipelined=ahead)


def _processes(row: PublishedRow) -> int:
    """Processes of a device that draw on the host, as a row or GNNLab's scripts state them."""
    found = re.search(r"num_workers ?= ?(\d+)|(\d+) (?:sampling )?workers", _words(row))
    if found:
        return min(max(int(found[1] or found[2]), 1), 1024)
    if of_gnnlab(row):
        return max(DRAWING_PROCESSES // (row.ranks or 1), 1)
    raise NotModelled("software path not modelled", "sampling by an unstated number of threads")


def _words(row: PublishedRow) -> str:
    return f"{row.system} {row.notes}".lower()


def pyg(row: PublishedRow) -> Recipe:
    """PyG's loader: the host draws, indexes rows there and copies them.

    SALIENT's artefact lets it index into pinned memory.

    On one device the training process does so itself unless a row states workers, which is the
    loader's default. Workers draw ahead; the training process indexes and copies. Scripts for
    several devices have workers: they are predicted only where a row or its artefact says how many.
    """
    name = _words(row)
    if re.search(r"\buva\b|gpu sampl|sampl\w* (?:on |= ?)?gpu|pyg-?lib|cugraph", name):
        raise NotModelled("software path not modelled", f"how {row.system} draws on the device")
    stated = re.search(r"num_workers ?= ?(\d+)|(\d+) (?:sampling )?workers", name)
    workers, ahead = (int(stated[1] or stated[2]), True) if stated else (1, False)
    if not stated and of_salient(row):
        workers, ahead = SALIENT_WORKERS, True
    elif not stated and of_gnnlab(row):
        what = f"{LOADING_PROCESSES} processes that start anew in every epoch of a few batches"
        raise NotModelled("software path not modelled", what)
    elif not stated and (row.ranks != 1 or "exposed" in name):
        raise NotModelled("software path not modelled", "loading by an unstated number of workers")
    loader = Loader(
        sampler="host",
        features="staged_alone" if of_salient(row) else "staged_pageable",
        workers=min(max(workers, 1), 1024),
        slicers=gathering_threads(row),
        launches=COMPILED_LAUNCHES,
        stored_bytes=_stored_bytes(row),
        framework="pyg",
    )
    return batch_recipe(row, loader, input_first=False, pipelined=ahead and workers > 0)


def salient(row: PublishedRow) -> Recipe:
    """SALIENT: threads of the host draw and slice batches into pinned memory, ahead of training.

    Copies run behind training too. Features are stored in half precision.
    """
    loader = Loader(
        sampler="host",
        features="staged",
        workers=SALIENT_WORKERS,
        launches=COMPILED_LAUNCHES,
        stored_bytes=HALF,
        framework="pyg",
    )
    return batch_recipe(row, loader, input_first=False, pipelined=True)


def of_salient(row: PublishedRow) -> bool:
    """Whether a row is of SALIENT's artefact."""
    return "salient" in row.source.lower()


def _stored_bytes(row: PublishedRow) -> int:
    return HALF if "half-precision features" in row.notes.lower() or of_salient(row) else 0


def quiver(row: PublishedRow) -> Recipe:
    """Quiver: draws from pinned host memory, hottest rows by degree in a cache on each device."""
    name = row.system.lower()
    if "sampler" in name and "cpu" in name:
        raise NotModelled("software path not modelled", "sampling by an unstated number of threads")
    profile = profile_of(row)
    share = min(1.0, QUIVER_CACHE_BYTES / max(4.0 * profile.num_nodes * profile.num_features, 1.0))
    hits = _cached(row, share)
    loader = Loader(sampler="uva", features="uva", hits=hits, launches=COMPILED_LAUNCHES)
    return batch_recipe(row, loader, input_first=False)


def capsule(row: PublishedRow) -> Recipe:
    """Capsule: subgraphs and their rows lie on the device, which draws from them and trains.

    With DGL's layers a batch is a block per layer, with PyG's one list of edges for all layers. In
    an epoch every subgraph comes once: a thread reads its files while the device trains on the one
    before, and then the process that trains copies it (src/load/loader.py). Files are taken to be
    in the page cache. Deviation known: subgraphs are taken not to overlap beyond the rows that the
    device has already. Those of a social network do, and come in up to several times the bytes.
    """
    edges, profile = "pyg" in row.system.lower(), profile_of(row)
    batches = max(-(-profile.num_train // (whole_number(row.batch) or 1)), 1)
    each = 4 * profile.num_features + CAPSULE_NODE_BYTES
    size = each * profile.num_nodes + CAPSULE_EDGE_BYTES * profile.num_edges
    loader = Loader(
        sampler="device",
        features="device",
        launches=CAPSULE_LAUNCHES,
        subgraph_bytes=size // batches,
        framework="edges" if edges else "dgl",
        untrimmed=edges,
    )
    return batch_recipe(row, loader, input_first=True)


def push_pull(row: PublishedRow) -> Recipe:
    """P3, and NFP of APT: built on DGL; feature columns lie on the devices, and none is fetched."""
    loader = Loader(sampler="uva", features="device", hits=0.0, launches=LOADER_LAUNCHES)
    return batch_recipe(row, loader, input_first=True)


def _cached(row: PublishedRow, share: float) -> float:
    """Hit rate of a cache of the vertices of highest degree."""
    return 1.0 if share >= 1.0 else degree_hits(profile_of(row), share)
