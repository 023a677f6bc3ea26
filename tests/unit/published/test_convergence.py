"""Epochs to convergence: the nearest published training of the same kind, or none."""

from __future__ import annotations

from gnnbench.data.profile import list_profiles
from gnnbench.published.convergence import Convergence, convergence, facts


def _fact(batch: int, epochs: int) -> Convergence:
    return Convergence(
        dataset="d", batch=batch, epochs=epochs, accuracy=None, model="sage", source="s"
    )


KNOWN = (_fact(0, 200), _fact(1024, 10), _fact(16384, 20))


def test_a_full_graph_training_is_no_answer_for_batches_nor_the_reverse() -> None:
    full, small, large = (convergence("d", batch, KNOWN) for batch in (0, 900, 1_000_000))
    assert full is not None and full.epochs == 200
    assert small is not None and small.epochs == 10
    assert large is not None and large.epochs == 20
    assert convergence("d", 0, KNOWN[1:]) is None
    assert convergence("other", 0, KNOWN) is None


def test_nearness_is_of_ratios() -> None:
    found = convergence("d", 5000, KNOWN)  # 4.9 times 1024, 3.3 times below 16384
    assert found is not None and found.batch == 16384


def test_the_facts_are_of_profiles_and_have_sources() -> None:
    assert {fact.dataset for fact in facts()} <= set(list_profiles())
    assert all(fact.source and fact.epochs > 0 for fact in facts())
    products = convergence("ogbn-products", 0)
    assert products is not None and products.epochs == 230
