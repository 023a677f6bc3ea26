"""The specification of one run: dataset, task, model, batch, training, approach. Pure data.

The first five are the workload, which contains nothing about machines. A run is a workload, an
approach with its knobs, and a number of ranks. `gnnbench.suites` reads suite files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gnnbench.errors import SpecError
from gnnbench.metrics import TASKS
from gnnbench.strict import bounds, build, choices, raise_all

DATASET_KINDS = ("graph", "stream", "triples")
ORDERS = ("given", "random", "degree", "rcm", "metis")
"""Orders of the vertices of a graph, see `gnnbench.data.orders`."""
DEFAULT_TASKS = {
    "graph": "node_classification",
    "triples": "link_prediction",
    "stream": "temporal_link_prediction",
}
"""What is learnt from each kind of dataset unless a suite says otherwise."""
OPTIMIZERS = ("adam", "sgd", "adagrad")
FANOUTS = (15, 10, 5)
"""Neighbours per hop, seeds first, where a suite says nothing; further hops draw as the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRef:
    """Where a dataset comes from: one of `path` (a file or folder), `generator` or `profile`.

    Args:
        path: looked up relative to the data root, then to the suite file.
        kind: graph, stream (edges in order of time) or triples; "auto" lets the reader decide.
        format: name of a reader; "auto" detects it.
        generator: name of a generator.
        profile: name or file of a profile; it can be predicted, not trained on.
        options: of the reader or generator.
        override: facts of the profile to replace, such as num_features.
        features: "row" divides each feature row by its sum, as is usual for bags of words.
        synthetic: generated features and labels for a bare topology: num_features, num_classes.
        split: shares (train, val) for a dataset without a split: at random (seed) for graphs and
            triples, by time for streams (tear = true may separate events of equal time).
            replace = true overrides a split that the dataset has.
        order: of the vertices of a graph: given, random, degree (highest first), rcm (reverse
            Cuthill-McKee) or metis (parts of a thousand vertices). Training is the same up to
            their numbers, its speed is not.
        digest: of the content. It is filled in, like `kind`, when the dataset is opened, and is
            not a key of suites.
    """

    name: str = ""
    path: str = ""
    kind: str = field(default="auto", metadata=choices("auto", *DATASET_KINDS))
    format: str = "auto"
    generator: str = ""
    profile: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    override: dict[str, Any] = field(default_factory=dict)
    features: str = field(default="as_is", metadata=choices("as_is", "row"))
    synthetic: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    order: str = field(default="given", metadata=choices(*ORDERS))
    digest: str = ""

    def __post_init__(self) -> None:
        given = [k for k in ("path", "generator", "profile") if getattr(self, k)]
        if len(given) != 1:
            raise SpecError(
                f"give exactly one of path, generator, profile; found {given or 'none'}"
            )
        # These keys change data; a profile has none, and ignoring them would answer another
        # question.
        useless = [k for k in ("options", "synthetic", "split") if getattr(self, k)]
        if self.profile and useless:
            raise SpecError(
                f"{useless[0]}: a profile has statistics and no data; replace its facts by "
                "override = { num_features = ... }"
            )
        if self.profile and self.order != "given":
            raise SpecError(
                f"order: found {self.order!r} for a profile, which has no vertices to reorder; "
                "profile the reordered graph: gnnbench dataset SOURCE --order ORDER --save FILE"
            )
        if self.override and not self.profile:
            raise SpecError("override: found without a profile; it replaces facts of `profile`")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """The task. Every kind of dataset has a default one.

    Args:
        kind: "" is the default: node classification for graphs, link prediction for triples,
            temporal link prediction for streams.
        negatives: corrupted edges that are ranked against each true edge in evaluation.
        protocol: "filtered" leaves corrupted edges that are true out of the ranking. "tgb", of
            temporal link prediction only, ranks against fixed negatives as the Temporal Graph
            Benchmark does, and evaluates in batches of 200.
        metric: the primary metric; "" is the task's default.
    """

    name: str = ""
    kind: str = field(default="", metadata=choices("", *TASKS))
    negatives: int = field(default=100, metadata=bounds(1, 10_000_000))
    protocol: str = field(default="filtered", metadata=choices("filtered", "unfiltered", "tgb"))
    metric: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model: an encoder and, for tasks on edges, a decoder.

    Args:
        kind: name of the model.
        hidden: width of hidden layers.
        layers: number of layers.
        heads: attention heads, each of width hidden / heads. Models without attention have 1.
        dropout: after each hidden activation; with attention, on its weights too.
        input_dropout: on the input features.
        norm: "layer" normalises hidden layers before their activation (LayerNorm).
        decoder: scores an edge from the rows of its ends.
    """

    name: str = ""
    kind: str = "gcn"
    hidden: int = field(default=64, metadata=bounds(1, 1_000_000))
    layers: int = field(default=2, metadata=bounds(1, 64))
    heads: int = field(default=1, metadata=bounds(1, 1024))
    dropout: float = field(default=0.0, metadata=bounds(0, 1, open_high=True))
    input_dropout: float = field(default=0.0, metadata=bounds(0, 1, open_high=True))
    norm: str = field(default="none", metadata=choices("none", "layer"))
    decoder: str = field(default="dot", metadata=choices("dot", "distmult", "complex"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSpec:
    """The batch of one optimiser step, the same for every approach that is compared.

    Args:
        size: seeds (or positive edges) of one optimiser step, over all ranks together.
        fanouts_from_seeds: neighbours drawn per hop, the hop next to the seeds first; -1 takes all.
            Empty takes 15, 10, 5, 5, ...
        negatives: corrupted edges per positive edge in training.
    """

    size: int = field(default=1024, metadata=bounds(1))
    fanouts_from_seeds: tuple[int, ...] = field(default=(), metadata=bounds(-1))
    # Stored seeds first: papers and libraries differ in their order, so the name says it.
    negatives: int = field(default=1, metadata=bounds(1))

    def fanouts(self, layers: int) -> tuple[int, ...]:
        """Fan-outs of each hop, seeds first."""
        if self.fanouts_from_seeds:
            return self.fanouts_from_seeds
        # Hops beyond the defaults draw as the last one.
        return (*FANOUTS, *([FANOUTS[-1]] * max(layers - len(FANOUTS), 0)))[:layers]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How long and how to train.

    Args:
        epochs: passes over the training data.
        increments: of a stream: number of parts after the offline phase, which arrive and are
            learnt one after the other.
        speedup: of a stream: arrival rate of its parts relative to their time stamps; with 0 all
            parts are available at the start.
        warmup_epochs: epochs that are trained and recorded but excluded from time medians.
        optimizer: adam, sgd or adagrad.
        lr: learning rate.
        weight_decay: factor of the parameters that is added to the gradient (L2).
        precision: of features, parameters and activations.
        evaluate_every: epochs between two evaluations; 0 evaluates once, at the end.
        seed: of parameters, samples, dropout and partitions.
        threads_per_rank: CPU threads that a rank computes with.
        timeout_s: how long a rank may go without finishing a step before it counts as hung.
    """

    epochs: int = field(default=10, metadata=bounds(1, 1_000_000))
    increments: int = field(default=0, metadata=bounds(0, 1_000_000))
    speedup: float = field(default=0.0, metadata=bounds(0))
    warmup_epochs: int = field(default=1, metadata=bounds(0))
    optimizer: str = field(default="adam", metadata=choices(*OPTIMIZERS))
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
class MemorySpec:
    """Memory caps per rank, in bytes; 0 is none. Runs and predictions both obey them.

    Args:
        device: of the accelerator; on a CPU, of the resident set.
        host: of the host's memory; on a CPU, of the resident set.
    """

    device: int = field(default=0, metadata=bounds(0))
    host: int = field(default=0, metadata=bounds(0))

    def caps(self) -> dict[str, float]:
        """The caps there are, by space."""
        held = {"device": self.device, "host": self.host}
        return {space: float(size) for space, size in held.items() if size}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run: everything that could change its result, and nothing else.

    `knobs` holds those of the approach's knobs that differ from their defaults.
    """

    suite: str
    dataset: DatasetRef
    task: TaskSpec = field(default_factory=TaskSpec)
    model: ModelSpec
    batch: BatchSpec = field(default_factory=BatchSpec)
    training: TrainingSpec
    approach: str
    ranks: int
    repeat: int = 0
    knobs: dict[str, Any] = field(default_factory=dict)
    memory: MemorySpec = field(default_factory=MemorySpec)

    @property
    def task_kind(self) -> str:
        """The task, or the default one of the dataset's kind; "" while the kind is not known."""
        return self.task.kind or DEFAULT_TASKS.get(self.dataset.kind, "")

    @property
    def config_id(self) -> str:
        """Readable name and hash, the same for all repeats of one configuration.

        The hash covers what differs from the defaults, so that a new field renames no run, and the
        digest of the dataset's content once it is known, so that a changed file does.
        """
        content = self.non_defaults()
        # Repeats and suites share the configuration: the same run in two suites has one id.
        for key in ("suite", "repeat"):
            content.pop(key, None)
        for key in ("dataset", "model", "task"):
            # Names are labels: renaming a dataset must not train it again.
            content.get(key, {}).pop("name", None)
        if not content.get("task"):
            content.pop("task", None)  # a name alone is no task of its own
        # sha256 and not `hash`: ids must agree between processes and machines.
        text = json.dumps(content, sort_keys=True, default=str)
        # Eight hexadecimal digits tell the configurations of a folder apart; the label makes them
        # readable.
        short = hashlib.sha256(text.encode()).hexdigest()[:8]
        label = f"{self.dataset.name}-{self.model.name}-{self.approach}-p{self.ranks}"
        return f"{_safe(label)}-{short}"

    @property
    def run_id(self) -> str:
        """The id of one repeat."""
        return f"{self.config_id}-r{self.repeat}"

    def to_dict(self) -> dict[str, Any]:
        """The whole spec as JSON knows it: lists instead of tuples."""
        # Through JSON, so that a spec read from a record equals one that was just built.
        table: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return table

    def non_defaults(self) -> dict[str, Any]:
        """The fields that differ from their defaults, nested as the spec is."""
        found = _non_defaults(self)
        assert isinstance(found, dict)
        return found

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], where: str = "run") -> RunSpec:
        problems: list[str] = []
        spec = build(cls, table, where, problems)
        raise_all(problems)
        assert spec is not None
        return spec


def _non_defaults(item: Any) -> Any:
    if not dataclasses.is_dataclass(item):
        return item
    found = {}
    for spec in dataclasses.fields(item):
        value = getattr(item, spec.name)
        default: Any = spec.default
        if spec.default_factory is not dataclasses.MISSING:
            # Mutable defaults are made by a factory; comparing with the factory itself would always
            # differ.
            default = spec.default_factory()
        if value != default:
            found[spec.name] = _non_defaults(value)
    return found


def _safe(label: str) -> str:
    # Ids are folder names: nothing may climb or need quoting.
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in label)
    # File systems take 255 bytes; the hash and the repeat follow.
    return plain.encode()[:160].decode(errors="ignore")
