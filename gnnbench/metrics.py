"""Measures (name, unit, direction) and tasks."""

from __future__ import annotations

from dataclasses import dataclass

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A quantity that runs report.

    Args:
        name: as records write it, without the split: "accuracy".
        title: as tables and axes write it.
        unit: "share" (0 to 1, shown in per cent), "s", "bytes", "USD" or "" for none.
        higher_is_better: the direction in which to compare.
    """

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool = True


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(name="accuracy", title="accuracy", unit="share"),
        Measure(name="mrr", title="MRR", unit="share"),
        Measure(name="hits_1", title="Hits@1", unit="share"),
        Measure(name="hits_3", title="Hits@3", unit="share"),
        Measure(name="hits_10", title="Hits@10", unit="share"),
        Measure(name="ap", title="average precision", unit="share"),
        Measure(name="auc", title="ROC AUC", unit="share"),
        Measure(name="nodes_hit_rate", title="hit rate of the node cache", unit="share"),
        Measure(name="edges_hit_rate", title="hit rate of the edge cache", unit="share"),
        Measure(name="cache_hit_rate", title="cache hits", unit="share"),
        Measure(name="loss", title="loss", higher_is_better=False),
        Measure(name="page_faults", title="page faults", higher_is_better=False),
        Measure(name="seconds", title="time", unit="s", higher_is_better=False),
        Measure(name="bytes", title="bytes", unit="bytes", higher_is_better=False),
        Measure(name="price", title="price", unit="USD", higher_is_better=False),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task: its metrics, and when they are evaluated.

    Args:
        metrics: names of the measures it yields.
        primary: the one that runs are compared by.
        evaluates: "after" learning, or "before": every part of a stream is predicted before it is
            learnt from.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    primary: str
    evaluates: str = "after"


TASKS = {
    task.name: task
    for task in (
        Task(
            name="node_classification",
            title="node classification",
            metrics=("accuracy",),
            primary="accuracy",
        ),
        Task(
            name="link_prediction",
            title="link prediction",
            metrics=("mrr", "hits_1", "hits_3", "hits_10", "auc"),
            primary="mrr",
        ),
        Task(
            name="temporal_link_prediction",
            title="temporal link prediction",
            metrics=("mrr", "ap", "auc"),
            primary="mrr",
            evaluates="before",
        ),
    )
}


def measure_of(key: str) -> Measure:
    """The measure of a metric in a record, such as "test_accuracy" or "loss"."""
    split, _, name = key.partition("_")
    found = MEASURES.get(name if split in SPLITS else key)
    return found or Measure(name=key, title=key.replace("_", " "))
