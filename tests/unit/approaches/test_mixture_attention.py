"""Plans of GAT in `mixture`: who has which heads, bytes, balance, memory, profiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.approaches.whole_graph.relayout import even_split, head_slices
from gnnbench.data.profile import GraphProfile, load_profile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Step, pick

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]


def gat(heads: int, hidden: int, **fields: Any) -> dict[str, Any]:
    return {"kind": "gat", "heads": heads, "hidden": hidden, **fields}


def named(plan: Plan, rank: int, name: str) -> Step | None:
    return next((s for s in plan.iterations[0][rank] if s.name == name), None)


def profile(num_nodes: int = 840) -> GraphProfile:
    return GraphProfile(
        name="p",
        source="made up",
        status="measured",
        num_nodes=num_nodes,
        num_edges=8400,
        num_features=24,
        num_classes=12,
        num_train=300,
    )


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


def test_whole_heads_move_no_scores_and_cut_ones_do(make_run: MakeRun, plan_of: PlanOf) -> None:
    """Eight heads on four ranks are whole; the single head of the last layer never is."""
    plan = plan_of(profile(), make_run("mixture", 4, model=gat(8, 32)))
    for rank in range(4):
        assert named(plan, rank, "forward/1/scores_to_columns") is None
        # 210 rows, 3 other ranks, one head, two ends, 4 bytes; as many the other way.
        for step in ("forward/2/scores_to_columns", "backward/2/scores_to_rows"):
            found = named(plan, rank, step)
            assert found is not None
            assert found.bytes == 210 * 3 * 2 * 4
    features = 4 * sum(840 * width - 4 * 210 * width // 4 for width in (32, 12))
    assert plan.notes["relayout_elements"] == features + 4 * (840 * 4 - 840)


def test_every_rank_receives_what_is_sent_to_it(make_run: MakeRun, plan_of: PlanOf) -> None:
    """Uneven rows, cut heads, ranks without a column."""
    plan = plan_of(profile(841), make_run("mixture", 5, model=gat(2, 4)))
    rows, heads = even_split(841, 5), [part.count for part in head_slices(4, 2, 5)]

    def received(name: str, rank: int) -> int:
        steps = [named(plan, sender, name) for sender in range(5)]
        return sum(step.work.send_bytes[rank] for step in steps if step)

    for i in range(5):
        assert received("forward/1/scores_to_columns", i) == 8 * (841 - rows[i]) * heads[i]
        assert received("backward/1/scores_to_rows", i) == 8 * rows[i] * (sum(heads) - heads[i])


def test_total_bytes_grow_to_a_bound_fg_20(make_run: MakeRun, plan_of: PlanOf) -> None:
    """A rank has no more heads than columns, so scores at most double what the features take."""
    totals = []
    for ranks in (1, 2, 3, 4, 6, 12, 36):
        sent = plan_of(profile(), make_run("mixture", ranks, model=gat(4, 36))).moved_bytes()
        totals.append(sum(size for (kind, _), size in sent.items() if kind == Kind.ALL_TO_ALL))
    assert totals == sorted(totals)
    assert totals[-1] < 2 * 4 * 840 * 4 * (36 + 12)


@pytest.mark.parametrize("ranks", [2, 3, 5, 7, 16])
def test_products_are_balanced_to_a_column_fg_21(
    make_run: MakeRun, plan_of: PlanOf, ranks: int
) -> None:
    plan = plan_of(profile(), make_run("mixture", ranks, model=gat(2, 10)))
    for name in ("forward/1/spmm", "backward/1/spmm", "backward/2/sddmm"):
        steps = [named(plan, rank, name) for rank in range(ranks)]
        load = [step.flops // 2 if step else 0 for step in steps]
        assert max(load) - min(load) <= 8400 + 840


def test_all_but_the_graph_and_its_weights_falls_with_ranks(
    make_run: MakeRun, plan_of: PlanOf
) -> None:
    """One head per rank and layer; entries of weights do not depend on the number of ranks."""
    peaks = []
    for ranks in (2, 12):
        plan = plan_of(profile(), make_run("mixture", ranks, model=gat(1, 36, dropout=0.5)))
        kept = ("topology", "topology_t", "edge_ids", "parameters")
        entries = 8400 + 840
        # Scores, weights and kept ones of both layers, a gradient, 4 bytes each.
        edges = (2 * 3 + 1) * entries * 4
        whole = sum(pick(b.bytes, 0) for b in plan.resident if b.name in kept)
        peaks.append(int(plan.peak_bytes()[0]) - edges - whole)
    vertices = 3 * 2 * 840 * 4  # scores, their gradients and blocks: two of every vertex
    assert peaks[1] - vertices < (peaks[0] - vertices) / 5


def test_many_ranks_are_planned_from_a_profile(make_run: MakeRun, plan_of: PlanOf) -> None:
    plan = plan_of(load_profile("reddit"), make_run("mixture", 256, model=gat(8, 64)))
    assert named(plan, 255, "forward/1/sddmm") is None  # 64 columns: these ranks have none
    assert named(plan, 63, "forward/1/sddmm") is not None
