"""Ordering policies and their closed forms: invariants 1-9 of the out-of-core reference."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from gnnbench.approaches.out_of_core import policies
from gnnbench.approaches.out_of_core.policies import Policy
from gnnbench.approaches.out_of_core.storage import (
    DISK_BLOCK,
    Buckets,
    Rows,
    admitted_buckets,
    bucket_counts,
    padded,
)
from gnnbench.approaches.out_of_core.tuning import Choice, Sizes, need, tune
from gnnbench.approaches.out_of_core.visits import changes

# p, c: swaps and lower bound, as the reference tabulates them in section 4.1.
SWAPS = {
    (4, 2): (5, 5),
    (6, 3): (7, 6),
    (8, 2): (27, 27),
    (16, 4): (42, 38),
    (16, 8): (17, 14),
    (16, 10): (12, 9),
    (32, 8): (78, 67),
    (32, 16): (33, 26),
    (64, 16): (150, 127),
    (64, 32): (65, 50),
    (100, 16): (363, 322),
    (128, 32): (294, 247),
    (250, 16): (2178, 2067),
}
FREEBASE = Rows(num_rows=86_054_151, partitions=1024, row_bytes=800)


def of(name: str, p: int, c: int, logical: int = 0, training: int = 0, seed: int = 1) -> Policy:
    return Policy(
        name=name, partitions=p, capacity=c, logical=logical, training=training, seed=seed
    )


@pytest.mark.parametrize(("sizes", "wanted"), SWAPS.items())
def test_swaps_are_those_of_the_table(sizes: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert (policies.beta_swaps(*sizes), policies.swaps_bound(*sizes)) == wanted


def test_beta_swaps_one_partition_at_a_time_until_every_pair_has_met() -> None:
    """Invariant 1, for every p up to 24; the closed form and the bound for every p up to 40."""
    for p in range(2, 41):
        for c in range(2, p + 1):
            swaps = policies.beta_swaps(p, c)
            x = (p - c) // (c - 1)
            assert 2 * swaps == 2 * (p - c) + (x + 1) * (2 * (p - c) - x * (c - 1))
            assert swaps >= policies.swaps_bound(p, c)
            if p > 24:
                continue
            states = of("beta", p, c).states(3)
            assert len(states) - 1 == swaps
            for _, admitted, evicted in changes(states)[1:]:
                assert len(admitted) == len(evicted) == 1
            there = policies.residency(states, p).astype(int)
            assert (there.T @ there > 0).all()


@pytest.mark.parametrize(
    ("l", "states", "reads"), [(4, 6, 1.75), (8, 28, 3.625), (16, 120, 7.5625)]
)
def test_comet_with_two_logical_partitions(l: int, states: int, reads: float) -> None:  # noqa: E741
    """Invariant 3, and the volumes of section 4.2."""
    p = 64
    policy = of("comet", p, 2 * p // l, l)
    found = policy.states(0)
    assert len(found) == states
    for _, admitted, evicted in changes(found)[1:]:
        assert len(admitted) == len(evicted) == p // l
    assert policies.partition_reads(policy) == reads * p
    edges = 4 / l**2 * (1 + 0.75 * (states - 1))
    assert policies.bucket_reads(policy) == pytest.approx(edges * p * p)
    assert sum(len(admitted) for _, admitted, _ in changes(found)) == reads * p
    again, other = policy.states(0), of("comet", p, 2 * p // l, l, seed=2).states(0)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(found, other, strict=True))


@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("comet", (8, 4, 3), "does not divide the 8 partitions"),
        ("comet", (8, 3, 4), "multiples of the 2 partitions"),
        ("comet", (8, 2, 4), "two logical partitions of 2 must meet"),
        ("beta", (8, 1, 0), "two partitions must meet"),
        ("beta", (8, 9, 0), "at most the 8 partitions"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, sizes: tuple, said: str) -> None:
    assert said in (policies.problems(name, *sizes) or "")


@pytest.mark.parametrize("policy", [of("beta", 9, 4), of("comet", 12, 4, 6), of("comet", 8, 8, 1)])
def test_every_bucket_is_trained_in_one_state_where_its_partitions_are(policy: Policy) -> None:
    """Invariant 2."""
    states = policy.states(5)
    there = policies.residency(states, policy.partitions)
    state_of = policy.states_of_buckets(5, states)
    assert (state_of >= 0).all()
    for i, j in itertools.product(range(policy.partitions), repeat=2):
        assert there[state_of[i, j], [i, j]].all()
        if policy.name == "beta":
            assert not (there[: state_of[i, j], i] & there[: state_of[i, j], j]).any()


def test_deferred_buckets_are_uniform_over_the_states_they_may_be_in() -> None:
    """Invariant 7: chi-square over many epochs, 1 in 1e5 by chance."""
    policy = of("comet", 8, 4, 4)
    share = []
    for epoch in range(600):
        states = policy.states(epoch)
        there = policies.residency(states, 8)
        eligible = np.flatnonzero(there[:, 0])  # bucket (0, 0): three states of six
        share.append(eligible.tolist().index(int(policy.states_of_buckets(epoch, states)[0, 0])))
    counts = np.bincount(share, minlength=3)
    assert len(counts) == 3
    assert ((counts - 200.0) ** 2 / 200.0).sum() < 23.0


def test_sequential_pins_the_training_partitions() -> None:
    """Invariant 5: one state, others redrawn in every epoch."""
    policy = of("sequential", 20, 8, training=5)
    found = [policy.states(epoch) for epoch in range(3)]
    for states in found:
        assert len(states) == 1
        assert states[0][:5].tolist() == [0, 1, 2, 3, 4]
        assert len(set(states[0].tolist())) == 8
    assert not np.array_equal(found[0][0], found[1][0])
    assert policies.partition_reads(policy) == 8


def test_dispersed_brings_every_partition_in_once() -> None:
    """Invariant 6."""
    policy = of("dispersed", 11, 3)
    states = policy.states(0)
    assert len(states) == 1 + 8
    admitted = np.concatenate([new for _, new, _ in changes(states)])
    assert sorted(admitted.tolist()) == list(range(11))
    partition_of = np.repeat(np.arange(11), 40)
    state_of = policy.states_of_rows(0, states, partition_of)
    there = policies.residency(states, 11)
    assert there[state_of, partition_of].all()


# -- storage -------------------------------------------------------------------------------------


def test_rows_of_freebase_as_published() -> None:
    """Golden values of section 2."""
    assert FREEBASE.per_partition == 84_038
    assert FREEBASE.rows_of(1023) == 83_277
    assert FREEBASE.num_rows * FREEBASE.row_bytes == 68_843_320_800
    assert FREEBASE.bytes_in(np.arange(1024)) - 68_843_320_800 < 1024 * DISK_BLOCK
    assert FREEBASE.slot_bytes % DISK_BLOCK == FREEBASE.slot_bytes % 800 == 0


def test_partitions_that_would_be_empty_are_refused() -> None:
    found = Rows(num_rows=10, partitions=8, row_bytes=4).problem()
    assert found is not None
    assert "leave 3 empty; allowed for example 5" in found
    assert Rows(num_rows=10, partitions=5, row_bytes=4).problem() is None


def test_buckets_are_read_in_runs_of_whole_blocks() -> None:
    """Neighbouring buckets are one request; empty ones are none; nothing else is read."""
    rng = np.random.default_rng(0)
    part = rng.integers(0, 4, 9000)
    counts = bucket_counts(part, np.roll(part, 1), 4)
    counts[2, 1] = 0
    buckets = Buckets(counts=counts, edge_bytes=12)
    wanted = np.zeros((4, 4), bool)
    wanted[1, 1:3] = wanted[2, 1] = wanted[3, 0] = True
    runs = buckets.runs(wanted)
    starts = buckets.offsets
    assert runs.tolist() == [[starts[5], starts[7]], [starts[12], starts[13]]]
    spans = buckets.spans(runs)
    assert (spans % DISK_BLOCK == 0).all()
    assert len(spans) == 2
    assert (spans[:, 0] <= runs[:, 0] * 12).all()
    assert (spans[:, 1] - runs[:, 1] * 12 < DISK_BLOCK).all()
    # A few bytes between two runs are read along.
    assert buckets.spans(np.array([[10, 20], [30, 40]])).tolist() == [[0, DISK_BLOCK]]
    assert buckets.file_bytes == padded(int(counts.sum()) * 12)
    assert len(buckets.runs(np.zeros((4, 4), bool))) == 0


def test_a_swap_reads_the_buckets_of_what_came_in() -> None:
    """Invariant 9: c^2 - (c - n)^2 = 2 c n - n^2."""
    before, after = np.zeros(10, bool), np.zeros(10, bool)
    before[:6] = after[2:8] = True
    found = admitted_buckets(before, after)
    assert found.sum() == 6 * 6 - 4 * 4
    assert not found[2:6, 2:6].any()


# -- tuning --------------------------------------------------------------------------------------

EMBEDDINGS = Sizes(
    num_rows=86_054_151,
    row_bytes=800,
    num_edges=304_727_650,
    edge_bytes=12,
    held_bytes=48,
    fixed_bytes=10**9,
    trained=True,
)
FEATURES = Sizes(
    num_rows=10_000_000,
    row_bytes=1024,
    num_edges=200_000_000,
    edge_bytes=8,
    held_bytes=36,
    fixed_bytes=400_000_000,
    training_rows=100_000,
)


@pytest.mark.parametrize("sizes", [EMBEDDINGS, FEATURES])
@pytest.mark.parametrize("cap", [4e9, 16e9, 61e9, 1e12])
def test_what_is_chosen_fits_and_more_would_not(sizes: Sizes, cap: float) -> None:
    found = tune(sizes, cap)
    assert isinstance(found, Choice)
    assert found.memory_bytes <= cap
    rows = Rows(num_rows=sizes.num_rows, partitions=found.partitions, row_bytes=sizes.row_bytes)
    assert rows.problem() is None
    if found.buffer == found.partitions:
        assert cap >= 61e9
    elif sizes.trained:
        assert found.logical * found.buffer == 2 * found.partitions
        assert policies.problems("comet", found.partitions, found.buffer, found.logical) is None
        assert need(sizes, rows, 4 * found.partitions // found.logical) > cap
    else:
        assert need(sizes, rows, found.buffer + 1) > cap


def test_freebase_is_tuned_near_the_published_configuration() -> None:
    """Section 8: sqrt(EO / 4 KiB) is about 945, published are p = 1024 and l = 4 with 61 GB."""
    found = tune(EMBEDDINGS, 61e9)
    assert isinstance(found, Choice)
    assert (found.partitions, found.buffer, found.logical) == (512, 256, 4)
    assert found.read_bytes == pytest.approx(1.75 * 68_843_320_800, rel=1e-3)
    assert tune(EMBEDDINGS, 2.3e9) == (
        "memory.host: found 2300 MB, and the smallest buffer needs 2650 MB"
    )


def test_dispersed_training_rows_get_partitions_whose_states_have_a_batch() -> None:
    """As many states as an epoch has batches, at most; more would make graphs for empty batches."""
    sizes = dataclasses.replace(FEATURES, training_rows=5_000_000, batches=98)
    found, fine = tune(sizes, 4e9), tune(dataclasses.replace(sizes, batches=10**6), 4e9)
    assert isinstance(found, Choice) and isinstance(fine, Choice)
    assert 49 <= found.partitions - found.buffer + 1 <= 98
    assert fine.partitions - fine.buffer + 1 > 98
    assert found.memory_bytes <= 4e9
