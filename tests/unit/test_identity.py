"""Identity covers content: a changed dataset is never answered from what an earlier one left.

Runs, failures, predictions and cached structures are keyed by the digest of the dataset.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gnnbench.approaches.whole_graph.partition import assign
from gnnbench.cluster import load_cluster
from gnnbench.data.formats import native
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.source import Library
from gnnbench.errors import DataError
from gnnbench.results import Results, RunRecord
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench_runtime import session
from gnnbench_simulator.session import predict_runs

# Files of one size: a path and a star of as many vertices and edges.
PATH = "".join(f"{i} {i + 1}\n" for i in range(8))
STAR = "".join(f"0 {i + 1}\n" for i in range(8))
RUN = RunSpec(
    suite="s",
    dataset=DatasetRef(
        name="g",
        path="g.txt",
        synthetic={"num_features": 4, "num_classes": 2},
        split={"train": 0.5},
    ),
    model=ModelSpec(name="m", hidden=4),
    training=TrainingSpec(epochs=2),
    approach="partition",
    ranks=2,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "g.txt"
    path.write_text(PATH, encoding="utf-8")
    return path


def change(file: Path, text: str) -> None:
    """Replace the content, keeping size and time of the last change as a careful copy does."""
    before = file.stat()
    file.write_text(text, encoding="utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def digest(folder: Path, cache: Path | None) -> str:
    return Library([folder], cache).identified(RUN).dataset.digest


@pytest.mark.parametrize("cached", [False, True])
def test_the_digest_is_that_of_the_content(file: Path, tmp_path: Path, cached: bool) -> None:
    cache = tmp_path / "cache" if cached else None
    first = digest(tmp_path, cache)
    assert first == digest(tmp_path, cache) != ""
    change(file, STAR)
    assert digest(tmp_path, cache) != first
    change(file, PATH)
    assert digest(tmp_path, cache) == first


def test_the_digest_depends_on_every_array_and_not_on_names_or_places(tmp_path: Path) -> None:
    graph = planted_partition(40, 4, 3, 5, seed=1)
    assert graph.features is not None and graph.labels is not None
    train, val = graph.train_mask, graph.val_mask
    others = [
        dataclasses.replace(graph, features=graph.features + np.float32(1)),
        dataclasses.replace(graph, labels=graph.labels[::-1].copy()),
        dataclasses.replace(graph, train_mask=val, val_mask=train),
        dataclasses.replace(graph, num_classes=9),
        planted_partition(40, 4, 3, 5, seed=2),
    ]
    same = [graph, dataclasses.replace(graph, name="renamed")]
    found = [
        native.load(native.save(one, tmp_path / str(number))).digest
        for number, one in enumerate([*same, *others])
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 1 + len(others)


def test_an_array_of_a_native_dataset_that_is_changed_in_place_is_an_error(tmp_path: Path) -> None:
    graph = planted_partition(40, 4, 3, 5, seed=1)
    assert graph.features is not None
    folder = native.save(graph, tmp_path / "native")
    library = Library([tmp_path], tmp_path / "cache")
    ref = DatasetRef(path="native")
    assert library.dataset(ref).digest
    np.save(folder / "features.npy", graph.features + np.float32(1))
    with pytest.raises(DataError, match=r"features\.npy: content differs from the sha256"):
        library.dataset(ref)
    shutil.rmtree(folder)
    native.save(graph, folder)
    assert library.dataset(ref).digest


# Runs and failures


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_neither_a_run_nor_a_failure_is_answered_for_another_content(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    trained: list[int] = []
    results = Results(tmp_path / "results")

    def launch(run: RunSpec, data: Graph, *_: object, **__: object) -> RunRecord:
        trained.append(int(data.in_degrees().max()))
        record = RunRecord(
            run_id=run.run_id, config_id=run.config_id, spec=run.to_dict(), status=status
        )
        results.save_run(record)
        return record

    monkeypatch.setattr(session, "launch", launch)

    def kept() -> bool:
        ((record, before),) = session.run_all([RUN], results, [tmp_path])
        assert record.status == status
        return before

    assert [kept(), kept()] == [False, True]
    change(file, STAR)
    assert [kept(), kept()] == [False, True]
    change(file, PATH)
    assert kept()
    assert trained == [2, 8]
    assert len(list(results.runs())) == 2


def test_a_prediction_of_another_content_is_another_record(file: Path, tmp_path: Path) -> None:
    results, cluster = Results(tmp_path / "results"), load_cluster("cpu-2core")

    def predicted() -> int:
        ((record, _),) = predict_runs([RUN], cluster, [tmp_path], results)
        return sum(record.bytes[0].values())

    sent = [predicted()]
    change(file, STAR)
    sent.append(predicted())
    records = list(results.predictions())
    assert sorted(sum(record.bytes[0].values()) for record in records) == sorted(sent)
    assert len({record.config_id for record in records}) == 2
    assert sent[0] != sent[1]


def test_a_dataset_that_was_not_there_leaves_no_record_once_it_is(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, cluster = Results(tmp_path / "results"), load_cluster("cpu-2core")

    def launch(run: RunSpec, *_: object, **__: object) -> RunRecord:
        record = RunRecord(
            run_id=run.run_id, config_id=run.config_id, spec=run.to_dict(), status="ok"
        )
        results.save_run(record)
        return record

    monkeypatch.setattr(session, "launch", launch)
    file.unlink()
    for status in ("skipped", "ok"):
        list(session.run_all([RUN], results, [tmp_path]))
        list(predict_runs([RUN], cluster, [tmp_path], results))
        assert [record.status for record in results.runs()] == [status]
        assert [record.status for record in results.predictions()] == [status]
        file.write_text(PATH, encoding="utf-8")


# Structures


def two_cliques(numbers: np.ndarray) -> Graph:
    """Cliques of the first six numbers and of the last six."""
    pairs = [(a, b) for half in (numbers[:6], numbers[6:]) for a in half for b in half if a < b]
    return from_edges("g", *np.array(pairs).T, 12)


@pytest.mark.parametrize("saved", [False, True])
def test_a_cached_partition_is_that_of_the_content(tmp_path: Path, saved: bool) -> None:
    """Graphs of one reference, of as many vertices and edges, that must be cut differently."""
    cache = tmp_path / "cache"
    for count, numbers in enumerate([np.arange(12), np.argsort(np.arange(12) % 2)], start=1):
        graph = two_cliques(numbers)
        if saved:
            graph = native.load(native.save(graph, tmp_path / "g"))
        for _ in range(2):
            owner = assign(graph, RUN, "metis", "vol", cache)
            assert np.array_equal(owner[graph.indices], np.repeat(owner, graph.in_degrees()))
            assert len(list(cache.glob("metis-*.npy"))) == count
