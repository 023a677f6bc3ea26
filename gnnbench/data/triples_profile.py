"""The profile of triples: statistics of a knowledge graph that is not available."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from gnnbench.data.dataset import digest_of
from gnnbench.data.histogram import binned, distinct
from gnnbench.data.triples import Triples
from gnnbench.strict import bounds, choices, raise_all

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TriplesProfile:
    """Statistics of triples. `status`: measured on them, or published by `source`.

    `degree_values` and `degree_counts` are the histogram of training facts per entity, as head or
    tail; `relation_values` and `relation_counts` that of training facts per relation (a value is
    the mean of its bin).

    Args:
        num_unseen: facts of validation and test with an entity that training lacks; None if
            unknown.
        tails_per_head: mean tails of a (head, relation) in training; None if unknown.
        heads_per_tail: mean heads of a (relation, tail) in training; None if unknown.
    """

    kind: ClassVar[str] = "triples"

    schema: int = field(default=SCHEMA, metadata=bounds(SCHEMA, SCHEMA))
    name: str
    source: str
    status: str = field(metadata=choices("measured", "published"))
    num_entities: int = field(metadata=bounds(0))
    num_relations: int = field(metadata=bounds(0))
    num_triples: int = field(metadata=bounds(0))
    num_train: int = field(metadata=bounds(0))
    num_val: int = field(metadata=bounds(0))
    num_test: int = field(metadata=bounds(0))
    num_unseen: int | None = field(default=None, metadata=bounds(0))
    tails_per_head: float | None = field(default=None, metadata=bounds(0))
    heads_per_tail: float | None = field(default=None, metadata=bounds(0))
    degree_values: tuple[float, ...] = ()
    degree_counts: tuple[int, ...] = ()
    relation_values: tuple[float, ...] = ()
    relation_counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.num_train + self.num_val + self.num_test != self.num_triples:
            problems.append("num_train, num_val, num_test: together not num_triples")
        for what in ("degree", "relation"):
            if len(getattr(self, f"{what}_values")) != len(getattr(self, f"{what}_counts")):
                problems.append(f"{what}_values and {what}_counts: lengths differ")
        raise_all(problems)

    @property
    def digest(self) -> str:
        """Identifies the statistics."""
        return digest_of(self)

    def cannot_train(self, task: str) -> str | None:
        """None: a profile of triples has everything that a plan needs."""
        return None


def profile_triples(triples: Triples, *, source: str | None = None) -> TriplesProfile:
    """Measure triples. Cost: two sorts of the training facts."""
    train = triples.part("train")
    heads, tails = (np.asarray(a[train], np.int64) for a in (triples.heads, triples.tails))
    relations = np.asarray(triples.relations[train], np.int64)
    degrees = np.bincount(np.concatenate([heads, tails]), minlength=triples.num_entities)
    degree = binned(degrees)
    relation = binned(np.bincount(relations, minlength=triples.num_relations))
    rest = slice(train.stop, None)
    known = (degrees[triples.heads[rest]] > 0) & (degrees[triples.tails[rest]] > 0)
    of_head = len(distinct(heads * triples.num_relations + relations))
    of_tail = len(distinct(tails * triples.num_relations + relations))
    some = len(heads) > 0
    return TriplesProfile(
        name=triples.name,
        source=source or "measured by gnnbench",
        status="measured",
        **triples.facts(),
        num_unseen=int(np.count_nonzero(~known)),
        tails_per_head=round(len(heads) / of_head, 4) if some else None,
        heads_per_tail=round(len(heads) / of_tail, 4) if some else None,
        degree_values=degree[0],
        degree_counts=degree[1],
        relation_values=relation[0],
        relation_counts=relation[1],
    )
