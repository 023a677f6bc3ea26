"""Times of systems that learn from streams, from counts of what their released code does.

TGN, JODIE   twitter-research/tgn: every batch goes through all nodes and all pending messages
TGAT         its authors' code: a bisection per query, also for neighbours of neighbours
CAW          snap-stanford/CAW: 64 walks of two steps per query, positions keyed by strings
Zebra        LuckyLYM/Zebra: two top-20 temporal PageRanks in hash tables, updated event by event
GNNFlow      its store: edges grouped by source in a hash table, sorted, copied into blocks

Widths, fan-outs and layers are the defaults of that code where a row states none. On the device
only launches are counted: kernels over a few hundred rows take less than issuing them. Times of
epochs are those of training, without evaluation. Before they train, TGN, TGAT and CAW take a tenth
of the nodes and all their events away.

Deviation known: a node's events are spread evenly over the epoch; where they come in bursts, fewer
messages are pending. TGAT's queries all find a full history. JODIE is taken as the option of TGN's
code; its own code differs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gnnbench.cluster import load_cluster
from gnnbench.data.profile import load_profile
from gnnbench.data.stream_profile import StreamProfile
from gnnbench.published.effort import Effort
from gnnbench.published.metrics import (
    BUILD,
    MEAN,
    OVERHEAD,
    STORE,
    STREAM_METRICS,
    TOTAL,
    epochs_of,
)
from gnnbench.published.places import cluster_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.released import EAGER, OPTIMIZER_LAUNCHES
from gnnbench.published.rows import PublishedRow, whole_number

STATED_EPOCHS = "epochs to converge"
SLOT_BYTES = 20
"""Of GNNFlow's store: neighbour and event of 8 bytes, a time of 4 (temporal section 3.1)."""
KEPT = 0.9**2
"""Share of the training events both of whose ends stay when a tenth of the nodes is taken away."""
_STREAM_SYSTEMS = re.compile(r"^(tgn|tgat|jodie|apan|caw|zebra|gnnflow|tgl|tgb)\b")
_PROFILES = {
    "wikipedia": "jodie-wikipedia",
    "wiki": "jodie-wikipedia",
    "reddit": "jodie-reddit",
    "mooc": "jodie-mooc",
    "lastfm": "jodie-lastfm",
    "gdelt": "gdelt",
}
_NEGATIVES = 1
# A look-up of one node's past: a search and three slices; then what is taken of it.
_PAST = Effort(steps=3, views=3, calls=1)
_NEWEST = _PAST + Effort(views=3, calls=3)
# TGAT by default: three slices to find the past, three of its part, three of what is taken of it.
_OLDEST = Effort(steps=9, views=9, calls=3)
_WALKED = _PAST + Effort(steps=3, views=3, calls=9)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMeasure:
    """A predicted time, in seconds, or size, in bytes, and what it rests on."""

    value: float
    basis: str
    cluster: str = ""

    def expected(self, metric: str) -> tuple[float, str]:
        """The predicted number, and what it rests on."""
        return self.value, self.basis

    def is_input(self, row: PublishedRow) -> bool:
        """No stream profile was made from a row."""
        return False


def is_stream(row: PublishedRow) -> bool:
    """Whether a row is of a system that learns from a stream."""
    return row.metric in STREAM_METRICS or bool(_STREAM_SYSTEMS.match(row.system.lower()))


def stated_epochs(rows: Sequence[PublishedRow]) -> Mapping[tuple[str, str, str], float]:
    """Epochs that a table states, by source, system and dataset."""
    return {_training(row): row.value for row in rows if row.metric == STATED_EPOCHS}


def stream_measure(
    row: PublishedRow, epochs: Mapping[tuple[str, str, str], float]
) -> StreamMeasure:
    """What to predict for a row. Raises NotModelled.

    Args:
        row: with a metric that can be predicted.
        epochs: see `stated_epochs`.
    """
    cluster = cluster_of(row, native=True)
    profile = _profile(row)
    if row.metric in (BUILD, STORE):
        return _stored(row, profile, cluster)
    launch_s = load_cluster(cluster).device.launch_s.value
    if row.metric == OVERHEAD:
        effort, basis = _overhead(row, profile)
        return StreamMeasure(value=effort.seconds(launch_s), basis=basis, cluster=cluster)
    if not (epochs_of(row) or row.metric in (MEAN, TOTAL)):
        raise NotModelled("software path not modelled", f"{row.metric} of {row.system}")
    effort, basis = _epoch(row, profile)
    value = effort.seconds(launch_s)
    if row.metric == TOTAL:
        number = epochs.get(_training(row))
        if number is None:
            raise NotModelled("configuration not stated", "epochs of the whole training")
        value *= number
        basis += ", times the epochs that the table states"
    return StreamMeasure(value=value, basis=basis, cluster=cluster)


def _training(row: PublishedRow) -> tuple[str, str, str]:
    return row.source, row.system, row.dataset


def _profile(row: PublishedRow) -> StreamProfile:
    name = _PROFILES.get(row.dataset.lower())
    if name is None:
        raise NotModelled("graph without a profile", row.dataset or "empty")
    found = load_profile(name)
    assert isinstance(found, StreamProfile)
    return found


# -- epochs --------------------------------------------------------------------------------------


def _epoch(row: PublishedRow, profile: StreamProfile) -> tuple[Effort, str]:
    """Operations of an epoch of training, and where they were counted."""
    name = row.system.lower()
    size = whole_number(row.batch)
    if size is None:
        raise NotModelled("configuration not stated", f"batch {row.batch!r}")
    for pattern, batch, kept in _BATCHES:
        if re.match(pattern, name):
            count = math.ceil(kept * profile.num_train / size)
            return batch(profile, size).times(count), "operations counted in the released code"
    raise NotModelled("software path not modelled", _UNMODELLED.get(name, f"loops of {row.system}"))


_UNMODELLED = {
    "apan": "subgraphs of all events of a batch's nodes, whose numbers the profile lacks",
}


def _updated_memory(profile: StreamProfile, size: int) -> Effort:
    """TGN's memory: messages of all nodes are collected, applied and freed of their history.

    Each node is looked at; each pending message is stacked with its time and detached, and
    its node goes through five index lists. The ends of the batch have it once more, and each event
    makes two messages of a row and a time.
    """
    pending = pending_messages(profile)
    everyone = Effort(steps=profile.num_nodes)
    messages = Effort(steps=3 + 5, handles=2 + 1).times(pending)
    ends = Effort(steps=3 + 1, handles=2).times(2 * size)
    made = Effort(steps=2, handles=2).times(2 * size)
    return everyone + messages + ends + made


def pending_messages(profile: StreamProfile) -> float:
    """Nodes with a pending message, on average over the batches of an epoch.

    A node of k events has had its first one before the share x of the epoch with the chance
    1 - (1 - x)^k, whose mean over x is k / (k + 1).
    """
    trained = KEPT * profile.num_train / max(profile.num_edges, 1)
    values = profile.activity_values or (2.0 * profile.num_edges / max(profile.num_nodes, 1),)
    counts = profile.activity_counts or (profile.num_nodes,)
    events = [trained * value for value in values]
    return sum(n * k / (k + 1.0) for n, k in zip(counts, events, strict=True))


def _tgn(profile: StreamProfile, size: int) -> Effort:
    """Memory, the ten newest neighbours of each query, one layer of attention."""
    lookups = _NEWEST.times((2 + _NEGATIVES) * size)
    return _updated_memory(profile, size) + lookups + _tensors(layers=4, parameters=24)


def _jodie(profile: StreamProfile, size: int) -> Effort:
    """Memory, and a projection in time instead of neighbours."""
    return _updated_memory(profile, size) + _tensors(layers=3, parameters=12)


def _tgat(profile: StreamProfile, size: int) -> Effort:
    """Two layers of 20 neighbours; each of three calls looks its roots up twice.

    The code takes uniform neighbours only where it is asked to, which no row states.
    """
    queries = (2 + _NEGATIVES) * size * (1 + 1 + 20)
    turns = math.log2(max(2.0 * profile.num_edges / profile.num_nodes, 2.0))
    bisection = Effort(steps=3, views=1).times(turns)
    return (bisection + _OLDEST).times(queries) + _tensors(layers=3 * 3, parameters=36)


def _caw(profile: StreamProfile, size: int) -> Effort:
    """64 walks of two steps per query; where each step lies from both ends of a pair.

    Per pair of a source with the destination or a negative, each of the 1 + 64 + 64 places of both
    has a string as its key, two look-ups and an addition. Walks repeat all places of all steps,
    each with a string that is made, sorted and looked up.
    """
    queries = (2 + _NEGATIVES) * size * (1 + 64)
    pairs = (1 + _NEGATIVES) * size
    places = Effort(strings=1, steps=3, calls=1).times(2 * (1 + 64 + 64) * pairs)
    keys = Effort(strings=1, steps=1).times(2 * 3 * 64 * pairs)
    return _WALKED.times(queries) + places + keys + _tensors(layers=8, parameters=40)


def _zebra(profile: StreamProfile, size: int) -> Effort:
    """Two temporal PageRanks per event, one layer over their neighbours; three scores per batch."""
    scored = Effort(calls=3 * 40)
    return _streamed(models=2, top=20).times(size) + scored + _tensors(layers=4, parameters=20)


def _tensors(*, layers: int, parameters: int) -> Effort:
    """Launches of a training step, forward, backward and of an optimizer without fused kernels."""
    return Effort(launches=3 * EAGER * layers + OPTIMIZER_LAUNCHES * parameters)


_Batch = Callable[[StreamProfile, int], Effort]
_BATCHES: Sequence[tuple[str, _Batch, float]] = (
    (r"tgn$", _tgn, KEPT),
    (r"jodie$", _jodie, KEPT),
    (r"tgat$", _tgat, KEPT),
    (r"caw$", _caw, KEPT),
    (r"zebra$", _zebra, KEPT),
)
"""Released code by system: effort of a batch, and the share of the training events it trains on."""


# -- parts ---------------------------------------------------------------------------------------


def _streamed(*, models: int, top: int) -> Effort:
    """One event of Zebra's streaming: three tables are read, two are updated, per model.

    An update copies a table, scales it, adds the other's, sorts both together and writes the top.
    """
    read = 3 * top
    update = top + top + top + 2 * top + top
    return Effort(entries=models * (read + 2 * update))


def _overhead(row: PublishedRow, profile: StreamProfile) -> tuple[Effort, str]:
    """Temporal PageRank alone, in an epoch: streamed, or by expanding neighbours to a depth."""
    events = KEPT * profile.num_train
    name = row.system.lower()
    if "santa" in name:
        return _streamed(models=2, top=20).times(events), "entries of hash tables, event by event"
    stated = re.search(r"ppi ?\((\d+), ?(\d+)\)", name)
    if stated is None or int(stated[1]) > 1000 or int(stated[2]) > 4:
        raise NotModelled("configuration not stated", f"width and depth of {row.system}")
    width, depth = int(stated[1]), int(stated[2])
    found = float(sum(width**hop for hop in range(1, depth + 1)))
    # Each place is tested and written, listed, and sorted with all others; once per model.
    models, each = 2, 3 + math.log2(max(found, 2.0)) / 2
    effort = Effort(entries=models * found * each).times((2 + _NEGATIVES) * events)
    return effort, "entries of hash tables, all neighbours to the stated depth"


def _stored(row: PublishedRow, profile: StreamProfile, cluster: str) -> StreamMeasure:
    """GNNFlow's store of a whole stream, both directions of each event."""
    if not row.system.lower().startswith("gnnflow"):
        raise NotModelled("system not modelled", row.system)
    stored = 2.0 * profile.num_edges
    if row.metric == STORE:
        basis = "slots of all edges in both directions, none of them empty"
        return StreamMeasure(value=SLOT_BYTES * stored, basis=basis, cluster=cluster)
    # Per edge: three lists of its source's group are appended to, the group is sorted, and three
    # columns are read in that order and written to a block.
    effort = Effort(entries=3 + 2 + 3).times(stored)
    return StreamMeasure(
        value=effort.seconds(0.0), basis="entries of hash tables per stored edge", cluster=cluster
    )
