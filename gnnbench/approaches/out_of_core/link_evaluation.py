"""The evaluation of embeddings: questions of a split, ranked against the table tile by tile.

A split's facts ask for their tail and for their head. A tile is some questions by some entities of
the part of the table that is in memory; only its scores are there at once.
"""

from __future__ import annotations

from typing import Any

from gnnbench import work
from gnnbench.approaches.out_of_core.links import LinkStructure
from gnnbench.approaches.writing.evaluating import EvaluationWriter
from gnnbench.data.triples import Triples
from gnnbench.iterations import Iteration
from gnnbench.spec import RunSpec

QUESTIONS_AT_ONCE, ENTITIES_AT_ONCE = 512, 4096
"""Sides of a tile: 8 MB of scores in float32."""
ID_BYTES = work.ID_BYTES


def link_evaluation(
    data: Any, run: RunSpec, structure: LinkStructure, *, on_disk: bool
) -> Iteration:
    """An evaluation, by the split with more facts."""
    d, s = run.model.hidden, run.training.element_bytes
    facts = _facts(data)
    entities = structure.rows.per_partition if on_disk else data.num_entities
    filtered = run.task.protocol != "unfiltered"
    writer = EvaluationWriter(1)
    row = d * s
    # Ids, their order, and a place of each; read from the disk, also the partition.
    part = {"part_ids": 3 * ID_BYTES * entities}
    if on_disk:
        part["part"] = structure.rows.block_bytes
    # Heads, tails, relations and the queries of both sides, and a product on the way.
    asked = {"questions": 3 * ID_BYTES * facts, "queries": 2 * facts * row}
    ends = {"ends": 4 * facts * row, "lookup": _lookup_bytes(data) if filtered else 0}
    known = {"known": 2 * _known_pairs(data, filtered=filtered) * 2 * ID_BYTES}
    writer.step("questions", {}, on_host={**part, **asked, **ends, **known}, frees=["lookup"])
    tile = min(facts, QUESTIONS_AT_ONCE) * min(entities, ENTITIES_AT_ONCE)
    # Scores, and booleans that are compared.
    writer.step("ranks", {}, on_host={"ranks": 2 * ID_BYTES * facts, "tile": tile * (s + 2)})
    return writer.iteration()


def _facts(data: Any) -> int:
    """Facts of the larger of both splits."""
    if isinstance(data, Triples):
        return max(data.val_end - data.train_end, data.num_triples - data.val_end)
    return int(max(data.num_val, data.num_test))


def _lookup_bytes(data: Any) -> int:
    """Bytes while facts that share an end are found: columns, keys, their order, sorted keys."""
    return 7 * ID_BYTES * int(data.num_triples)


def _known_pairs(data: Any, *, filtered: bool) -> int:
    """Facts of one side that are not ranked against: the own one and, estimated, those like it."""
    alike = data.num_triples / max(data.num_entities, 1) if filtered else 0.0
    return round(_facts(data) * (1.0 + alike))
