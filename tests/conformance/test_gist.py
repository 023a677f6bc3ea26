"""GIST on real ranks: invariants G3-G7 and G9 of the sampling reference, section 18.

G1 (one part is plain training) and G8 (bytes) are statements of conformance.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.approaches.base import example
from gnnbench.approaches.mini_batch.gist import APPROACH
from gnnbench.data.source import Library
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed
RUN = example(
    "gist",
    2,
    model={"layers": 3, "kind": "sage"},
    knobs={"parts": 4, "local_steps": 2},
    training={"optimizer": "sgd"},
)
DATA = Library([]).open(RUN.dataset)


def test_a_round_without_training_changes_nothing(pools: Pools) -> None:
    """G3 to the bit; and G4: training touches what the sub-models have, and nothing else."""
    cut = APPROACH.structure(DATA, RUN).sub_models
    found = pools.of(2).run("gist_cases:round_trip", RUN, DATA)
    before, same, touched = (np.concatenate(parts) for parts in zip(*found, strict=True))
    assert np.array_equal(before, same)
    trained = np.zeros(len(before), bool)
    for part in range(4):
        for block, _, _ in cut.blocks(cut.groups(5), part, 0, cut.sub_shape.num_parameters):
            ids = block.start + block.rows[:, None] * block.width + block.columns
            trained[ids.ravel()] = True
    assert 0 < (~trained).sum() < len(trained)
    np.testing.assert_allclose(touched[trained], 1.0, rtol=0, atol=1e-12)
    assert (touched[~trained] == 0).all()


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_number_of_ranks_changes_nothing(ranks: int, pools: Pools) -> None:
    """G6, G7: sub-models that are trained on one rank, one after the other, learn the same."""
    alone = dataclasses.replace(RUN, ranks=1)
    [wanted] = pools.of(1).run("gist_cases:one_after_the_other", alone, DATA)
    several = dataclasses.replace(RUN, ranks=ranks)
    for learnt in pools.of(ranks).run("gist_cases:one_after_the_other", several, DATA):
        np.testing.assert_array_equal(learnt, wanted)


def test_logits_of_sub_models_add_up(pools: Pools) -> None:
    """G9: one hidden dimension; the sub-models' sum has the bias m - 1 times too often.

    With several hidden dimensions it would be the sum over paths within the groups (G5).
    """
    run = dataclasses.replace(
        RUN, ranks=1, model=dataclasses.replace(RUN.model, layers=2), knobs=RUN.knobs
    )
    [(whole, parts)] = pools.of(1).run("gist_cases:sub_logits", run, DATA)
    np.testing.assert_allclose(sum(parts) - 3 * 0.25, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("base", ["sampled", "cluster"])
def test_ranks_that_share_a_sub_model_learn_what_one_rank_does(base: str, pools: Pools) -> None:
    """SA-P1 within GIST: four ranks train two sub-models, two to each, as one rank trains both."""
    run = example(
        "gist",
        1,
        batch={"size": 16, "fanouts_from_seeds": (4, 3, 2)},
        model={"layers": 3, "kind": "sage", "dropout": 0.3},
        knobs={"parts": 2, "local_steps": 3, "base": base, "clusters": 9, "merged": 2}
        | ({"subgraphs": 2} if base == "cluster" else {}),
    )
    [wanted] = pools.of(1).run("gist_cases:one_after_the_other", run, DATA)
    several = dataclasses.replace(run, ranks=4)
    for learnt in pools.of(4).run("gist_cases:one_after_the_other", several, DATA):
        np.testing.assert_allclose(learnt, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_streamed_evaluation_equals_that_of_the_whole_model(
    kind: str, ranks: int, pools: Pools
) -> None:
    """Pieces of three columns; wide, narrow and normalised layers; halo rows on two ranks."""
    run = example(
        "gist", ranks, model={"layers": 3, "kind": kind, "norm": "layer"}, knobs={"parts": 4}
    )
    found = pools.of(ranks).run("gist_cases:evaluations", run, DATA, 24)
    for streamed, whole, metrics, others in found:
        np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-12)
        assert metrics == others


def test_a_wide_model_trains_within_a_cap_that_plain_training_exceeds(pools: Pools) -> None:
    """Three layers of 4,096 (67 MB of parameters): `single` holds four vectors of them."""
    run = example(
        "gist",
        1,
        model={"hidden": 4096, "layers": 3},
        knobs={"parts": 8, "local_steps": 2},
        training={"precision": "float32", "epochs": 2},
    )
    cap = 160_000_000
    [(losses, metrics)] = pools.of(1).run("gist_cases:capped", run, DATA, cap)
    assert np.isfinite(losses).all()
    assert 0 <= metrics["test_accuracy"] <= 1
    plain = dataclasses.replace(run, approach="single", knobs={})
    [said] = pools.of(1).run("gist_cases:capped", plain, DATA, cap)
    assert "allowed" in said
