"""Kernels that a framework launches for one step: what a step costs however small it is.

A step that the plan names once may be many operations of the framework, each of which it issues,
and each of which a device launches. Counted with torch 2.x by its dispatcher, views left out, on
tiny runs of the trainers; `tests/unit/runtime/test_launches.py` counts again.
"""

from __future__ import annotations

from collections.abc import Mapping

LAUNCHES: Mapping[str, int] = {
    "temporal_attention_forward": 27,
    "temporal_attention_backward": 53,
    "memory_updater_forward": 22,
    "memory_updater_backward": 24,
    "link_decoder_forward": 6,
    "link_decoder_backward": 23,
    "complex_forward": 39,
    "complex_backward": 48,
    "distmult_forward": 27,
    "distmult_backward": 24,
    "dot_forward": 26,
    "dot_backward": 18,
    "softmax_cross_entropy": 13,
    "binary_cross_entropy": 13,
    "adagrad": 4,
    "adagrad_rows": 8,
    "memory_write": 5,
}
"""Launches by operation; one for those that are not listed."""


def launches(op: str) -> int:
    """Launches of one call of an operation."""
    return LAUNCHES.get(op, 1)
