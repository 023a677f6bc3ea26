"""What a suite asks for: graphs, models, training settings and runs, read strictly from TOML.

A suite names many runs as a product of lists:

    schema = 1
    name = "demo"

    [graphs.demo]
    generator = "planted_partition"
    options = { num_nodes = 10000, mean_degree = 15 }

    [models.gcn]
    kind = "gcn"
    hidden = 64

    [training]
    epochs = 10

    [[runs]]
    graph = "demo"
    model = ["gcn"]
    approach = ["single", "partition"]
    ranks = [1, 2]
    knobs = { partitioner = "metis" }

Keys of [training] may be overridden in an entry (`training = { epochs = 200 }`); `seeds = [0, 1]`
runs it once per seed. Each combination becomes one `RunSpec` per repeat; its id ends in a hash of
everything that could change its result, so a suite resumes where it stopped and edits never reuse a
stale run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from gnnbench.errors import SpecError, suggest
from gnnbench.strict import bounds, build, choices, convert, raise_all, read_toml

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRef:
    """Where a graph comes from: one of `path` (a file or folder), `generator` or `profile`.

    `path` is looked up relative to the data root, then to the suite file. `format` names a reader;
    "auto" detects it. `options` go to the reader or generator. `features` = "row" divides each
    feature row by its sum, as is usual for bag-of-words features. `task` gives features and labels
    to a bare topology (keys num_features, num_classes); `split` gives a random split (keys train,
    val, seed) where the graph has none. A `profile` can be predicted, not run.
    """

    name: str = ""
    path: str = ""
    format: str = "auto"
    generator: str = ""
    profile: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    features: str = field(default="as_is", metadata=choices("as_is", "row"))
    task: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = [k for k in ("path", "generator", "profile") if getattr(self, k)]
        if len(given) != 1:
            raise SpecError(
                f"give exactly one of path, generator, profile; found {given or 'none'}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A GNN. `dropout` follows each hidden activation, `input_dropout` the input features.

    `heads` of attention share `hidden` evenly; models without attention have 1. With attention,
    `dropout` also falls on its weights.
    """

    name: str = ""
    kind: str = "gcn"
    hidden: int = field(default=64, metadata=bounds(1, 1_000_000))
    layers: int = field(default=2, metadata=bounds(1, 64))
    heads: int = field(default=1, metadata=bounds(1, 1024))
    dropout: float = field(default=0.0, metadata=bounds(0, 1, open_high=True))
    input_dropout: float = field(default=0.0, metadata=bounds(0, 1, open_high=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How long and how to train. Adam; weight decay is added to the gradient (L2).

    `warmup_epochs` are trained and recorded but left out of time medians. `evaluate_every` = 0
    evaluates once, at the end. `timeout_s` is how long a rank may go without finishing a step
    before it counts as hung.
    """

    epochs: int = field(default=10, metadata=bounds(1, 1_000_000))
    warmup_epochs: int = field(default=1, metadata=bounds(0))
    lr: float = field(default=0.01, metadata=bounds(0, 100))
    weight_decay: float = field(default=0.0, metadata=bounds(0, 100))
    precision: str = field(default="float32", metadata=choices("float32", "float64"))
    evaluate_every: int = field(default=0, metadata=bounds(0))
    seed: int = field(default=0, metadata=bounds(0, 2**31 - 1))
    threads_per_rank: int = field(default=1, metadata=bounds(1, 4096))
    timeout_s: float = field(default=120.0, metadata=bounds(1, 86_400))

    @property
    def element_bytes(self) -> int:
        return 8 if self.precision == "float64" else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run: everything that could change its result, and nothing else."""

    suite: str
    graph: GraphRef
    model: ModelSpec
    training: TrainingSpec
    approach: str
    ranks: int
    repeat: int = 0
    knobs: dict[str, Any] = field(default_factory=dict)

    @property
    def config_id(self) -> str:
        """Readable name and hash, the same for all repeats of one configuration."""
        content = self.to_dict()
        for key in ("suite", "repeat"):
            content.pop(key)
        content["graph"].pop("name")
        content["model"].pop("name")
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        label = f"{self.graph.name}-{self.model.name}-{self.approach}-p{self.ranks}"
        return f"{_safe(label)}-{digest}"

    @property
    def run_id(self) -> str:
        return f"{self.config_id}-r{self.repeat}"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], where: str = "run") -> RunSpec:
        problems: list[str] = []
        spec = build(cls, table, where, problems)
        raise_all(problems)
        assert spec is not None
        return spec


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunsTable:
    graph: str | tuple[str, ...]
    model: str | tuple[str, ...]
    approach: str | tuple[str, ...]
    ranks: int | tuple[int, ...] = field(default=1, metadata=bounds(1, 1_000_000))
    repeats: int = field(default=1, metadata=bounds(1, 1000))
    seeds: int | tuple[int, ...] = field(default=(), metadata=bounds(0, 2**31 - 1))
    knobs: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


_TOP = ("schema", "name", "description", "graphs", "models", "training", "runs")


def load_suite(path: Path) -> Suite:
    """Read a suite file; SpecError lists every problem of the file."""
    return parse_suite(read_toml(path), str(path), folder=path.parent)


def parse_suite(table: Mapping[str, Any], where: str, *, folder: Path | None = None) -> Suite:
    """Turn a parsed TOML table into a suite. Knobs and names are checked against the registry."""
    from gnnbench import registry

    problems: list[str] = []
    for key in table:
        if key not in _TOP:
            problems.append(f"{where}: {key}: unknown key, {suggest(key, _TOP)}")
    if table.get("schema", SCHEMA) != SCHEMA:
        problems.append(f"{where}: schema: found {table.get('schema')!r}, allowed: {SCHEMA}")
    graphs = _named(GraphRef, table.get("graphs", {}), f"{where}: graphs", problems)
    problems += _reference_problems(graphs, f"{where}: graphs")
    models = _named(ModelSpec, table.get("models", {}), f"{where}: models", problems)
    for name, model in models.items():
        raw = table["models"][name]
        broken = raw.get("kind") if isinstance(raw, Mapping) else None
        kind = model.kind if model is not None else broken
        if isinstance(kind, str) and kind and kind not in registry.model_names():
            line = suggest(kind, registry.model_names())
            problems.append(f"{where}: models.{name}.kind: unknown model {kind!r}, {line}")
        elif model is not None:
            lines = registry.model(model.kind).problems(model)
            problems += [f"{where}: models.{name}.{line}" for line in lines]
    base = table.get("training", {})
    if not isinstance(base, Mapping):
        problems.append(f"{where}: training: found {base!r}, expected a table")
        base = {}
    else:
        build(TrainingSpec, base, f"{where}: training", problems)
    entries = table.get("runs", [])
    if not isinstance(entries, list) or not entries:
        problems.append(f"{where}: runs: needs at least one [[runs]] entry")
        entries = []
    runs: list[RunSpec] = []
    name = str(table.get("name", "suite"))
    for key in ("name", "description"):
        if not isinstance(table.get(key, ""), str):
            problems.append(f"{where}: {key}: found {table[key]!r}, expected text")
    for number, entry in enumerate(entries):
        place = f"{where}: runs[{number}]"
        parsed = build(_RunsTable, entry, place, problems) or _salvaged(entry)
        if parsed is None:
            continue
        training = build(TrainingSpec, {**base, **parsed.training}, f"{place}.training", [])
        if training is None:
            build(TrainingSpec, parsed.training, f"{place}.training", problems)
            training = TrainingSpec()  # so that the entry's other problems are told too
        for seed in _listed(parsed.seeds) or [training.seed]:
            seeded = dataclasses.replace(training, seed=seed)
            found = _expand(name, parsed, seeded, graphs, models, place, problems)
            runs += found
    raise_all(dict.fromkeys(problems))  # several runs of an entry find the same problem
    unique: dict[str, RunSpec] = {}
    for run in runs:
        unique.setdefault(run.run_id, run)
    ordered = sorted(
        unique.values(), key=lambda run: run.repeat
    )  # stable: entries keep their order
    return Suite(
        name=name,
        description=str(table.get("description", "")),
        runs=tuple(ordered),
        folder=folder,
    )


def _named(cls: type[Any], table: object, where: str, problems: list[str]) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        problems.append(f"{where}: found {table!r}, expected tables [{where.split()[-1]}.NAME]")
        return {}
    found: dict[str, Any] = {}
    for name, entry in table.items():
        if isinstance(entry, Mapping):
            if "name" in entry:
                problems.append(f"{where}.{name}.name: unknown key, the table's own name is used")
            entry = {**entry, "name": name}
        found[name] = build(cls, entry, f"{where}.{name}", problems)
    return found


def _salvaged(entry: object) -> _RunsTable | None:
    """The sound keys of a broken entry, so that what is wrong with its names is told as well."""
    if not isinstance(entry, Mapping):
        return None
    hints = get_type_hints(_RunsTable)
    sound: dict[str, Any] = {}
    for spec in dataclasses.fields(_RunsTable):
        wrong: list[str] = []
        if spec.name in entry:
            value = convert(entry[spec.name], hints[spec.name], "", wrong, spec.metadata)
            if not wrong:
                sound[spec.name] = value
    return build(_RunsTable, sound, "", [])


def _reference_problems(graphs: Mapping[str, GraphRef | None], where: str) -> list[str]:
    from gnnbench.data.source import reference_problems

    return [
        f"{where}.{name}.{line}"
        for name, ref in graphs.items()
        if ref is not None
        for line in reference_problems(ref)
    ]


def _expand(
    suite: str,
    parsed: _RunsTable,
    training: TrainingSpec,
    graphs: Mapping[str, GraphRef | None],
    models: Mapping[str, ModelSpec | None],
    place: str,
    problems: list[str],
) -> Iterator[RunSpec]:
    from gnnbench import registry

    keys = ("graph", "model", "approach", "ranks")
    axes = [_listed(getattr(parsed, key)) for key in keys]
    problems += [
        f"{place}.{key}: found an empty list, expected at least one"
        for key, axis in zip(keys, axes, strict=True)
        if not axis
    ]
    known = (("graph", graphs), ("model", models), ("approach", registry.approach_names()))
    for (kind, names), asked in zip(known, axes, strict=False):
        problems += [
            f"{place}.{kind}: unknown {kind} {one!r}, {suggest(str(one), names)}"
            for one in asked
            if one not in names
        ]
    cards = {name: registry.approach(name) for name in axes[2] if name in known[2][1]}
    if not cards:
        problems += [
            f"{place}.knobs.{key}: unknown knob, {suggest(key, registry.knob_names())}"
            for key in parsed.knobs
            if key not in registry.knob_names()
        ]
    knobs = {
        name: card.parse_knobs(parsed.knobs, f"{place}.knobs", problems, shared=len(axes[2]) > 1)
        for name, card in cards.items()
    }
    for repeat, graph, model_name, approach, ranks in itertools.product(
        range(parsed.repeats), *axes
    ):
        graph_ref, model = graphs.get(graph), models.get(model_name)
        if graph_ref is None or model is None or knobs.get(approach) is None:
            continue  # told above, or where the graph or model stands
        run = RunSpec(
            suite=suite,
            graph=graph_ref,
            model=model,
            training=training,
            approach=approach,
            ranks=int(ranks),
            repeat=repeat,
            knobs=dataclasses.asdict(knobs[approach]),
        )
        found = [f"{place}.knobs.{line}" for line in cards[approach].problems(run)]
        problems += found
        if not found:
            yield run


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _safe(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in label)
