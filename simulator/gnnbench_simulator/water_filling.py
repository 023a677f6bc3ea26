"""Max-min fair rates of many flows at once, some of which load their links unevenly.

A flow's rate is in units of its own work per second. At a rate of r it takes `usage` * r of each
link on its path, and its fair share is `weight` * r: all flows rise together in r / weight until a
link is full or a flow is at its cap (progressive filling, simulation 4.8). A message has work in
bytes, usage and weight 1. A collective has work 1, the bytes that it puts on a link as usage, and
one over the bytes of a message as weight: each of its messages gets the share of a message, and
all of them progress together.

Few flows are filled in rounds of array operations, many by the compiled loops of `filling_loops`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gnnbench.costs.facts import Floats

Ints = npt.NDArray[np.int64]
AT_CAP = -1
"""In place of a link: a flow runs at its cap."""
_COMPILED_FROM = 10_000_000
"""Entries of paths looked at so far from which compiled code pays for the time it takes to load."""
_MANY = 100_000
"""Entries of paths that are filled by compiled code at once."""


def fair_rates(
    starts: Ints, links: Ints, usage: Floats, weight: Floats, cap: Floats, capacity: Floats
) -> Floats:
    """Rates of flows, [flows].

    Args:
        starts: flow f's links are those from starts[f] to starts[f + 1], [flows + 1].
        links: numbers of links, each at most once per flow, [entries].
        usage: of each link by a unit of the flow's work, above 0, [entries].
        weight: fair share of a flow, above 0, [flows].
        cap: highest rate of each flow; infinite where there is none, [flows].
        capacity: units per second of each link, [links].
    """
    return filled(starts, links, usage, weight, cap, capacity)[0]


def filled(
    starts: Ints, links: Ints, usage: Floats, weight: Floats, cap: Floats, capacity: Floats
) -> tuple[Floats, Ints]:
    """`fair_rates`, and of each flow the full link that sets its rate, or AT_CAP."""
    global _entries
    _entries += len(links)
    if _entries < _COMPILED_FROM and len(links) < _MANY:
        return _in_rounds(starts, links, usage, weight, cap, capacity)
    from gnnbench_simulator.filling_loops import fill

    found: tuple[Floats, Ints] = fill(starts, links, usage, weight, cap, capacity)
    return found


_entries = 0


def _in_rounds(
    starts: Ints, links: Ints, usage: Floats, weight: Floats, cap: Floats, capacity: Floats
) -> tuple[Floats, Ints]:
    """Progressive filling that freezes in each round all flows whose rate is certain.

    Levels of links only rise while other flows freeze. So the lowest level on a flow's path is a
    lower bound of its own, a flow whose cap is no higher runs at its cap, and a link fills at its
    level if that is no higher than the bounds of all its flows.
    """
    global _entries
    flows = np.repeat(np.arange(len(weight)), np.diff(starts))
    takes, most = usage * weight[flows], cap / weight
    rates, limits = cap.astype(np.float64), np.full(len(weight), AT_CAP, np.int64)
    left, width = capacity.astype(np.float64), len(capacity)
    while len(links):
        _entries += len(links)
        asked = np.bincount(links, takes, width)
        level = np.full(width, np.inf)
        np.divide(np.maximum(left, 0.0), asked, out=level, where=asked > 0)
        own = level[links]
        bound = most.copy()
        np.minimum.at(bound, flows, own)
        lowest = np.full(width, np.inf)
        np.minimum.at(lowest, links, bound[flows])
        full = (lowest >= level)[links]
        frozen = bound >= most
        by_link = full & ~frozen[flows]
        limits[flows[by_link]] = links[by_link]
        frozen[flows[by_link]] = True
        gone = frozen[flows]
        done = flows[gone]
        # The level at which a flow freezes is its bound; one at its cap keeps the cap to the bit.
        rates[done] = np.where(bound[done] >= most[done], cap[done], bound[done] * weight[done])
        left -= np.bincount(links[gone], usage[gone] * rates[done], width)
        kept = ~gone
        links, flows, usage, takes = links[kept], flows[kept], usage[kept], takes[kept]
    return rates, limits
