"""Links that devices or hosts share: loads, fair shares by hand, and no effect elsewhere."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from gnnbench.cluster import Cluster, Node, load_cluster, save_cluster
from gnnbench.errors import GnnbenchError
from gnnbench.fabric import CORE, Fabric, Shared, Tier, fabric_graph, host_part
from gnnbench.machines import find_machines, with_constants
from gnnbench.steps import Kind, Lane
from gnnbench.work.moving import to_device, to_host
from gnnbench_simulator.energy import Volumes, energy
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.events import simulate_events
from gnnbench_simulator.fabric_links import FabricLinks
from gnnbench_simulator.memory import judge_worst
from gnnbench_simulator.needs import Needs, PhaseNeeds
from gnnbench_simulator.program import compile_plan


def _cluster(kit: Any, devices: int = 2, **fabric: Any) -> Cluster:
    """Hosts of some devices; links inside 100 B/s, one card of 10 B/s per host; no latency."""
    base = kit.cluster()
    fast = dataclasses.replace(base.links.intra, bytes_per_s=kit.constant(100.0))
    inter = dataclasses.replace(fast, bytes_per_s=kit.constant(10.0), shared=True)
    return dataclasses.replace(
        base,
        host=dataclasses.replace(base.host, devices_per_host=devices),
        device=dataclasses.replace(base.device, kind="gpu", arch="ampere"),
        transport="nccl",
        links=dataclasses.replace(base.links, intra=fast, inter=inter, host=fast),
        # One second and no bytes: what is left is the time of the links.
        collectives=tuple(
            dataclasses.replace(m, layout=layout, latency_s=1.0, bytes_per_s=1e12)
            for m in base.collectives
            for layout in ("intra", "inter")
        ),
        fabric=Fabric(**fabric) if fabric else None,
    )


def _tier(kit: Any, hosts: int, over: float) -> Tier:
    return Tier(hosts=hosts, oversubscription=kit.constant(over))


def _ends(plan: Any, cluster: Cluster, per_host: int = 2) -> list[float]:
    """When ranks end, by the event loop, after asserting that the engine says the same."""
    program = compile_plan(plan, cluster, ranks_per_host=per_host)
    fast = simulate_events(program).end_s.tolist()
    assert simulate(program).end_s.tolist() == pytest.approx(fast, rel=1e-9)
    return fast


def _copy(kit: Any, name: str, size: int, *, up: bool = False) -> Any:
    done = to_host(size) if up else to_device(size)
    step = kit.work(name, 0, lane=Lane.COPY)
    return dataclasses.replace(step, work=done)


def test_copies_under_one_switch_share_its_link_each_way(kit: Any) -> None:
    """Three copies of 400 B in one direction over 100 B/s end at 12 s; the one up at 4 s."""
    switch = Shared(devices=4, bytes_per_s=kit.constant(100.0))
    cluster = _cluster(kit, 4, peers="nvlink", switch=switch)
    plan = kit.plan(*[(_copy(kit, "c", 400, up=rank == 3),) for rank in range(4)])
    assert _ends(plan, cluster, 4) == pytest.approx([12.0, 12.0, 12.0, 4.0])


def test_copies_under_two_switches_share_the_memory_of_their_socket(kit: Any) -> None:
    """Switches of 100 B/s with two copies each, on a memory of 150 B/s: 37.5 B/s each."""
    switch = Shared(devices=2, bytes_per_s=kit.constant(100.0))
    cluster = _cluster(kit, 4, peers="nvlink", switch=switch, memory=kit.constant(150.0))
    plan = kit.plan(*[(_copy(kit, "c", 300),)] * 4)
    assert _ends(plan, cluster, 4) == pytest.approx([8.0] * 4)


def test_groups_share_the_uplink_of_their_leaf(kit: Any) -> None:
    """Two rings of two hosts in two leaves: an uplink of 5 B/s carries 50 B of each."""
    cluster = _cluster(kit, 1, leaf=_tier(kit, 2, 4.0))
    rings = [(0, 2), (1, 3)]
    steps = [(kit.meet("m", rings[rank % 2], 50, kind=Kind.ALL_GATHER),) for rank in range(4)]
    # Alone each would need 10 s; together they have 20 s of bytes.
    assert _ends(kit.plan(*steps), cluster, 1) == pytest.approx([20.0] * 4)
    alone = [steps[0], (), steps[2], ()]
    assert _ends(kit.plan(*alone), cluster, 1)[0] == pytest.approx(10.0)


def test_the_short_group_ends_first_and_the_other_speeds_up(kit: Any) -> None:
    """50 and 100 B over 5 B/s: fair shares to 20 s, and the 50 B that are left take 10 s more."""
    cluster = _cluster(kit, 1, leaf=_tier(kit, 2, 4.0))
    short, long = (
        kit.meet("m", group, size, kind=Kind.ALL_GATHER)
        for group, size in (((0, 2), 50), ((1, 3), 100))
    )
    found = _ends(kit.plan((short,), (long,), (short,), (long,)), cluster, 1)
    assert found == pytest.approx([20.0, 30.0, 20.0, 30.0])


def test_a_message_gets_the_share_of_one_message_beside_a_collective(kit: Any) -> None:
    """An uplink of 6 B/s, a ring of 60 B and a message of 30 B over it: 3 B/s each for 10 s."""
    cluster = _cluster(kit, 1, leaf=_tier(kit, 3, 5.0))
    ring = kit.meet("m", (0, 3), 60, kind=Kind.ALL_GATHER)
    send = kit.meet("s", (1, 4), 30, kind=Kind.SEND, lane=Lane.COMM)
    receive = kit.meet("r", (4, 1), 30, kind=Kind.RECV, lane=Lane.COMM)
    found = _ends(kit.plan((ring,), (send,), (), (ring,), (receive,), ()), cluster, 1)
    assert found[1] == pytest.approx(10.0)
    assert found[0] == pytest.approx(15.0)


FABRICS: tuple[dict[str, Any], ...] = (
    {"leaf": (2, 2.0)},
    {"leaf": (1, 3.0), "spine": (2, 2.0), "nic": 2},
    {"peers": "pcie", "switch": 2, "socket": 4, "nic": 4, "leaf": (2, 1.0)},
    {"peers": "pcie", "socket": 2, "nic": 1},
)


@pytest.mark.parametrize("parts", FABRICS, ids=str)
@pytest.mark.parametrize("transport", ["nccl", "gloo_staged"])
def test_loads_are_those_of_shortest_paths(kit: Any, parts: dict[str, Any], transport: str) -> None:
    made = {
        name: value
        if isinstance(value, str)
        else _tier(kit, *value)
        if isinstance(value, tuple)
        else Shared(devices=value, bytes_per_s=kit.constant(7.0))
        for name, value in parts.items()
    }
    cluster = dataclasses.replace(_cluster(kit, 4, **made), transport=transport)
    links, ranks = FabricLinks(cluster, 4), 16
    matrix = np.random.default_rng(1).integers(1, 50, (ranks, ranks)).astype(float)
    np.fill_diagonal(matrix, 0.0)
    found = links.load(matrix, range(ranks))
    top = made.get("leaf"), made.get("spine")
    graph = fabric_graph([host_part(cluster, host, 4) for host in range(4)], *top, 64)
    reach = parts.get("nic", 4)
    socket = parts.get("socket", 4)
    expected: dict[Any, float] = {}
    for a, b in itertools.permutations(range(ranks), 2):
        stops: list[Any] = [("device", a // 4, a % 4), ("device", b // 4, b % 4)]
        near = a // 4 == b // 4
        if near and (parts.get("peers") != "pcie" or transport == "gloo_staged"):
            continue
        if not near:
            nics = [("nic", r // 4, r % 4 // reach) for r in (a, b)]
            memories = [("memory", r // 4, r % 4 // socket) for r in (a, b)]
            more = [[memories[0]], [memories[1]]] if transport == "gloo_staged" else [[], []]
            stops[1:1] = [*more[0], *nics, *more[1]]
        for start, end in itertools.pairwise(stops):
            path = nx.shortest_path(graph, start, end)
            for edge in itertools.pairwise(path):
                if np.isfinite(graph.edges[edge]["bytes_per_s"]):
                    expected[edge] = expected.get(edge, 0.0) + matrix[a, b]
    by_number = {links.number(edge, 0.0): size for edge, size in expected.items()}
    assert dict(zip(found.links.tolist(), found.usage.tolist(), strict=True)) == by_number


def test_where_no_link_is_shared_nothing_moves(kit: Any) -> None:
    """Full bisection and links that are never full: the times of the cluster without a fabric."""
    wide = Shared(devices=2, bytes_per_s=kit.constant(1e15))
    fabric = {"peers": "pcie", "switch": wide, "leaf": _tier(kit, 64, 1.0)}
    rank = (_copy(kit, "c", 300), kit.meet("m", (0, 1, 2, 3), 40), kit.work("w", 3))
    plan = kit.plan(*[rank] * 4, periods=2)
    assert _ends(plan, _cluster(kit, **fabric)) == pytest.approx(_ends(plan, _cluster(kit)))


# -- hosts of several kinds ----------------------------------------------------------------------


def _mixed(kit: Any) -> Cluster:
    """A host of two ranks, and a host whose operations and collectives take three times as long."""
    fast = kit.cluster(host=dataclasses.replace(kit.cluster().host, devices_per_host=2))
    slow = dataclasses.replace(
        fast,
        name="slow",
        device=dataclasses.replace(
            fast.device,
            name="slow",
            memory_bytes=kit.constant(500.0),
            context_bytes=kit.constant(9),
        ),
        ops=tuple(dataclasses.replace(op, params={"s_per_byte": 3.0}) for op in fast.ops),
        collectives=tuple(dataclasses.replace(m, latency_s=3.0) for m in fast.collectives),
    )
    nodes = tuple(Node(type=c.name, count=1, cluster=c) for c in (fast, slow))
    return dataclasses.replace(fast, name="mixed", nodes=nodes)


def test_each_rank_has_the_constants_of_its_host(kit: Any) -> None:
    plan = kit.plan(*[(kit.work("w", 5),)] * 4)
    assert _ends(plan, _mixed(kit)) == [5.0, 5.0, 15.0, 15.0]


def test_a_collective_goes_at_the_pace_of_the_slowest_kind_of_its_group(kit: Any) -> None:
    groups = [(0, 1), (0, 1), (2, 3), (2, 3)]
    apart = kit.plan(*[(kit.meet("m", group, 10),) for group in groups])
    assert _ends(apart, _mixed(kit)) == [2.0, 2.0, 4.0, 4.0]


def test_memory_is_judged_by_what_each_rank_has(kit: Any) -> None:
    sizes = [900, 900, 600, 600]
    training = PhaseNeeds(workload=sizes, allocated=sizes, reserved=sizes, host=[0] * 4)
    needs = Needs(
        gpu=False,
        training=training,
        evaluation=None,
        disk=[0] * 4,
        loose=[0] * 4,
        periods=1,
    )
    worst = judge_worst(needs, _mixed(kit), 2, {})
    assert (worst["rank"], worst["limit_bytes"], worst["judged_bytes"]) == (2, 500, 609)


def test_rent_and_energy_are_the_sums_of_the_kinds() -> None:
    (machine,) = find_machines(["a100-and-v100"])
    a100, v100 = machine.cluster.kinds
    assert a100.price is not None
    assert v100.price is not None
    total = a100.price.usd_per_hour.value + v100.price.usd_per_hour.value
    assert machine.usd_per_hour() == pytest.approx(total)
    assert machine.devices == "8 A100-SXM4-80GB + 8 V100-SXM2-32GB"
    both = energy(Volumes(), machine.cluster, 10.0, ranks=16, ranks_per_host=8)
    each = [energy(Volumes(), kind, 10.0, ranks=8, ranks_per_host=8) for kind in (a100, v100)]
    assert both is not None
    assert both.joules == pytest.approx(sum(one.joules for one in each if one is not None))


# -- files ---------------------------------------------------------------------------------------

FILE = """
schema = 1
name = "lab"
[[nodes]]
type = "g4dn.12xlarge"
count = 2
[[nodes]]
type = "p3.8xlarge"
count = 1
[nodes.fabric]
peers = "pcie"
switch = { devices = 2, bytes_per_s = { value = 1e10, status = "assumed", source = "mine" } }
[fabric]
leaf = { hosts = 2, oversubscription = { value = 2, status = "assumed", source = "mine" } }
"""


def _load(tmp_path: Path, text: str) -> Cluster:
    (tmp_path / "lab.toml").write_text(text, encoding="utf-8")
    return load_cluster(tmp_path / "lab.toml")


def test_a_file_of_nodes_is_read_and_kept_whole(tmp_path: Path) -> None:
    lab = _load(tmp_path, FILE)
    assert [lab.kind_of(host) for host in range(4)] == [0, 0, 1, 1]
    assert lab.host.hosts_max == 3
    assert lab.kinds[1].fabric is not None
    save_cluster(lab, tmp_path / "kept.toml")
    assert load_cluster(tmp_path / "kept.toml") == lab


def test_constants_are_changed_in_every_kind(tmp_path: Path) -> None:
    changes = {"links.inter.bytes_per_s": "1e9", "fabric.leaf.oversubscription": "8"}
    lab = with_constants(_load(tmp_path, FILE), changes)
    assert {kind.links.inter.bytes_per_s.value for kind in lab.kinds} == {1e9}
    assert lab.fabric is not None
    assert lab.fabric.leaf is not None
    assert lab.fabric.leaf.oversubscription.value == 8


def test_hosts_of_one_kind_are_a_plain_cluster() -> None:
    leaves = load_cluster("dgx-a100-leaves")
    plain = load_cluster("dgx-a100")
    assert not leaves.nodes
    assert leaves.host.hosts_max == 16
    assert (leaves.device, leaves.links) == (plain.device, plain.links)
    parts = [host_part(leaves, host, 8) for host in range(16)]
    assert leaves.fabric is not None
    graph = fabric_graph(parts, leaves.fabric.leaf, None, 16)
    assert nx.shortest_path_length(graph, ("device", 0, 0), CORE) > 2
    assert graph.edges[("leaf", 0), CORE]["bytes_per_s"] == pytest.approx(4 * 8 * 23.5e9 / 2)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("count = 2", "count = 0", "count: found 0, expected a whole number of hosts >= 1"),
        ("count = 2", "cuont = 2", "cuont: unknown key, did you mean 'count'?"),
        ("g4dn.12xlarge", "g4dn.12xlarg", "unknown cluster 'g4dn.12xlarg'"),
        ("g4dn.12xlarge", "a100-and-v100", "has nodes itself"),
        ("g4dn.12xlarge", "p4d.24xlarge", "set devices = 4 for both"),
        ("g4dn.12xlarge", "cpu-2core", "ranks of one run need the same"),
        ('peers = "pcie"\n', "", "peers: missing"),
        ("value = 2,", "value = 0.5,", "allowed >= 1"),
        ("value = 1e10", "value = -1", "allowed >= 0"),
        ("[fabric]\n", "[fabric]\nnic = { devices = 1, bytes_per_s = " + "{ value = 1, "
         'status = "assumed", source = "x" } }\n', "say it in [nodes.fabric]"),
        ('name = "lab"', 'name = "lab"\ntransport = "nccl"', "not allowed beside nodes"),
        ("[fabric]", "[fabrik]", "unknown key, did you mean 'fabric'?"),
        ("devices = 2", "devices = 0", "allowed >= 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_said_in_a_line(
    tmp_path: Path, before: str, after: str, problem: str
) -> None:
    assert before in FILE
    with pytest.raises(GnnbenchError) as error:
        _load(tmp_path, FILE.replace(before, after, 1))
    assert any(problem in line for line in str(error.value).splitlines())
