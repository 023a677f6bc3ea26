"""A question of `gnnbench advise` asked from Python, and its answer as text and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench_simulator.choices import Advice, Choice


PART_EVENTS = 100_000
"""Events of a long stream from which the rate of training is predicted."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Advised:
    """The answer; `str` gives the lines that the command prints.

    Attributes:
        advice: the choices, what was ruled out and why.
        text: the answer in words and tables.
    """

    advice: Advice
    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text

    @property
    def machines(self) -> Any:
        """A DataFrame of the machines that fit, each with its best approach, best first."""
        return _frame(self.advice.ranked)

    @property
    def approaches(self) -> Any:
        """A DataFrame of the approaches on the best machine, best first."""
        return _frame(self.advice.approaches)


def ask(
    dataset: str,
    *,
    machines: Sequence[str] = (),
    approaches: Sequence[str] = (),
    facts: Mapping[str, object] | None = None,
    constants: Mapping[str, object] | None = None,
    ranks: Sequence[int] | None = None,
    ranks_per_host: Sequence[int] | None = None,
    epochs: int = 100,
    data: Path | None = None,
    cache: Path | None = None,
    limits: Mapping[str, Any] | None = None,
    **workload: Any,
) -> Advice:
    """Answer a question.

    Args:
        dataset: a profile, a generator, a file or a folder.
        machines: as `gnnbench.machines` reads them; empty is the whole catalogue.
        approaches: to consider; empty is every one that can train the workload.
        facts: of the profile, replaced.
        constants: of the machines, replaced.
        ranks, ranks_per_host: numbers of devices to try, in all and on a host.
        epochs: of the training that is paid for.
        data: where a file is looked up.
        cache: folder for converted datasets and partitions.
        limits: fields of `gnnbench_simulator.choices.Question`, such as deadline_s.
        workload: keywords of `commands.workload.workload`, such as model and hidden.

    Raises:
        UnknownName, SpecError: a dataset, machine, approach or value does not exist or is wrong.
    """
    from gnnbench.commands.workload import dataset_ref
    from gnnbench.commands.workload import workload as described
    from gnnbench.data.source import Library, data_roots
    from gnnbench.errors import SpecError
    from gnnbench.machines import find_machines
    from gnnbench_simulator.advice import advise
    from gnnbench_simulator.choices import Question

    found = find_machines(
        machines, ranks=ranks, per_host=ranks_per_host, constants=_texts(constants)
    )
    library = Library(data_roots(data), cache)
    limits = dict(limits or {})
    ref = dataset_ref(dataset, _texts(facts))
    whole: Any = library.open(ref)
    if (
        limits.get("events_per_s") is not None
        and _is_too_long(whole)
        and "num_edges" not in ref.override
    ):
        # The rate of a part is that of the whole stream; the answer names the part.
        ref = dataset_ref(dataset, {**_texts(facts), "num_edges": str(PART_EVENTS)})
    run = described(ref, library.open(ref).kind, epochs=epochs, **workload)
    run = library.identified(run)
    opened: Any = library.open(run.dataset)
    events = opened.train_end if opened.kind == "stream" else 0
    if limits.get("events_per_s") is not None and not events:
        raise SpecError(f"--event-rate: {dataset} is a {opened.kind}, events are those of a stream")
    question = Question(run=run, epochs=epochs, events=events, **limits)
    shared = None if cache is None else cache / "shared"
    if shared is not None:
        shared.mkdir(parents=True, exist_ok=True)
    return advise(question, opened, found, approaches, shared)


def _is_too_long(data: Any) -> bool:
    """Whether a dataset is the profile of a stream of more events than a plan can draw."""
    from gnnbench.data.drawn_stream import MOST_EVENTS
    from gnnbench.data.stream_profile import StreamProfile

    return isinstance(data, StreamProfile) and data.num_edges > MOST_EVENTS


def answered(advice: Advice, *, explain: bool = False, top: int = 8) -> Advised:
    """The answer with its text."""
    from gnnbench.commands.advice import lines

    return Advised(advice=advice, text="\n".join(lines(advice, top=top, explain=explain)))


def _texts(values: Mapping[str, object] | None) -> dict[str, str]:
    return {key: str(value) for key, value in (values or {}).items()}


def _frame(choices: Sequence[Choice]) -> Any:
    import pandas as pd

    return pd.DataFrame([_row(choice) for choice in choices])


def _row(choice: Choice) -> dict[str, object]:
    """One choice; times are those of the whole training, the interval is at 90 %."""
    memory = choice.memory
    known = choice.prediction is not None
    return {
        "machine": choice.machine.name,
        "devices": choice.machine.devices,
        "approach": choice.approach,
        "promise": choice.promise,
        "total_s": choice.total_s,
        "low_s": choice.low_s * choice.periods if known else None,
        "high_s": choice.high_s * choice.periods if known else None,
        "usd": choice.usd,
        "free_memory": 1 - memory["judged_bytes"] / memory["limit_bytes"],
        "grade": choice.prediction.grade if choice.prediction is not None else "",
    }
