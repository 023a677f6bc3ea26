"""The time that a plan's bytes need on the link between hosts, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gnnbench import work
from gnnbench.cluster import Cluster, load_cluster
from gnnbench.iterations import Iteration, RankClass
from gnnbench.plan import Plan, repeated
from gnnbench.published.wire import wire_bound_s
from gnnbench.steps import Groups, Lane, Phase, Step

CLUSTER = load_cluster("m40x4-gloo")
RATE = CLUSTER.links.inter.bytes_per_s.value


def exchange(send: list[list[int]], group: tuple[int, ...] | Groups) -> Step:
    done = work.all_to_all(np.array(send), 0, 10)
    return Step(name="exchange", work=done, lane=Lane.COMM, phase=Phase.FORWARD, group=group)


def plan(step: Step, per_period: tuple[int, ...] = (0,)) -> Plan:
    iteration = Iteration([RankClass(range(4), [step])])
    return Plan(approach="made", world_size=4, **repeated([iteration], 2, per_period))


# Rows of ten bytes; ranks 0 and 1 are on one host, 2 and 3 on the other.
SEND = [[0, 9, 1, 2], [9, 0, 0, 1], [5, 0, 0, 9], [0, 0, 9, 0]]


def shared(value: bool) -> Cluster:
    links = replace(CLUSTER.links, inter=replace(CLUSTER.links.inter, shared=value))
    return replace(CLUSTER, links=links)


def test_a_shared_link_carries_what_all_ranks_of_the_busiest_host_send_away() -> None:
    bound = wire_bound_s(plan(exchange(SEND, (0, 1, 2, 3))), shared(True), 2)
    assert bound == pytest.approx(10 * max(1 + 2 + 1, 5) / RATE)


def test_a_link_of_its_own_carries_what_one_rank_sends_away() -> None:
    bound = wire_bound_s(plan(exchange(SEND, (0, 1, 2, 3))), shared(False), 1)
    assert bound == pytest.approx(10 * (5 + 9) / RATE)


def test_on_one_host_nothing_crosses_the_link() -> None:
    assert wire_bound_s(plan(exchange(SEND, (0, 1, 2, 3))), CLUSTER, 4) == 0


def test_an_iteration_that_an_epoch_repeats_counts_as_often() -> None:
    step = exchange(SEND, (0, 1, 2, 3))
    once, thrice = plan(step), plan(step, (0, 0, 0))
    assert wire_bound_s(thrice, CLUSTER, 2) == pytest.approx(3 * wire_bound_s(once, CLUSTER, 2))


def test_ranks_of_a_class_may_send_in_different_groups() -> None:
    """Ranks 0 and 2 exchange over the link, as do 1 and 3."""
    groups = Groups(((0, 2), (1, 3)), np.array([0, 1, 0, 1]))
    bound = wire_bound_s(plan(exchange([[0, 4], [0, 3], [2, 0], [1, 0]], groups)), shared(True), 2)
    assert bound == pytest.approx(10 * (4 + 3) / RATE)
