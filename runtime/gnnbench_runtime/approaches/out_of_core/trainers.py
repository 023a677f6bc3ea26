"""The trainers of the family, by what they are given."""

from __future__ import annotations

from typing import Any

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.out_of_core.links import LinkStructure
from gnnbench.approaches.out_of_core.storage import Rows
from gnnbench_runtime.approaches.out_of_core.links import LinkTrainer
from gnnbench_runtime.approaches.out_of_core.nodes import NodeTrainer
from gnnbench_runtime.approaches.out_of_core.tables import DiskTable, MemoryTable
from gnnbench_runtime.durable import generations_of
from gnnbench_runtime.generations import Layout
from gnnbench_runtime.protocol import RankContext, Trainer


def from_disk(context: RankContext, data: Any, structure: Any) -> Trainer:
    """The trainer of `out-of-core`: of embeddings for triples, of a stack of layers for graphs."""
    if not isinstance(structure, LinkStructure):
        return NodeTrainer(context, data, structure)
    knobs = APPROACHES.get(context.run.approach).knobs(context.run)
    ahead = bool(knobs.read_ahead)
    width = context.run.model.hidden
    kept = generations_of(context, layout_of(structure.rows)) if knobs.durable else None
    table = DiskTable(
        context, data, structure, width, ahead=ahead, generations=kept, limit=knobs.disk
    )
    return LinkTrainer(context, data, structure, table, knobs.staleness, kept)


def layout_of(rows: Rows) -> Layout:
    """The blocks of a table's file: a partition each."""
    sizes = tuple(rows.bytes_of(number) for number in range(rows.partitions))
    return Layout(block_bytes=rows.block_bytes, sizes=sizes)


def in_memory(context: RankContext, data: Any, structure: LinkStructure) -> Trainer:
    """The trainer of `embeddings`."""
    table = MemoryTable(context, data, structure, context.run.model.hidden)
    return LinkTrainer(context, data, structure, table)
