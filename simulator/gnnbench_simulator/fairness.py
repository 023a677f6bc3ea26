"""Max-min fair rates: nobody gains without a poorer flow losing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import inf
from typing import TypeVar

Resource = TypeVar("Resource", bound=Hashable)


def max_min_rates(
    flows: Sequence[tuple[tuple[Resource, ...], float]], capacity: Mapping[Resource, float]
) -> list[float]:
    """Max-min fair rates of flows given as (path, cap), on resources of a capacity each.

    Progressive filling (simulation 4.8): raise all flows alike; where a resource is full, its flows
    freeze at that rate.
    """
    rates = [0.0] * len(flows)
    left = {r: capacity[r] for path, _ in flows for r in path}
    users: dict[Resource, int] = {}
    for path, _ in flows:
        for r in path:
            users[r] = users.get(r, 0) + 1
    active = set(range(len(flows)))
    while active:
        fair = {r: left[r] / users[r] for r in users if users[r]}
        share = min(fair.values(), default=inf)
        capped = [i for i in active if flows[i][1] <= share]
        if capped:
            frozen = {i: flows[i][1] for i in capped}
        else:
            full = {r for r, value in fair.items() if value <= share}
            frozen = {i: share for i in active if any(r in full for r in flows[i][0])}
        for i, rate in frozen.items():
            rates[i] = rate
            active.discard(i)
            for r in flows[i][0]:
                left[r] = max(left[r] - rate, 0.0)
                users[r] -= 1
    return rates
