"""A comparison: one configuration, measured, predicted or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gnnbench_reports.memory import Memory
from gnnbench_reports.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One configuration on one layout of ranks. What is not known is None or empty.

    Times are seconds per period; a period is an epoch, or an increment of a stream.

    Attributes:
        config_id: of the lowest seed, whose prediction this is; config_ids: of all seeds.
        label: the approach, and the settings that tell it from others of the same name.
        ranks_per_host: how the ranks lie on hosts; 0 is not known.
        knobs: every knob, defaults included.
        metric: the metric of the task that runs are compared by, such as "accuracy".
        period: what a period is: "epoch", "increment" or "round".
        status: "ok" (measured), "diverged", "failed", "skipped", "running" or, without runs,
            "predicted" or the prediction's own status.
        repeats: finished runs pooled here, seeds included.
        measured_period_s: median over periods after warm-up within a repeat, then over repeats.
        repeat_spread: half the range of the repeats' medians over their median.
        period_spread: half the interquartile range of a repeat's periods over their median.
        beyond: why the prediction extrapolates from the cluster as described, if it does.
        counted: whether the plan's sizes were counted on the real data; `basis` says how otherwise.
        program: equal for configurations whose ranks take the same steps; "" if not known.
        ratio, error: predicted / measured, and that minus one.
        inside_interval: whether the measured median lies in the predicted 90 % interval.
        volumes, bytes_equal: bytes moved by kind and phase; whether all counts equal the plan.
        counted_bytes, planned_bytes: bytes sent to other ranks per period, all ranks together.
        probe_ratio: time of the speed probe around the runs over its time at calibration: above 1
            the machine was slower than when it was calibrated.
        speed_adjusted_error: error after multiplying the prediction by `probe_ratio`.
        phases_*: seconds per period by part (phases, communication, waiting, ...) on the slowest
            rank; of a prediction without measurement, by phase with waiting included.
        stages_*: seconds per period of sampling, loading and training on the rank with most work,
            without waiting for other ranks and whether or not other work hides them.
        metrics: {"test_accuracy": {"mean", "std"}, ...} over repeats.
    """

    config_id: str
    config_ids: tuple[str, ...] = ()
    label: str
    approach: str
    dataset: str
    model: str
    ranks: int
    ranks_per_host: int = 0
    knobs: Mapping[str, Any] = field(default_factory=dict)
    metric: str = ""
    period: str = "epoch"
    status: str
    reason: str = ""
    failed_rank: int | None = None
    failed_phase: str = ""
    repeats: int = 0
    periods: int = 0
    measured_period_s: float | None = None
    repeat_spread: float | None = None
    period_spread: float | None = None
    cluster: str = ""
    prediction_status: str = ""
    prediction_reason: str = ""
    predicted_period_s: float | None = None
    predicted_low_s: float | None = None
    predicted_high_s: float | None = None
    grade: str = ""
    method: str = ""
    beyond: str = ""
    counted: bool | None = None
    basis: str = ""
    program: str = ""
    ratio: float | None = None
    error: float | None = None
    inside_interval: bool | None = None
    volumes: tuple[Volume, ...] = ()
    bytes_equal: bool | None = None
    counted_bytes: float | None = None
    planned_bytes: float | None = None
    memory: Memory = field(default_factory=Memory)
    phases_measured: Mapping[str, float] = field(default_factory=dict)
    phases_predicted: Mapping[str, float] = field(default_factory=dict)
    stages_measured: Mapping[str, float] = field(default_factory=dict)
    stages_predicted: Mapping[str, float] = field(default_factory=dict)
    probe_ratio: float | None = None
    speed_adjusted_error: float | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    final_loss: float | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Configuration and layout: what tells rows apart."""
        return self.config_id, self.ranks_per_host

    @property
    def measured(self) -> bool:
        return self.measured_period_s is not None

    @property
    def predicted(self) -> bool:
        return self.predicted_period_s is not None

    @property
    def uncertainty(self) -> float | None:
        """Relative uncertainty of the measured time: the spread of repeats, or else of periods."""
        return self.repeat_spread if self.repeat_spread is not None else self.period_spread

    @property
    def test_metric(self) -> Mapping[str, float]:
        """Mean and deviation of the primary metric on the test split; empty if not measured."""
        return self.metrics.get(f"test_{self.metric}", {})
