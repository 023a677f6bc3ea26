"""MRR and Hits@k of link prediction, with the table of embeddings visited in parts.

rank = 1 + corrupted edges that score at least as much as the true one: ties count against it. Both
sides are corrupted, and metrics are means over both. "filtered" ranks against all entities and
leaves out edges that are facts of any split; "unfiltered" ranks against some entities drawn at
random, or against all if as many are asked for.

Only one part of the table and one tile of scores are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.approaches.out_of_core.link_evaluation import ENTITIES_AT_ONCE, QUESTIONS_AT_ONCE
from gnnbench.data import keys
from gnnbench.data.triples import Triples
from gnnbench.spec import TaskSpec
from gnnbench.steps import Ints
from gnnbench_runtime.approaches.out_of_core.decoders import Decoder

Parts = Callable[[], Iterable[tuple[Ints, Tensor]]]
"""Yields ids of entities and their rows, every entity once."""
_CORRUPTED = 300
HITS = (1, 3, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One side of some edges: queries, and what must not count as corrupted.

    Args:
        queries: [q, d].
        true: score of the true edge, [q].
        known: pairs (question, entity) that are facts, int64 [k, 2], by rising question; the true
            ones are among them.
    """

    queries: Tensor
    true: Tensor
    known: Ints


def ranks(question: Question, parts: Parts, asked: NDArray[np.bool_] | None = None) -> Ints:
    """The rank of every question's true edge, int64 [q].

    Args:
        question: see there.
        parts: of the table.
        asked: entities that are ranked against, bool [V]; None are all.
    """
    above = torch.zeros(len(question.queries), dtype=torch.int64)
    first = np.searchsorted(question.known[:, 0], np.arange(len(above) + 1))
    for ids, rows in parts():
        place = np.full(int(ids.max(initial=-1)) + 2, -1, np.int64)
        place[ids] = np.arange(len(ids))
        for start in range(0, len(above), QUESTIONS_AT_ONCE):
            stop = min(start + QUESTIONS_AT_ONCE, len(above))
            known = question.known[first[start] : first[stop]]
            column = place[np.minimum(known[:, 1], len(place) - 1)]
            here = column >= 0
            facts = known[here, 0] - start, column[here]
            for low in range(0, len(rows), ENTITIES_AT_ONCE):
                high = min(low + ENTITIES_AT_ONCE, len(rows))
                counted = None if asked is None else torch.from_numpy(asked[ids[low:high]])
                tile = slice(start, stop), slice(low, high)
                above[start:stop] += _above(question, rows, tile, counted, facts)
    found: Ints = above.numpy() + 1
    return found


def _above(
    question: Question,
    rows: Tensor,
    tile: tuple[slice, slice],
    counted: Tensor | None,
    facts: tuple[Ints, Ints],
) -> Tensor:
    """How many entities of a tile score at least as much as each true edge, int64 [q].

    Args:
        question: see there.
        rows: of the part of the table.
        tile: questions, and rows.
        counted: rows of the tile that are ranked against, bool; None are all.
        facts: questions of the tile and rows of the part that are facts.
    """
    asked, columns = tile
    higher = question.queries[asked] @ rows[columns].T >= question.true[asked, None]
    if counted is not None:
        higher &= counted
    own, column = facts
    inside = (column >= columns.start) & (column < columns.stop)
    places = torch.from_numpy(column[inside] - columns.start)
    higher[torch.from_numpy(own[inside]), places] = False
    # torch would sum booleans as integers of the tile's size.
    return torch.from_numpy(higher.numpy().sum(1))


def metrics_of(found: Ints) -> dict[str, float]:
    """Metrics by name of all ranks of a split."""
    if not len(found):
        return {}
    hits = {f"hits_{k}": float((found <= k).mean()) for k in HITS}
    return {"mrr": float((1.0 / found).mean()), **hits}


class Ranking:
    """Evaluates embeddings on the validation and test facts.

    Args:
        triples: all splits.
        task: protocol, and number of corrupted edges.
        decoder: scores edges.
        seed: of the corrupted edges of "unfiltered".
    """

    def __init__(self, triples: Triples, task: TaskSpec, decoder: Decoder, seed: int) -> None:
        self.triples, self.task, self.decoder, self.seed = triples, task, decoder, seed

    def evaluate(self, parts: Parts, relations: Tensor) -> dict[str, float]:
        """Metrics of both splits, such as "test_mrr".

        Args:
            parts: of the table.
            relations: rows of the relations; none of their columns where there are none.
        """
        found: dict[str, float] = {}
        for split in ("val", "test"):
            facts = self._facts(split)
            if len(facts):
                every = np.concatenate(
                    [
                        ranks(question, parts, self._asked(split))
                        for question in self._questions(facts, parts, relations)
                    ]
                )
                found |= {f"{split}_{name}": value for name, value in metrics_of(every).items()}
        return found

    def _facts(self, split: str) -> Ints:
        part, of = self.triples.part(split), self.triples
        columns = of.heads[part], of.relations[part], of.tails[part]
        return np.stack([np.asarray(column, np.int64) for column in columns], axis=1)

    def _asked(self, split: str) -> NDArray[np.bool_] | None:
        n, wanted = self.triples.num_entities, self.task.negatives
        if self.task.protocol == "filtered" or wanted >= n:
            return None
        asked = np.zeros(n, bool)
        rng = keys.generator(self.seed, _CORRUPTED, len(split))
        asked[rng.choice(n, wanted, replace=False)] = True
        return asked

    def _questions(self, facts: Ints, parts: Parts, relations: Tensor) -> list[Question]:
        """The tail question and the head question of every fact."""
        h, t = gather_parts(facts[:, 0], parts), gather_parts(facts[:, 2], parts)
        r = relations[torch.from_numpy(facts[:, 1])] if relations.numel() else torch.zeros_like(h)
        made = []
        for query, true, known in zip(
            self.decoder.queries(h, r, t), (t, h), self._known(facts), strict=True
        ):
            # As the ranking computes it, so that an edge never beats its own score by rounding.
            made.append(Question(queries=query, true=(query * true).sum(1), known=known))
        return made

    def _known(self, facts: Ints) -> tuple[Ints, Ints]:
        """Facts that share head and relation, or relation and tail, with each of `facts`."""
        if self.task.protocol == "unfiltered":
            own = np.arange(len(facts))
            return np.stack([own, facts[:, 2]], 1), np.stack([own, facts[:, 0]], 1)
        of, v = self.triples, self.triples.num_entities
        heads, relations, tails = (
            np.asarray(a, np.int64) for a in (of.heads, of.relations, of.tails)
        )
        by_tail = _alike(relations * v + heads, tails, facts[:, 1] * v + facts[:, 0])
        by_head = _alike(relations * v + tails, heads, facts[:, 1] * v + facts[:, 2])
        return by_tail, by_head


def _alike(keys_: Ints, values: Ints, wanted: Ints) -> Ints:
    """Pairs (place in `wanted`, value) of all entries whose key is wanted, int64 [k, 2]."""
    order = np.argsort(keys_, kind="stable")
    in_order = keys_[order]
    low = np.searchsorted(in_order, wanted, side="left")
    counts = np.searchsorted(in_order, wanted, side="right") - low
    owner = np.repeat(np.arange(len(wanted)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([owner, values[order[low[owner] + within]]], axis=1)


def gather_parts(ids: Ints, parts: Parts) -> Tensor:
    """The rows of some entities, in order, out of a table that is visited in parts."""
    found: Tensor | None = None
    for own, rows in parts():
        if found is None:
            found = rows.new_empty((len(ids), rows.shape[1]))
        order = np.argsort(own)
        place = np.minimum(np.searchsorted(own[order], ids), len(own) - 1)
        here = own[order[place]] == ids
        found[torch.from_numpy(here)] = rows[torch.from_numpy(order[place[here]])]
    assert found is not None
    return found
