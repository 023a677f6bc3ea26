"""Collectives: calibrated where measured, physics elsewhere, never free of latency."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from gnnbench.cluster import CollectiveModel, load_cluster
from gnnbench.steps import NO_ROOT, Kind
from gnnbench.work import all_reduce_bytes
from gnnbench_simulator.nccl import Shape, tuner_s
from gnnbench_simulator.network import Call, Network
from gnnbench_simulator.program import compile_plan


def _bare(kit: Any, **changes: Any) -> Any:
    """No calibration: latency 2 s inside and 3 s between hosts, 10 and 5 B/s, shared NIC."""
    cluster = kit.cluster()
    intra = dataclasses.replace(
        cluster.links.intra, latency_s=kit.constant(2.0), bytes_per_s=kit.constant(10.0)
    )
    inter = dataclasses.replace(
        cluster.links.inter, latency_s=kit.constant(3.0), bytes_per_s=kit.constant(5.0)
    )
    links = dataclasses.replace(cluster.links, intra=intra, inter=inter)
    return kit.cluster(links=links, collectives=(), **changes)


def _all_reduce(kit: Any, ranks: int, size: int) -> Call:
    group = tuple(range(ranks))
    step = kit.meet("m", group, all_reduce_bytes(size, ranks), buffer_bytes=size)
    return Call.of([step] * ranks, group)


def test_ring_all_reduce_has_its_closed_form(kit: Any) -> None:
    """2 (n-1) (alpha + S / (n B)), simulation 4.5."""
    seconds = Network(_bare(kit), 4).collective(_all_reduce(kit, 4, 400)).seconds
    assert seconds == pytest.approx(6 * (2.0 + 400 / (4 * 10.0)))


def test_a_ring_over_hosts_goes_at_the_pace_of_the_network(kit: Any) -> None:
    seconds = Network(_bare(kit), 2).collective(_all_reduce(kit, 4, 400)).seconds
    assert seconds == pytest.approx(6 * (3.0 + 400 / (4 * 5.0)))


def test_one_rank_communicates_for_nothing(kit: Any) -> None:
    assert Network(_bare(kit), 1).collective(_all_reduce(kit, 1, 400)).seconds == 0.0


def test_a_measured_collective_is_used_as_measured(kit: Any) -> None:
    network = Network(kit.cluster(), 4)
    found = network.collective(_all_reduce(kit, 4, 400))
    assert found.seconds == pytest.approx(1.0 + 600 / 10.0)
    assert network.classes[found.label].grade == "measured"


def _halo(kit: Any, sends: list[list[int]]) -> Call:
    group = tuple(range(len(sends)))
    facts = {"kind": Kind.ALL_TO_ALL, "unit_bytes": 1}
    steps = [kit.meet("x", group, sum(row), send=np.array(row), **facts) for row in sends]
    return Call.of(steps, group)


def _broadcast(kit: Any, ranks: int, size: int) -> Call:
    group = tuple(range(ranks))
    return Call.of([kit.cast("b", group, size, rank, 0) for rank in group], group)


def test_a_ragged_exchange_takes_what_its_busiest_rank_sends_or_receives(kit: Any) -> None:
    receives_most = _halo(kit, [[0, 10, 70], [0, 0, 80], [0, 0, 0]])
    seconds = Network(_bare(kit), 3).collective(receives_most).seconds
    assert seconds == pytest.approx(2 * 2.0 + 150 / 10.0)


def test_a_shared_nic_carries_the_bytes_of_all_ranks_of_its_host(kit: Any) -> None:
    sends = [[0, 0, 50, 0], [0, 0, 0, 50], [0, 0, 0, 0], [0, 0, 0, 0]]
    seconds = Network(_bare(kit), 2).collective(_halo(kit, sends)).seconds
    assert seconds == pytest.approx(3 * 3.0 + 100 / 5.0)


def test_host_staging_adds_a_copy_on_each_side(kit: Any) -> None:
    bare = _bare(kit)
    link = dataclasses.replace(bare.links.intra, latency_s=kit.constant(0.5))
    staged = dataclasses.replace(
        bare, transport="gloo_staged", links=dataclasses.replace(bare.links, host=link)
    )
    call = _all_reduce(kit, 2, 400)
    plain = Network(bare, 2).collective(call).seconds
    both = Network(staged, 2).collective(call).seconds
    assert both - plain == pytest.approx(2 * (0.5 + 400 / 10.0))


def test_other_rank_counts_grow_from_the_nearest_measured_by_physics(kit: Any) -> None:
    """Measured on 8 ranks: latency 1 s in 14 messages; 16 ranks make 30 of them."""
    network = Network(kit.cluster(), 16)
    found = network.collective(_all_reduce(kit, 16, 160))
    assert found.seconds == pytest.approx(30 / 14 + 300 / 10.0)
    assert network.classes[found.label].radius >= 0.5


@pytest.mark.parametrize(("ranks", "hosts"), [(2, 1), (8, 1), (16, 2), (64, 8)])
def test_nccl_time_grows_with_size(ranks: int, hosts: int) -> None:
    cluster = load_cluster("dgx-a100")
    assert cluster.nccl is not None
    shape = Shape.of(cluster.nccl, "ampere", ranks, hosts)
    for op in ("all_reduce", "all_gather", "reduce_scatter", "broadcast"):
        times = [tuner_s(op, size, shape)[0] for size in (1e3, 1e5, 1e7, 1e9)]
        assert times == sorted(times)


def test_nccl_prefers_low_latency_for_small_and_simple_for_large() -> None:
    cluster = load_cluster("dgx-a100")
    assert cluster.nccl is not None
    shape = Shape.of(cluster.nccl, "ampere", 8, 1)
    assert tuner_s("all_reduce", 1e3, shape)[1].endswith("/LL")
    assert tuner_s("all_reduce", 1e9, shape)[1].endswith("/Simple")


def test_corrected_nccl_reaches_the_published_bus_bandwidth() -> None:
    """67 MB on 8 GPUs of an A100 or H100 host: 170 and 334 GB/s (hardware catalogue)."""
    for name, measured in (("dgx-a100", 170e9), ("dgx-h100", 334e9)):
        cluster = load_cluster(name)
        assert cluster.nccl is not None
        shape = Shape.of(cluster.nccl, cluster.device.arch, 8, 1)
        expected = tuner_s("all_reduce", 67e6, shape)[0]
        seconds = cluster.nccl.host_s.value + cluster.nccl.factor.value * expected
        assert 67e6 * 14 / 8 / seconds == pytest.approx(measured, rel=0.1)


def _model(op: str, ranks: int, co_located: int, latency_s: float) -> CollectiveModel:
    return CollectiveModel(
        op=op,
        ranks=ranks,
        layout="intra",
        co_located=co_located,
        latency_s=latency_s,
        bytes_per_s=10.0,
    )


@pytest.mark.parametrize(("on_host", "latency_s"), [(2, 1.0), (4, 5.0), (8, 5.0)])
def test_a_group_among_others_takes_what_was_measured_in_such_company(
    kit: Any, on_host: int, latency_s: float
) -> None:
    """A row of a process grid shares its host's cores and links with the other rows."""
    models = (_model("all_reduce", 2, 2, 1.0), _model("all_reduce", 2, 4, 5.0))
    network = Network(kit.cluster(collectives=models), on_host)
    seconds = network.collective(_all_reduce(kit, 2, 100)).seconds
    assert seconds == pytest.approx(latency_s + 100 / 10.0)


def test_messages_go_at_the_measured_pace_or_else_that_of_the_link(kit: Any) -> None:
    measured = kit.cluster(collectives=(_model("send", 2, 2, 0.25),))
    assert Network(measured, 2).point_to_point(0, 1)[:2] == (0.25, 10.0)
    assert Network(measured, 2).capacity(("out", 0)) == 10.0
    assert Network(kit.cluster(), 2).point_to_point(0, 1)[:2] == (0.0, 1.0)


def test_waiting_for_one_another_does_not_grow_with_messages(kit: Any) -> None:
    """Two ranks take 5 s, of which 2 s are two messages; eight ranks send fourteen and wait 3 s."""
    models = (_model("all_reduce", 2, 2, 5.0), _model("all_reduce_transfer", 2, 2, 2.0))
    network = Network(kit.cluster(collectives=models), 2)
    seconds = network.collective(_all_reduce(kit, 8, 80)).seconds
    link = kit.cluster().links.inter.bytes_per_s.value
    assert seconds == pytest.approx(14 * 1.0 + 3.0 + all_reduce_bytes(80, 8) / link)


@pytest.mark.parametrize(
    ("sends", "volume"),
    [([[0, 60], [60, 0]], 60), ([[0, 60], [0, 0]], 30), ([[0, 60], [20, 0]], 40)],
    ids=["both ways", "one way", "uneven"],
)
def test_a_measured_exchange_on_one_host_counts_both_ways(
    kit: Any, sends: list[list[int]], volume: int
) -> None:
    """A process's one thread reads and writes; calibration measured even exchanges."""
    network = Network(kit.cluster(), 2)
    seconds = network.collective(_halo(kit, sends)).seconds
    assert seconds == pytest.approx(1.0 + volume / 10.0)


def test_a_broadcast_takes_what_its_buffer_takes(kit: Any) -> None:
    """Calibration counts the buffer; the root's own bytes are three of them."""
    network = Network(kit.cluster(), 4)
    assert network.collective(_broadcast(kit, 4, 100)).seconds == pytest.approx(1.0 + 100 / 10.0)


@pytest.mark.parametrize(("shared", "last_s"), [(False, 20.0), (True, 40.0)])
def test_rounds_of_a_broadcast_between_hosts_share_the_card(
    kit: Any, shared: bool, last_s: float
) -> None:
    """Two ranks on each of four hosts, 20 B: one round on a host, then two and four senders."""
    base = dataclasses.replace(kit.cluster(), collectives=())
    inter = dataclasses.replace(base.links.inter, shared=shared)
    network = Network(
        dataclasses.replace(base, links=dataclasses.replace(base.links, inter=inter)), 2
    )
    seconds = network.collective(_broadcast(kit, 8, 20)).seconds
    assert seconds == pytest.approx(20.0 + 2 * last_s)


def test_like_calls_between_ranks_of_like_hosts_are_timed_once(kit: Any) -> None:
    """Pairs on one host each, then a pair across hosts, then other sizes."""
    network = Network(kit.cluster(), 2)

    def time(group: tuple[int, int], size: int) -> float:
        return network.collective(Call.of([kit.meet("m", group, size)] * 2, group)).seconds

    for group, size, timed in (((0, 1), 4, 1), ((2, 3), 4, 1), ((0, 2), 4, 2), ((0, 1), 8, 3)):
        assert time(group, size) > 0
        assert len(network._known) == timed


def test_like_calls_of_one_step_take_their_times_one_after_the_other(kit: Any) -> None:
    one, three = kit.meet("m", (0, 1), 20), kit.meet("m", (0, 1), 60, calls=3)
    network = Network(kit.cluster(), 2)
    seconds = [network.collective(Call.of([step] * 2, (0, 1))).seconds for step in (one, three)]
    assert seconds == [pytest.approx(3.0), pytest.approx(9.0)]


@pytest.mark.parametrize(
    ("cluster", "root", "places"),
    [("", 2, [2, 3, 0, 1]), ("dgx-a100", 2, [NO_ROOT] * 4), ("", NO_ROOT, [NO_ROOT] * 4)],
    ids=["gloo", "nccl", "without a root"],
)
def test_broadcasts_go_down_a_tree_from_their_root_over_gloo_alone(
    kit: Any, cluster: str, root: int, places: list[int]
) -> None:
    group = (0, 1, 2, 3)
    plan = kit.plan(*[(kit.cast("b", group, 100, rank, root),) for rank in group])
    program = compile_plan(plan, load_cluster(cluster) if cluster else kit.cluster())
    (layout,) = program.layouts
    found = {
        int(rank): int(place)
        for cls in layout.classes
        for rank, place in zip(cls.ranks, cls.blocks[0].meeting.members, strict=True)
    }
    assert [found[rank] for rank in group] == places
