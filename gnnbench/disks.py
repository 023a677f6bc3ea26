"""Disks of the catalogue: constants of [storage] for machines whose disk a table or page names.

A cluster file has the disk that its hosts come with; a cloud host takes volumes of several kinds,
and its own link to them may be slower than the volume.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from gnnbench.cluster import Cluster, Constant, Storage
from gnnbench.errors import UnknownName
from gnnbench.strict import bounds, build, raise_all, read_toml

SCHEMA = 1
_FOLDER = Path(__file__).resolve().parent / "catalogue" / "disks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk or volume: a name, and its constants."""

    schema: int = field(default=SCHEMA, metadata=bounds(SCHEMA, SCHEMA))
    name: str
    description: str = ""
    storage: Storage


def list_disks() -> list[str]:
    """Names of the built-in disks."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_disk(name: str) -> Disk:
    """Read a built-in disk. Raises UnknownName, with a suggestion."""
    if name not in list_disks():
        raise UnknownName("disk", name, list_disks())
    problems: list[str] = []
    found = build(Disk, read_toml(_FOLDER / f"{name}.toml"), name, problems)
    raise_all(problems)
    assert found is not None
    return found


def with_disk(cluster: Cluster, name: str, *, depth: int = 1) -> Cluster:
    """The cluster with a disk of the catalogue, or its own disk where the name is "".

    Args:
        cluster: its own [storage], if any, is the link to a volume: no volume is faster.
        name: of a disk.
        depth: requests that the code keeps in flight on a lane, which overlap their latencies.

    Raises:
        UnknownName: no such disk.
    """
    storage = cluster.storage if not name else load_disk(name).storage
    if storage is None:
        return cluster
    if name and cluster.storage is not None and name.startswith("ebs-"):
        link = cluster.storage
        storage = replace(
            storage,
            read_bytes_per_s=_slower(storage.read_bytes_per_s, link.read_bytes_per_s),
            write_bytes_per_s=_slower(storage.write_bytes_per_s, link.write_bytes_per_s),
        )
    if depth > 1:
        latency = storage.latency_s
        source = f"{latency.source}; {depth} requests in flight"
        storage = replace(
            storage,
            latency_s=replace(latency, value=latency.value / depth, source=source),
            write_latency_s=None,
        )
    return replace(cluster, storage=storage)


def _slower(one: Constant, other: Constant) -> Constant:
    return one if one.value <= other.value else other
