"""Which cluster and which graph profile a row's words mean, or why neither is known.

Rules look at words in a row's columns and never at where the row stands. What a row does not say is
not guessed: it has a reason instead. One exception is labelled: a host "p3.8xlarge-like" is taken
for one, by the row's own words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from gnnbench.data.profile import GraphProfile, HaloPoint, list_profiles, load_profile
from gnnbench.published.rows import PublishedRow

LOGGED_CLUSTER = "m40x4-gloo-logged"
"""The M40 host while it also evaluates; its gloo link is fitted, see `split`."""

# Words that name an accelerator, and the cluster of hosts as the rows describe them (gloo).
_CLUSTERS = (
    (r"\bm40\b", "m40x4-gloo"),
    (r"\ba100-80gb\b", "a100-gloo"),
    (r"\bv100\b|\bp3\.8xlarge", "v100x4-gloo"),
    (r"\bt4\b", "t4-15gbps"),
)
_NOT_STATED = re.compile(r"not stated|not given|unknown|^$", re.I)
_PROFILES = {"ogbn-papers100m": "papers100m-2hop", "papers100m": "papers100m-2hop"}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row has no prediction; `kind` groups reasons for counting."""

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def cluster_of(row: PublishedRow) -> str | Reason:
    """Name of the built-in cluster that a row's hardware is."""
    words = row.hardware.lower()
    for pattern, name in _CLUSTERS:
        if re.search(pattern, words):
            if name == "m40x4-gloo" and is_long_log(row):
                return LOGGED_CLUSTER
            return name
    if _NOT_STATED.search(row.hardware):
        return Reason("hardware not stated", row.hardware or "empty")
    return Reason("hardware without a preset", row.hardware)


def is_long_log(row: PublishedRow) -> bool:
    """Whether the number is a mean over a whole training, which evaluates on the host beside."""
    return "mean up to epoch" in row.notes.lower()


def profile_of(row: PublishedRow) -> GraphProfile | Reason:
    """The profile of a row's graph, with the halo that the row itself states, if it does."""
    wanted = row.dataset.lower()
    name = _PROFILES.get(wanted, wanted)
    if name not in list_profiles():
        return Reason("graph without a profile", row.dataset or "empty")
    if re.search(r"\binductive\b", row.notes.lower()):
        return Reason("graph without a profile", f"{row.dataset}, inductive: training subgraph")
    return with_stated_halo(load_profile(name), row)


def with_stated_halo(profile: GraphProfile, row: PublishedRow) -> GraphProfile:
    """The profile with the "halo total N" of the row's notes at the row's number of ranks."""
    found = re.search(r"\bhalo total (\d+)", row.notes)
    if found is None or row.ranks is None or row.ranks < 2:
        return profile
    method = f"metis-{objective_of(row)}"
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
    """What METIS minimised, by the row's words; volume, the default of the released code, if none.

    Source: fullgraph section 5.
    """
    words = f"{row.system} {row.notes}".lower()
    cut = re.search(r"\(cut\)|edge-cut|metis cut|objtype=cut", words)
    return "cut" if cut else "vol"
