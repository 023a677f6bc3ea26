"""The workload of a question, as the options of `advise` and `sweep` describe it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench.spec import DatasetRef, RunSpec


def is_constant(key: str) -> bool:
    """Constants of machines have a dot, as the sections of a cluster file; facts have none."""
    return "." in key or ":" in key


def words(text: str | None) -> list[str]:
    """The words of a list separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def workload(
    dataset: DatasetRef,
    kind: str,
    *,
    model: str | None = None,
    hidden: int = 256,
    layers: int | None = None,
    heads: int = 1,
    batch: int = 1024,
    fanouts: Sequence[int] = (),
    optimizer: str | None = None,
    precision: str = "float32",
    epochs: int = 100,
) -> RunSpec:
    """The run of the question. Its approach and ranks are placeholders.

    Args:
        dataset: what is learnt from.
        kind: of the dataset; decides the model where none is named.
        model, hidden, layers, heads: of the model; by default three layers, one on streams
            and where it must.
        batch, fanouts: seeds of a step, and neighbours per hop, seeds first.
        optimizer, precision, epochs: of the training.

    Raises:
        UnknownName: no such model.
        SpecError: layers or fan-outs do not go with the model.
    """
    from gnnbench.errors import SpecError, UnknownName
    from gnnbench.models.names import MODELS
    from gnnbench.spec import BatchSpec, ModelSpec, RunSpec, TrainingSpec

    name = model or _model_for(kind)
    if name not in MODELS.names():
        raise UnknownName("model", name, MODELS.names())
    depth = layers or (1 if kind == "stream" else 3)
    spec = ModelSpec(name=name, kind=name, hidden=hidden, layers=depth, heads=heads)
    if layers is None and MODELS.get(name).problems(spec):
        spec = dataclasses.replace(spec, layers=1)
    problems = list(MODELS.get(name).problems(spec))
    if fanouts and len(fanouts) != spec.layers:
        said = ",".join(map(str, fanouts))
        problems.append(f"--fanouts {said}: {len(fanouts)} for {spec.layers} layers; one per layer")
    if problems:
        raise SpecError(problems)
    asked = RunSpec(
        suite="advice",
        dataset=dataset,
        model=spec,
        batch=BatchSpec(size=batch, fanouts_from_seeds=tuple(fanouts)),
        training=TrainingSpec(
            epochs=epochs, optimizer=optimizer or _optimizer_for(kind), precision=precision
        ),
        approach="",
        ranks=1,
    )
    return RunSpec.from_dict(asked.to_dict(), "question")  # within the bounds that suites have


def numbers(text: str | None, option: str) -> tuple[int, ...]:
    """Whole numbers such as "15,10,5"; none of an option that is absent."""
    from gnnbench.errors import SpecError

    try:
        found = tuple(int(word) for word in words(text))
    except ValueError:
        found = ()
    if len(found) != len(words(text)) or any(abs(number) >= 2**31 for number in found):
        raise SpecError(f"{option} {text}: expected numbers such as 15,10,5")
    return found


def _optimizer_for(kind: str) -> str:
    """Tables of embeddings, which triples train, are updated by sparse Adagrad."""
    return "adagrad" if kind == "triples" else "adam"


def _model_for(kind: str) -> str:
    """GraphSAGE for graphs, TGN for streams; else the first that an approach to the kind names."""
    from gnnbench.approaches.names import APPROACHES

    if kind in _MODELS:
        return _MODELS[kind]
    cards = [APPROACHES.get(name).accepts for name in APPROACHES.names()]
    models = [min(c.models) for c in cards if c.models and kind in c.datasets]
    return min(models, default="sage")


_MODELS = {"graph": "sage", "stream": "tgn"}


def dataset_ref(name: str, facts: dict[str, str]) -> DatasetRef:
    """A profile, a generator or a file by name, with facts replaced.

    Raises:
        UnknownName, SpecError: there is none, or it has no such facts.
    """
    from gnnbench.data.generators import GENERATORS
    from gnnbench.data.profile import list_profiles, load_profile
    from gnnbench.errors import SpecError, UnknownName
    from gnnbench.spec import DatasetRef

    short = Path(name).stem
    values = {key: value_of(text) for key, text in facts.items()}
    if name in list_profiles() or name.endswith(".toml"):
        if "features" in values:
            rows = int(str(values.get("num_nodes") or getattr(load_profile(name), "num_nodes", 0)))
            values["num_features"] = width_of(str(facts["features"]), rows, "--set features=")
            del values["features"]
        return DatasetRef(name=short, profile=name, override=values)
    if name in GENERATORS and not Path(name).exists():
        return DatasetRef(name=short, generator=name, options=values)
    if values:
        raise SpecError(f"--set {next(iter(values))}: replaces a profile's fact; {name} is a file")
    if not Path(name).suffix and "/" not in name and not Path(name).exists():
        raise UnknownName("dataset", name, [*list_profiles(), *GENERATORS])
    return DatasetRef(name=short, path=name)


def width_of(size: str, rows: int, option: str) -> int:
    """Features of a node if those of all nodes, in float32, take so much memory."""
    from gnnbench.errors import SpecError
    from gnnbench.units import size_bytes

    width = round(size_bytes(size) / (4 * max(rows, 1)))
    if width < 1:
        raise SpecError(f"{option}{size}: less than one float32 for each of {rows:,} nodes")
    return width


def value_of(text: str) -> Any:
    """A number where the text is one, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
