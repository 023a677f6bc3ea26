"""Recipes: how the systems of papers train the model of a published row, in our words.

Cards of approaches name them (see `approaches.card.Published`). `mini_batches` has the recipes of
systems that train on batches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from gnnbench.published.places import method_of, objective_of
from gnnbench.published.rows import PublishedRow
from gnnbench.published.software import NATIVE, Software
from gnnbench.spec import BatchSpec

SCRIPT_RATE = 0.1
"""Of the scripts in BNS-GCN's repository, for rows that state no sampling rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a system trains a row's model, in our words.

    `native_hosts` is whether its ranks talk by NCCL over the links that hosts of such devices have;
    otherwise the hosts are those of the studies that moved everything by gloo.
    `ranks` is the number of devices that train, where a row counts others as well; 0: all.
    `disk` is a disk of the catalogue; "" is that of the cluster. `optimizer` is that of the code.
    """

    software: Software = NATIVE
    knobs: dict[str, Any] = field(default_factory=dict)
    batch: BatchSpec = field(default_factory=BatchSpec)
    norm: str = "none"
    method: str = ""
    native_hosts: bool = False
    ranks: int = 0
    disk: str = ""
    optimizer: str = "adam"


def native(row: PublishedRow) -> Recipe:
    """Code that does what our plan says."""
    return Recipe()


def vanilla(row: PublishedRow) -> Recipe:
    """The released partition-parallel code of BNS-GCN and PipeGCN, with everything exchanged."""
    return _released(row, Software(released=True, precompute=_precomputes(row)))


def pipegcn(row: PublishedRow) -> Recipe:
    """PipeGCN's released code."""
    software = Software(released=True, precompute=_precomputes(row), pipelined=True)
    return _released(row, software)


def bns(row: PublishedRow) -> Recipe:
    """BNS-GCN: its code refuses to run without precomputation (fullgraph section 6)."""
    words = f"{row.system} {row.notes}"
    rate = re.search(r"\bp\s*=\s*(0?\.\d+|0|1(?:\.0+)?)(?![.\d])", words)
    precompute = _precomputes(row, unstated=True)
    software = Software(released=True, precompute=precompute, rebuilds=True)
    return _released(row, software, rate=float(rate[1]) if rate else SCRIPT_RATE)


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
