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
        trained[cut.flat_ids(cut.groups(5), part)] = True
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
