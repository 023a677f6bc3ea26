"""Which run of ours a published row is: approach, knobs, model, ranks, and the software's own ways.

A `Case` is all that a prediction needs, so rows of one configuration share a prediction. A row that
is no case has a `Reason`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gnnbench import registry
from gnnbench.data.profile import GraphProfile
from gnnbench.errors import GnnbenchError
from gnnbench.published.metrics import COUNTS, unpredicted
from gnnbench.published.places import Reason, cluster_of, objective_of, profile_of
from gnnbench.published.rows import PublishedRow, whole_number
from gnnbench.published.software import NATIVE, RELEASED, Software
from gnnbench.spec import GraphRef, ModelSpec, RunSpec, TrainingSpec

EPOCHS = 3
DROPOUT = 0.5
"""Of all published scripts for graphs in memory; its cost does not depend on the rate."""
_MOST = {"layers": 64, "hidden": 1_000_000, "gpus": 1024}
_MODELS = {"gcn": "gcn", "graphsage": "sage", "gat": "gat"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A configuration to predict. `method` is the partitioner of a row that only counts."""

    run: RunSpec
    profile: GraphProfile
    cluster: str
    software: Software
    ranks_per_host: int | None = None
    method: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for rows that one prediction serves."""
        halo = tuple((p.parts, p.method, p.halo_per_node) for p in self.profile.halo)
        names = (self.run.config_id, self.cluster, self.ranks_per_host, self.method)
        return (*names, self.software, self.profile.name, halo)


def case_of(row: PublishedRow) -> Case | Reason:
    """Say what to predict for a row, or why it cannot be predicted."""
    why = unpredicted(row)
    if why is not None:
        return why
    if row.metric in COUNTS:
        return _partition_case(row)
    path = _path(row)
    if isinstance(path, Reason):
        return path
    approach, knobs, software = path
    kind = _MODELS.get(row.model.lower())
    if kind is None:
        return Reason("model not modelled", row.model or "empty")
    if row.num_layers is None or row.hidden_width is None or row.ranks is None:
        bad = [k for k in ("layers", "hidden", "gpus") if _number(row, k) is None]
        found = ", ".join(f"{k} {getattr(row, k)!r}" for k in bad)
        return Reason("configuration not stated", found)
    for key, most in _MOST.items():
        if (_number(row, key) or 0) > most:
            return Reason(
                "configuration out of range", f"{key} {getattr(row, key)}, at most {most}"
            )
    cluster = cluster_of(row)
    if isinstance(cluster, Reason):
        return cluster
    if software == NATIVE and "gloo" in cluster:
        return Reason("hardware without a preset", f"{row.hardware}, other than through gloo")
    profile = profile_of(row)
    if isinstance(profile, Reason):
        return profile
    heads = stated_heads(row) if kind == "gat" else 1
    run = _run(row, profile, approach, knobs, kind, row.hidden_width * heads, heads)
    return _checked(
        Case(
            run=run,
            profile=profile,
            cluster=cluster,
            software=software,
            ranks_per_host=_ranks_per_host(row),
        )
    )


def stated_heads(row: PublishedRow) -> int:
    """Attention heads by "heads=N" or "heads N" in the notes, else one."""
    found = re.search(r"\bheads[ =](\d+)", row.notes)
    return int(found[1]) if found and 0 < int(found[1]) <= 64 else 1


def _number(row: PublishedRow, key: str) -> int | None:
    return {"layers": row.num_layers, "hidden": row.hidden_width, "gpus": row.ranks}[key]


def _run(
    row: PublishedRow,
    profile: GraphProfile,
    approach: str,
    knobs: dict[str, Any],
    kind: str,
    hidden: int,
    heads: int,
) -> RunSpec:
    layers, ranks = row.num_layers or 1, row.ranks or 1
    return RunSpec(
        suite="published",
        graph=GraphRef(name=profile.name, profile=profile.name),
        model=ModelSpec(
            name=kind, kind=kind, hidden=hidden, layers=layers, heads=heads, dropout=DROPOUT
        ),
        training=TrainingSpec(epochs=EPOCHS),
        approach=approach,
        ranks=ranks,
        knobs=knobs,
    )


def _checked(case: Case) -> Case | Reason:
    """The case, if the approach can run it."""
    card = registry.approach(case.run.approach)
    problems = [*card.problems(case.run), *registry.model(case.run.model.kind).problems(
        case.run.model
    )]  # fmt: skip
    why = problems[0] if problems else card.cannot_run(case.run, case.profile)
    if why:
        return Reason(f"approach {card.name} cannot run it", why)
    if case.run.approach != "sampled":
        try:
            if case.run.ranks > 1 and "objective" in case.run.knobs:
                case.profile.expected_halo(case.run.ranks, "metis-vol")
        except GnnbenchError as error:
            return Reason("graph without a halo curve", str(error))
    return case


def _ranks_per_host(row: PublishedRow) -> int | None:
    """Ranks on a host by "N host(s) x M GPUs" in the notes; else what the cluster holds."""
    found = re.search(r"\b(\d+) host(?:\(s\)|s)? x (\d+) GPU", row.notes)
    return int(found[2]) if found and 0 < int(found[2]) <= 64 else None


def _path(row: PublishedRow) -> tuple[str, dict[str, Any], Software] | Reason:
    """Approach, knobs and software of a row's system."""
    name = row.system.lower()
    objective = objective_of(row)
    if "vanilla" in name or name in ("full-graph", "pipegcn (sync)"):
        return _released(row, "partition", {"objective": objective})
    if name.startswith("pipegcn"):
        return _released(row, "pipegcn", {"objective": objective})
    if name.startswith("bns-gcn"):
        rate = re.search(r"\bp\s*=\s*(0?\.\d+|0|1(?:\.0+)?)(?![.\d])", f"{row.system} {row.notes}")
        if rate is None:
            return Reason("configuration not stated", "sampling rate p of BNS-GCN")
        return _released(row, "bns", {"objective": objective, "rate": float(rate[1])})
    if re.match(r"(distdgl|dgl|quiver)\b", name):
        return _mini_batch(row)
    if re.match(r"cagnet[ -]?1d", name):
        return "cagnet-1d", {}, NATIVE
    if "naive tp" in name or re.match(r"mixgcn\b(?!.*accelerator)", name):
        return "mixture", {}, NATIVE
    return Reason("system not modelled", row.system)


def _released(
    row: PublishedRow, approach: str, knobs: dict[str, Any]
) -> tuple[str, dict[str, Any], Software]:
    """The released partition-parallel code: aggregate-first, gloo, `use_pp` as the row says.

    Where a row is silent: BNS-GCN refuses to run without it (fullgraph section 6); the other code
    is as in the logs of the study that printed most rows, with it for GAT, without it otherwise.
    """
    words = row.notes.lower()
    stated = re.search(r"use_pp\s*=\s*(true|false)", words)
    if stated is not None:
        precompute = stated[1] == "true"
    elif "use_pp" in words:
        precompute = True
    else:
        precompute = approach == "bns" or row.model.lower() == "gat"
    software = Software(
        released=True,
        precompute=precompute,
        layer_norm="norm none" not in words,
        rebuilds=approach == "bns",
        eager=RELEASED.eager,
    )
    return approach, {**knobs, "order": "aggregate_first"}, software


def _mini_batch(row: PublishedRow) -> tuple[str, dict[str, Any], Software] | Reason:
    """Neighbour sampling with all features on every device; DistDGL fetches them from servers.

    Fan-outs are listed input layer first by DGL and seeds first by Quiver (sampling section 2).
    """
    name = row.system.lower()
    if not row.fanout or not row.batch:
        return Reason("configuration not stated", "fan-outs and batch of mini-batch training")
    if name.startswith("distdgl"):
        return Reason("software path not modelled", "features fetched from servers of DistDGL")
    fanouts = [whole_number(word) for word in re.split(r"[-,; ]+", row.fanout)]
    batch = re.fullmatch(r"(\d+)(?:\.0)?(/gpu)?", row.batch.lower())
    each = whole_number(batch[1]) if batch else None
    if each is None or None in fanouts or len(fanouts) != row.num_layers:
        return Reason("configuration not stated", f"fan-outs {row.fanout}, batch {row.batch}")
    if not (batch and batch[2]) and row.ranks != 1:
        return Reason("configuration not stated", f"whether batch {row.batch} is of one device")
    if name.startswith("dgl"):
        fanouts.reverse()
    knobs = {
        "batch_size": each * (row.ranks or 1),
        "fanouts_from_seeds": fanouts,
        "order": "aggregate_first",
    }
    return "sampled", knobs, Software(batched=True, eager=RELEASED.eager)


def _partition_case(row: PublishedRow) -> Case | Reason:
    """A row that counts vertices of a METIS partition."""
    if not row.system.lower().startswith("metis partition"):
        return Reason("system not modelled", row.system)
    if "(" not in row.system:
        return Reason("configuration not stated", "objective of METIS")
    if row.ranks is None:
        return Reason("configuration not stated", f"gpus {row.gpus!r}")
    profile = profile_of(row)
    if isinstance(profile, Reason):
        return profile
    method = f"metis-{objective_of(row)}"
    try:
        profile.expected_halo(row.ranks, method)
    except GnnbenchError as error:
        return Reason("graph without a halo curve", str(error))
    run = _run(row, profile, "partition", {"objective": objective_of(row)}, "gcn", 16, 1)
    return Case(run=run, profile=profile, cluster="", software=NATIVE, method=method)
