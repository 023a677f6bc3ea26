"""The cluster and the graph profile that a row's words name.

Rules look at words in a row's columns and never at where the row is printed. What a row does not
say is not guessed: NotModelled says what is missing. There is one exception, and its predictions
carry a note: a host that the row calls "p3.8xlarge-like" is simulated as a p3.8xlarge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gnnbench.data.profile import GraphProfile, HaloPoint, list_profiles, load_profile
from gnnbench.published.reason import NotModelled
from gnnbench.published.rows import PublishedRow

M40_CLUSTER = "m40x4-gloo"
LOGGED_CLUSTER = "m40x4-gloo-logged"
"""The M40 host while it also evaluates; its gloo link is fitted, see `split`."""

# Words that name an accelerator, and the cluster of hosts as the rows describe them (gloo).
_CLUSTERS = (
    (r"\bm40\b", M40_CLUSTER),
    (r"\ba100-80gb\b", "a100-gloo"),
    (r"\bv100\b|\bp3\.8xlarge", "v100x4-gloo"),
    (r"\bt4\b", "t4-15gbps"),
)
# The same for systems whose ranks talk by NCCL over the links that hosts of such devices have.
_NATIVE = (
    (r"\bp3\.?2x", "p3.2xlarge"),
    (r"\bp3\.?8x", "p3.8xlarge"),
    (r"\bp3\.?16x", "p3.16xlarge"),
    (r"\bm40\b", M40_CLUSTER),
    (r"\ba100-80gb/host|4x a100-80gb per host", "a100x4"),
    (r"\ba100\b", "dgx-a100"),
    (r"\bh100\b", "dgx-h100"),
    (r"\bh200\b", "h200"),
    (r"\bv100\b", "v100x8"),
    (r"\bt4\b", "g4dn.12xlarge"),
    (r"\bp100\b", "p100"),
    (r"\ba10g\b", "g5.48xlarge"),
    (r"\brtx[ -]?3090\b", "rtx3090x4"),
    (r"\brtx[ -]?2080 ?ti\b", "rtx2080tix8"),
    (r"\brtx[ -]?4080\b", "rtx4080"),
)
_NOT_STATED = re.compile(r"not stated|not given|unknown|^$", re.I)
# Other names of graphs, and the profile of each.
_PROFILES = {
    "papers100m": "ogbn-papers100m",
    "papers": "ogbn-papers100m",
    "products": "ogbn-products",
    "arxiv": "ogbn-arxiv",
}
_OF_BAJAJ = {"ogbn-papers100m": "papers100m-2hop", "ogbn-arxiv": "arxiv-one-way"}
"""What these graphs are in the study of Bajaj et al., by the counts of its repository: the two-hop
neighbourhood of the training vertices, and citations in one direction."""
_BOTH_WAYS = {"ogbn-papers100m": "papers100m-both-ways"}
"""What a graph of citations is to systems that add every edge's reverse."""
_ADDS_REVERSE = re.compile(r"\bmariusgnn\b|\bginex\b|\bdiskgnn\b|graphbolt|\bsalient\b")
"""Systems that do: MariusGNN draws along and against edges, DiskGNN's code and
GraphBolt's dataset add reverse edges, SALIENT's artefact makes every graph symmetric; DiskGNN's
table has all of its systems on that graph."""
_OF_DISKGNN: Mapping[str, Mapping[str, int]] = {
    "friendster": {"num_features": 128, "num_classes": 20, "num_train": 656_083},
    "igb-full": {"num_train": 13_627_851},
}
"""Facts of graphs in DiskGNN's tables. Friendster has random features, and one vertex in a hundred
is trained on (examples/load_graph.py and prepare_dataset.py); of IGB a tenth of 60 % of the
227,130,858 labelled vertices (they fill 415 of 8,192 partitions in its log of MariusGNN)."""

_DISKGNN_RUNS = {"fanout": "10;15;20", "hidden": "256"}
"""What a log of DiskGNN's accuracy runs leaves out: the names of their files say fan-outs and width
(offgs_plot/offgs_data/acc, such as offline_ogbn-papers100M_10,15,20_SAGE_256)."""
_OF_CAPSULE: Mapping[str, Mapping[str, int | bool]] = {
    "friendster": {
        "num_edges": 1_806_067_135,
        "undirected": False,
        "num_features": 100,
        "num_classes": 150,
        "num_train": 656_083,
    },
    "uk-2006-05": {"num_features": 100, "num_train": 777_410},
    "webbase-2001": {"num_features": 100, "num_train": 1_181_421},
}
"""The same of Capsule's tables (datasetInfo.json): each edge of Friendster once."""


def cluster_of(row: PublishedRow, *, native: bool = False) -> str:
    """Name of the built-in cluster that a row's hardware is. Raises NotModelled.

    Args:
        row: with its hardware.
        native: whether the hosts are those of NCCL over the devices' own links; of gloo otherwise.
    """
    words = row.hardware.lower()
    if _NOT_STATED.search(row.hardware) and "-like" not in words:
        raise NotModelled("hardware not stated", row.hardware or "empty")
    for pattern, name in _NATIVE if native else _CLUSTERS:
        if re.search(pattern, words):
            return LOGGED_CLUSTER if name == M40_CLUSTER and is_long_log(row) else name
    raise NotModelled("hardware without a preset", row.hardware)


def is_long_log(row: PublishedRow) -> bool:
    """Whether the number is a mean over a whole training, during which the host also evaluates."""
    return "mean up to epoch" in row.notes.lower()


def profile_of(row: PublishedRow) -> GraphProfile:
    """The profile of a row's graph, with the halo that the row states. Raises NotModelled."""
    wanted = row.dataset.lower()
    name = _PROFILES.get(wanted, wanted)
    if "bajaj" in row.source.lower():
        name = _OF_BAJAJ.get(name, name)
    words = f"{row.source} {row.system}".lower()
    if _ADDS_REVERSE.search(words) or "undirected" in row.notes.lower():
        name = _BOTH_WAYS.get(name, name)
    if name not in list_profiles():
        raise NotModelled("graph without a profile", row.dataset or "empty")
    if re.search(r"\binductive\b", row.notes.lower()):
        raise NotModelled("graph without a profile", f"{row.dataset}, inductive: training subgraph")
    found = load_profile(name)
    if "diskgnn" in words:
        found = replace(found, **_OF_DISKGNN.get(name, {}))
    if "capsule" in row.source.lower():
        facts: dict[str, Any] = dict(_OF_CAPSULE.get(name, {}))
        found = replace(found, **facts)
    return with_stated_halo(found, row)


def completed(row: PublishedRow) -> PublishedRow:
    """The row with what its study says elsewhere of all its runs, where its own cells are empty."""
    if "diskgnn" not in row.source.lower() or row.model.lower() != "graphsage":
        return row
    missing: dict[str, Any] = {
        name: text for name, text in _DISKGNN_RUNS.items() if not getattr(row, name)
    }
    return replace(row, **missing)


def with_stated_halo(profile: GraphProfile, row: PublishedRow) -> GraphProfile:
    """The profile with the "halo total N" of the row's notes at the row's number of ranks."""
    found = re.search(r"\bhalo total (\d+)", row.notes)
    if found is None or row.ranks is None or row.ranks < 2:
        return profile
    method = method_of(row)
    near = profile.expected_halo(row.ranks, method)[0]
    point = HaloPoint(
        parts=row.ranks,
        method=method,
        halo_per_node=int(found[1]) / profile.num_nodes,
        halo_imbalance=near.halo_imbalance,
        cut_fraction=near.cut_fraction,
    )
    others = tuple(p for p in profile.halo if (p.parts, p.method) != (point.parts, method))
    return replace(profile, halo=(*others, point))


def objective_of(row: PublishedRow) -> str:
    """What METIS minimised, "vol" or "cut", by the row's words.

    Without a word it is volume, the default of the released code (fullgraph section 5).
    """
    words = f"{row.system} {row.notes}".lower()
    cut = re.search(r"\(cut\)|edge-cut|metis cut|objtype=cut", words)
    return "cut" if cut else "vol"


def method_of(row: PublishedRow) -> str:
    """The partition method as profiles name it, such as metis-vol."""
    return f"metis-{objective_of(row)}"
