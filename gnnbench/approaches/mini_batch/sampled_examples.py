"""Examples of neighbour sampling with caches, and with ranks that only sample."""

from __future__ import annotations

from gnnbench.approaches.base import example
from gnnbench.approaches.mini_batch.caches import LRU, PLANNED
from gnnbench.approaches.mini_batch.fetching import HOST
from gnnbench.spec import RunSpec

FEW = {"size": 16, "fanouts_from_seeds": (4, 3)}
"""The batches of examples."""


def cached_examples(name: str) -> list[RunSpec]:
    """A cache of every policy, before features of the host and of other owners."""
    before_owners = {"placement": "partitioned", "cache_share": 0.2}
    before_host = {"placement": HOST, "cache_share": 0.2}
    return [
        example(name, batch=FEW, knobs={**before_owners, "cache_policy": "degree"}),
        example(name, 1, batch=FEW, knobs={**before_host, "cache_policy": "presampling"}),
        example(
            name,
            3,
            batch=FEW,
            knobs={**before_owners, "cache_policy": "inclusion", "prefetch": 1},
        ),
        example(name, batch=FEW, knobs={**before_host, "cache_policy": LRU}),
        example(
            name,
            batch=FEW,
            model={"kind": "sage"},
            knobs={
                **before_host,
                "cache_policy": PLANNED,
                "lookahead": 2,
                "prefetch": 1,
                "weights": "degree",
            },
        ),
        example(name, 3, batch=FEW, knobs={**before_owners, "cache_policy": PLANNED}),
    ]


def disaggregated_examples(name: str) -> list[RunSpec]:
    """One rank samples for two, and two for one."""
    return [
        example(
            name,
            3,
            batch=FEW,
            model={"dropout": 0.3},
            knobs={"samplers": 1, "weights": "degree", "placement": "partitioned", "prefetch": 1},
        ),
        example(
            name,
            3,
            batch=FEW,
            model={"kind": "gat", "heads": 2, "dropout": 0.3},
            knobs={
                "samplers": 2,
                "queue": 1,
                "placement": HOST,
                "cache_policy": LRU,
                "cache_share": 0.2,
            },
        ),
    ]
