"""Embeddings in memory: what `out-of-core` equals where its buffer holds all partitions.

Closed forms (V entities, T facts to train on, d elements of s bytes per row; a batch has b facts, n
corrupted entities that all of them share, and u <= 2 b + n distinct rows):

    table       2 V d s bytes: of every entity a row and its Adagrad state
    batches     ceil(T / b) in an epoch
    scores      2 b n corrupted and 2 b true ones in a batch, of both ends
    forward     4 b n d + 8 b d + 10 b n flops
    backward    8 b n d + 16 b d flops
    update      8 u + 5 u d s bytes: ids, and row, state and gradient of every row that was used
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gnnbench.approaches.base import Approach, Layout, Probe, example
from gnnbench.approaches.card import Accepts, Look, Promise
from gnnbench.approaches.out_of_core.link_plan import link_plan
from gnnbench.approaches.out_of_core.links import LinkStructure, link_problem, link_structure
from gnnbench.approaches.out_of_core.out_of_core import OutOfCoreKnobs
from gnnbench.plan import Plan
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsKnobs:
    """`embeddings` has none."""


class Embeddings(Approach):
    """Card and plan of `embeddings`."""

    name = "embeddings"
    title = "Embeddings in memory"
    paper = "Yang et al., ICLR 2015; Trouillon et al., ICML 2016"
    summary = "link prediction on learnt rows of entities, the whole table in memory"
    promise = Promise(
        kind="own",
        text="Every fact is trained on once in an epoch, against corrupted ends drawn among all "
        "entities.",
        reference="embeddings",
    )
    accepts = Accepts(
        datasets=frozenset({"triples"}),
        tasks=frozenset({"link_prediction"}),
        batch=True,
        models=frozenset({"embedding"}),
        embeddings=True,
    )
    look = Look(colour="#999933", marker="s")
    knobs_type = EmbeddingsKnobs
    runtime = "gnnbench_runtime.approaches.out_of_core.trainers:in_memory"

    def examples(self) -> list[RunSpec]:
        return [
            example(
                self.name,
                1,
                kind="triples",
                batch={"size": 64, "negatives": 20},
                model={"kind": "embedding", "decoder": decoder},
                training={"optimizer": "adagrad"},
            )
            for decoder in ("distmult", "complex", "dot")
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """Facts on as many entities as the probed graph has vertices, with each decoder in turn."""
        run = probe.run
        drawn = run.dataset.options
        entities = int(drawn.get("num_nodes") or 2 ** drawn["scale"])
        facts = min(4 * entities, 60_000)
        options = {"num_entities": entities, "num_relations": 50, "num_triples": facts}
        decoder = ("distmult", "complex", "dot")[probe.number % 3]
        return [
            replace(
                run,
                approach=self.name,
                ranks=1,
                knobs={},
                dataset=DatasetRef(
                    name=run.dataset.name, generator="synthetic_triples", options=options
                ),
                model=ModelSpec(
                    name="probe", kind="embedding", hidden=run.model.hidden, decoder=decoder
                ),
                batch=replace(run.batch, negatives=16 << probe.number % 5),
                training=replace(run.training, optimizer="adagrad"),
            )
        ]

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        if run.ranks > 1:
            return f"{self.name} trains on one rank"
        return link_problem(self.name, run)

    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> LinkStructure:
        return link_structure(data, run, OutOfCoreKnobs(partitions=1))

    def plan(self, data: Any, run: RunSpec, structure: LinkStructure, layout: Layout) -> Plan:
        return link_plan(data, run, structure, layout, on_disk=False, ahead=False)


APPROACH = Embeddings()
