"""Suites: TOML files that name many runs as products of lists.

    schema = 2
    name = "mine"

    [datasets.demo]
    generator = "planted_partition"
    options = { num_nodes = 10000, mean_degree = 15 }

    [models.gcn]
    hidden = 64

    [batch]
    size = 1024
    fanouts_from_seeds = [15, 10]

    [training]
    epochs = 10

    [[runs]]
    dataset = "demo"
    model = "gcn"
    approach = ["single", "partition", "sampled"]
    ranks = [1, 2]
    knobs = { partitioner = "metis", sampled = { prefetch = 2 } }

An entry may override the tables `batch`, `training` and `memory`; `seeds = [0, 1]` runs it once per
seed. A knob is set for every approach of the entry that has it; a table under an approach's name
sets knobs of that approach only. Every problem of a file is reported at once; unknown keys are
problems in every table.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from gnnbench.approaches.base import shared_knobs
from gnnbench.approaches.names import APPROACHES, knob_names
from gnnbench.data.source import reference_problems
from gnnbench.errors import SpecError, UnknownName, suggest
from gnnbench.metrics import TASKS
from gnnbench.models.names import MODELS
from gnnbench.spec import (
    BatchSpec,
    DatasetRef,
    MemorySpec,
    ModelSpec,
    RunSpec,
    TaskSpec,
    TrainingSpec,
)
from gnnbench.strict import bounds, build, convert, raise_all, read_toml
from gnnbench.units import size_bytes

SCHEMA = 2
_MOST_OF_A_NAME = 80
"""Bytes of a name in UTF-8. Two of them and more lie in a file's name, which has 255 at most."""
_FOLDER = Path(__file__).parent / "catalogue" / "suites"
TOP = (
    *("schema", "name", "description", "datasets", "tasks", "models"),
    *("batch", "training", "memory", "runs"),
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A named list of runs. `runs` is in execution order: repeats are interleaved."""

    name: str
    description: str
    runs: tuple[RunSpec, ...]
    folder: Path | None = None

    def configurations(self) -> tuple[RunSpec, ...]:
        """The runs with repeat 0: one per configuration."""
        return tuple(run for run in self.runs if run.repeat == 0)

    def chosen(self, *, only: str | None = None, repeats: int | None = None) -> list[RunSpec]:
        """The runs to do; repeats stay interleaved.

        Args:
            only: a pattern that run ids must match, such as "*-partition-*".
            repeats: of each configuration, instead of the suite's own.

        Raises:
            SpecError: nothing matches.
        """
        from fnmatch import fnmatchcase

        runs = list(self.runs)
        if repeats is not None:
            configurations = self.configurations()
            runs = [
                dataclasses.replace(r, repeat=n) for n in range(repeats) for r in configurations
            ]
        if only is not None:
            matching = [r for r in runs if fnmatchcase(r.run_id, only)]
            if not matching:
                raise SpecError(
                    f"--only {only!r} matches no run; a run id is like {runs[0].run_id!r}"
                )
            runs = matching
        return runs

    def at_ranks(self, ranks: Sequence[int] | None) -> list[RunSpec]:
        """The configurations, at other rank counts if asked; each once.

        An approach that cannot run at a rank count is left out there, unless the suite asks for it.
        """
        moved = self._moved(ranks)
        return list({run.config_id: run for run, reason in moved if reason is None}.values())

    def left_out(self, ranks: Sequence[int] | None) -> list[str]:
        """A line for each approach that `at_ranks` left out: at which counts, and the first reason.

        Example: "left out: single on 2, 4 ranks: single runs on 1 rank, 2 asked".
        """
        reasons: dict[str, dict[int, str]] = {}
        for run, reason in self._moved(ranks):
            if reason is not None:
                reasons.setdefault(run.approach, {})[run.ranks] = reason
        return [
            f"left out: {name} on {', '.join(map(str, at))} ranks: {next(iter(at.values()))}"
            for name, at in reasons.items()
        ]

    def _moved(self, ranks: Sequence[int] | None) -> Iterator[tuple[RunSpec, str | None]]:
        """Each configuration at each rank count, with the reason why it is left out there."""
        for run in self.configurations():
            for count in (run.ranks,) if ranks is None else ranks:
                # Runs of other rank counts than the suite's own are checked here; the suite's were
                # checked when it was read.
                moved = dataclasses.replace(run, ranks=count)
                asked = count == run.ranks
                yield moved, None if asked else APPROACHES.get(run.approach).cannot_run(moved)


def suite_files() -> dict[str, Path]:
    """Return the built-in suites: name to file."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find_suite(name: str) -> Suite:
    """Return a built-in suite by name, or the suite of a file.

    A text with a slash or the ending .toml is a file. Raises UnknownName or SpecError.
    """
    # Built-in names win over files without a slash, so that a file named demo does not shadow the
    # suite.
    known = suite_files()
    if name in known:
        return load_suite(known[name])
    path = Path(name)
    if path.is_file():
        return load_suite(path)
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise SpecError(
            f"{name}: no such suite file; built-in suites: {', '.join(known) or 'none'}"
        )
    raise UnknownName("suite", name, known)


def load_suite(path: Path) -> Suite:
    """Read a suite file; SpecError lists every problem of the file."""
    return parse_suite(read_toml(path), str(path), folder=path.parent)


def parse_suite(table: Mapping[str, Any], where: str, *, folder: Path | None = None) -> Suite:
    """Turn a parsed TOML table into a suite. Knobs and names are checked."""
    parser = _Parser(table, where)
    runs = parser.runs()
    raise_all(dict.fromkeys(parser.problems))  # several runs of an entry find the same problem
    # Entries may overlap; a run is done once.
    unique: dict[str, RunSpec] = {}
    for run in runs:
        unique.setdefault(run.run_id, run)
    # Sorting is stable: within a repeat, entries keep their order.
    return Suite(
        name=str(table.get("name", "suite")),
        description=str(table.get("description", "")),
        runs=tuple(sorted(unique.values(), key=lambda run: run.repeat)),
        folder=folder,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsTable:
    """An entry [[runs]]: the product of its lists.

    Args:
        dataset, model, task: names of tables of the suite; "" is the dataset's default task.
        approach: names of approaches.
        ranks: numbers of ranks; an approach that cannot run on one is skipped with a reason.
        repeats: of each configuration; repeats are interleaved.
        seeds: one configuration per seed, instead of the seed of [training].
        knobs: of the approaches; a table under an approach's name is for that approach only.
        batch, training, memory: keys of these tables that differ for this entry.
    """

    dataset: str | tuple[str, ...]
    model: str | tuple[str, ...]
    approach: str | tuple[str, ...]
    ranks: int | tuple[int, ...] = field(default=1, metadata=bounds(1, 1_000_000))
    task: str | tuple[str, ...] = ""
    repeats: int = field(default=1, metadata=bounds(1, 1000))
    seeds: int | tuple[int, ...] = field(default=(), metadata=bounds(0, 2**31 - 1))
    knobs: dict[str, Any] = field(default_factory=dict)
    batch: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)


class _Parser:
    """Reads one suite table, gathering every problem."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self.table, self.where = table, where
        self.problems: list[str] = []
        # Problems are gathered instead of raised: a user mends a file once, not once per problem.
        self._check_top()
        self.datasets = self._named(DatasetRef, "datasets")
        self._check_datasets()
        self.models = self._named(ModelSpec, "models")
        self._check_models()
        self.tasks: dict[str, TaskSpec | None] = {"": TaskSpec(), **self._named(TaskSpec, "tasks")}
        self._check_tasks()
        self.base = {key: self._table(key) for key in ("batch", "training", "memory")}

    def _check_top(self) -> None:
        for key in self.table:
            if key not in TOP:
                self.problems.append(f"{self.where}: {key}: unknown key, {suggest(key, TOP)}")
        found = self.table.get("schema", SCHEMA)
        if found != SCHEMA:
            self.problems.append(f"{self.where}: schema: found {found!r}, allowed: {SCHEMA}")
        for key in ("name", "description"):
            value = self.table.get(key, "")
            if not isinstance(value, str):
                self.problems.append(f"{self.where}: {key}: found {value!r}, expected text")

    def _named(self, cls: type[T], key: str) -> dict[str, T | None]:
        """Tables [key.NAME] as objects with the field `name`."""
        table, where = self.table.get(key, {}), f"{self.where}: {key}"
        if not isinstance(table, Mapping):
            self.problems.append(f"{where}: found {table!r}, expected tables [{key}.NAME]")
            return {}
        found: dict[str, T | None] = {}
        for name, entry in table.items():
            if not 0 < len(name.encode()) <= _MOST_OF_A_NAME:
                self.problems.append(
                    f"{where}: name {name[:20]!r}: found {len(name.encode())} bytes, allowed "
                    f"1..{_MOST_OF_A_NAME}: names of files are made of it"
                )
            if isinstance(entry, Mapping):
                # These fields are filled in by the reader; a value of the user's would be
                # overwritten silently.
                for own in ("name", "digest"):
                    if own in entry and own in {f.name for f in dataclasses.fields(cls)}:  # type: ignore[arg-type]
                        self.problems.append(f"{where}.{name}.{own}: unknown key, it is filled in")
                entry = {**entry, "name": name}
            found[name] = build(cls, entry, f"{where}.{name}", self.problems)
        return found

    def _table(self, key: str) -> Mapping[str, Any]:
        table = self.table.get(key, {})
        if not isinstance(table, Mapping):
            self.problems.append(f"{self.where}: {key}: found {table!r}, expected a table")
            return {}
        self._section(key, table, f"{self.where}: {key}", self.problems)
        return table

    def _check_datasets(self) -> None:
        for name, ref in self.datasets.items():
            if ref is not None:
                place = f"{self.where}: datasets.{name}"
                self.problems += [f"{place}.{line}" for line in reference_problems(ref)]

    def _check_models(self) -> None:
        for name, model in self.models.items():
            raw = self.table["models"][name]
            # The kind of a model that could not be built is still checked, because its error may
            # explain the others.
            broken = raw.get("kind") if isinstance(raw, Mapping) else None
            kind, place = (
                model.kind if model is not None else broken,
                f"{self.where}: models.{name}",
            )
            if isinstance(kind, str) and kind and kind not in MODELS.known:
                line = suggest(kind, MODELS.names())
                self.problems.append(f"{place}.kind: unknown model {kind!r}, {line}")
            elif model is not None:
                self.problems += [
                    f"{place}.{line}" for line in MODELS.get(model.kind).problems(model)
                ]

    def _check_tasks(self) -> None:
        """A task's metric is one that its kind yields; the kind may be the dataset's own."""
        for name, task in self.tasks.items():
            if task is not None and task.metric:
                # A task without a kind takes the dataset's, which is not known before the dataset
                # is opened.
                kinds = [task.kind] if task.kind else list(TASKS)
                known = {metric for kind in kinds for metric in TASKS[kind].metrics}
                if task.metric not in known:
                    self.problems.append(
                        f"{self.where}: tasks.{name}.metric: unknown metric {task.metric!r}, "
                        f"{suggest(task.metric, known)}"
                    )

    # -- entries ---------------------------------------------------------------------------------

    def runs(self) -> list[RunSpec]:
        """The runs of all entries."""
        entries = self.table.get("runs", [])
        if not isinstance(entries, list) or not entries:
            self.problems.append(f"{self.where}: runs: needs at least one [[runs]] entry")
            return []
        runs: list[RunSpec] = []
        for number, entry in enumerate(entries):
            place = f"{self.where}: runs[{number}]"
            if isinstance(entry, Mapping) and entry.get("seeds") == []:
                self.problems.append(f"{place}.seeds: found an empty list, expected at least one")
            parsed = build(RunsTable, entry, place, self.problems) or _salvaged(entry)
            if parsed is not None:
                runs += self._entry(parsed, place)
        return runs

    def _entry(self, parsed: RunsTable, place: str) -> Iterator[RunSpec]:
        # Named axes in one fixed order, so that the order of runs does not depend on the file's
        # order of keys.
        axes = {
            key: _listed(getattr(parsed, key))
            for key in ("dataset", "model", "task", "approach", "ranks")
        }
        self._check_axes(axes, place)
        # Unknown names were reported above; the known ones are still checked.
        cards = {
            name: APPROACHES.get(name) for name in axes["approach"] if name in APPROACHES.known
        }
        dealt = (
            shared_knobs(parsed.knobs, cards, knob_names(), f"{place}.knobs", self.problems)
            if cards
            else {}
        )
        knobs = {
            name: card.parse_knobs(dealt[name], f"{place}.knobs", self.problems)
            for name, card in cards.items()
        }
        self._check_seeds(_listed(parsed.seeds), place)
        batch = self._override("batch", parsed.batch, place)
        training = self._override("training", parsed.training, place)
        memory = self._override("memory", parsed.memory, place)
        for seed in _listed(parsed.seeds) or [training.seed]:
            seeded = dataclasses.replace(training, seed=seed)
            for repeat, dataset, model, task, approach, ranks in itertools.product(
                range(parsed.repeats), *axes.values()
            ):
                parts = self.datasets.get(dataset), self.models.get(model), self.tasks.get(task)
                if None in parts or knobs.get(approach) is None:
                    continue  # said above, or where the dataset, model or task is defined
                ref, spec, learnt = parts
                assert ref is not None and spec is not None and learnt is not None
                run = RunSpec(
                    suite=str(self.table.get("name", "suite")),
                    dataset=ref,
                    task=learnt,
                    model=spec,
                    # What an approach does not use must not tell its runs apart.
                    batch=batch if cards[approach].accepts.batch else BatchSpec(),
                    training=seeded,
                    approach=approach,
                    ranks=int(ranks),
                    repeat=repeat,
                    knobs=dict(knobs[approach] or {}),
                    memory=memory,
                )
                found = [f"{place}.{line}" for line in cards[approach].problems(run)]
                self.problems += found
                if not found:
                    yield run

    def _check_seeds(self, seeds: list[Any], place: str) -> None:
        """A seed that is listed twice would be one run, and two were meant."""
        twice = next((seed for at, seed in enumerate(seeds) if seed in seeds[:at]), None)
        if twice is not None:
            self.problems.append(
                f"{place}.seeds: {twice} is listed twice; ask for repeats by repeats = 2"
            )

    def _check_axes(self, axes: Mapping[str, list[Any]], place: str) -> None:
        self.problems += [
            f"{place}.{key}: found an empty list, expected at least one"
            for key, axis in axes.items()
            if not axis
        ]
        known = {
            "dataset": list(self.datasets),
            "model": list(self.models),
            "task": list(self.tasks),
            "approach": APPROACHES.names(),
        }
        for kind, names in known.items():
            self.problems += [
                f"{place}.{kind}: unknown {kind} {one!r}, {suggest(str(one), names)}"
                for one in axes[kind]
                if one not in names
            ]

    def _override(self, key: str, own: Mapping[str, Any], place: str) -> Any:
        """A section of the suite with the entry's own values; defaults where it is broken."""
        wrong: list[str] = []
        # Checked as merged: a value may be valid only beside the entry's other values.
        made = self._section(key, {**self.base[key], **own}, "", wrong)
        if made is None or wrong:
            # Problems of the suite's own table are reported where it is parsed.
            self._section(key, own, f"{place}.{key}", self.problems)
            made = _SECTIONS[key]()
        return made

    def _section(self, key: str, table: Mapping[str, Any], where: str, problems: list[str]) -> Any:
        if key == "memory":
            table = {
                name: _size(value, f"{where}.{name}", problems) for name, value in table.items()
            }
        return build(_SECTIONS[key], table, where, problems)


_SECTIONS: dict[str, type[Any]] = {
    "batch": BatchSpec,
    "training": TrainingSpec,
    "memory": MemorySpec,
}


def _size(value: object, where: str, problems: list[str]) -> object:
    """Bytes of a number, or of a text such as "2 GB"."""
    if not isinstance(value, str):
        return value
    try:
        return size_bytes(value)
    except SpecError as error:
        problems.append(f"{where}: {error}")
        return 0


def _salvaged(entry: object) -> RunsTable | None:
    """The valid keys of an invalid entry, so that problems of its names are reported too."""
    if not isinstance(entry, Mapping):
        return None
    # Annotations are text here and must be resolved before values are converted.
    hints = get_type_hints(RunsTable)
    sound: dict[str, Any] = {}
    for spec in dataclasses.fields(RunsTable):
        wrong: list[str] = []
        if spec.name in entry:
            value = convert(entry[spec.name], hints[spec.name], "", wrong, spec.metadata)
            if not wrong:
                sound[spec.name] = value
    return build(RunsTable, sound, "", [])


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
