"""Pages of the commands, written from their argument parsers."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from page import code, inline, link, prose, table

from gnnbench import cli


class _Wide(argparse.HelpFormatter):
    """Usage lines of one width, whatever the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=88)


def pages() -> dict[str, str]:
    """One page per command and an index, by path."""
    known = cli.discover()
    parsers = _choices(cli.build_parser(known))
    made = {"commands/index.md": _index(known)}
    for name, command in sorted(known.items()):
        made[f"commands/{name}.md"] = _page(name, command, parsers[name])
    return made


def _index(known: dict[str, Any]) -> str:
    rows = [
        {
            "command": link(f"gnnbench {name}", f"{name}.html"),
            "what it does": inline(c.HELP),
        }
        for name, c in sorted(known.items())
    ]
    return "\n".join(
        [
            "# Commands",
            "",
            "These pages are written from the argument parsers, so they list what `--help` lists.",
            "Every command takes `--json`, which prints one JSON document, and `--debug`, which",
            "shows the full trace of an error. Exit codes: 0 done, 1 failed, 2 wrong usage.",
            "",
            table(rows),
            "",
        ]
    )


def _page(name: str, command: Any, parser: argparse.ArgumentParser) -> str:
    lines = [f"# gnnbench {name}", "", f"<p>{inline(_sentence(command.HELP))}</p>", ""]
    more = _more(command)
    if more:
        lines += [prose(more), ""]
    lines += _usage(parser)
    for title, inner in _choices(parser).items():
        lines += [f"## {name} {title}", "", *_described(inner), *_usage(inner)]
    return "\n".join(lines)


def _usage(parser: argparse.ArgumentParser) -> list[str]:
    """The call and a table of its arguments."""
    parser.formatter_class = _Wide
    lines = ["```text", parser.format_usage().removeprefix("usage: ").rstrip(), "```", ""]
    rows = [_row(action) for action in _arguments(parser)]
    return [*lines, table(rows), ""] if rows else lines


def _described(parser: argparse.ArgumentParser) -> list[str]:
    return [f"<p>{inline(_sentence(parser.description))}</p>", ""] if parser.description else []


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """What can be typed after the command, without the options that all commands share."""
    for action in parser._actions:
        shared = {"--help", "--json", "--debug"} & set(action.option_strings)
        if not shared and not isinstance(action, argparse._SubParsersAction):
            yield action


def _row(action: argparse.Action) -> dict[str, str]:
    words = action.metavar or action.dest.upper()
    name = words if isinstance(words, str) else " ".join(words)
    if action.option_strings:
        takes = f" {name}" if action.nargs != 0 else ""
        name = ", ".join(action.option_strings) + takes
    help_text = _expanded(action) if action.help else ""
    needed = action.required if action.option_strings else action.nargs not in ("?", "*")
    return {
        "argument": code(name),
        "meaning": inline(help_text),
        "allowed": ", ".join(code(choice) for choice in action.choices or ()),
        "default": "required" if needed else _default(action),
    }


def _default(action: argparse.Action) -> str:
    if action.nargs == 0 or action.default in (None, [], (), argparse.SUPPRESS, ""):
        return ""
    return code(action.default)


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a command's own commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _more(command: Any) -> str:
    """What a command's module says after its first line."""
    module = sys.modules.get(command.__name__, command)
    text = inspect.getdoc(module) or ""
    return text.partition("\n\n")[2]


def _sentence(text: str) -> str:
    """A help line as a sentence; a name at its start keeps its case."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _expanded(action: argparse.Action) -> str:
    """The help of an argument with its own values in place of %(default)s and the like."""
    return argparse.HelpFormatter(prog="gnnbench")._expand_help(action)
