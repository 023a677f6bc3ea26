"""Keys are pure functions of their counters, with the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from gnnbench.data import keys
from gnnbench.data.draws import mix64

BITS = st.integers(0, 2**64 - 1)


@njit
def _mix_all(x):
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = mix64(x[i])
    return out


@given(st.lists(BITS, max_size=20))
@settings(deadline=None)
def test_python_numpy_and_numba_mix_to_the_same_bits(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    expected = [keys.mix64(v) for v in values]
    assert keys.mix64_array(array).tolist() == expected
    assert _mix_all(array).tolist() == expected


def test_the_mix_is_the_published_splitmix64_stream() -> None:
    # First outputs of splitmix64 from seed 0: the state advances by the golden constant.
    stream = [keys.mix64(keys.GOLDEN * i & keys.MASK64) for i in (1, 2, 3)]
    assert stream == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@given(st.integers(0, 2**63), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), BITS)
def test_extending_a_key_continues_its_fold(seed: int, counters: list[int], last: int) -> None:
    whole = keys.fold(seed, *counters, last)
    assert keys.extend(keys.fold(seed, *counters), last) == whole
    assert 0 <= whole < 2**64


def test_extend_array_is_extend_of_every_element() -> None:
    counters = np.array([0, 1, 2, 2**40, -1], np.int64)
    expected = [keys.extend(12345, int(c)) for c in counters]
    assert keys.extend_array(12345, counters).tolist() == expected


def test_order_and_number_of_counters_matter() -> None:
    folds = {
        keys.fold(0),
        keys.fold(0, 0),
        keys.fold(0, 0, 0),
        keys.fold(0, 0, 1),
        keys.fold(0, 1, 0),
    }
    assert len(folds) == 5


@pytest.mark.parametrize("bit", [0, 7, 31, 63])
def test_one_changed_counter_bit_changes_half_the_key(bit: int) -> None:
    flips = [
        (keys.fold(1, n) ^ keys.fold(1, n ^ (1 << bit))).bit_count() for n in range(0, 4000, 7)
    ]
    assert abs(np.mean(flips) - 32) < 5 * 4 / np.sqrt(len(flips))


def test_generators_of_equal_counters_draw_equal_streams() -> None:
    first, again = keys.generator(3, 1).random(4), keys.generator(3, 1).random(4)
    assert first.tolist() == again.tolist()
    assert first.tolist() != keys.generator(3, 2).random(4).tolist()
