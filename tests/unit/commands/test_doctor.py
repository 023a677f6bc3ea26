"""The doctor: every line has a status, every bad one a remedy, and no check can end the others."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from gnnbench import cli, kernel_cache
from gnnbench.commands import doctor


def only(name: str) -> list[doctor.Finding]:
    return list(getattr(doctor, name)())


def test_a_machine_that_runs_these_tests_is_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["ok"] is True
    subjects = {finding["subject"] for finding in seen["findings"]}
    assert {"python", "cores", "memory", "disk", "numpy", "torch", "loopback"} <= subjects


def test_a_missing_base_package_fails_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name in ("simpy", "torch"):
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("fail") and "pip install simpy" in line for line in lines)
    assert any(line.startswith("warn") and "gnnbench[runtime]" in line for line in lines)


def test_a_check_that_breaks_is_a_warning_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def limits() -> Iterator[doctor.Finding]:
        raise RuntimeError("no such limit")
        yield

    monkeypatch.setattr(doctor, "limits", limits)
    findings = list(doctor.examine())
    broken = next(finding for finding in findings if finding.subject == "limits")
    assert broken.status == "warn"
    assert "no such limit" in broken.detail
    assert findings[-1].subject == "launcher"


def test_a_low_limit_on_open_files_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda which: (256, 1024))
    (finding,) = only("limits")
    assert (finding.status, finding.remedy) == ("warn", "ulimit -n 1024")


def test_an_interface_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo")])
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib7")
    finding = only("network")[0]
    assert finding.status == "warn"
    assert finding.detail == "GLOO_SOCKET_IFNAME=ib7 is no interface here"
    assert finding.remedy == "set it to one of lo"


def test_a_host_name_without_address_says_how_gloo_can_still_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(host: str) -> str:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    finding = only("network")[-1]
    assert finding.status == "warn"
    assert "export GLOO_SOCKET_IFNAME=lo" in finding.remedy


def test_the_loopback_round_trip_is_some_microseconds() -> None:
    assert 0.0 < doctor.loopback_round_trip_s(rounds=20) < 1.0


def test_a_kernel_cache_that_cannot_be_written_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/none")
    (finding,) = only("kernel_cache")
    assert finding.status == "fail"
    assert "NUMBA_CACHE_DIR" in finding.remedy


def test_a_read_only_installation_without_a_home_compiles_in_a_private_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel_cache, "places", lambda: (Path("/proc/a"), Path("/proc/b")))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    kernel_cache.choose()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert (folder.parent, folder.stat().st_mode & 0o777) == (tmp_path, 0o700)
    assert only("kernel_cache")[0].status == "warn"
    folder.chmod(0o777)  # where others can write, pickles of others may lie
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    kernel_cache.choose()
    assert Path(os.environ["NUMBA_CACHE_DIR"]) != folder


def test_a_launcher_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "joins RANK=1 WORLD_SIZE=4" in only("launcher")[0].detail


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NUMBA_DISABLE_JIT", "1", "not compiled"),
        ("NUMBA_NUM_THREADS", "0", "allowed >= 1"),
        ("NUMBA_NUM_THREADS", "abc", "allowed >= 1"),
        ("NUMBA_NUM_THREADS", "-2", "allowed >= 1"),
        ("NUMBA_DISABLE_JIT", "0", ""),
        ("NUMBA_NUM_THREADS", "2", ""),
        ("NUMBA_NUM_THREADS", "", ""),
    ],
)
def test_variables_that_spoil_compiled_loops_are_refused(
    name: str,
    value: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    code = cli.main(["list", "approaches"])
    error = capsys.readouterr().err
    assert (code, name in error) == ((2, True) if said else (0, False))
    assert said in error
