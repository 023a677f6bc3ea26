"""Batches drawn and prepared without training on them: many sizes in little time.

Of a training probe, layers take most of the time, and its batches are of one size. Here a graph is
opened once and batches of several sizes are drawn from it. Between two draws a training step is
imitated, so that a draw finds its tables in the cache that training leaves them in.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any

import torch

from gnnbench import work
from gnnbench.approaches.mini_batch.drawing import drawing_of, preparing
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.source import Library
from gnnbench.steps import Work
from gnnbench_runtime.approaches.mini_batch.sampled import BlockMaker
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.probe import speed_probe
from gnnbench_runtime.protocol import RankContext

CALLS = 5
"""Batches that are timed, after one that is not."""
ROWS, COLUMNS = 16_384, 64
"""Operands of the training step between two draws: 4 MB each, several times a core's own cache."""
_FACTS = ("rows", "nonzeros", "width", "inner", "source_rows", "bytes", "flops")


class Between:
    """The training step between two draws: a product, an activation and a copy of rows."""

    def __init__(self) -> None:
        self._x, self._h = torch.ones(ROWS, COLUMNS), torch.ones(ROWS, COLUMNS)
        self._weight = torch.full((COLUMNS, COLUMNS), 1.0 / COLUMNS)
        self._ids = torch.randperm(ROWS)

    def __call__(self) -> None:
        torch.mm(self._x, self._weight, out=self._h)
        self._h.clamp_(min=0.0)
        torch.index_select(self._h, 0, self._ids, out=self._x)


def sweep_draws(
    contexts: Sequence[RankContext], peers: Comm, *, workload: int = 0
) -> list[dict[str, Any]]:
    """Time the draws and the preparation of batches; samples as `rank.keep_samples` makes them.

    Args:
        contexts: one for each run, whose approach trains on batches of a source; runs on one graph
            follow each other.
        peers: ranks of the host, which sweep at the same time.
        workload: number of the workload before.
    """
    samples: list[dict[str, Any]] = []
    between, dataset, graph = Between(), None, None
    for context in contexts:
        if context.run.dataset != dataset:
            dataset = context.run.dataset
            graph = Library([]).open(dataset)
            workload += 1
        peers.sync()
        probe_s = speed_probe(context.device)
        peers.sync()
        for works, seconds in _timed(context, graph, between):
            mean = {fact: statistics.fmean(getattr(w, fact) for w in works) for fact in _FACTS}
            samples.append(
                {
                    "op": works[0].op,
                    "kind": works[0].kind.value,
                    "probes": statistics.median(seconds) / probe_s,
                    "gap_probes": 0.0,
                    "workload": workload,
                    "graph": dataset.generator if dataset else "",
                    **{fact: round(value) for fact, value in mean.items()},
                }
            )
    return samples


def _timed(
    context: RankContext, graph: Any, between: Between
) -> Iterator[tuple[list[Work], list[float]]]:
    """Works and seconds of some draws, and of making their blocks ready to train on."""
    run = context.run
    approach: Any = APPROACHES.get(run.approach)
    form, shape = approach.form_of(run), approach.shape(graph, run)
    threads = run.training.threads_per_rank
    source = approach.source(graph, run, approach.prepared(graph, run), threads=threads)
    maker = BlockMaker(context, graph, shape, form)
    tables = work.graph_tables(graph.num_nodes, graph.num_edges)
    drawn: list[tuple[Work, float]] = []
    prepared: list[tuple[Work, float]] = []
    for call in range(CALLS + 1):
        epoch, step = divmod(call, source.steps)
        between()
        begin = perf_counter()
        batch = source.draw(epoch, step, 1, 0).batch
        middle = perf_counter()
        _, turned = maker.patterns(batch)
        end = perf_counter()
        drawn.append((drawing_of([batch], form.op, tables), middle - begin))
        vertices, weighted = batch.sizes[0], form.edge_weights
        done = preparing(shape, vertices, turned, weighted=weighted)
        prepared.append((done, end - middle))
    for timed in (drawn, prepared):
        works, seconds = zip(*timed[1:], strict=True)
        yield list(works), list(seconds)
