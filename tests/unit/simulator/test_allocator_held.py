"""What the caching allocator cannot give back when a device has no room left."""

from __future__ import annotations

from gnnbench_simulator.allocator import MIB, CachingAllocator


def test_a_segment_in_which_nothing_lives_is_not_needed() -> None:
    allocator = CachingAllocator()
    allocator.allocate("a", 100 * MIB)
    allocator.free("a")
    allocator.allocate("b", 150 * MIB)  # does not fit into the first segment
    assert (allocator.reserved, allocator.peak_held) == (250 * MIB, 150 * MIB)


def test_a_small_rest_keeps_a_whole_segment() -> None:
    allocator = CachingAllocator()
    allocator.allocate("a", 100 * MIB)
    allocator.free("a")
    allocator.allocate("c", 20 * MIB)  # is cut off the first segment
    allocator.allocate("b", 150 * MIB)
    assert allocator.peak_held == 250 * MIB
    allocator.free("c")
    allocator.free("b")
    allocator.allocate("d", 160 * MIB)
    assert allocator.reserved == 410 * MIB
    assert allocator.peak_held == 250 * MIB
