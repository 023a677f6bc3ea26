"""Where the mixture moves fewer bytes than partition parallelism: section 15, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gnnbench.cli import main
from gnnbench.crossover import Crossover, crossover
from gnnbench.data.graph import Graph
from gnnbench.data.profile import load_profile
from gnnbench.errors import SpecError, Unsupported
from gnnbench.plan import Plan
from gnnbench.spec import ModelSpec, RunSpec

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]


def curve(name: str, **model: Any) -> Crossover:
    spec = ModelSpec(**({"kind": "gcn", "hidden": 256, "layers": 3} | model))
    return crossover(load_profile(name), spec, objective="cut")


# fullgraph section 15: S/N of METIS edge cut.
PUBLISHED = {
    "ogbn-arxiv": (0.159, 0.438, 0.812, 1.186, 1.641, 2.092),
    "reddit": (0.721, 1.732, 3.388, 5.757, 9.968, 17.034),
    "ogbn-products": (0.181, 0.411, 0.708, 1.112, 1.508, 2.082),
    "pubmed": (0.110, 0.197, 0.389, 0.573, 0.728, 0.910),
}
FIRST = {"ogbn-arxiv": 64, "reddit": 4, "ogbn-products": 64, "pubmed": None}


@pytest.mark.parametrize("name", PUBLISHED)
def test_section_15_is_reproduced(name: str) -> None:
    found = curve(name)
    assert [round(p.halo_per_node, 3) for p in found.points] == list(PUBLISHED[name])
    mixture = [round(p.relayout_per_node, 3) for p in found.points]
    assert mixture == [1.0, 1.5, 1.75, 1.875, 1.938, 1.969]
    assert found.first_per_width == FIRST[name]
    # With these models a whole epoch says the same, which it need not.
    assert found.first_epoch == FIRST[name]
    assert found.first_precomputed == FIRST[name]


def test_layer_1_reductions_can_move_the_crossover() -> None:
    """One aggregate-first layer: X held in columns halves the mixture's bytes, not partition's."""
    found = curve("ogbn-arxiv", layers=1)
    assert found.orders == ("transform_first",)
    wide = crossover(
        load_profile("ogbn-arxiv"), ModelSpec(layers=1), order="aggregate_first", objective="cut"
    )
    assert wide.first_per_width == 64
    assert wide.first_epoch == 16
    last = wide.points[-1]
    assert last.partition_precomputed_bytes == last.mixture_precomputed_bytes == 0
    assert wide.first_precomputed is None


@pytest.mark.parametrize(
    "model",
    [
        *({"kind": kind, "hidden": 4, "layers": 3} for kind in ("gcn", "sage")),
        *({"kind": "gat", "hidden": 6, "heads": heads, "layers": 3} for heads in (1, 2, 3)),
    ],
)
@pytest.mark.parametrize("order", ["min_width", "aggregate_first", "transform_first"])
def test_bytes_are_those_of_both_plans(
    path_graph: Graph, make_run: MakeRun, plan_of: PlanOf, model: dict[str, Any], order: str
) -> None:
    """With the first aggregation computed once as well, which attention cannot have."""
    found = crossover(path_graph, ModelSpec(name="m", **model), (2, 3), order=order)
    attends = model["kind"] == "gat"
    assert (found.orders_precomputed is None) == attends
    for point in found.points:
        told = {
            ("partition", False): point.partition_bytes,
            ("partition", True): point.partition_precomputed_bytes,
            ("mixture", False): point.mixture_bytes,
            ("mixture", True): point.mixture_precomputed_bytes,
        }
        for (name, precompute), expected in told.items():
            if precompute and attends:
                assert expected is None
                continue
            knobs = {"order": order, "precompute": precompute}
            sent = plan_of(
                path_graph, make_run(name, point.ranks, model=model, **knobs)
            ).moved_bytes()
            moved = sum(size for (what, _), size in sent.items() if what == "all_to_all")
            assert moved == expected, (name, precompute, point.ranks)
            assert sent["all_reduce", "sync"] == point.weights_bytes


def test_the_command_counts_attention(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["crossover", "reddit", "--model-kind", "gat", "--hidden", "64", "--ranks", "2,8"]
    assert main([*args, "--heads", "8"]) == 0
    text = capsys.readouterr().out
    assert "602 - 64 - 41" in text
    assert "once" not in text
    assert main([*args, "--heads", "7"]) == 2
    assert "7 heads cannot share evenly" in capsys.readouterr().err


def test_precomputation_takes_the_first_exchange_from_partition_parallelism() -> None:
    found = crossover(
        load_profile("reddit"), ModelSpec(hidden=256, layers=2), (4,), order="aggregate_first"
    )
    (point,) = found.points
    copies = round(point.halo_per_node * 232_965)
    assert point.partition_bytes == 4 * copies * (602 + 256 + 256)
    assert point.partition_precomputed_bytes == 4 * copies * (256 + 256)


def test_what_cannot_be_counted_is_refused_in_one_line(path_graph: Graph) -> None:
    with pytest.raises(SpecError, match="at least 2"):
        crossover(path_graph, ModelSpec(), (1, 2))
    with pytest.raises(Unsupported, match="5 vertices, too few for 8 partitions"):
        crossover(path_graph, ModelSpec(), (8,))
    bare = Graph(name="bare", indptr=np.zeros(3, np.int64), indices=np.zeros(0, np.int32))
    with pytest.raises(SpecError, match="0 features and 0 classes"):
        crossover(bare, ModelSpec(), (2,))


def test_the_command_prints_the_curve_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["crossover", "reddit", "--hidden", "256", "--layers", "3", "--objective", "cut"]
    assert main(args) == 0
    text = capsys.readouterr().out
    assert "602 - 256 - 256 - 41" in text
    assert "The mixture sends fewer bytes than partitions from P = 4 on" in text
    assert main([*args, "--ranks", "2,64", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [point["ranks"] for point in document["points"]] == [2, 64]
    assert document["first_epoch"] == document["first_per_width"] == 64
    assert document["orders_precomputed"][0] == "aggregate_first"


def test_the_command_partitions_a_real_graph(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("num_nodes=200", "mean_degree=8", "num_classes=4", "num_features=6")
    graph = ["planted_partition", *(word for pair in given for word in ("--option", pair))]
    assert main(["crossover", *graph, "--ranks", "2,3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [point["basis"] for point in document["points"]] == ["counted on the real graph"] * 2
    assert document["points"][0]["partition_bytes"] > 0


def test_the_command_refuses_a_reader_for_a_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crossover", "reddit", "--format", "npz"]) == 2
    assert "stored profile" in capsys.readouterr().err
    assert main(["crossover", "pubmed", "--ranks", "1,2"]) == 2
    assert "at least 2" in capsys.readouterr().err
