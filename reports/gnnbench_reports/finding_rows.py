"""Rows of the findings that a results folder keeps, because no table of configurations has them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRow:
    """The test metric of one approach in the metric's own unit; deviations are over seeds.

    Attributes:
        metric: such as "test_accuracy".
        reference_label: the approach that the row is compared with; "" if there is none.
        reference: its mean over the seeds that both were trained with.
        difference: mean over these seeds of this minus the reference.
        error: standard error of that mean; None with fewer than two seeds.
        tolerance: what the difference may be at most; of an approximation, how far it may be worse.
        within: whether it is; None without a reference, without a promise of equality, and for an
            approximation with a single seed.
    """

    dataset: str
    model: str
    label: str
    ranks: int
    metric: str
    exact: bool
    seeds: int
    mean: float
    std: float | None
    reference_label: str = ""
    reference: float | None = None
    difference: float | None = None
    error: float | None = None
    tolerance: float | None = None
    within: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BandwidthRow:
    """One kind of collective of one configuration, per period.

    Attributes:
        bytes: the maximum over ranks of the bytes sent, summed over steps; of a broadcast, the
            buffers.
        measured_s: without waiting, the median over repeats.
        calibrated_s: of the calibrated collective with the same message sizes.
        share: calibrated_s / measured_s, the achieved share of the calibrated bandwidth.
    """

    dataset: str
    model: str
    label: str
    approach: str
    ranks: int
    kind: str
    steps: int
    bytes: float
    measured_s: float
    calibrated_s: float
    share: float
