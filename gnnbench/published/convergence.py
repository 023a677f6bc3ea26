"""How many epochs training takes to converge: published facts by dataset and batch.

An epoch of a mini-batch approach has many optimiser steps and one of a full-graph approach a single
one, so that they need unlike numbers of epochs. The facts are of GraphSAGE with the widths of their
table; for another model or approach of the same kind they are an assumption, which callers print.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """One published training.

    Args:
        dataset: name of its profile.
        batch: seeds of one optimiser step over all ranks; 0 is the whole graph.
        epochs: to convergence.
        accuracy: on the test split then; None where the source has none.
        model, source: what was trained, and who says so.
    """

    dataset: str
    batch: int
    epochs: int
    accuracy: float | None
    model: str
    source: str


@cache
def facts() -> tuple[Convergence, ...]:
    """Every fact of the catalogue."""
    text = (resources.files("gnnbench") / "catalogue" / "convergence.csv").read_text("utf-8")
    return tuple(
        Convergence(
            dataset=row["dataset"],
            batch=int(row["batch"]),
            epochs=int(row["epochs"]),
            accuracy=float(row["accuracy"]) if row["accuracy"] else None,
            model=f"{row['model']}, {row['layers']} layers of {row['hidden']}",
            source=row["source"],
        )
        for row in csv.DictReader(io.StringIO(text))
    )


def convergence(
    dataset: str, batch: int, known: Sequence[Convergence] | None = None
) -> Convergence | None:
    """The fact of a dataset whose batch is nearest, of the same kind; None where there is none.

    Args:
        dataset: name of a profile.
        batch: seeds of one optimiser step over all ranks; 0 is the whole graph.
        known: facts to choose from; by default those of the catalogue.
    """
    own = [
        fact
        for fact in (facts() if known is None else known)
        if fact.dataset == dataset and (fact.batch == 0) == (batch == 0)
    ]
    if batch == 0:
        return own[0] if own else None
    return min(own, key=lambda fact: abs(math.log(fact.batch / batch)), default=None)
