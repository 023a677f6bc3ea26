"""The edge stream: edges in the order of their times, repeats kept, split by time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.dataset import label_problems, non_finite, out_of_range, present
from gnnbench.errors import DataError, SpecError

Array = NDArray[np.generic]
TRAIN, VAL = 0.7, 0.15
"""Shares of the events that train and validate unless said otherwise; the rest tests."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeStream:
    """Events (source, destination, time) sorted by time; an event's id is its position.

    Shapes: N nodes, E events. `sources` and `destinations` int32 [E]; `times` int64 [E], never
    falling; `edge_features` float32 [E, D]; `node_features` float32 [N, F]; `labels` int64 [E], -1
    where unknown. Events of one time keep the order of the file. An event is stored once: a
    consumer that wants both directions adds the other with the same id.

    Args:
        num_nodes: N.
        num_sources: of a bipartite stream: sources are 0..num_sources-1, destinations the rest.
            0 where both ends are of one kind.
        train_end: events 0..train_end-1 train.
        val_end: events train_end..val_end-1 validate, and the rest test.
        own_split: whether the split came with the data, or else by shares of the events.
    """

    kind: ClassVar[str] = "stream"
    ARRAYS: ClassVar[tuple[str, ...]] = (
        "sources",
        "destinations",
        "times",
        "edge_features",
        "node_features",
        "labels",
    )
    PLAIN: ClassVar[Mapping[str, type]] = MappingProxyType(
        {
            "num_nodes": int,
            "num_sources": int,
            "num_classes": int,
            "train_end": int,
            "val_end": int,
            "own_split": bool,
        }
    )

    name: str
    sources: NDArray[np.int32]
    destinations: NDArray[np.int32]
    times: NDArray[np.int64]
    num_nodes: int
    train_end: int
    val_end: int
    num_sources: int = 0
    edge_features: NDArray[np.float32] | None = None
    node_features: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    num_classes: int = 0
    own_split: bool = False
    notes: dict[str, object] = field(default_factory=dict)
    digest: str = ""

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in self.ARRAYS[:3]}
        if len(set(lengths.values())) > 1:
            raise DataError(self.name, f"arrays of unlike lengths: {lengths}")
        if self.times.dtype != np.int64:
            raise DataError(self.name, f"times: found {self.times.dtype}, expected int64")

    @property
    def num_edges(self) -> int:
        """Events, repeats and self loops included."""
        return len(self.times)

    @property
    def num_edge_features(self) -> int:
        return 0 if self.edge_features is None else int(self.edge_features.shape[1])

    @property
    def num_features(self) -> int:
        """Width of the node features."""
        return 0 if self.node_features is None else int(self.node_features.shape[1])

    @property
    def bipartite(self) -> bool:
        return self.num_sources > 0

    def part(self, split: str) -> slice:
        """Positions of the events of "train", "val" or "test"."""
        borders = {
            "train": (0, self.train_end),
            "val": (self.train_end, self.val_end),
            "test": (self.val_end, self.num_edges),
        }
        return slice(*borders[split])

    def destination_range(self) -> tuple[int, int]:
        """Ids that a destination can have, from..to-1: what negatives are drawn from."""
        return self.num_sources, self.num_nodes

    def arrays(self) -> dict[str, Any]:
        return present(self, self.ARRAYS)

    def facts(self) -> dict[str, Any]:
        return {
            "num_nodes": self.num_nodes,
            "num_sources": self.num_sources,
            "num_edges": self.num_edges,
            "num_features": self.num_features,
            "num_edge_features": self.num_edge_features,
            "num_classes": self.num_classes,
            "num_train": self.train_end,
            "num_val": self.val_end - self.train_end,
            "num_test": self.num_edges - self.val_end,
            "first_time": int(self.times[0]) if self.num_edges else 0,
            "last_time": int(self.times[-1]) if self.num_edges else 0,
        }

    def miniature(self, num_nodes: int) -> EdgeStream:
        """The first 16 * num_nodes events, ids modulo at most num_nodes, split into thirds."""
        count = min(16 * num_nodes, self.num_edges)
        first = self.num_sources
        # Each side of a bipartite stream keeps half of the nodes, or all it has.
        left = min(first, max(num_nodes // 2, 1))
        right = min(self.num_nodes - first, num_nodes - left)
        destinations = left + (np.asarray(self.destinations[:count]) - first) % max(right, 1)
        sources = np.asarray(self.sources[:count]) % max(left or right, 1)
        arrays: dict[str, Any] = {
            "sources": sources.astype(np.int32),
            "destinations": destinations.astype(np.int32),
            "times": np.array(self.times[:count]),
        }
        rows = {"edge_features": count, "labels": count, "node_features": left + right}
        for name, length in rows.items():
            array = getattr(self, name)
            arrays[name] = None if array is None else np.array(array[:length])
        for array in arrays.values():
            if array is not None:
                array.flags.writeable = False
        return dataclasses.replace(
            self,
            digest="",
            num_nodes=left + right,
            num_sources=left,
            train_end=-(-count // 3),
            val_end=-(-2 * count // 3),
            **arrays,
        )

    def problems(self) -> list[str]:
        first, n = self.num_sources, self.num_nodes
        found = [] if 0 <= first <= n else [f"num_sources: found {first}, allowed 0..{n}"]
        found += out_of_range("sources", self.sources, 0, first or n)
        found += out_of_range("destinations", self.destinations, first, n)
        back = np.flatnonzero(np.diff(self.times) < 0)
        if len(back):
            at = int(back[0])
            pair = f"{self.times[at]} before {self.times[at + 1]}"
            found.append(f"times: fall {len(back)} times, first at event {at}: {pair}")
        if not 0 <= self.train_end <= self.val_end <= self.num_edges:
            ends = f"{self.train_end} and {self.val_end}"
            found.append(f"split: ends at {ends}, allowed rising ends in 0..{self.num_edges}")
        rows = {"edge_features": self.num_edges, "node_features": n}
        for name, count in rows.items():
            array = getattr(self, name)
            if array is not None and len(array) != count:
                found.append(f"{name}: {len(array)} rows, expected {count}")
            found += non_finite(name, array)
        found += label_problems(self.labels, self.num_classes, self.num_edges)
        return found

    def check(self) -> None:
        found = self.problems()
        if found:
            raise DataError(self.name, found)

    def cannot_train(self, task: str) -> str | None:
        for split, share in (("train", "train"), ("val", "validate"), ("test", "test")):
            part = self.part(split)
            if part.stop == part.start:
                return (
                    f"stream {self.name}: no events to {share} on: set "
                    "split = { train = ..., val = ..., replace = true }"
                )
        if self.num_nodes - self.num_sources < 2:
            return f"stream {self.name}: fewer than two destinations, so there are no negatives"
        return None


def from_events(
    name: str,
    sources: Array,
    destinations: Array,
    times: NDArray[np.int64],
    *,
    num_nodes: int,
    own_ends: tuple[int, int] | None = None,
    **fields: Any,
) -> EdgeStream:
    """Build a stream from events in any order: sort them by time, stably, and split by time.

    `notes` says how many events came before an earlier one, where there were any.

    Args:
        own_ends: train_end and val_end where the data brings a split; its events must be in order.
        fields: of EdgeStream; edge features and labels are sorted along.

    Raises:
        DataError: unsorted events with a split of their own.
    """
    backward = int(np.count_nonzero(np.diff(times) < 0))
    notes = {**fields.pop("notes", {})}
    if backward:
        if own_ends is not None:
            raise DataError(
                name, f"{backward} events are out of order and the split is by position"
            )
        order = np.argsort(times, kind="stable")
        sources, destinations, times = sources[order], destinations[order], times[order]
        for key in ("edge_features", "labels"):
            if fields.get(key) is not None:
                fields[key] = fields[key][order]
        notes["sorted"] = f"{backward} steps back in time; sorted by time, ties in file order"
    ends = own_ends or time_ends(times)
    return EdgeStream(
        name=name,
        sources=np.asarray(sources, np.int32),
        destinations=np.asarray(destinations, np.int32),
        times=times,
        num_nodes=num_nodes,
        train_end=ends[0],
        val_end=ends[1],
        own_split=own_ends is not None,
        notes=notes,
        **fields,
    )


def time_ends(
    times: NDArray[np.int64], train: float = TRAIN, val: float = VAL, *, tear: bool = False
) -> tuple[int, int]:
    """Return where training and validation end in sorted times, as shares of the events.

    Events of one time stay on one side: training takes t <= q, with q the quantile of the times
    as TGB takes it. `tear` cuts at exactly round(share * events).

    Example: times 1 2 2 2 3 with train = 0.4 train on the first four events.
    """
    if not (train >= 0 and val >= 0 and train + val <= 1):
        raise SpecError(f"split: found train {train}, val {val}; allowed shares >= 0 with sum <= 1")
    count = len(times)

    def end(share: float) -> int:
        exact = round(share * count)
        if tear or exact in (0, count):
            return exact
        # The quantile lies in [times[k], times[k + 1]), so nothing after times[k] is below it.
        k = int(share * (count - 1))
        return int(np.searchsorted(times, times[k], side="right"))

    return end(train), end(train + val)


def time_split(
    stream: EdgeStream,
    train: float = TRAIN,
    val: float = VAL,
    *,
    tear: bool = False,
    replace: bool = False,
) -> EdgeStream:
    """Return the stream split by time in other shares (see `time_ends`).

    A stream with a split of its own is an error unless `replace` is true.
    """
    if stream.own_split and not replace:
        raise SpecError(
            f"split: {stream.name} brings a split of its own; leave `split` out, or set "
            "split = { replace = true, ... }"
        )
    train_end, val_end = time_ends(stream.times, train, val, tear=tear)
    return dataclasses.replace(stream, train_end=train_end, val_end=val_end, own_split=False)
