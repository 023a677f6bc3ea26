"""The Python interface of gnnbench: the commands as functions.

Each function imports what it needs when it is called; training without the extra `runtime` ends in
MissingExtra with the install line. A suite is a built-in name, a TOML file, a dictionary of the
same tables, or a `Suite`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench.cluster import Cluster
    from gnnbench.commands.advised import Advised
    from gnnbench.data.graph import Graph
    from gnnbench.data.profile import Profile
    from gnnbench.data.stream import EdgeStream
    from gnnbench.data.triples import Triples
    from gnnbench.results import PredictionRecord, RunRecord
    from gnnbench.suites import Suite
    from gnnbench_reports.compared import Compared


def load_dataset(
    path: str | Path, format: str = "auto", kind: str = "auto", **options: Any
) -> Graph | EdgeStream | Triples:
    """Read a file or folder; `auto` recognises the format by names, keys and first lines.

    `kind` is "graph", "stream" or "triples", for tables that could be several. `options` are those
    of the format's reader.

    Raises:
        DataError: the file is absent, malformed or of no known format.
        UnknownName: no such format or option.
    """
    from gnnbench.data import formats

    return formats.read(format, path, kind, **options)


def load_suite(suite: str | Path | Mapping[str, Any] | Suite) -> Suite:
    """Return a built-in suite by name, or read a suite file or the same tables as a dictionary.

    Paths of datasets are looked up beside a file, and from the current folder for a dictionary.

    Raises:
        UnknownName: no such built-in suite.
        SpecError: every problem of the file in one go.
    """
    from gnnbench.suites import Suite, find_suite, parse_suite

    if isinstance(suite, Mapping):
        return parse_suite(suite, "suite")
    return suite if isinstance(suite, Suite) else find_suite(str(suite))


def profile(source: str | Path | Graph | EdgeStream | Triples, **measures: Any) -> Profile:
    """Profile a dataset: an object, a file or folder, or the name of a stored profile.

    `measures` (parts, methods, fanouts, batch, seed) apply to graphs; see
    `gnnbench.data.profile.profile`. `kind` decides where a file can be read as several kinds.

    Raises:
        UnknownName, DataError: there is no such dataset.
        SpecError: measures were asked of a stored profile.
    """
    from gnnbench.data.profile import list_profiles, load_profile, measured
    from gnnbench.data.source import open_source
    from gnnbench.errors import SpecError

    if isinstance(source, str | Path):
        if str(source) in list_profiles() or str(source).endswith(".toml"):
            if measures:
                raise SpecError(f"{', '.join(measures)}: {source} is a stored profile")
            stored: Profile = load_profile(source)
            return stored
        source = open_source(str(source), kind=measures.pop("kind", "auto"))
    return measured(source, **measures)


def run(
    suite: str | Path | Mapping[str, Any] | Suite,
    results: str | Path,
    *,
    data: Path | None = None,
    only: str | None = None,
    repeats: int | None = None,
    device: str = "auto",
    retry_failed: bool = False,
) -> list[RunRecord]:
    """Train a suite's runs on this machine; finished runs of the folder are not run twice.

    A run that fails or is skipped gives a record with a reason; the other runs go on.

    Raises:
        MissingExtra: torch is not installed.
        SpecError: the suite is wrong, `only` matches no run, or a variable of numba spoils times.
    """
    from gnnbench import kernel_cache
    from gnnbench.data.source import data_roots
    from gnnbench.results import Results
    from gnnbench_runtime.session import run_all

    kernel_cache.check_variables()
    suite = load_suite(suite)
    runs = suite.chosen(only=only, repeats=repeats)
    roots = data_roots(data, suite.folder)
    session = run_all(runs, Results(results), roots, device=device, retry_failed=retry_failed)
    return [record for record, _ in session]


def predict(
    suite: str | Path | Mapping[str, Any] | Suite,
    cluster: str | Path | Cluster | None = None,
    *,
    ranks: Sequence[int] | None = None,
    results: str | Path | None = None,
    data: Path | None = None,
    ranks_per_host: int | None = None,
) -> list[PredictionRecord]:
    """Predict a suite's configurations on a cluster, at other rank counts if asked; needs no torch.

    Without `cluster`, the `cluster.toml` of the results folder is used, else the built-in
    `cpu-2core`. With `results`, predictions are saved there for `compare` and `report`. A run that
    cannot be predicted gives a record with a reason.

    Raises:
        UnknownName, SpecError: the suite or cluster does not exist or is wrong.
    """
    from gnnbench.cluster import Cluster, choose_cluster
    from gnnbench.data.source import data_roots
    from gnnbench.results import Results
    from gnnbench_simulator.session import predict_runs

    suite = load_suite(suite)
    folder = None if results is None else Results(results)
    if not isinstance(cluster, Cluster):
        cluster = choose_cluster(
            None if cluster is None else str(cluster), folder.folder if folder else None
        )
    predictions = predict_runs(
        suite.at_ranks(ranks),
        cluster,
        data_roots(data, suite.folder),
        folder,
        ranks_per_host=ranks_per_host,
    )
    return [record for record, _ in predictions]


def advise(
    dataset: str | Path,
    machines: Sequence[str] = (),
    *,
    approaches: Sequence[str] = (),
    facts: Mapping[str, object] | None = None,
    constants: Mapping[str, object] | None = None,
    model: str | None = None,
    hidden: int = 256,
    layers: int | None = None,
    batch: int = 1024,
    fanouts: Sequence[int] = (),
    epochs: int = 100,
    deadline_s: float | None = None,
    budget_usd: float | None = None,
    smallest: bool = False,
    events_per_s: float | None = None,
    spot: bool = False,
    data: Path | None = None,
) -> Advised:
    """Find the machine and the approach for a dataset: how long, how much, does it fit.

    Printing the answer shows the text of the command; `machines` and `approaches` of it are tables.

    Args:
        dataset: a profile, a generator, or a file or folder.
        machines: such as "8xa100-80" or a cluster file; empty is every machine of the catalogue.
        approaches: to consider; empty is every one that can train the workload.
        facts: facts of the profile to replace, such as {"features": "100GB"}.
        constants: constants of the machines to replace, such as {"price.usd_per_hour": 20}.
        model, hidden, layers: of the model; by default GraphSAGE of three layers on graphs.
        batch, fanouts: seeds of an optimiser step, and neighbours per hop, seeds first.
        epochs: of the training that is paid for.
        deadline_s, budget_usd: limits that the upper end of the 90 % interval must meet.
        smallest: prefer the fewest devices that meet the limits.
        events_per_s: of a stream, so many events must be learnt from in a second.
        spot: rent at spot rates.
        data: where a file is looked up.

    Raises:
        UnknownName, SpecError: a dataset, machine, approach or value does not exist or is wrong.
    """
    from gnnbench.commands.advised import answered, ask

    limits = {
        "deadline_s": deadline_s,
        "budget_usd": budget_usd,
        "smallest": smallest,
        "events_per_s": events_per_s,
        "spot": spot,
    }
    found = ask(
        str(dataset),
        machines=machines,
        approaches=approaches,
        facts=facts,
        constants=constants,
        epochs=epochs,
        data=data,
        limits=limits,
        model=model,
        hidden=hidden,
        layers=layers,
        batch=batch,
        fanouts=fanouts,
    )
    return answered(found)


def compare(results: str | Path, cluster: str | None = None) -> Compared:
    """Compare the runs of a results folder with its predictions: one row per configuration.

    The list that is returned has `answer` (the fastest approach, in words), `frame` (a DataFrame)
    and `figure(NAME)` (a figure of the report). `cluster` names the cluster of the predictions;
    None takes those with the best grade.

    Raises:
        DataError: there is no such folder, or it holds neither runs nor predictions.
        UnknownName: no prediction is for this cluster.
    """
    from gnnbench.results import Results
    from gnnbench_reports.compared import compared

    return compared(Results(results, create=False), cluster)


def report(results: str | Path, out: Path | None = None, cluster: str | None = None) -> Path:
    """Write figures, tables and the page of a results folder; return the page's path.

    `out` is the folder to write into, by default `report` within `results`. Raises as `compare`.
    """
    from gnnbench.results import Results
    from gnnbench_reports.report import report

    return report(Results(results, create=False), out, cluster)


def calibrate(
    out: str | Path | None = None,
    *,
    name: str = "here",
    quick: bool = False,
    co_located: int = 0,
    threads: int = 1,
    device: str = "auto",
    approaches: Sequence[str] = (),
    disk: str | Path | None = None,
) -> Cluster:
    """Measure this machine into a cluster, written to the file `out` if one is named.

    `co_located` is the largest number of ranks measured at once; 0 takes the number of cores or
    GPUs, at most 4. `approaches` selects the operations to measure; empty takes those of all.
    `disk` is a folder on the disk to measure.

    Raises:
        MissingExtra: torch is not installed.
        RunFailed: a probing rank died or hung.
        Unsupported: the folder is in memory.
        SpecError: a variable of numba spoils times.
    """
    from gnnbench import kernel_cache
    from gnnbench.cluster import save_cluster
    from gnnbench.commands.calibrate import calibration

    kernel_cache.check_variables()
    cluster = calibration()(
        name=name,
        quick=quick,
        co_located=co_located,
        threads=threads,
        device=device,
        approaches=approaches,
        disk=None if disk is None else Path(disk),
    )
    if out is not None:
        save_cluster(cluster, Path(out))
    return cluster
