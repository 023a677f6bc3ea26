"""Times of systems that learn from streams: operations counted in their code."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import row

from gnnbench.data.stream_profile import StreamProfile
from gnnbench.published.effort import OLD_INTERPRETER, UNIT_S, Effort
from gnnbench.published.metrics import BUILD, MEAN, OVERHEAD, STORE, TOTAL
from gnnbench.published.reason import Reason
from gnnbench.published.rows import PublishedRow
from gnnbench.published.score import states_time
from gnnbench.published.stream_times import KEPT, StreamMeasure, pending_messages, stated_epochs
from gnnbench.published.systems import case_of


def timed(**given: Any) -> PublishedRow:
    cells = {
        "system": "TGN",
        "dataset": "Wikipedia",
        "model": "TGN",
        "layers": "",
        "hidden": "",
        "batch": "200",
        "hardware": "server with 8x RTX 2080 Ti",
        "gpus": "1",
        "metric": MEAN,
        "unit": "s",
        "value": 84,
    }
    return row(**(cells | given))


def seconds(**given: Any) -> float:
    found = case_of(timed(**given))
    assert isinstance(found, StreamMeasure), found
    return found.value


def test_seconds_are_operations_times_their_costs() -> None:
    one = Effort(steps=2, calls=1) + Effort(calls=1, launches=3).times(2)
    interpreted = 2 * UNIT_S["steps"] + 3 * UNIT_S["calls"]
    assert one.seconds(1e-5) == pytest.approx(OLD_INTERPRETER * interpreted + 6e-5)
    assert Effort(entries=7).seconds(0.0) == pytest.approx(7 * UNIT_S["entries"])


def test_the_more_a_batch_looks_up_one_by_one_the_longer_it_takes() -> None:
    by_system = {name: seconds(system=name) for name in ("JODIE", "TGN", "TGAT", "CAW", "Zebra")}
    assert by_system["Zebra"] < min(by_system[name] for name in ("JODIE", "TGN", "TGAT"))
    assert by_system["JODIE"] < by_system["TGN"]
    assert by_system["CAW"] == max(by_system.values())


def test_a_batch_twice_as_large_goes_through_pending_messages_half_as_often() -> None:
    assert 0.5 < seconds(batch="400") / seconds() < 0.9
    assert seconds(system="TGAT", batch="400") == pytest.approx(seconds(system="TGAT"), rel=0.05)


def test_a_whole_training_takes_the_epochs_that_its_table_states() -> None:
    total, stated = timed(metric=TOTAL), timed(metric="epochs to converge", unit="count", value=26)
    found = case_of(total, stated_epochs([total, stated]))
    assert isinstance(found, StreamMeasure)
    assert found.value == pytest.approx(26 * seconds())
    assert "epochs" in str(case_of(total))


def test_the_store_of_gdelt_is_twenty_bytes_an_edge_in_both_directions() -> None:
    given = {"system": "GNNFlow block store", "dataset": "GDELT", "hardware": "g4dn.metal (T4)"}
    found = case_of(timed(metric=STORE, unit="MiB (printed MB)", **given))
    assert isinstance(found, StreamMeasure)
    assert found.value == 40 * 191_290_882
    assert seconds(metric=BUILD, **given) > 0


def test_an_expansion_twice_as_wide_costs_four_times_as_much_and_sorts_more() -> None:
    narrow, wide = (
        seconds(system=f"Zebra with PPI({width},2)", metric=OVERHEAD) for width in (10, 20)
    )
    assert 3.5 < wide / narrow < 6


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"system": "APAN"}, "software path not modelled"),
        ({"hardware": ""}, "hardware not stated"),
        ({"dataset": "LINK"}, "graph without a profile"),
        ({"batch": ""}, "configuration not stated"),
        ({"metric": "edge cache hit ratio", "unit": "ratio"}, "needs the events of the stream"),
        ({"metric": "test AP", "unit": "%"}, "needs training"),
        ({"metric": "epoch time upper bound", "unit": "h"}, "a bound"),
        ({"system": "Zebra with PPI", "metric": OVERHEAD}, "configuration not stated"),
    ],
)
def test_what_is_not_predicted_has_a_reason(given: dict[str, Any], why: str) -> None:
    found = case_of(timed(**given))
    assert isinstance(found, Reason)
    assert why in str(found)


def test_bounds_state_no_time() -> None:
    assert states_time(timed())
    assert not states_time(timed(metric="epoch time lower bound"))


def test_a_node_with_many_events_has_a_pending_message_from_early_on() -> None:
    """A node of k events has one for k / (k + 1) of an epoch, on average."""
    few = StreamProfile(
        name="few",
        source="made",
        status="measured",
        num_nodes=10,
        num_edges=100,
        num_train=100,
        num_val=0,
        num_test=0,
        activity_values=(1.0 / KEPT, 3.0 / KEPT),
        activity_counts=(6, 4),
    )
    assert pending_messages(few) == pytest.approx(6 / 2 + 4 * 3 / 4)
    alike = dataclasses.replace(few, activity_values=(), activity_counts=())
    assert pending_messages(alike) == pytest.approx(10 * 20 * KEPT / (20 * KEPT + 1))
