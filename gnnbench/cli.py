"""The command line: find the commands, parse, run one, turn errors into a line and an exit code.

Exit codes: 0 done, 1 failed (a run, a check of the machine, or a bug of ours), 2 wrong usage
(arguments, suite, cluster or data files); 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pkgutil import iter_modules
from types import FrameType
from typing import Any, NoReturn, Protocol, cast

from gnnbench import __version__, commands, kernel_cache
from gnnbench.errors import GnnbenchError, UnknownName, disk_is_full

OK, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

_AGAIN_S = 0.05
"""Seconds until a signal that could not end the process where it came is sent again."""
# What a path that a user named, or the medium it lies on, can be blamed for.
_OF_PATHS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.EFBIG, errno.ENOTEMPTY),
}


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers send it to cancel a job."""


class Command(Protocol):
    """What a module in gnnbench/commands offers to become a command."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, args: argparse.Namespace) -> int: ...


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line and say where help is."""

    def error(self, message: str) -> NoReturn:
        missing = message.partition("are required: ")[2].split(", ")
        for action in self._actions:
            # All commands are what --help lists.
            if action.choices and action.metavar in missing and action.dest != "command":
                message += f", one of {', '.join(map(str, action.choices))}"
        self.exit(USAGE, f"gnnbench: error: {message} (see {self.prog} --help)\n")


def discover() -> dict[str, Command]:
    """Return the commands by name: every module of gnnbench/commands that states NAME."""
    found: dict[str, Command] = {}
    for info in iter_modules(commands.__path__):
        module = import_module(f"{commands.__name__}.{info.name}")
        if hasattr(module, "NAME"):
            found[module.NAME] = cast(Command, module)
    return found


def build_parser(known: dict[str, Command]) -> Parser:
    """Return the parser of all commands; each of them takes --json and --debug."""
    shared = Parser(add_help=False)
    group = shared.add_argument_group("on every command")
    group.add_argument("--json", action="store_true", help="print one JSON document to stdout")
    group.add_argument("--debug", action="store_true", help="show the full trace of an error")
    parser = Parser(
        prog="gnnbench",
        description="Train GNNs with distributed methods, predict the same runs, compare both.",
        epilog="exit codes: 0 done, 1 failed, 2 wrong usage",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gnnbench {__version__}")
    verbs = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name, command in known.items():
        verb = verbs.add_parser(
            name,
            parents=[shared],
            help=command.HELP,
            description=command.HELP,
            allow_abbrev=False,
        )
        command.add_arguments(verb)
        verb.set_defaults(command_parser=verb, command_run=command.run)
    return parser


def parse(argv: Sequence[str], known: dict[str, Command]) -> argparse.Namespace:
    """Parse the arguments; a misspelt command or option is answered with what was meant."""
    first = next((word for word in argv if not word.startswith("-")), None)
    if first is not None and first not in known:
        raise UnknownName("command", first, known)
    args, extra = build_parser(known).parse_known_args(argv)
    if extra:
        parser: Parser = args.command_parser
        options = [option for action in parser._actions for option in action.option_strings]
        close = difflib.get_close_matches(extra[0].split("=")[0], options, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        parser.error(f"unrecognised argument {extra[0]!r}{hint}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing a user can cause shows a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    _say_what_can_be_said()
    if threading.current_thread() is not threading.main_thread():
        return _run(words)
    with _listening():
        try:
            code = _run(words)
        except KeyboardInterrupt as late:  # while another outcome was being said
            code = TERMINATED if isinstance(late, Terminated) else INTERRUPTED
    if argv is None and code in (INTERRUPTED, TERMINATED):
        # Objects of libraries that were half made fail when the interpreter deletes them.
        sys.unraisablehook = _say_nothing
    return code


def _run(words: list[str]) -> int:
    debug = "--debug" in words
    try:
        args = parse(words, discover())
        kernel_cache.check_settings()
        code: int = args.command_run(args)
        sys.stdout.flush()
        return code
    except Terminated:
        return _end("ended by SIGTERM: finished runs are kept", TERMINATED, debug)
    except KeyboardInterrupt:
        return _end("interrupted: finished runs are kept", INTERRUPTED, debug)
    except GnnbenchError as error:
        return _end(f"gnnbench: error: {error}", error.exit_code, debug)
    except MemoryError:
        line = "gnnbench: error: this machine has too little memory: use a smaller graph or batch"
        return _end(line, FAILED, debug)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            return OK
        return _end(_system_error(error), FAILED, debug)
    except Exception as error:
        return _end(_bug(error), FAILED, debug)


def _say_what_can_be_said() -> None:
    """Replace characters that the encoding of a terminal or pipe lacks; a report has its own.

    Where a stream is closed, as daemons leave it, what is printed goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (kept open)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def _listening() -> Iterator[None]:
    """While it lasts, SIGTERM and SIGINT end the command by an exception, as Ctrl-C does.

    An ignored SIGINT stays ignored: shells start background jobs so.
    """
    say, ends = sys.unraisablehook, False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal ends
        if _is_importing(frame):
            # Compiled modules make another exception of one during their import, and print a trace.
            _send_again(number)
            return
        ends = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
        raise Terminated

    def not_lost(unraisable: sys.UnraisableHookArgs) -> None:
        # Python drops what a handler raises inside a finaliser or a callback of a C library.
        if isinstance(unraisable.exc_value, Terminated):
            signal.signal(signal.SIGTERM, stop)
            _send_again(signal.SIGTERM)
        elif isinstance(unraisable.exc_value, KeyboardInterrupt):
            _send_again(signal.SIGINT)
        elif not ends:
            say(unraisable)

    before: dict[int, Any] = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    sys.unraisablehook = not_lost
    try:
        yield
    finally:
        sys.unraisablehook = say
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_nothing(_: sys.UnraisableHookArgs) -> None:
    """What went wrong in an object that nobody holds any more."""


def _send_again(number: int) -> None:
    later = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
    later.daemon = True
    later.start()


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported since the command began."""
    while frame is not None and frame.f_code is not _run.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end(line: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(line, file=sys.stderr)
    return code


def _system_error(error: OSError) -> str:
    named = error.filename2 or error.filename
    where = f" writing {named}" if named else ""
    if disk_is_full(error):
        return f"gnnbench: error: the disk is full{where}: free some space; finished runs are kept"
    if error.errno in _OF_PATHS:
        return f"gnnbench: error: {named or _nameless()}: {error.strerror}"
    if error.errno == errno.EMFILE:
        return "gnnbench: error: too many open files: raise the limit, for example `ulimit -n 4096`"
    return _bug(error)


def _nameless() -> str:
    """What a system error without a path is about: the current folder, if it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return "the current folder, which is gone: change to another"


def _bug(error: Exception) -> str:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"gnnbench: a bug, not your mistake: {said}\n"
        "  the same command with --debug shows the full trace; please report it"
    )


def _reader_has_left() -> bool:
    """Tell whether stdout's reader closed it (`| head`), and if so silence what is left to flush.

    A broken pipe between our own processes must not pass for that.
    """
    try:
        descriptor = sys.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        left = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return left


if __name__ == "__main__":
    sys.exit(main())
