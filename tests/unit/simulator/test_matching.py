"""Equal steps and like collectives are looked at once, and nothing else changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from gnnbench.plan import Kind, Plan, Step
from gnnbench_simulator.matching import Catalogue, Collectives
from gnnbench_simulator.network import Network
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Groups of the collectives that the network was asked for."""
    asked: list[tuple[int, ...]] = []
    real: Callable[..., tuple[float, str]] = Network.collective

    def collective(self: Network, steps: Any, group: Any) -> tuple[float, str]:
        asked.append(tuple(group))
        return real(self, steps, group)

    monkeypatch.setattr(Network, "collective", collective)
    return asked


def test_like_groups_are_timed_once_and_groups_over_other_hosts_apart(
    kit: Any, timed: list[tuple[int, ...]]
) -> None:
    """Pairs {0, 1} and {2, 3} on a host each; then {0, 2} and {1, 3} across."""
    rows, columns = [(0, 1)] * 2 + [(2, 3)] * 2, [(0, 2), (1, 3)] * 2
    ranks = [
        (kit.meet("row", row, 10), kit.meet("column", column, 10))
        for row, column in zip(rows, columns, strict=True)
    ]
    compile_plan(kit.plan(*ranks), kit.cluster(), ranks_per_host=2)
    assert timed == [(0, 1), (0, 2)]


def test_collectives_of_other_sizes_are_timed_apart(kit: Any, timed: list[tuple[int, ...]]) -> None:
    def exchange(name: str, sent: tuple[int, ...]) -> Step:
        return kit.meet(name, (0, 1), sum(sent), kind=Kind.ALL_TO_ALL, send_bytes=sent)  # type: ignore[no-any-return]

    ranks = [
        (exchange("a", (0, 30)), exchange("b", (0, 30)), exchange("c", (0, 50))),
        (exchange("a", (10, 0)), exchange("b", (10, 0)), exchange("c", (10, 0))),
    ]
    program = compile_plan(kit.plan(*ranks), kit.cluster())
    seconds = [block.seconds.tolist() for block in program.iterations[0].classes[0].blocks]
    # 1 s and 1 s per 10 B of the mean of what the busiest rank sends and receives
    assert seconds == [[[3.0, 3.0]], [[3.0, 3.0]], [[4.0, 4.0]]]
    assert len(timed) == 2


def test_sharing_step_objects_changes_no_time(kit: Any) -> None:
    group = (0, 1, 2)
    step, met = kit.work("a", 3), kit.meet("m", group, 10)
    shared = kit.plan(*[(step, met)] * 3, epochs=2)
    copied = dataclasses.replace(
        shared,
        iterations=(
            tuple(
                (dataclasses.replace(step), dataclasses.replace(met, group=(0, 1, 2)))
                for _ in group
            ),
        ),
    )
    assert len(Catalogue(shared.iterations[0]).steps) == 2
    assert len(Catalogue(copied.iterations[0]).steps) == 6
    one, other = (replay(compile_plan(plan, kit.cluster())) for plan in (shared, copied))
    assert one.epoch_s.tolist() == other.epoch_s.tolist() == [3.0, 3.0]


def test_ranks_differ_in_class_by_the_place_of_a_collective_in_its_group(kit: Any) -> None:
    """Rank 2 meets its one group twice; the others meet two groups once each."""
    pair, others = (0, 1), (2,)
    ranks = [
        (kit.meet("m", pair), kit.meet("n", (rank,))) if rank < 2 else
        (kit.meet("m", others), kit.meet("n", others))
        for rank in range(3)
    ]  # fmt: skip
    plan: Plan = kit.plan(*ranks)
    catalogue = Catalogue(plan.iterations[0])
    classes = catalogue.classes()
    assert [members.ranks for members in classes] == [[0, 1], [2]]
    found = Collectives(catalogue, classes, Network(kit.cluster(), 3))
    seconds = [[met.seconds.tolist() for met in found.meetings(members)] for members in classes]
    assert seconds == [[[1.0, 1.0], [0.0, 0.0]], [[0.0], [0.0]]]
