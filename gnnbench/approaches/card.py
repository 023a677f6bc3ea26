"""The parts of an approach's card: what it promises, what it accepts, how figures show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gnnbench.models.base import Model
from gnnbench.spec import DATASET_KINDS, RunSpec

PromiseKind = Literal["exact", "unbiased", "stale", "own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Relation between an approach's results and those of its reference, tested by conformance.

    Kinds:

    exact       losses, gradients and parameters equal the reference's, for any number of ranks
    unbiased    its estimate has the reference's value as expectation
    stale       it equals the reference computed with values that are `by` epochs old
    own         it trains something else: `text` describes it, and a separate test checks it

    Args:
        kind: see above.
        text: one sentence, in the terms of the field.
        reference: the approach with which it is compared; its own name means itself on one rank.
        limit: knobs with which it equals the reference exactly; None if there are none.
        limit_batch: fields of the batch that this equality needs in addition to `limit`; the last
            fan-out is used for all further layers.
        limit_ranks: number of ranks that this equality needs; None is any.
        by: age of the values, in epochs.
        unbiased_with: knobs with which an estimate made before training errs less than the mean
            over the draws of the test; they make its preparation long.
    """

    kind: PromiseKind
    text: str
    reference: str = "single"
    limit: Mapping[str, Any] | None = None
    limit_batch: Mapping[str, Any] | None = None
    limit_ranks: int | None = None
    by: int = 0
    unbiased_with: Mapping[str, Any] | None = None

    @property
    def exact(self) -> bool:
        return self.kind == "exact"


EXACT = Promise(
    kind="exact",
    text="Losses, gradients and parameters equal single-device training for any number of ranks.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepts:
    """Which workloads an approach can train; a refusal carries its reason.

    Args:
        datasets: kinds of datasets.
        tasks: kinds of tasks.
        attention: whether it can train models whose sums are weighted by functions of the layer's
            input; `no_attention` says why it cannot.
        norm: whether it can normalise hidden layers; `no_norm` says why it cannot.
        batch: whether it trains on mini-batches and uses the suite's [batch].
        models: kinds of models, or empty for all that are stacks of layers.
        embeddings: whether it can train tables of embeddings, which have no layers.
    """

    datasets: frozenset[str] = frozenset({"graph"})
    tasks: frozenset[str] = frozenset({"node_classification"})
    attention: bool = False
    no_attention: str = "it needs fixed edge weights; attention computes new ones in every layer"
    norm: bool = True
    no_norm: str = ""
    batch: bool = False
    models: frozenset[str] = frozenset()
    embeddings: bool = False

    def refusal(self, name: str, run: RunSpec, model: Model) -> str | None:
        """Why the approach cannot train a workload, or None."""
        kind = run.dataset.kind
        if kind in DATASET_KINDS and kind not in self.datasets:
            found = f"{run.dataset.name} is of kind {kind}"
            return f"{name} trains on {_names(self.datasets)} datasets; {found}"
        if run.task_kind and run.task_kind not in self.tasks:
            return f"{name} does {_names(self.tasks)}, not {run.task_kind}"
        if run.task.protocol == "tgb" and run.task_kind not in ("", "temporal_link_prediction"):
            return f"{name}: protocol tgb is of temporal link prediction, not of {run.task_kind}"
        if self.models and run.model.kind not in self.models:
            return f"{name} trains the models {_names(self.models)}, not {run.model.kind}"
        of_rows = model.built == "table" and self.embeddings
        if not self.models and model.built != "stack" and not of_rows:
            return f"{name} trains stacks of layers; {run.model.kind} is a {model.built}"
        if model.attention and not self.attention:
            return f"{name} cannot train {run.model.kind}: {self.no_attention}"
        if run.model.norm != "none" and not self.norm:
            return f"{name} cannot normalise layers: {self.no_norm}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How figures show an approach: the same in all of them.

    Args:
        colour: an entry of the house's cycle of colours, C0 to C9, or a colour of matplotlib.
        marker: of points.
        dashed: whether its lines are dashed; tells variants of one idea apart.
    """

    colour: str = "0.4"
    marker: str = "o"
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Published systems that implement the approach, so that their numbers can be predicted.

    Args:
        names: regular expression, searched in the lower-case name that a table gives a system.
        recipe: "module:function" that reads the rest of a row, such as
            "gnnbench.published.recipes:native" for code that does what the plan says.
    """

    names: str
    recipe: str


def _names(of: frozenset[str]) -> str:
    return ", ".join(sorted(of))
