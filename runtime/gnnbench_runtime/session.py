"""A session: run a suite's runs one after another, each at most once, whatever happens to them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gnnbench.approaches.names import APPROACHES
from gnnbench.data.formats import native
from gnnbench.data.source import Library, describe, native_folder
from gnnbench.errors import Busy, GnnbenchError, MissingExtra, Unsupported, disk_is_full
from gnnbench.results import Results, RunRecord
from gnnbench.spec import RunSpec
from gnnbench_runtime.join import joined, run_joined
from gnnbench_runtime.launch import judged, launch, new_record
from gnnbench_runtime.watchdog import Verdict
from gnnbench_runtime.watching import Watch, unwatched


def run_all(
    runs: Iterable[RunSpec],
    results: Results,
    roots: Sequence[Path],
    *,
    device: str = "auto",
    retry_failed: bool = False,
    watch: Watch = unwatched,
) -> Iterator[tuple[RunRecord, bool]]:
    """Yield each run's record in order, and whether it was kept from before.

    A successful run is kept as long as the content of its dataset is the same, a failed one unless
    `retry_failed`; a skipped or interrupted run is tried again. A failing run does not stop the
    next ones, but a full disk does. A run that another machine is training is left to it, with the
    status "running". Within a launch of torchrun or srun, this process becomes one of its ranks
    (see `join`). `watch` is told what the run under way does; in a launch of others, nothing.

    Raises:
        MissingExtra: torch is not installed.
        Busy: another process of this machine trains into the folder.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("torch", "runtime", "training")
    world = joined()
    if world is not None:
        yield from run_joined(
            list(runs), results, roots, world, device=device, retry_failed=retry_failed
        )
        return
    with results.training():
        datasets = Library(roots, results.folder / "cache")
        for run in runs:
            yield _one(
                run, results, roots, datasets, device=device, retry_failed=retry_failed, watch=watch
            )


def _one(
    run: RunSpec,
    results: Results,
    roots: Sequence[Path],
    datasets: Library,
    *,
    device: str,
    retry_failed: bool,
    watch: Watch,
) -> tuple[RunRecord, bool]:
    """Train one run unless it is finished; what makes it impossible becomes its reason."""
    try:
        approach = APPROACHES.get(run.approach)
        reason = approach.cannot_run(run)
        if reason is not None:
            return _ended(run, results, "skipped", reason), False
        watch(run, "reads its dataset")
        asked, run = run, datasets.identified(run)
        results.forget_unopened(asked)
        before = results.finished(run, retry_failed=retry_failed)
        if before is not None:
            return before, True
        data = datasets.dataset(run.dataset)
        reason = approach.cannot_run(run, data)
        if reason is not None:
            return _ended(run, results, "skipped", reason), False
        cache = results.cache("shared").absolute()
        watch(run, "partitions or converts its dataset")
        approach.prepare(data, run, cache)
        folder = native_folder(run.dataset, roots, results.folder / "cache")
        facts = describe(data, run.dataset)
        try:
            with results.owned_run(run.run_id):
                before = results.finished(run, retry_failed=retry_failed)
                if before is not None:  # by the machine that has owned it until now
                    return before, True
                data = native.load(folder)
                record = launch(run, data, folder, results, device=device, facts=facts, watch=watch)
                return record, False
        except Busy as error:
            return judged(new_record(run, facts), Verdict("running", str(error))), False
    except (Unsupported, MissingExtra) as error:
        return _ended(run, results, "skipped", str(error)), False
    except GnnbenchError as error:
        return _ended(run, results, "failed", " ".join(str(error).split())), False
    except MemoryError as error:
        reason = f"out of memory before ranks started: {error}"
        return _ended(run, results, "failed", reason), False
    except OSError as error:
        if disk_is_full(error):
            raise
        return _ended(run, results, "failed", f"{type(error).__name__}: {error}"), False


def _ended(run: RunSpec, results: Results, status: str, reason: str) -> RunRecord:
    record = RunRecord(
        run_id=run.run_id,
        config_id=run.config_id,
        spec=run.to_dict(),
        non_defaults=run.non_defaults(),
        status=status,
        reason=reason,
    )
    results.save_run(record)
    return record
