"""GIST's cut and its plan: invariants G2, G4, G8 of the sampling reference, section 18."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import numpy as np
import pytest

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.mini_batch.gist import APPROACH, place_of
from gnnbench.approaches.mini_batch.submodels import Part, SubModels
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data.source import Library
from gnnbench.models.names import MODELS
from gnnbench.spec import ModelSpec
from gnnbench.steps import Kind, Phase


def cut(kind: str = "sage", layers: int = 3, parts: int = 4, ranks: int = 2) -> SubModels:
    model, spec = MODELS.get(kind), ModelSpec(kind=kind, hidden=8, layers=layers, norm="layer")
    shape = StackShape.of(model, spec, model.dims(spec, 5, 3), 8, "min_width")
    return SubModels(shape, parts, ranks, seed=1)


def flat_ids(of: SubModels, round_: int, part: int) -> np.ndarray:
    """Where all of a sub-model's parameters lie in the global model."""
    return positions(of.blocks(of.groups(round_), part, 0, of.sub_shape.num_parameters))


def positions(blocks: Iterable[tuple[Part, int, int]]) -> np.ndarray:
    """Where the elements of some blocks lie in the global model."""
    found = [
        (block.start + block.rows[:, None] * block.width + block.columns).ravel()[first:last]
        for block, first, last in blocks
    ]
    return np.concatenate(found)


def test_groups_partition_every_hidden_dimension_anew() -> None:
    """G2: disjoint, equal, the same for all who draw them, other ones in the next round."""
    found = [cut().groups(round_) for round_ in (0, 0, 1)]
    for groups in found[0]:
        assert groups.shape == (4, 2)
        assert sorted(groups.ravel().tolist()) == list(range(8))
    assert all(np.array_equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(found[0], found[2], strict=True))


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("layers", [2, 3])
def test_which_parameters_a_round_trains(kind: str, layers: int) -> None:
    """G4: outer matrices and hidden vectors once, hidden-hidden 1/m, the last bias m times."""
    of, m = cut(kind, layers), 4
    times = np.zeros(of.shape.num_parameters, int)
    for part in range(m):
        ids = flat_ids(of, 3, part)
        assert len(ids) == len(set(ids.tolist())) == of.sub_shape.num_parameters
        times[ids] += 1
    start = 0
    for name, shape in of.shapes:
        own = times[start : start + int(np.prod(shape))].reshape(shape)
        layer = int(name[-1])
        if name == f"bias_{layers}":
            assert (own == m).all()
            assert list(of.shared) == list(range(start, start + own.size))
        elif len(shape) == 2 and 1 < layer < layers:
            assert own.sum() == own.size / m
            assert own.max() == 1
        else:
            assert (own == 1).all()
        start += own.size
    hidden_hidden = (layers - 2) * 64 * (1 + (kind == "sage"))
    whole = of.shape.num_parameters
    assert of.moved_elements == whole - (1 - 1 / m) * hidden_hidden + (m - 1) * 3


def test_a_part_of_one_is_the_model_itself() -> None:
    of = cut(parts=1, ranks=1)
    assert flat_ids(of, 0, 0).tolist() == list(range(of.shape.num_parameters))


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_counts_of_owners_are_closed_forms(kind: str, ranks: int) -> None:
    """What a sub-model needs of an owner is a range of its own parameters, in rising order."""
    of = cut(kind, ranks=ranks)
    for round_ in range(3):
        needed = of.counts(round_)
        for rank in range(ranks):
            wanted = np.zeros(ranks, int)
            for part in of.of_rank(rank):
                ids = flat_ids(of, round_, part)
                assert (np.diff(ids) > 0).all()
                wanted += np.bincount(ids // of.shard_length, minlength=ranks)
                shares = of.shares(of.groups(round_), part)
                assert np.array_equal(shares, np.searchsorted(ids, of.bounds))
            assert np.array_equal(needed[rank], wanted)
        returned = of.returned(needed)
        assert returned.sum() == of.moved_elements
        assert needed.sum() == of.moved_elements * of.members


def test_a_range_of_a_sub_model_lies_in_parts_of_blocks() -> None:
    """Ranges begin and end within rows of blocks, and none of them is empty."""
    of = cut()
    whole = flat_ids(of, 1, 2)
    for first, last in ((5, 60), (0, 1), (len(whole) - 1, len(whole))):
        blocks = list(of.blocks(of.groups(1), 2, first, last))
        assert all(low < high for _, low, high in blocks)
        assert np.array_equal(positions(blocks), whole[first:last])
    assert list(of.blocks(of.groups(1), 2, 7, 7)) == []


def test_an_ultra_wide_model_is_planned_without_its_parameters() -> None:
    """Three layers of 32,768: a billion parameters in a plan of a few megabytes."""
    run = example(
        "gist",
        4,
        model={"hidden": 32768, "layers": 3},
        knobs={"parts": 8, "local_steps": 2},
        training={"precision": "float32"},
    )
    data = Library([]).open(run.dataset)
    tracemalloc.start()
    structure = APPROACH.structure(data, run)
    layout = Layout(world_size=4, ranks_per_host=4)
    plan = APPROACH.plan(data, run, structure, layout)
    moved = plan.moved_bytes(0)[Kind.ALL_TO_ALL, Phase.SYNC]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    of = structure.sub_models
    assert of.shape.num_parameters > 2**30
    assert peak < 32e6
    # A quarter of what is needed lies with the rank that needs it, in the mean.
    assert abs(moved / (4 * of.moved_elements * 3 / 4) - 1) < 0.05


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_bytes_travel_at_the_ends_of_rounds_only(ranks: int) -> None:
    """G8: what travels is what the owners of the drawn blocks hold; nothing amid a round."""
    run = example("gist", ranks, knobs={"parts": 4, "local_steps": 3}, training={"epochs": 7})
    data = Library([]).open(run.dataset)
    structure = APPROACH.structure(data, run)
    layout = Layout(world_size=ranks, ranks_per_host=ranks)
    plan = APPROACH.plan(data, run, structure, layout)
    plan.validate()
    of = structure.sub_models
    for epoch in range(7):
        needed = of.counts(epoch // 3)
        assert needed.sum() == of.moved_elements
        moved = 8 * int(needed.sum() - np.trace(needed))
        ends = (epoch % 3 == 0) + (epoch % 3 == 2 or epoch == 6)
        found = plan.moved_bytes(epoch)
        assert found.get((Kind.ALL_TO_ALL, Phase.SYNC), 0) == ends * moved
        assert (moved == 0) == (ranks == 1)


@pytest.mark.parametrize(
    ("ranks", "model", "knobs", "said"),
    [
        (2, {"hidden": 6}, {"parts": 4}, "cannot cut 6 hidden units into 4 equal parts"),
        (3, {"hidden": 8}, {"parts": 4}, "deal 4 sub-models evenly to 3 ranks"),
        (4, {"hidden": 8}, {"parts": 2}, "cannot divide the whole graph among the 2 ranks"),
        (2, {"layers": 1}, {}, "a model of one layer has none"),
        (2, {"kind": "gat"}, {}, "cannot train gat"),
    ],
)
def test_it_refuses_with_a_reason(ranks: int, model: dict, knobs: dict, said: str) -> None:
    run = example("gist", ranks, model=model, knobs=knobs)
    assert said in (APPROACH.cannot_run(run) or "")


def test_a_round_ends_with_the_run() -> None:
    places = [place_of(at, local_steps=4, steps=2, total_steps=6) for at in range(6)]
    assert [place.round for place in places] == [0, 0, 0, 0, 1, 1]
    assert [at for at, place in enumerate(places) if place.dispatches] == [0, 4]
    assert [at for at, place in enumerate(places) if place.aggregates] == [3, 5]
    assert [at for at, place in enumerate(places) if place.reports] == [1, 3, 5]


@pytest.mark.parametrize("parts", [2, 4])
def test_traffic_against_data_parallel_training_is_that_of_the_paper(parts: int) -> None:
    """|sub-model| / (local steps |model|), near 1 / (local steps m^2) where hidden layers dominate.

    One rank per sub-model, and as many steps: nine of `sampled`, which sums gradients in each, and
    three rounds of three. Only gradients and parameters travel, and one loss an epoch.
    """
    model = {"hidden": 1024, "layers": 4}
    batch = {"size": 64, "fanouts_from_seeds": (3, 3, 3, 3)}
    shared = {"ranks": parts, "model": model, "batch": batch, "training": {"epochs": 9}}
    knobs = {"base": "sampled", "local_steps": 3}
    moved, structures = {}, {}
    for name, own in (("gist", knobs), ("sampled", {})):
        run = example(name, knobs=own, **shared)
        card, data = APPROACHES.get(name), Library([]).open(run.dataset)
        structures[name] = card.structure(data, run)
        layout = Layout(world_size=parts, ranks_per_host=parts)
        plan = card.plan(data, run, structures[name], layout)
        moved[name] = sum(sum(plan.moved_bytes(epoch).values()) for epoch in range(9))
    of = structures["gist"].sub_models
    ratio = moved["gist"] / moved["sampled"]
    exact = of.sub_shape.num_parameters / (3 * of.shape.num_parameters)
    assert ratio == pytest.approx(exact, rel=0.03)
    assert ratio == pytest.approx(1 / (3 * parts**2), rel=0.1)
