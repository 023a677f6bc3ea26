"""What recipes of mini-batch systems share: operations that loaders issue, fan-outs and batches.

Fan-outs are listed input layer first by DGL and by GNNLab's configuration, and seeds first by
Quiver and PyG (sampling section 2).
"""

from __future__ import annotations

import re

from gnnbench.cluster import load_cluster
from gnnbench.published.places import cluster_of
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
CORE_BYTES_PER_S, SUSTAINED = 1.0e10, 0.8
"""What one core of a server moves (as the simulator assumes), and the share of a datasheet's memory
bandwidth that cores reach together."""


def gathering_threads(row: PublishedRow) -> int:
    """Threads of a training process that gather rows, as torch sets them: cores over processes.

    Threads beyond those that the host's memory serves at `CORE_BYTES_PER_S` gain nothing.
    """
    host = load_cluster(cluster_of(row, native=True)).host
    ranks = max(min(row.ranks or 1, host.devices_per_host), 1)
    served = SUSTAINED * host.memory_bytes_per_s.value / CORE_BYTES_PER_S
    return max(int(min(host.cores, served)) // ranks, 1)


def of_gnnlab(row: PublishedRow) -> bool:
    """Whether a row is of GNNLab's artefact, whose batch is that of each device that trains."""
    return "run_config order" in row.fanout


def batch_recipe(
    row: PublishedRow,
    loader: Loader,
    *,
    input_first: bool,
    trainers: int = 0,
    pipelined: bool = False,
) -> Recipe:
    """The recipe of a system that trains on batches.

    Args:
        row: states fan-outs and batch.
        loader: how a batch is drawn and fetched.
        input_first: whether the system lists the fan-out of the input layer first.
        trainers: devices that train, where others only draw; 0: all.
        pipelined: whether batches are prepared behind training.
    """
    ranks = trainers or row.ranks or 1
    return Recipe(
        software=Software(loader=loader),
        knobs={"order": _order(loader), "prefetch": 2 if pipelined else 0},
        batch=_batch(row, ranks, input_first=input_first),
        native_hosts=True,
        ranks=trainers,
    )


def _order(loader: Loader) -> str:
    """Which product of a layer comes first: DGL's layers narrow rows before they sum them."""
    return "min_width" if loader.framework == "dgl" else "aggregate_first"


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
    if not batch[2] and row.ranks != 1 and not of_gnnlab(row):
        found = f"whether batch {row.batch} is of one device"
        raise NotModelled("configuration not stated", found)
    return BatchSpec(size=each * ranks, fanouts_from_seeds=tuple(fanouts))
