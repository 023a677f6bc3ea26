"""Machines as people ask for them, and what is wrong with what they ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnnbench.cluster import load_cluster, save_cluster
from gnnbench.errors import GnnbenchError
from gnnbench.machines import catalogue, find_machines, with_constants
from gnnbench.units import digits, duration, duration_s


def _found(*words: str, **asked: tuple[int, ...]) -> list[tuple[str, int]]:
    return [(m.name, m.ranks) for m in find_machines(words, **asked)]  # type: ignore[arg-type]


def test_a_number_of_devices_is_made_up_of_every_host_that_has_them() -> None:
    assert _found("8xt4") == [("2 x g4dn.12xlarge", 8), ("8 x g4dn.xlarge", 8)]
    assert _found("8xt4:4") == [("2 x g4dn.12xlarge", 8)]


def test_a_device_that_nobody_rents_out_is_found_as_people_write_it() -> None:
    assert _found("1xrtx3090") == [("1 x rtx3090x4:1", 1)]


def test_devices_left_idle_on_a_host_are_said_and_paid_for() -> None:
    whole, half = find_machines(["8xp4de.24xlarge", "8xp4de.24xlarge:4"])
    assert (whole.name, half.name) == ("1 x p4de.24xlarge", "2 x p4de.24xlarge:4")
    rent, double = whole.usd_per_hour(), half.usd_per_hour()
    assert rent is not None
    assert double == 2 * rent
    assert whole.usd_per_hour(spot=True) is None  # no spot rate is published


def test_a_name_alone_is_tried_at_several_sizes_unless_ranks_are_asked_for() -> None:
    assert [ranks for _, ranks in _found("dgx-a100")] == [8, 16, 32]
    assert _found("dgx-a100", ranks=(4, 16), per_host=(4,)) == [
        ("1 x dgx-a100:4", 4),
        ("4 x dgx-a100:4", 16),
    ]


def test_of_the_whole_catalogue_hosts_that_cannot_make_up_a_number_are_passed_over() -> None:
    found = find_machines([], ranks=(32,))
    assert {machine.ranks for machine in found} == {32}
    assert "1 x p5.4xlarge" not in {machine.name for machine in found}


def test_the_catalogue_has_prices_with_dates_and_sources() -> None:
    assert len(catalogue()) > 12
    for cluster in catalogue():
        assert cluster.price is not None
        assert cluster.price.date
        assert cluster.price.usd_per_hour.source


def test_a_cluster_file_is_a_machine(tmp_path: Path) -> None:
    save_cluster(load_cluster("g4dn.xlarge"), tmp_path / "mine.toml")
    assert _found(f"2x{tmp_path / 'mine.toml'}") == [("2 x g4dn.xlarge", 2)]


def test_the_code_of_an_approach_is_a_constant_like_others() -> None:
    """It is set whether the cluster lists it or not; approaches of a listed family have it too."""
    changes = {"device.code_bytes.temporal": "5e7", "device.context_bytes": "1e8"}
    for name in ("cpu-2core", "dgx-a100"):
        device = with_constants(load_cluster(name), changes).device
        assert device.baseline_bytes("tgl", "temporal") == 150_000_000


def test_constants_are_changed_for_all_machines_or_for_one() -> None:
    changes = {"price.usd_per_hour": "20", "g4dn.xlarge:price.usd_per_hour": "1"}
    rents = {
        m.cluster.host.devices_per_host: m.usd_per_hour()
        for m in find_machines(["4xt4"], constants=changes)
    }
    assert rents == {1: 4.0, 4: 20.0}
    unpriced = with_constants(load_cluster("t4-15gbps"), {"price.usd_per_hour": "2"})
    assert unpriced.price is not None
    assert unpriced.price.usd_per_hour.status == "assumed"


@pytest.mark.parametrize(
    ("word", "constants", "problem"),
    [
        ("8xnope", {}, "unknown machine or device 'nope'"),
        ("3xt4:2", {}, "3 devices do not fill hosts of g4dn.12xlarge with 2 each: ask for 2 or 4"),
        ("64xp5.4xlarge", {}, "p5.4xlarge is described for 1"),
        ("16xg4dn.12xlarge:8", {}, "g4dn.12xlarge has 4 devices on a host, 8 asked for"),
        ("0xt4", {}, "expected [DEVICESx]NAME[:PER_HOST]"),
        ("8xt4", {"links.inter.bytes_per_s": "-1"}, "a rate is a number above 0"),
        ("8xt4", {"links.intr.bytes_per_s": "1"}, "unknown key, did you mean 'intra'?"),
        ("8xt4", {"p4de:price.usd_per_hour": "1"}, "no such machine here"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    word: str, constants: dict[str, str], problem: str
) -> None:
    with pytest.raises(GnnbenchError) as error:
        find_machines([word], constants=constants)
    assert problem in str(error.value).splitlines()[0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(52.3, "52.3 s"), (130, "2.17 min"), (9000, "2.50 h"), (2e5, "2.31 d")]
)
def test_durations_are_written_with_three_digits_and_read_back(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert duration_s(text) == pytest.approx(seconds, rel=5e-3)
    assert (duration(0.0052), digits(1234.5)) == ("5.20 ms", "1,230")
    with pytest.raises(GnnbenchError, match="expected a duration such as"):
        duration_s("5 parsecs")
