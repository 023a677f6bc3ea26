"""The page of the Python interface, written from the public names of `gnnbench`."""

from __future__ import annotations

import inspect

from page import prose

import gnnbench
from gnnbench import api


def pages() -> dict[str, str]:
    """The page, by path."""
    lines = [
        "# Python",
        "",
        "```python",
        "import gnnbench as gb",
        "```",
        "",
        "The functions do what the commands of the same name do. Importing the package loads",
        "nothing heavy; a function imports what it needs when it is called. Errors are of the type",
        "`gb.GnnbenchError`.",
        "",
    ]
    functions = [name for name in gnnbench.__all__ if hasattr(api, name)]
    types = [name for name in gnnbench.__all__ if name not in functions]
    for name in functions:
        lines += _function(name)
    lines += ["## Types", ""]
    for name in types:
        lines += [f"### gb.{name}", "", prose(inspect.getdoc(getattr(gnnbench, name)) or ""), ""]
    lines += ["## What functions return", ""]
    for title, cls in _returned().items():
        lines += [f"### {title}", "", prose(inspect.getdoc(cls) or ""), "", *_members(cls)]
    return {"python.md": "\n".join(lines)}


def _function(name: str) -> list[str]:
    function = getattr(api, name)
    parameters = inspect.signature(function).parameters.values()
    called = [f"    {parameter}," for parameter in _starred(list(parameters))]
    answer = function.__annotations__.get("return", "None")
    signature = "\n".join([f"gb.{name}(", *called, f") -> {answer}"])
    doc = prose(inspect.getdoc(function) or "")
    return [f"## gb.{name}", "", "```python", signature, "```", "", doc, ""]


def _starred(parameters: list[inspect.Parameter]) -> list[str]:
    """The parameters as written, with the star before those that are given by name."""
    shown: list[str] = []
    star = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        shown.append(_written(parameter))
    return shown


def _written(parameter: inspect.Parameter) -> str:
    """A parameter with its type and default, as source has it."""
    star = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
    text = f"{star}{parameter.name}: {parameter.annotation}"
    if parameter.default is parameter.empty:
        return text
    default = parameter.default
    return f"{text} = " + (f'"{default}"' if isinstance(default, str) else repr(default))


def _returned() -> dict[str, type]:
    """The classes of answers, by the function that gives them."""
    from gnnbench.commands.advised import Advised
    from gnnbench.results import PredictionRecord, RunRecord
    from gnnbench_reports.compared import Compared, Figure

    return {
        "RunRecord (run)": RunRecord,
        "PredictionRecord (predict)": PredictionRecord,
        "Compared (compare)": Compared,
        "Figure (compare(...).figure)": Figure,
        "Advised (advise)": Advised,
    }


def _members(cls: type) -> list[str]:
    """The public properties and methods of a class that it defines itself."""
    lines = []
    for name, member in vars(cls).items():
        documented = isinstance(member, property) or inspect.isfunction(member)
        if documented and not name.startswith("_") and inspect.getdoc(member):
            call = name if isinstance(member, property) else f"{name}(...)"
            lines += [f"**`.{call}`**", "", prose(inspect.getdoc(member) or ""), ""]
    return lines
