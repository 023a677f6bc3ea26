"""The decisions of the house, held: arrows between rooms, the public surface, sizes, safety."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gnnbench
from gnnbench import cli
from gnnbench.approaches.names import APPROACHES
from gnnbench.commands import doctor

REPO = Path(__file__).resolve().parents[2]
PACKAGES = {
    "gnnbench": REPO / "gnnbench",
    "gnnbench_runtime": REPO / "runtime" / "gnnbench_runtime",
    "gnnbench_simulator": REPO / "simulator" / "gnnbench_simulator",
    "gnnbench_reports": REPO / "reports" / "gnnbench_reports",
}
FILES = [
    (package, path)
    for package, root in PACKAGES.items()
    for path in sorted(root.rglob("*.py"))
    if "__pycache__" not in path.parts
]
ROOMS = {"gnnbench_runtime", "gnnbench_simulator", "gnnbench_reports"}
# What each package may not import at all; commands and the API are the exception, below.
FORBIDDEN = {
    "gnnbench": {"torch", "simpy", *ROOMS},
    "gnnbench_runtime": {"simpy", *(ROOMS - {"gnnbench_runtime"})},
    "gnnbench_simulator": {"torch", *(ROOMS - {"gnnbench_simulator"})},
    "gnnbench_reports": {"torch", "simpy", *(ROOMS - {"gnnbench_reports"})},
}
TOP = ("gnnbench.commands", "gnnbench.cli", "gnnbench.api")
NETWORK = {"requests", "http", "urllib.request", "urllib3", "ftplib"}
HEAVY = {"torch", "simpy", "pandas", "matplotlib", "numba", "scipy", "networkx"}
COLLECTIVES = {
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "batch_isend_irecv",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "irecv",
    "isend",
    "monitored_barrier",
    "recv",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "send",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(module: ast.AST, *, late: bool = False) -> Iterator[tuple[str, bool, int]]:
    """Yield (dotted name, whether imported late, line) of every import, also by import_module.

    Late: inside a function, or for type checkers only.
    """
    for node in ast.iter_child_nodes(module):
        inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inside = True
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield base, inside, node.lineno
            yield from ((f"{base}.{alias.name}", inside, node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            for word in node.args[:1]:
                if isinstance(word, ast.Constant) and isinstance(word.value, str):
                    yield word.value, inside, node.lineno
        yield from imports(node, late=inside)


@cache
def imports_of(path: Path) -> tuple[tuple[str, bool, int], ...]:
    return tuple(imports(tree(path)))


def called(node: ast.Call) -> str:
    """Return the last name of what is called: `load` of `np.load(...)`."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def within(name: str, parents: set[str] | tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def place(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def knows_all_rooms(path: Path) -> bool:
    return path.parent == PACKAGES["gnnbench"] / "commands" or path == REPO / "gnnbench" / "api.py"


def fresh_python(code: str) -> str:
    """Run code in an interpreter that has imported nothing of ours; return its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()[-1]


# Arrows between rooms


def test_arrows_between_rooms_point_one_way() -> None:
    wrong = [
        f"{place(path)}:{line} imports {name}"
        for package, path in FILES
        for name, late, line in imports_of(path)
        if within(name, FORBIDDEN[package]) and not (late and knows_all_rooms(path))
    ]
    assert not wrong


def test_nothing_below_the_commands_imports_them() -> None:
    above = {REPO / "gnnbench" / "cli.py", REPO / "gnnbench" / "__main__.py"}
    wrong = [
        f"{place(path)}:{line} imports {name}"
        for _, path in FILES
        if not knows_all_rooms(path) and path not in above
        for name, late, line in imports_of(path)
        if within(name, TOP) and not (late and path == REPO / "gnnbench" / "__init__.py")
    ]
    assert not wrong


def test_nothing_reaches_for_the_network() -> None:
    wrong = [
        f"{place(path)}:{line} imports {name}"
        for _, path in FILES
        for name, _, line in imports_of(path)
        if within(name, NETWORK)
    ]
    assert not wrong


def module_name(package: str, path: Path) -> str:
    """The dotted name of a file; that of the package for its __init__.py."""
    parts = [package, *path.relative_to(PACKAGES[package]).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(package, path): path for package, path in FILES}


def imported_files(path: Path) -> set[str]:
    """Files of ours that a file imports, early, late or for types only.

    `from package import module` is an import of the module, not of the package's own names.
    """
    names = [(line, name) for name, _, line in imports_of(path) if name in MODULES]
    packages = {
        (line, name)
        for line, name in names
        if any(other.startswith(name + ".") for at, other in names if at == line)
    }
    return {name for line, name in names if (line, name) not in packages}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of files in which each reaches each other."""
    reached: dict[str, set[str]] = {}
    for start in arrows:
        seen, ahead = set(), [start]
        while ahead:
            fresh = arrows.get(ahead.pop(), set()) - seen
            seen |= fresh
            ahead += fresh
        reached[start] = seen
    groups = {
        tuple(sorted({name, *(one for one in reached[name] if name in reached.get(one, set()))}))
        for name in arrows
        if name in reached[name]
    }
    return sorted(map(list, groups))


def test_files_import_each_other_in_no_circle() -> None:
    # What knows all rooms is known by none (see below), but for the lazy names of the package.
    arrows = {
        name: imported_files(path) - {name}
        for name, path in MODULES.items()
        if not knows_all_rooms(path) and name != "gnnbench"
    }
    assert circles(arrows) == []


def test_the_rule_of_circles_sees_one() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(arrows) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_the_import_rule_sees_a_late_and_a_hidden_import() -> None:
    code = "def f():\n  import torch.nn\nx = import_module('simpy')\nfrom torch import nn\n"
    found = list(imports(ast.parse(code)))
    assert ("torch.nn", True, 2) in found
    assert ("simpy", False, 3) in found
    assert ("torch.nn", False, 4) in found


def test_only_comm_calls_collectives() -> None:
    root = PACKAGES["gnnbench_runtime"]
    wrong = [
        f"{place(path)}:{node.lineno} calls {ast.unparse(node.func)}"
        for package, path in FILES
        if package == "gnnbench_runtime" and not path.relative_to(root).parts[0].startswith("comm")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in COLLECTIVES
        and ast.unparse(node.func.value) in ("dist", "distributed", "torch.distributed")
    ]
    assert not wrong


# Approaches


@cache
def texts(path: Path) -> tuple[tuple[str, int], ...]:
    """The string constants of a file that are not docstrings, with their lines."""
    nodes = list(ast.walk(tree(path)))
    told = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return tuple(
        (node.value, node.lineno)
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told
    )


def own_files(name: str) -> set[Path]:
    """Files of an approach: card, runtime file, the family's table."""
    card = APPROACHES.get(name)
    home = Path(inspect.getfile(type(card)))
    trainer = MODULES.get(card.runtime.partition(":")[0])
    return {home, home.parent / "__init__.py", *([trainer] if trainer else [])}


def test_approaches_are_named_in_files_of_approaches_only() -> None:
    """So that adding one touches its own files. An approach may name another that it extends."""
    names = APPROACHES.names()
    own = {path for name in names for path in own_files(name)}
    # The reference has a role of its own: it is the default of `Promise.reference`.
    allowed = ("single", "gnnbench/approaches/card.py")
    wrong = [
        f"{place(path)}:{line} names {text}"
        for _, path in FILES
        if path not in own
        for text, line in texts(path)
        if text in names and (text, place(path)) != allowed
    ]
    assert not wrong


# The public surface


def test_public_names_are_sorted_few_and_there() -> None:
    names = gnnbench.__all__
    assert names == sorted(names)
    assert len(names) <= 15
    for name in names:
        assert getattr(gnnbench, name) is not None, name


def test_no_module_shadows_a_public_name() -> None:
    modules = {path.stem for path in (REPO / "gnnbench").iterdir() if path.stem != "__init__"}
    assert not modules & set(gnnbench.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        gnnbench.trian  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import gnnbench, json, sys; print(json.dumps(sorted(sys.modules)))"
    assert not HEAVY & set(json.loads(fresh_python(code)))


def test_asking_for_help_imports_nothing_heavy() -> None:
    code = (
        "import contextlib, io, json, sys; from gnnbench.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['--help'])\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    modules = set(json.loads(fresh_python(code)))
    assert "gnnbench.commands.doctor" in modules
    assert not HEAVY & modules
    assert not ROOMS & modules


def test_every_command_is_in_a_module_of_its_name() -> None:
    commands = cli.discover()
    assert commands
    for name, command in commands.items():
        assert command.__name__ == f"gnnbench.commands.{name.replace('-', '_')}"
        assert command.HELP
        assert "\n" not in command.HELP


# Files


def test_a_file_stays_under_500_lines() -> None:
    lines = {place(path): path.read_text(encoding="utf-8").count("\n") for _, path in FILES}
    assert {name: count for name, count in lines.items() if count > 500} == {}


def test_a_module_says_what_it_is() -> None:
    assert [place(path) for _, path in FILES if not ast.get_docstring(tree(path))] == []


def test_only_commands_print() -> None:
    commands = {REPO / "gnnbench" / "cli.py", *(REPO / "gnnbench" / "commands").glob("*.py")}
    wrong = [
        f"{place(path)}:{node.lineno}"
        for _, path in FILES
        if path not in commands
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert not wrong


# Safety


def unsafe(module: ast.Module) -> Iterator[str]:
    """Yield what could run a stranger's code: unpickling, shells, eval."""
    for node in ast.walk(module):
        bases = node.bases if isinstance(node, ast.ClassDef) else []
        if any("Unpickler" in ast.unparse(base) for base in bases):
            yield f"{node.lineno}: class {ast.unparse(bases[0])} unpickles"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in ("eval", "exec", "os.system", "os.popen", "yaml.load"):
            yield f"{node.lineno}: {name}"
        if name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "np.lib.format.read_array"):
            yield f"{node.lineno}: {name}"
        if name == "torch.load" and keywords.get("weights_only") != "True":
            yield f"{node.lineno}: torch.load without weights_only=True"
        if keywords.get("allow_pickle", "False") != "False":
            yield f"{node.lineno}: allow_pickle"
        if keywords.get("shell", "False") != "False":
            yield f"{node.lineno}: shell"


def test_nothing_can_run_a_strangers_code() -> None:
    found = [f"{place(path)}:{line}" for _, path in FILES for line in unsafe(tree(path))]
    # Planetoid files are pickles; one restricted unpickler admits numpy and scipy only.
    (allowed,) = [line for line in found if "class" in line]
    assert allowed.startswith("gnnbench/data/formats/planetoid.py:")
    assert found == [allowed]


@pytest.mark.parametrize(
    "code",
    [
        "pickle.load(f)",
        "np.load(f, allow_pickle=True)",
        "subprocess.run(x, shell=True)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "eval(x)",
        "class U(pickle.Unpickler): pass",
    ],
)
def test_the_safety_rule_sees(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


# The repository


def tracked() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [REPO / name for name in listed.split("\0") if name and (REPO / name).is_file()]


# Spelt in pieces, so that this file passes its own rule.
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:work|tmp|root|home|Users)" + r"/\w")


def test_no_tracked_file_names_a_path_of_some_machine() -> None:
    wrong = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = text.splitlines()
        wrong += [
            f"{path.name}:{n}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)
        ]
    assert not wrong


def test_no_tracked_file_is_over_two_mib() -> None:
    assert not [path.name for path in tracked() if path.stat().st_size > 2 * 2**20]


@pytest.mark.parametrize("target", ["quickstart", "test", "check", "docs", "bench", "gpu-check"])
def test_the_makefile_has_the_target(target: str) -> None:
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_source_root_says_what_it_may_import() -> None:
    for root in ("gnnbench", "runtime", "simulator", "reports"):
        assert "may import" in (REPO / root / "README.md").read_text(encoding="utf-8").lower()


MOST_SKIPPED = 19


def test_few_statements_escape_the_formatter() -> None:
    mark = "# fmt: " + "skip"  # in pieces, so that this line is none
    files = [path for path in tracked() if path.suffix == ".py"]
    found = {path: path.read_text(encoding="utf-8").count(mark) for path in files}
    where = {place(path): count for path, count in found.items() if count}
    assert sum(where.values()) <= MOST_SKIPPED, where


def test_the_agents_page_stays_short() -> None:
    assert len((REPO / "AGENTS.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_the_doctor_knows_every_dependency() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> list[str]:
        return sorted(re.split(r"[<>=!~\[; ]", line)[0] for line in requirements)

    assert sorted(doctor.BASE_PACKAGES) == names(project["dependencies"])
    assert sorted(doctor.RUNTIME_PACKAGES) == names(project["optional-dependencies"]["runtime"])


def test_every_dependency_is_pinned_for_development() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(line for extra in extras for line in extra)]
    lines = (REPO / "constraints-dev.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    names = {re.split(r"[<>=!~\[; ]", line)[0].lower() for line in wanted} - {"gnnbench"}
    assert not names - pinned
