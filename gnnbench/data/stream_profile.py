"""The stream profile: statistics from which an edge stream that is not available is planned."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.dataset import digest_of
from gnnbench.data.histogram import binned, distinct
from gnnbench.data.stream import EdgeStream
from gnnbench.errors import SpecError
from gnnbench.strict import bounds, choices, raise_all

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamProfile:
    """Statistics of an edge stream. Events are counted once, repeats and self loops included.

    `activity_values` and `activity_counts` are the histogram of events per node, either end (a
    value is the mean of its bin). `status`: measured on the stream, or published by `source`.

    Args:
        num_sources: of a bipartite stream, else 0.
        num_pairs: distinct (source, destination).
        num_times: distinct times.
        largest_tie: most events of one time.
        self_loops: events whose ends are one node.
        new_pair_share: share of the distinct pairs of test events that no training or validation
            event had; None if unknown.
        new_node_share: share of test events with an end that training lacks; None if unknown.
        gap_median: median time between two events of one node; None if unknown.
    """

    kind: ClassVar[str] = "stream"

    schema: int = field(default=SCHEMA, metadata=bounds(SCHEMA, SCHEMA))
    name: str
    source: str
    status: str = field(metadata=choices("measured", "published"))
    num_nodes: int = field(metadata=bounds(0))
    num_sources: int = field(default=0, metadata=bounds(0))
    num_edges: int = field(metadata=bounds(0))
    num_features: int = field(default=0, metadata=bounds(0))
    num_edge_features: int = field(default=0, metadata=bounds(0))
    num_classes: int = field(default=0, metadata=bounds(0))
    num_train: int = field(metadata=bounds(0))
    num_val: int = field(metadata=bounds(0))
    num_test: int = field(metadata=bounds(0))
    first_time: int = 0
    last_time: int = 0
    num_pairs: int = field(default=0, metadata=bounds(0))
    num_times: int = field(default=0, metadata=bounds(0))
    largest_tie: int = field(default=0, metadata=bounds(0))
    self_loops: int = field(default=0, metadata=bounds(0))
    new_pair_share: float | None = field(default=None, metadata=bounds(0, 1))
    new_node_share: float | None = field(default=None, metadata=bounds(0, 1))
    gap_median: float | None = field(default=None, metadata=bounds(0))
    activity_values: tuple[float, ...] = ()
    activity_counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.num_train + self.num_val + self.num_test != self.num_edges:
            problems.append("num_train, num_val, num_test: together not num_edges")
        if len(self.activity_values) != len(self.activity_counts):
            problems.append("activity_values and activity_counts: lengths differ")
        if self.last_time < self.first_time:
            problems.append("last_time: before first_time")
        raise_all(problems)

    @property
    def digest(self) -> str:
        """Identifies the statistics."""
        return digest_of(self)

    @property
    def train_end(self) -> int:
        """The events before it train."""
        return self.num_train

    def cannot_train(self, task: str) -> str | None:
        """None: a stream's profile has everything that a plan needs."""
        return None


def shortened(profile: StreamProfile, events: int) -> StreamProfile:
    """The profile of a part of the stream; counts of events shrink alike, nodes stay.

    Raises:
        SpecError: more events than the stream has, or none.
    """
    if not 1 <= events <= profile.num_edges:
        raise SpecError(
            f"override.num_edges: found {events}, allowed 1 to {profile.num_edges}, the events of "
            f"{profile.name}"
        )
    share = events / profile.num_edges
    counts = ("num_pairs", "num_times", "largest_tie", "self_loops")
    held_out = {name: round(getattr(profile, name) * share) for name in ("num_val", "num_test")}
    return dataclasses.replace(
        profile,
        num_edges=events,
        num_train=events - sum(held_out.values()),
        **held_out,
        **{name: round(getattr(profile, name) * share) for name in counts},
    )


def profile_stream(stream: EdgeStream, *, source: str | None = None) -> StreamProfile:
    """Measure a stream. Cost: some sorts of its events."""
    src, dst = np.asarray(stream.sources, np.int64), np.asarray(stream.destinations, np.int64)
    times = np.asarray(stream.times)
    starts = np.flatnonzero(np.diff(times, prepend=times[:1] - 1)) if len(times) else times
    test = stream.part("test")
    pairs = src * stream.num_nodes + dst
    order = np.argsort(pairs, kind="stable")
    first = np.zeros(len(pairs), np.bool_)  # the first event of its pair
    first[order] = np.diff(pairs[order], prepend=-1) != 0
    tested = len(distinct(pairs[test]))
    some = test.stop > test.start
    activity = np.bincount(np.concatenate([src, dst]), minlength=stream.num_nodes)
    values, counts = binned(activity)
    return StreamProfile(
        name=stream.name,
        source=source or "measured by gnnbench",
        status="measured",
        **stream.facts(),
        num_pairs=int(np.count_nonzero(first)),
        num_times=len(starts),
        largest_tie=int(np.diff(starts, append=len(times)).max(initial=0)),
        self_loops=int(np.count_nonzero(src == dst)),
        new_pair_share=float(np.count_nonzero(first[test]) / tested) if some else None,
        new_node_share=_new_nodes(stream, src, dst) if some else None,
        gap_median=_gap(src, dst, times),
        activity_values=values,
        activity_counts=counts,
    )


def _new_nodes(stream: EdgeStream, src: NDArray[np.int64], dst: NDArray[np.int64]) -> float:
    train, test = stream.part("train"), stream.part("test")
    known = np.zeros(stream.num_nodes, np.bool_)
    known[src[train]] = known[dst[train]] = True
    return float(1 - (known[src[test]] & known[dst[test]]).mean())


def _gap(src: NDArray[np.int64], dst: NDArray[np.int64], times: NDArray[np.int64]) -> float | None:
    """Median time from an event of a node to its next one."""
    nodes, twice = np.concatenate([src, dst]), np.concatenate([times, times])
    order = np.lexsort((twice, nodes))
    nodes, twice = nodes[order], twice[order]
    gaps: NDArray[Any] = np.diff(twice)[np.diff(nodes) == 0]
    return float(np.median(gaps)) if len(gaps) else None
