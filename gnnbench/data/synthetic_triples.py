"""Made-up triples whose relations are rotations of one circle, so that they can be learnt."""

from __future__ import annotations

import numpy as np

from gnnbench.data.generator_values import triples_problems
from gnnbench.data.triples import Triples, random_split
from gnnbench.strict import raise_all


def synthetic_triples(
    num_entities: int,
    num_relations: int,
    num_triples: int,
    *,
    spread: int = 2,
    noise: float = 0.0,
    train: float = 0.8,
    val: float = 0.1,
    seed: int = 0,
    name: str = "facts",
) -> Triples:
    """Draw distinct facts: relation r leads from place p to a place near p + shift_r.

    Entities lie on a circle, at random places. Relations come in pairs of inverses: relation 2k
    turns by a random shift and 2k + 1 turns back; a last one without a partner is symmetric. So a
    decoder that can rotate or multiply finds the tails, and inverse facts give each other away.

    Args:
        num_entities: at least 2.
        num_relations: at least 1.
        num_triples: facts, all distinct, over all splits.
        spread: tails lie 0..spread places after p + shift_r.
        noise: share of facts with a random tail.
        train: share of the facts; `val` as well, and the rest is the test split.
        val: see `train`.
        seed: of everything.
        name: of the triples.

    Raises:
        SpecError: fewer distinct facts exist than were asked for.
    """
    raise_all(
        f"generator: {problem}"
        for problem in triples_problems(
            num_entities=num_entities,
            num_relations=num_relations,
            num_triples=num_triples,
            spread=spread,
            noise=noise,
            train=train,
            val=val,
        )
    )
    places = min(spread + 1, num_entities)
    room = num_entities * num_relations * places
    rng = np.random.default_rng(seed)
    picked = rng.choice(room, num_triples, replace=False)
    heads, rest = np.divmod(picked, num_relations * places)
    relations, after = np.divmod(rest, places)
    shifts = rng.integers(1, num_entities, (num_relations + 1) // 2)
    signs = np.where(np.arange(num_relations) % 2, -1, 1)
    turns = np.repeat(shifts, 2)[:num_relations] * signs
    if num_relations % 2:
        turns[-1] = num_entities // 2
    tails = (heads + turns[relations] + after) % num_entities
    entities = rng.permutation(num_entities)
    tails = entities[tails]
    wrong = rng.random(num_triples) < noise
    tails[wrong] = rng.integers(0, num_entities, int(wrong.sum()))
    facts = Triples(
        name=name,
        heads=entities[heads].astype(np.int32),
        relations=relations.astype(np.int32),
        tails=tails.astype(np.int32),
        num_entities=num_entities,
        num_relations=num_relations,
        train_end=num_triples,
        val_end=num_triples,
        own_split=False,
        notes={"generator": "synthetic_triples", "seed": seed},
    )
    return random_split(facts, train, val, seed)
