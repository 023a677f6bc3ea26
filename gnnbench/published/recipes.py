"""Recipes: how the systems of papers train the model of a published row, in our words.

Cards of approaches name them (see `approaches.card.Published`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from gnnbench.published.places import method_of, objective_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.rows import PublishedRow, whole_number
from gnnbench.published.software import NATIVE, Software
from gnnbench.spec import BatchSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a system trains a row's model, in our words."""

    software: Software = NATIVE
    knobs: dict[str, Any] = field(default_factory=dict)
    batch: BatchSpec = field(default_factory=BatchSpec)
    norm: str = "none"
    method: str = ""


def native(row: PublishedRow) -> Recipe:
    """Code that does what our plan says."""
    return Recipe()


def vanilla(row: PublishedRow) -> Recipe:
    """The released partition-parallel code of BNS-GCN and PipeGCN, with everything exchanged."""
    return _released(row, Software(released=True, precompute=_precomputes(row)))


def pipegcn(row: PublishedRow) -> Recipe:
    """PipeGCN's released code."""
    return _released(row, Software(released=True, precompute=_precomputes(row), pipelined=True))


def bns(row: PublishedRow) -> Recipe:
    """BNS-GCN: its code refuses to run without precomputation (fullgraph section 6)."""
    words = f"{row.system} {row.notes}"
    rate = re.search(r"\bp\s*=\s*(0?\.\d+|0|1(?:\.0+)?)(?![.\d])", words)
    if rate is None:
        raise NotModelled("configuration not stated", "sampling rate p of BNS-GCN")
    precompute = _precomputes(row, unstated=True)
    software = Software(released=True, precompute=precompute, rebuilds=True)
    return _released(row, software, rate=float(rate[1]))


def _released(row: PublishedRow, software: Software, **knobs: Any) -> Recipe:
    """The released partition-parallel code: parts of METIS, aggregate-first, layers normalised."""
    return Recipe(
        software=software,
        knobs={"objective": objective_of(row), "order": "aggregate_first", **knobs},
        norm="none" if "norm none" in row.notes.lower() else "layer",
        method=method_of(row),
    )


def _precomputes(row: PublishedRow, *, unstated: bool = False) -> bool:
    """Whether the first aggregation is precomputed, by "use_pp" in the notes.

    A silent row is as in the logs of the study that printed most rows: with it for GAT, else
    without it, or what `unstated` says.
    """
    words = row.notes.lower()
    stated = re.search(r"use_pp\s*=\s*(true|false)", words)
    if stated is not None:
        return stated[1] == "true"
    return "use_pp" in words or unstated or row.model.lower() == "gat"


def mini_batch(row: PublishedRow) -> Recipe:
    """Neighbour sampling with all features on every device; DistDGL fetches them from servers.

    Fan-outs are listed input layer first by DGL and seeds first by Quiver (sampling section 2).
    """
    name = row.system.lower()
    if not row.fanout or not row.batch:
        raise NotModelled("configuration not stated", "fan-outs and batch of mini-batch training")
    if name.startswith("distdgl"):
        fetched = "features fetched from servers of DistDGL"
        raise NotModelled("software path not modelled", fetched)
    listed = [whole_number(word) for word in re.split(r"[-,; ]+", row.fanout)]
    fanouts = [number for number in listed if number is not None]
    batch = re.fullmatch(r"(\d+)(?:\.0)?(/gpu)?", row.batch.lower())
    each = whole_number(batch[1]) if batch else None
    if batch is None or each is None or not len(fanouts) == len(listed) == row.num_layers:
        found = f"fan-outs {row.fanout}, batch {row.batch}"
        raise NotModelled("configuration not stated", found)
    if not batch[2] and row.ranks != 1:
        found = f"whether batch {row.batch} is of one device"
        raise NotModelled("configuration not stated", found)
    if name.startswith("dgl"):
        fanouts.reverse()
    return Recipe(
        software=Software(batched=True),
        knobs={"order": "aggregate_first"},
        batch=BatchSpec(size=each * (row.ranks or 1), fanouts_from_seeds=tuple(fanouts)),
    )
