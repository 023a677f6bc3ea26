"""The cluster and the graph profile that a row's words name.

Rules look at words in a row's columns and never at where the row is printed. What a row does not
say is not guessed: NotModelled says what is missing. There is one exception, and its predictions
carry a note: a host that the row calls "p3.8xlarge-like" is simulated as a p3.8xlarge.
"""

from __future__ import annotations

import re
from dataclasses import replace

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
_NOT_STATED = re.compile(r"not stated|not given|unknown|^$", re.I)
# Other names of graphs, and the profile of each.
_PROFILES = {"ogbn-papers100m": "papers100m-2hop", "papers100m": "papers100m-2hop"}


def cluster_of(row: PublishedRow) -> str:
    """Name of the built-in cluster that a row's hardware is. Raises NotModelled."""
    words = row.hardware.lower()
    for pattern, name in _CLUSTERS:
        if re.search(pattern, words):
            return LOGGED_CLUSTER if name == M40_CLUSTER and is_long_log(row) else name
    if _NOT_STATED.search(row.hardware):
        raise NotModelled("hardware not stated", row.hardware or "empty")
    raise NotModelled("hardware without a preset", row.hardware)


def is_long_log(row: PublishedRow) -> bool:
    """Whether the number is a mean over a whole training, during which the host also evaluates."""
    return "mean up to epoch" in row.notes.lower()


def profile_of(row: PublishedRow) -> GraphProfile:
    """The profile of a row's graph, with the halo that the row states. Raises NotModelled."""
    wanted = row.dataset.lower()
    name = _PROFILES.get(wanted, wanted)
    if name not in list_profiles():
        raise NotModelled("graph without a profile", row.dataset or "empty")
    if re.search(r"\binductive\b", row.notes.lower()):
        raise NotModelled("graph without a profile", f"{row.dataset}, inductive: training subgraph")
    return with_stated_halo(load_profile(name), row)


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
