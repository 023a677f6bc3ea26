"""Model cards: widths, parameters, and which product comes first."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.approaches.writing.shape import StackShape
from gnnbench.models.base import layer_order
from gnnbench.models.names import MODELS
from gnnbench.spec import ModelSpec


def shape(kind: str, dims: tuple[int, ...], order: str) -> StackShape:
    return StackShape.of(MODELS.get(kind), ModelSpec(kind=kind), dims, 4, order)


def test_widths_run_from_features_over_hidden_to_classes() -> None:
    gcn = MODELS.get("gcn")
    assert gcn.dims(ModelSpec(layers=3, hidden=16), 100, 7) == (100, 16, 16, 7)
    assert gcn.dims(ModelSpec(layers=1, hidden=16), 100, 7) == (100, 7)


@given(st.lists(st.integers(1, 300), min_size=2, max_size=6).map(tuple))
def test_theta_is_the_sum_over_layers_doubled_by_a_self_weight(dims: tuple[int, ...]) -> None:
    weights = sum(a * b for a, b in pairwise(dims))
    assert MODELS.get("gcn").num_parameters(dims) == weights + sum(dims[1:])
    assert MODELS.get("sage").num_parameters(dims) == 2 * weights + sum(dims[1:])


def test_parameters_are_named_in_the_order_of_the_flat_vector() -> None:
    assert MODELS.get("sage").parameters((3, 2)) == [
        ("weight_1", (3, 2)),
        ("self_weight_1", (3, 2)),
        ("bias_1", (2,)),
    ]


def test_normalised_layers_have_a_scale_and_a_shift_but_for_the_last() -> None:
    names = [name for name, _ in MODELS.get("gcn").parameters((3, 4, 2), norm=True)]
    assert names == ["weight_1", "bias_1", "norm_scale_1", "norm_shift_1", "weight_2", "bias_2"]
    assert MODELS.get("gcn").num_parameters((3, 4, 2), norm=True) == 3 * 4 + 3 * 4 + 4 * 2 + 2


@pytest.mark.parametrize(
    ("fan_in", "fan_out", "policy", "order"),
    [
        (3, 4, "min_width", "aggregate_first"),
        (4, 4, "min_width", "aggregate_first"),
        (4, 3, "min_width", "transform_first"),
        (4, 3, "aggregate_first", "aggregate_first"),
        (3, 4, "transform_first", "transform_first"),
    ],
)
def test_the_narrower_side_is_aggregated_unless_the_order_is_fixed(
    fan_in: int, fan_out: int, policy: str, order: str
) -> None:
    assert layer_order(fan_in, fan_out, policy) == order


@given(st.lists(st.integers(1, 300), min_size=2, max_size=6).map(tuple))
def test_min_width_never_moves_more_forward_than_a_fixed_order(dims: tuple[int, ...]) -> None:
    least = shape("gcn", dims, "min_width").forward_widths()
    assert least <= shape("gcn", dims, "aggregate_first").forward_widths() == sum(dims[:-1])
    assert least <= shape("gcn", dims, "transform_first").forward_widths() == sum(dims[1:])


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        # fullgraph section 5, "Checks": equal hidden width h under `precompute`, which is not to
        # communicate in layer 1: 2 (L-1) h words per halo copy.
        ((602, 256, 256, 256, 256), 1536),
        ((100, 128, 128, 128), 512),
        ((300, 512, 512), 1024),
    ],
)
def test_words_per_halo_copy_are_those_of_the_reference_without_layer_1(
    dims: tuple[int, ...], words: int
) -> None:
    made = shape("sage", dims, "aggregate_first")
    assert made.forward_widths() - dims[0] + made.backward_widths() == words


def test_layer_1_communicates_backward_only_when_transform_first() -> None:
    # Psi: sum of d_(l-1) from layer 2 on, or of all d_l (fullgraph section 5).
    assert shape("gcn", (10, 6, 3), "aggregate_first").backward_widths() == 6
    assert shape("gcn", (10, 6, 3), "transform_first").backward_widths() == 9
    # min_width: layer 1 transforms (10 > 6), layer 2 transforms (6 > 3).
    assert shape("gcn", (10, 6, 3), "min_width").backward_widths() == 9
    assert shape("gcn", (3, 6, 10), "min_width").backward_widths() == 6
