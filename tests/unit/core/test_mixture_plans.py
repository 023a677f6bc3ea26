"""Plans of `mixture`: bytes, balance, memory, profiles; what the conformance tests do not see."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.mixture import MixtureStructure
from gnnbench.approaches.whole_graph.relayout import even_split
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile, load_profile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Step

MakeRun = Callable[..., RunSpec]
ORDERS = ("aggregate_first", "transform_first", "min_width")


def plan_of(graph: Graph | GraphProfile, run: RunSpec) -> Plan:
    approach = APPROACHES.get(run.approach)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    plan = approach.plan(graph, run, approach.structure(graph, run), layout)
    plan.validate()
    return plan


def of_kind(plan: Plan, kind: Kind, rank: int) -> list[Step]:
    return [s for s in plan.iterations[0][rank] if s.kind is kind]


def moved(plan: Plan) -> int:
    return sum(size for (kind, _), size in plan.sent_bytes().items() if kind == Kind.ALL_TO_ALL)


def profile(**changes: object) -> GraphProfile:
    facts = {
        "name": "p", "source": "made up", "status": "measured", "num_nodes": 840,
        "num_edges": 8400, "num_features": 24, "num_classes": 12, "num_train": 300,
    }  # fmt: skip
    return GraphProfile(**(facts | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("order", ORDERS)
def test_one_rank_does_what_a_single_device_does_fg_5(
    path_graph: Graph, make_run: MakeRun, kind: str, order: str
) -> None:
    alone = plan_of(path_graph, make_run("single", 1, kind=kind, order=order))
    mixed = plan_of(path_graph, make_run("mixture", 1, kind=kind, order=order))
    assert mixed.iterations == alone.iterations
    assert moved(mixed) == 0


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("precompute", [False, True])
def test_total_bytes_grow_to_a_bound_and_each_ranks_bytes_fall_fg_20(
    make_run: MakeRun, kind: str, order: str, precompute: bool
) -> None:
    totals, by_rank = [], []
    for ranks in (1, 2, 3, 4, 6, 12):  # equal shares of 840 vertices and of every width
        knobs = {"order": order, "precompute": precompute}
        run = make_run("mixture", ranks, kind=kind, hidden=36, layers=3, **knobs)
        plan = plan_of(profile(), run)
        totals.append(moved(plan))
        if ranks > 1:
            sent = {
                sum(s.bytes for s in of_kind(plan, Kind.ALL_TO_ALL, rank)) for rank in range(ranks)
            }
            assert len(sent) == 1  # every rank sends the same
            by_rank.append(sent.pop())
    assert totals == sorted(totals)
    widest = {"aggregate_first": (24, 36, 36), "transform_first": (36, 36, 12)}
    widths = widest.get(order, (24, 36, 12))
    assert totals[-1] < 4 * 840 * 4 * sum(widths if not precompute else (24, *widths[1:]))
    assert all(a > b for a, b in pairwise(by_rank))


@pytest.mark.parametrize("ranks", [2, 3, 5, 7, 16])
def test_work_is_balanced_to_a_column_and_a_row_fg_21(make_run: MakeRun, ranks: int) -> None:
    run = make_run("mixture", ranks, kind="gcn", hidden=10, layers=3)
    plan = plan_of(profile(), run)
    names = {s.name for rank in range(ranks) for s in of_kind(plan, Kind.SPMM, rank)}
    for name in names:
        # A rank without a column of this width has no product to do.
        work = [
            sum(s.nonzeros * s.width for s in of_kind(plan, Kind.SPMM, rank) if s.name == name)
            for rank in range(ranks)
        ]
        assert max(work) - min(work) <= 8400
    updates = [[s for s in of_kind(plan, Kind.GEMM, rank) if s.op != "gemm_tn"]
               for rank in range(ranks)]  # fmt: skip
    for together in zip(*updates, strict=True):
        rows = [step.rows for step in together]
        assert max(rows) - min(rows) <= 1


def test_every_rank_receives_what_is_sent_to_it(make_run: MakeRun) -> None:
    plan = plan_of(profile(num_nodes=841), make_run("mixture", 5, kind="sage", hidden=7))
    by_rank = [of_kind(plan, Kind.ALL_TO_ALL, rank) for rank in range(5)]
    rows = even_split(841, 5)
    for together in zip(*by_rank, strict=True):
        columns = even_split(together[0].width, 5)
        to_columns = together[0].name.endswith("to_columns")
        for i, step in enumerate(together):
            assert step.send_bytes[i] == 0
            assert step.bytes == sum(step.send_bytes)
            received = sum(other.send_bytes[i] for other in together)
            mine = (841 - rows[i]) * columns[i] if to_columns else rows[i] * (
                together[0].width - columns[i]
            )  # fmt: skip
            assert received == 4 * mine


def test_all_but_the_graph_falls_with_ranks(make_run: MakeRun) -> None:
    few, many = (
        plan_of(profile(), make_run("mixture", ranks, kind="sage", hidden=36)) for ranks in (2, 12)
    )
    for name in ("x", "x_columns"):
        assert many.resident[0][name] * 6 == few.resident[0][name] > 0
    assert many.resident[0]["topology"] == few.resident[0]["topology"] == 8 * 841 + 4 * 8400
    for plan in (few, many):
        assert plan.resident[0]["topology_t"] == 0  # undirected: one copy serves both ways
    topology = few.resident[0]["topology"] + few.resident[0]["scales"]
    weights = few.resident[0]["parameters"]
    falls = [plan.memory_peak_bytes(0) - topology - weights for plan in (few, many)]
    assert falls[1] * 6 == pytest.approx(falls[0], rel=0.01)


def test_a_directed_graph_needs_its_transpose(make_run: MakeRun) -> None:
    plan = plan_of(profile(undirected=False), make_run("mixture", 2))
    assert plan.resident[0]["topology_t"] == plan.resident[0]["topology"]


def test_the_graph_and_its_profile_plan_the_same_bytes(
    path_graph: Graph, make_run: MakeRun
) -> None:
    described = profile(num_nodes=5, num_edges=8, num_features=3, num_classes=2, num_train=2)
    run = make_run("mixture", 3, kind="sage")
    real, guessed = plan_of(path_graph, run), plan_of(described, run)
    assert real.sent_bytes() == guessed.sent_bytes()
    assert real.exact
    assert not guessed.exact
    assert "closed forms" in guessed.basis


def test_training_rows_are_counted_where_they_lie(path_graph: Graph) -> None:
    structure = MixtureStructure.of_rows(path_graph, (1, 0, 4))
    assert structure.train_rows == (1, 0, 1)
    assert [structure.first_row(rank) for rank in range(3)] == [0, 1, 1]


def test_precompute_with_input_dropout_is_refused_with_a_remedy(make_run: MakeRun) -> None:
    approach = APPROACHES.get("mixture")
    (problem,) = approach.problems(make_run("mixture", 2, input_dropout=0.5, precompute=True))
    assert "precompute" in problem
    assert "input_dropout = 0" in problem
    assert not approach.problems(make_run("mixture", 2, input_dropout=0.5))
    assert not approach.problems(make_run("mixture", 2, precompute=True))


def test_a_thousand_ranks_can_be_planned_from_a_profile(make_run: MakeRun) -> None:
    reddit = load_profile("reddit")
    plan = plan_of(reddit, make_run("mixture", 1024, hidden=256))
    # 2 layers, transform-first: 256 and 41 wide, both ways, there and back.
    bound = 4 * reddit.num_nodes * 4 * (256 + 41)
    assert 0.99 * bound < moved(plan) < bound
