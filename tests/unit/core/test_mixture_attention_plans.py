"""Plans of GAT in `mixture`: who has which heads, bytes, balance, memory, profiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.relayout import even_split, head_slices
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile, load_profile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Step

MakeRun = Callable[..., RunSpec]


def gat(run: RunSpec, *, heads: int, **model: int) -> RunSpec:
    return dataclasses.replace(
        run, model=dataclasses.replace(run.model, kind="gat", heads=heads, **model)
    )


def plan_of(graph: Graph | GraphProfile, run: RunSpec) -> Plan:
    approach = APPROACHES.get(run.approach)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    plan = approach.plan(graph, run, approach.structure(graph, run), layout)
    plan.validate()
    return plan


def named(plan: Plan, rank: int, name: str) -> Step | None:
    return next((s for s in plan.iterations[0][rank] if s.name == name), None)


def profile(**changes: object) -> GraphProfile:
    facts = {
        "name": "p", "source": "made up", "status": "measured", "num_nodes": 840,
        "num_edges": 8400, "num_features": 24, "num_classes": 12, "num_train": 300,
    }  # fmt: skip
    return GraphProfile(**(facts | changes))  # type: ignore[arg-type]


def test_slices_that_cut_heads_say_where_they_begin() -> None:
    """Ten columns of two heads, AAAAABBBBB, on three ranks: AAAA, ABB, BBB."""
    first, second, third = head_slices(10, 2, 3)
    assert (first.first, first.count, first.offset) == (0, 1, 0)
    assert (second.first, second.count, second.offset) == (0, 2, 4)
    assert (third.first, third.count, third.offset) == (1, 1, 2)
    assert [part.count for part in head_slices(3, 1, 5)] == [1, 1, 1, 0, 0]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20))
def test_every_column_is_of_one_head_of_its_slice(heads: int, width: int, parts: int) -> None:
    """Offsets and counts together name the head of each column; nobody has heads in vain."""
    column = 0
    slices = head_slices(heads * width, heads, parts)
    for part, columns in zip(slices, even_split(heads * width, parts), strict=True):
        found = {part.first + (part.offset + f) // width for f in range(columns)}
        assert found == {(column + f) // width for f in range(columns)}
        assert found == set(range(part.first, part.stop))
        column += columns
    assert sum(part.count for part in slices) >= heads


def test_one_rank_does_what_a_single_device_does_fg_5(path_graph: Graph, make_run: MakeRun) -> None:
    for dropout in (0.0, 0.5):
        alone = plan_of(path_graph, gat(make_run("single", dropout=dropout), heads=2))
        mixed = plan_of(path_graph, gat(make_run("mixture", dropout=dropout), heads=2))
        assert mixed.iterations == alone.iterations


def test_whole_heads_move_no_scores_and_cut_ones_do(make_run: MakeRun) -> None:
    """Eight heads on four ranks are whole; the single head of the last layer never is."""
    plan = plan_of(profile(), gat(make_run("mixture", 4), heads=8, hidden=32))
    for rank in range(4):
        assert named(plan, rank, "forward/1/scores_to_columns") is None
        # 210 rows, 3 other ranks, one head, two ends, 4 bytes; as many the other way.
        for step in ("forward/2/scores_to_columns", "backward/2/scores_to_rows"):
            found = named(plan, rank, step)
            assert found is not None
            assert found.bytes == 210 * 3 * 2 * 4
    features = 4 * sum(840 * width - 4 * 210 * width // 4 for width in (32, 12))
    assert plan.notes["relayout_elements"] == features + 4 * (840 * 4 - 840)


def test_every_rank_receives_what_is_sent_to_it(make_run: MakeRun) -> None:
    """Uneven rows, cut heads, ranks without a column."""
    plan = plan_of(profile(num_nodes=841), gat(make_run("mixture", 5), heads=2, hidden=4))
    rows, heads = even_split(841, 5), [part.count for part in head_slices(4, 2, 5)]
    for i in range(5):
        there = [named(plan, r, "forward/1/scores_to_columns") for r in range(5)]
        back = [named(plan, r, "backward/1/scores_to_rows") for r in range(5)]
        received = sum(step.send_bytes[i] for step in there if step)
        assert received == 2 * 4 * (841 - rows[i]) * heads[i]
        received = sum(step.send_bytes[i] for step in back if step)
        assert received == 2 * 4 * rows[i] * (sum(heads) - heads[i])


def test_total_bytes_grow_to_a_bound_fg_20(make_run: MakeRun) -> None:
    """A rank has no more heads than columns, so scores at most double what the features take."""
    totals = []
    for ranks in (1, 2, 3, 4, 6, 12, 36):
        plan = plan_of(profile(), gat(make_run("mixture", ranks), heads=4, hidden=36))
        sent = plan.sent_bytes()
        totals.append(sum(size for (kind, _), size in sent.items() if kind == Kind.ALL_TO_ALL))
    assert totals == sorted(totals)
    assert totals[-1] < 2 * 4 * 840 * 4 * (36 + 12)


@pytest.mark.parametrize("ranks", [2, 3, 5, 7, 16])
def test_products_are_balanced_to_a_column_fg_21(make_run: MakeRun, ranks: int) -> None:
    plan = plan_of(profile(), gat(make_run("mixture", ranks), heads=2, hidden=10))
    for name in ("forward/1/spmm", "backward/1/spmm", "backward/2/sddmm"):
        steps = [named(plan, rank, name) for rank in range(ranks)]
        work = [step.nonzeros * step.width if step else 0 for step in steps]
        assert max(work) - min(work) <= 8400 + 840


def test_all_but_the_graph_and_its_weights_falls_with_ranks(make_run: MakeRun) -> None:
    """One head per rank and layer; entries of weights do not depend on the number of ranks."""
    peaks = []
    for ranks in (2, 12):
        run = gat(make_run("mixture", ranks, dropout=0.5), heads=1, hidden=36)
        plan = plan_of(profile(), run)
        kept = ("topology", "topology_t", "edge_ids", "parameters")
        entries = 8400 + 840
        # Scores, weights and kept ones of both layers, a gradient, 4 bytes each.
        edges = (2 * 3 + 1) * entries * 4
        peaks.append(plan.memory_peak_bytes(0) - edges - sum(plan.resident[0][k] for k in kept))
    vertices = 3 * 2 * 840 * 4  # scores, their gradients and blocks: two of every vertex
    assert peaks[1] - vertices < (peaks[0] - vertices) / 5


def test_a_profile_plans_what_the_graph_does(path_graph: Graph, make_run: MakeRun) -> None:
    described = profile(num_nodes=5, num_edges=8, num_features=3, num_classes=2, num_train=2)
    run = gat(make_run("mixture", 3), heads=2)
    assert plan_of(path_graph, run).sent_bytes() == plan_of(described, run).sent_bytes()


def test_many_ranks_are_planned_from_a_profile(make_run: MakeRun) -> None:
    plan = plan_of(load_profile("reddit"), gat(make_run("mixture", 256), heads=8, hidden=64))
    assert named(plan, 255, "forward/1/sddmm") is None  # 64 columns: these ranks have none
    assert named(plan, 63, "forward/1/sddmm") is not None


def test_precomputation_is_a_reasoned_skip(make_run: MakeRun) -> None:
    mixture, run = APPROACHES.get("mixture"), make_run("mixture", 2, precompute=True)
    assert "precompute: the weights of gat" in str(mixture.cannot_run(gat(run, heads=2)))
    assert mixture.cannot_run(gat(make_run("mixture", 2), heads=2)) is None
    assert mixture.cannot_run(run) is None


@pytest.mark.parametrize(
    ("approach", "ranks", "why"),
    [
        ("cagnet-1d", 2, "softmax that weighs"),
        ("cagnet-1.5d", 4, "softmax that weighs"),
        ("cagnet-2d", 4, "grid row"),
        ("mixed-accelerators", 2, "dense ranks hold no edges"),
    ],
)
def test_approaches_without_attention_say_what_is_in_the_way(
    make_run: MakeRun, approach: str, ranks: int, why: str
) -> None:
    reason = APPROACHES.get(approach).cannot_run(gat(make_run(approach, ranks), heads=2))
    assert str(reason).startswith(f"{approach} cannot train gat: ")
    assert why in str(reason)
