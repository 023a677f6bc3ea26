"""Seconds of local steps where hosts are of several kinds: each rank by its own host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnnbench.cluster import Cluster
from gnnbench.costs.facts import Floats
from gnnbench.ladder import weakest
from gnnbench.steps import Work
from gnnbench_simulator.compute import CostClass, Durations
from gnnbench_simulator.pieces import Pieces, Places


def durations_of(
    cluster: Cluster, *, co_located: int, lanes: int = 1, element_bytes: float = 4.0
) -> Durations:
    """Prices of local steps on a cluster, whose hosts are of one kind or of several.

    Args:
        cluster: devices and constants.
        co_located: ranks on each host.
        lanes: of one rank that keep cores busy.
        element_bytes: bytes of a feature element.
    """
    kind = Durations if len(cluster.kinds) == 1 else KindDurations
    machine = cluster.kinds[0] if len(cluster.kinds) == 1 else cluster
    return kind(machine, co_located=co_located, lanes=lanes, element_bytes=element_bytes)


class KindDurations(Durations):
    """Every piece of work is priced on every kind, and each rank takes the price of its host."""

    def __init__(
        self, cluster: Cluster, *, co_located: int, lanes: int = 1, element_bytes: float = 4.0
    ) -> None:
        super().__init__(cluster, co_located=co_located, lanes=lanes, element_bytes=element_bytes)
        self._each = [
            Durations(kind, co_located=co_located, lanes=lanes, element_bytes=element_bytes)
            for kind in cluster.kinds
        ]

    def price(self, pieces: Pieces) -> tuple[list[Floats], list[Floats], list[str]]:
        """As `Durations.price`; a class has the weakest grade and the widest radius of all kinds.

        Raises:
            SpecError: an item does not say its ranks.
        """
        priced = [durations.price(pieces) for durations in self._each]
        places = [self._at(item.places, item.ranks) for item in pieces.items]
        seconds = [_chosen(at, [of[0][i] for of in priced]) for i, at in enumerate(places)]
        gaps = [_chosen(at, [of[1][i] for of in priced]) for i, at in enumerate(places)]
        for name in {name for durations in self._each for name in durations.classes}:
            own = [d.classes[name] for d in self._each if name in d.classes]
            self.classes[name] = CostClass(
                name,
                weakest([one.grade for one in own]),
                max(one.radius for one in own),
                any(one.uncalibrated for one in own),
                tuple(dict.fromkeys(line for one in own for line in one.outside)),
                own[0].shared,
            )
        return seconds, gaps, priced[0][2]

    @property
    def has_gaps(self) -> bool:
        """Whether any kind knows seconds that a framework spends between steps."""
        return any(durations.has_gaps for durations in self._each)

    def disk_busy(self, work: Work, ranks: int, places: Places | None = None) -> Floats:
        """As `Durations.disk_busy`."""
        each = [durations.disk_busy(work, ranks) for durations in self._each]
        return _chosen(self._at(places, ranks), each)

    def _at(self, places: Places | None, ranks: int) -> Places:
        """The kind of each rank."""
        assert places is not None and len(places) == ranks, "work on unlike hosts says its ranks"
        hosts = (places // self.co_located).tolist()
        return np.array([self.cluster.kind_of(host) for host in hosts], np.intp)


def _chosen(kinds: Places, each: Sequence[Floats]) -> Floats:
    """Row k of the ranks of kind k."""
    table = np.stack([np.broadcast_to(row, kinds.shape) for row in each])
    return np.asarray(table[kinds, np.arange(len(kinds))])
