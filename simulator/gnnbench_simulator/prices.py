"""Predict a price page: time and rent of an epoch in each of its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import load_profile
from gnnbench.disks import with_disk
from gnnbench.errors import GnnbenchError, SpecError
from gnnbench.machines import Machine
from gnnbench.price_page import PricePage, Setting, Workload
from gnnbench.results import PredictionRecord
from gnnbench.spec import DatasetRef, RunSpec, TrainingSpec
from gnnbench_simulator.session import predict_run

_EPOCHS = 2
"""Epochs that are simulated: the second one counts."""
_DISK = ("read/", "write/")


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedSetting:
    """A setting with its prediction.

    Args:
        setting: as the page has it.
        hosts: that are paid for.
        usd_per_hour: of all of them; None where the catalogue has no price.
        price_date: of that rent.
        record: the prediction; None where `reason` says why there is none.
        reason: why it cannot run, such as memory; it may have a time all the same.
    """

    setting: Setting
    hosts: int
    usd_per_hour: float | None
    price_date: str = ""
    record: PredictionRecord | None = None
    reason: str = ""

    @property
    def runs(self) -> bool:
        """Whether the setting can run, and has a time."""
        return self.record is not None and not self.reason

    @property
    def disk_bytes(self) -> int:
        """Bytes read and written in an epoch."""
        if self.record is None or not self.record.bytes:
            return 0
        last = self.record.bytes[-1]
        return sum(size for key, size in last.items() if key.startswith(_DISK))

    def usd(self, seconds: float) -> float | None:
        """Rent of so many seconds."""
        return None if self.usd_per_hour is None else self.usd_per_hour * seconds / 3600.0


def price(
    page: PricePage, advance: Callable[[str], object] = lambda label: None
) -> list[list[PricedSetting]]:
    """Predict every setting of a page, table by table.

    Args:
        page: its settings.
        advance: called with the label of each setting that is done.

    Raises:
        UnknownName, SpecError: a setting names what does not exist.
    """
    tables = []
    for workload in page.workloads:
        rows = []
        for setting in workload.settings:
            rows.append(_priced(workload, setting))
            advance(setting.label)
        tables.append(rows)
    return tables


def _priced(workload: Workload, setting: Setting) -> PricedSetting:
    cluster = with_disk(load_cluster(setting.machine), setting.disk)
    machine = Machine(
        cluster=cluster, ranks=setting.ranks, per_host=cluster.ranks_per_host(setting.ranks)
    )
    run, data = _run(workload, setting), load_profile(workload.profile)
    common = PricedSetting(
        setting=setting,
        hosts=machine.hosts,
        usd_per_hour=machine.usd_per_hour(),
        price_date="" if cluster.price is None else cluster.price.date,
    )
    try:
        record, _ = predict_run(run, data, cluster, ranks_per_host=machine.per_host)
    except SpecError:
        raise
    except GnnbenchError as error:
        return _with(common, None, str(error))
    return _with(common, record, record.reason)


def _with(common: PricedSetting, record: PredictionRecord | None, reason: str) -> PricedSetting:
    return PricedSetting(
        setting=common.setting,
        hosts=common.hosts,
        usd_per_hour=common.usd_per_hour,
        price_date=common.price_date,
        record=record,
        reason=reason,
    )


def _run(workload: Workload, setting: Setting) -> RunSpec:
    """The run of a setting. Raises SpecError for wrong knobs, UnknownName for the approach."""
    problems: list[str] = []
    card = APPROACHES.get(setting.approach)
    knobs = card.parse_knobs(setting.knobs, f"{setting.label}: {setting.approach}", problems)
    if problems or knobs is None:
        raise SpecError(problems)
    profile = load_profile(workload.profile)
    kind = {} if profile.kind == "graph" else {"kind": profile.kind}
    return RunSpec(
        suite="prices",
        dataset=DatasetRef(name=profile.name, profile=profile.name, **kind),
        model=workload.model,
        batch=workload.batch,
        training=TrainingSpec(epochs=_EPOCHS, optimizer=workload.optimizer),
        approach=setting.approach,
        ranks=setting.ranks,
        knobs=knobs,
    )
