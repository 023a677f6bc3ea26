"""What a user sees when a command ends: its exit code, one or two lines, no traceback."""

from __future__ import annotations

import argparse
import ctypes
import errno
import importlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gnnbench import __version__, cli
from gnnbench.commands import options
from gnnbench.errors import RunFailed, SpecError

NO_RANKS = "is not a list of rank counts such as 1,2,4 of at most 1,000,000"


def command_that(act: Callable[[argparse.Namespace], int]) -> SimpleNamespace:
    return SimpleNamespace(
        NAME="try", HELP="try something", add_arguments=options.add_ranks, run=act
    )


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.fixture
def end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Return (exit code, stderr) of a command that does what is given."""

    def ends(act: Callable[[argparse.Namespace], int], *words: str) -> tuple[int, str]:
        monkeypatch.setattr(cli, "discover", lambda: {"try": command_that(act)})
        return cli.main(["try", *words]), capsys.readouterr().err

    return ends


def test_a_command_that_is_done_exits_with_what_it_returned(end) -> None:
    assert end(lambda args: 0) == (0, "")
    assert end(lambda args: 1) == (1, "")


def test_a_wrong_specification_exits_2_and_lists_every_problem(end) -> None:
    code, said = end(raising(SpecError(["a.toml: x", "a.toml: y"])))
    assert (code, said) == (2, "gnnbench: error: a.toml: x\na.toml: y\n")


def test_a_failed_run_exits_1_with_rank_and_phase(end) -> None:
    code, said = end(raising(RunFailed("killed by signal 9", rank=3, phase="forward")))
    assert (code, said) == (
        1,
        "gnnbench: error: rank 3 in phase forward: killed by signal 9\n",
    )


def test_ctrl_c_exits_130_and_says_what_is_kept(end) -> None:
    assert end(raising(KeyboardInterrupt())) == (130, "interrupted: finished runs are kept\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_with_the_file(end, number: int) -> None:
    code, said = end(raising(OSError(number, os.strerror(number), "results/a.csv")))
    assert code == 1
    assert said.count("\n") == 1
    assert "the disk is full writing results/a.csv" in said


def test_a_folder_that_may_not_be_written_is_one_line(end) -> None:
    code, said = end(raising(PermissionError(errno.EACCES, "Permission denied", "results")))
    assert (code, said) == (1, "gnnbench: error: results: Permission denied\n")


def test_too_little_memory_is_one_line(end) -> None:
    code, said = end(raising(MemoryError()))
    assert code == 1
    assert said.count("\n") == 1
    assert "too little memory" in said


def test_any_other_exception_is_a_bug_and_says_so(end) -> None:
    code, said = end(raising(ZeroDivisionError("division\nby zero")))
    assert code == 1
    assert "a bug, not your mistake: ZeroDivisionError: division by zero" in said
    assert "--debug" in said
    assert "Traceback" not in said
    assert said.count("\n") == 2


def test_debug_shows_the_trace(end) -> None:
    code, said = end(raising(SpecError("x")), "--debug")
    assert code == 2
    assert "Traceback" in said
    assert said.endswith("gnnbench: error: x\n")


def test_a_broken_pipe_between_our_processes_is_not_silent(end) -> None:
    code, said = end(raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert code == 1
    assert "a bug" in said


def test_a_misspelt_command_is_answered_with_what_was_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["docter"]) == 2
    said = capsys.readouterr().err
    assert said == "gnnbench: error: unknown command 'docter': did you mean 'doctor'?\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--jsn"], "unrecognised argument '--jsn'; did you mean --json?"),
        (["--ranks", "1,x"], f"argument --ranks: '1,x' {NO_RANKS}"),
        (["--ranks", "0"], f"argument --ranks: '0' {NO_RANKS}"),
        (["--ranks"], "argument --ranks: expected one argument"),
    ],
)
def test_a_wrong_argument_is_one_line_that_says_where_help_is(
    end, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        end(lambda args: 0, *words)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said == f"gnnbench: error: {line} (see gnnbench try --help)\n"


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_every_command_takes_json_and_debug() -> None:
    for name, command in cli.discover().items():
        parser = cli.build_parser({name: command})
        usage = parser._subparsers._group_actions[0].choices[name].format_help()
        assert "--json" in usage
        assert "--debug" in usage


def test_rank_counts_come_sorted_and_once() -> None:
    assert options.rank_counts("4, 1,2,4") == (1, 2, 4)


def test_a_reader_that_leaves_early_ends_the_command_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "gnnbench", "doctor", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_the_version_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gnnbench", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"gnnbench {__version__}\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "demo", "--results", "file"], "--results: file: file is not a folder"),
        (["predict", "demo", "--results", "file/x"], "--results: file/x: file is not a folder"),
        (["predict", "demo", "--trace", "folder"], "--trace: folder is a folder: name a file"),
        (["calibrate", "--out", "folder"], "--out: folder is a folder: name a file"),
        (["report", "folder", "--out", "file"], "--out: file: file is not a folder"),
        (["dataset", "uniform", "--save", "folder"], "--save: folder is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words, line
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert f"gnnbench: error: argument {line}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_folder_without_results_is_an_error(tmp_path, capsys, command: str) -> None:
    assert cli.main([command, str(tmp_path)]) == 2
    assert "holds no runs and no predictions" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(21, "Is a directory", "a~", None, "b"), "gnnbench: error: b: Is a directory"),
        (OSError("20001 requested and 13808 written"), "gnnbench: error: the disk is full"),
        (OSError(20, "Not a directory", "f/x"), "gnnbench: error: f/x: Not a directory"),
    ],
)
def test_errors_of_the_system_are_one_line(end, error: OSError, line: str) -> None:
    def fails(args: object) -> int:
        raise error

    code, said = end(fails)
    assert code == 1
    assert said.startswith(line)
    assert said.count("\n") == 1


def test_characters_that_an_encoding_lacks_are_replaced() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gnnbench", "dataset", "uniform", "--parts", "none"),
            *("--option", "num_nodes=9", "--option", "mean_degree=2"),
        ],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout


def test_a_signal_during_an_import_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba's compiled modules make an ImportError of an interrupt in their midst."""
    (tmp_path / "interrupted_module.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nFINISHED = True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(signal, "default_int_handler", signal.getsignal(signal.SIGINT))
    with cli._listening():
        assert importlib.import_module("interrupted_module").FINISHED
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, cli.Terminated)]
)
def test_a_signal_that_a_callback_of_a_c_library_loses_is_sent_again(
    number: signal.Signals,
    raised: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """numba's compiler calls back through ctypes, where Python drops every exception."""
    monkeypatch.setattr(signal, "default_int_handler", signal.getsignal(signal.SIGINT))

    def called() -> int:
        os.kill(os.getpid(), number)
        return 7

    callback = ctypes.CFUNCTYPE(ctypes.c_int)(called)
    hook = sys.unraisablehook
    with cli._listening():
        callback()
        with pytest.raises(raised):
            time.sleep(10)
    assert sys.unraisablehook is hook
    assert capsys.readouterr().err == ""


def test_a_signal_while_an_error_is_printed_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", Stream())
    assert cli.main(["info", "no-such-thing"]) == cli.TERMINATED
