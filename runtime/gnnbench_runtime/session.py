"""A session: run a suite's runs one after another, each at most once, whatever happens to them."""

from __future__ import annotations

import errno
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gnnbench import registry
from gnnbench.data import source
from gnnbench.data.formats import native
from gnnbench.data.graph import Graph
from gnnbench.errors import DataError, GnnbenchError, MissingExtra, Unsupported
from gnnbench.results import Results, RunRecord
from gnnbench.spec import GraphRef, RunSpec
from gnnbench_runtime.join import joined, run_joined
from gnnbench_runtime.launch import launch

_STORAGE_FULL = (errno.ENOSPC, errno.EDQUOT)


def run_all(
    runs: Iterable[RunSpec],
    results: Results,
    roots: Sequence[Path],
    *,
    device: str = "auto",
    retry_failed: bool = False,
) -> Iterator[tuple[RunRecord, bool]]:
    """Yield each run's record in order, and whether it was kept from before.

    A run that ended well is kept; one that failed is kept unless `retry_failed`; one that was
    skipped or interrupted is tried again. A failing run does not stop those after it, but a full
    disk does. Within a launch of torchrun or srun, this process becomes one of its ranks (see
    `join`). Raises MissingExtra without torch.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("torch", "runtime", "training")
    world = joined()
    if world is not None:
        yield from run_joined(
            list(runs), results, roots, world, device=device, retry_failed=retry_failed
        )
        return
    graphs = _Graphs(results, roots)
    for run in runs:
        before = is_finished(results, run, retry_failed=retry_failed)
        if before is not None:
            yield before, True
        else:
            yield run_one(run, results, graphs, device=device), False


def run_one(run: RunSpec, results: Results, graphs: _Graphs, *, device: str) -> RunRecord:
    """Train one run and return its saved record; what makes it impossible becomes its reason."""
    try:
        approach = registry.approach(run.approach)
        reason = approach.cannot_run(run)
        if reason is None:
            graph, folder = graphs.open(run.graph)
            reason = approach.cannot_run(run, graph)
        if reason is not None:
            return _ended(run, results, "skipped", reason)
        approach.prepare(graph, run, results.cache("shared").absolute())
        facts = source.describe(graph, run.graph)
        return launch(run, folder, results, device=device, graph_notes=facts)
    except (Unsupported, MissingExtra) as error:
        return _ended(run, results, "skipped", str(error))
    except GnnbenchError as error:
        return _ended(run, results, "failed", " ".join(str(error).split()))
    except MemoryError as error:
        return _ended(run, results, "failed", f"out of memory before ranks started: {error}")
    except OSError as error:
        if error.errno in _STORAGE_FULL:
            raise
        return _ended(run, results, "failed", f"{type(error).__name__}: {error}")


class _Graphs:
    """The graphs of a suite, opened when first asked for; all of them are memory-mapped."""

    def __init__(self, results: Results, roots: Sequence[Path]) -> None:
        self._results, self._roots = results, roots
        self._open: dict[str, tuple[Graph, Path]] = {}

    def open(self, ref: GraphRef) -> tuple[Graph, Path]:
        key = repr(ref)
        if key not in self._open:
            folder = source.native_folder(ref, self._roots, self._results.folder / "cache")
            self._open[key] = native.load(folder), folder
        return self._open[key]


def is_finished(results: Results, run: RunSpec, *, retry_failed: bool) -> RunRecord | None:
    """Return the earlier record that makes running again needless, or None."""
    try:
        record = results.load_run(run.run_id)
    except DataError:
        return None  # an unreadable record is no record
    finished = {"ok"} if retry_failed else {"ok", "failed"}
    return record if record is not None and record.status in finished else None


def _ended(run: RunSpec, results: Results, status: str, reason: str) -> RunRecord:
    record = RunRecord(
        run_id=run.run_id,
        config_id=run.config_id,
        spec=run.to_dict(),
        status=status,
        reason=reason,
    )
    results.save_run(record)
    return record
