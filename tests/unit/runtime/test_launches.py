"""Launches of steps: the table is what the dispatcher of torch counts on tiny runs."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gnnbench.approaches.names import APPROACHES
from gnnbench.costs.launches import LAUNCHES, launches
from gnnbench.data.source import Library
from gnnbench.spec import RunSpec
from gnnbench_runtime.conformance.perform import perform
from gnnbench_runtime.recorder import Recorder

VIEWS = {
    "view", "reshape", "t", "transpose", "detach", "expand", "unsqueeze", "squeeze", "slice",
    "select", "alias", "as_strided", "permute", "split", "unbind", "_unsafe_view", "chunk",
    "split_with_sizes", "is_same_size", "unfold", "lift_fresh", "_reshape_alias", "view_as",
}  # fmt: skip


class Counter(TorchDispatchMode):
    """Counts operations that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._schema.name.split("::")[1] not in VIEWS
        return func(*args, **(kwargs or {}))


def counted(run: RunSpec, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Operations of each step of a run on one rank, by the median."""
    found: dict[str, list[int]] = defaultdict(list)
    original = Recorder.step

    def step(self: Recorder, name: str, work: Any, **place: Any) -> Any:
        span = original(self, name, work, **place)

        @contextmanager
        def both() -> Iterator[Any]:
            with span as entered, Counter() as counter:
                yield entered
            found[work.op].append(counter.count)

        return both()

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "step", step)
        perform(0, 1, dataclasses.replace(run, ranks=1), Library((), None).open(run.dataset))
    return {op: statistics.median(counts) for op, counts in found.items()}


@pytest.mark.parametrize(
    ("approach", "kind"),
    [("continuous", "tgn"), ("continuous", "tgat"), ("embeddings", ""), ("sampled", "gcn")],
)
def test_the_table_is_what_torch_counts(
    approach: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    runs = APPROACHES.get(approach).examples()
    run = next(r for r in runs if kind in ("", r.model.kind))
    found = counted(run, monkeypatch)
    known = {op: count for op, count in found.items() if op in LAUNCHES}
    assert known
    for op, count in known.items():
        assert LAUNCHES[op] == pytest.approx(count, rel=0.25), op
    many = [op for op, count in found.items() if count > 6 and op not in LAUNCHES]
    assert not many, f"operations of several launches that the table lacks: {many}"


def test_an_operation_that_is_not_listed_is_one_launch() -> None:
    assert launches("gemm_nn") == 1
    assert launches("dot_forward") == LAUNCHES["dot_forward"] > 10
