"""A session predicts runs one after another; what cannot run is a record with its reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gnnbench.approaches.base import example
from gnnbench.cluster import load_cluster
from gnnbench.results import Results
from gnnbench.spec import MemorySpec
from gnnbench.steps import Buffer, Space
from gnnbench_simulator.memory import predict_memory
from gnnbench_simulator.session import predict_runs

GPU, CPU = "dgx-a100", "cpu-2core"


@pytest.mark.parametrize(
    ("cap", "space"), [("device", "device memory"), ("host", "host memory")], ids=str
)
def test_a_cap_on_a_space_is_obeyed_in_that_space_alone(kit: Any, cap: str, space: str) -> None:
    """16 MiB of buffers on the device and 16 MiB on the host; the device also has its context."""
    size, cluster = 16 * 2**20, load_cluster(GPU)
    plan = kit.plan(
        (kit.work("a", 1),),
        resident=(Buffer("table", size), Buffer("store", size, Space.HOST)),
    )
    needed = size + (round(cluster.device.context_bytes.value) if cap == "device" else 0)
    at, under = (predict_memory(plan, cluster, caps={cap: needed - n})[0] for n in (0, 1))
    assert (at["space"], at["fits"]) == (space, True)
    assert (under["space"], under["fits"], under["limit_bytes"]) == (space, False, needed - 1)


def test_a_run_over_its_cap_is_skipped_with_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    """Beside it, a run that no rank rule allows: each has its reason, and the last is predicted."""
    free = example("partition")
    capped = dataclasses.replace(free, memory=MemorySpec(host=1_000_000))
    alone = dataclasses.replace(example("single"), ranks=2)
    results, cluster = Results(tmp_path), load_cluster(CPU)
    found = list(predict_runs([capped, alone, free], cluster, [], results))
    (over, ledgers), (refused, nothing), (predicted, rows) = found
    assert over.status == refused.status == "skipped"
    assert over.reason.startswith("out of memory: rank ")
    assert over.memory[0]["limit_bytes"] == 1_000_000 < over.memory[0]["judged_bytes"]
    assert over.period_s > 0 and ledgers
    assert "single runs on 1 rank" in refused.reason and not nothing
    assert predicted.status == "ok" and set(rows) == {0, 1}
    assert set(results.predicted_ledger(predicted)) == {0, 1}


def test_too_few_hosts_are_a_reason() -> None:
    run = dataclasses.replace(example("partition"), ranks=4)
    cluster = load_cluster(CPU)
    small = dataclasses.replace(cluster, host=dataclasses.replace(cluster.host, hosts_max=3))
    ((record, _),) = predict_runs([run], small, [], ranks_per_host=1)
    assert record.status == "skipped"
    assert record.reason == "4 ranks need 4 hosts; cluster cpu-2core has 3"
