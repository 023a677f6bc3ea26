"""Generations of a table: invariants 23, 25 and 27 of the out-of-core reference."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import torch

from gnnbench.approaches.base import example
from gnnbench.data.source import Library
from gnnbench.errors import DataError
from gnnbench_runtime.conformance.perform import make_trainer
from gnnbench_runtime.disk import BlockFile, aligned_empty
from gnnbench_runtime.generations import Generations, Layout

LAYOUT = Layout(block_bytes=8192, sizes=(8192, 8192, 4096))


def block(number: int, value: int) -> Any:
    found = aligned_empty((LAYOUT.sizes[number],), np.uint8)
    found[:] = value
    return found


def written(kept: Generations, values: list[int]) -> None:
    for number, value in enumerate(values):
        kept.table.write(block(number, value), number * LAYOUT.block_bytes)  # type: ignore[union-attr]


def values(folder: Path) -> tuple[list[int], dict[str, Any], Generations]:
    """What a new process finds."""
    kept = Generations(folder, LAYOUT)
    found = []
    for number in range(3):
        into = block(number, 255)
        kept.table.read(into, number * LAYOUT.block_bytes)  # type: ignore[union-attr]
        assert len(set(into.tolist())) == 1
        found.append(int(into[0]))
    return found, {name: t.tolist() for name, t in kept.tensors().items()}, kept


def committed(folder: Path) -> Generations:
    kept = Generations(folder, LAYOUT)
    assert kept.last is None
    written(kept, [1, 2, 3])
    kept.commit({"w": torch.tensor([0.5, 1.5])}, {"periods": 1}, ledger=b"first\n")
    return kept


def test_what_is_written_behind_a_commit_is_not_there_after_a_crash(tmp_path: Path) -> None:
    """Invariant 23: blocks written once, twice and not at all, and a ledger with a torn end."""
    kept = committed(tmp_path)
    written(kept, [7, 8])
    written(kept, [9])
    (tmp_path / "tensors-1.bin").write_bytes(b"torn")
    with (tmp_path / "ledger.csv").open("ab") as file:
        file.write(b"sec")
    found, tensors, again = values(tmp_path)
    assert (found, tensors) == ([1, 2, 3], {"w": [0.5, 1.5]})
    assert again.ledger() == b"first\n"
    assert again.last is not None and again.last.progress == {"periods": 1}


def test_reads_see_what_was_written_last_and_commits_keep_it(tmp_path: Path) -> None:
    kept = committed(tmp_path)
    for generation in range(1, 4):
        written(kept, [10 * generation])
        into = block(0, 0)
        kept.table.read(into, 0)  # type: ignore[union-attr]
        assert set(into.tolist()) == {10 * generation}
        written(kept, [10 * generation + 1, 5])
        kept.commit({"w": torch.tensor(generation)}, {}, ledger=b"more\n")
        found, tensors, again = values(tmp_path)
        assert found == [10 * generation + 1, 5, 3]
        assert tensors == {"w": generation}
        assert again.ledger() == b"first\n" + b"more\n" * generation
    assert len(list(tmp_path.glob("tensors-*"))) == 1


@pytest.mark.parametrize("name", ["rows-0.bin", "tensors-0.bin", "ledger.csv"])
def test_a_file_that_was_changed_is_found_before_training(name: str, tmp_path: Path) -> None:
    """Invariant 27."""
    committed(tmp_path).close()
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content if name != "ledger.csv" else content[:3])
    with pytest.raises(DataError, match=r"checksum|are committed"):
        values(tmp_path)[2].ledger()


def test_a_manifest_of_another_table_or_none_at_all_is_refused(tmp_path: Path) -> None:
    committed(tmp_path).close()
    with pytest.raises(DataError, match="of another table"):
        Generations(tmp_path, Layout(block_bytes=8192, sizes=(8192,)))
    (tmp_path / "manifest.json").write_text('{"schema": 1')
    with pytest.raises(DataError, match="remove the folder"):
        Generations(tmp_path, LAYOUT)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_back_leaves_the_last_commit(
    code: int, tmp_path: Path, monkeypatch: Any
) -> None:
    """Invariant 25: training stops, and a new process goes on behind the commit."""
    run = example(
        "out-of-core",
        1,
        kind="triples",
        model={"kind": "embedding", "decoder": "distmult"},
        batch={"size": 64, "negatives": 20},
        training={"optimizer": "adagrad"},
        knobs={"partitions": 4, "buffer": 2, "durable": 1},
    )
    data = Library([]).open(run.dataset)

    def trained(epochs: range, trainer: Any) -> Any:
        for period in epochs:
            trainer.train_period(period)
            trainer.durable.commit([{"period": p} for p in range(period + 1)])
        return trainer.learnt().clone()

    def made(folder: Path) -> Any:
        folder.mkdir(exist_ok=True)
        return make_trainer(0, 1, run, data, folder)[0]

    unbroken = made(tmp_path / "whole")
    wanted = trained(range(3), unbroken)
    unbroken.close()
    trainer = made(tmp_path / "broken")
    trained(range(1), trainer)
    write, calls = BlockFile.write, []

    def fails(self: BlockFile, source: Any, offset: int) -> int:
        calls.append(offset)
        if len(calls) == 3:
            raise OSError(code, "the disk")
        return write(self, source, offset)

    with monkeypatch.context() as patch:
        patch.setattr(BlockFile, "write", fails)
        with pytest.raises(OSError, match="the disk"):
            trainer.train_period(1)
    trainer.close()
    trainer = made(tmp_path / "broken")
    assert len(trainer.durable.resume()) == 1
    assert torch.equal(trained(range(1, 3), trainer), wanted)
    trainer.close()
    manifest = json.loads(next((tmp_path / "broken").rglob("manifest.json")).read_text())
    assert manifest["generation"] == 2


def test_node_classification_goes_on_behind_its_commit(tmp_path: Path) -> None:
    """Features are not trained: a generation has the parameters and the optimizer's state."""
    run = example("out-of-core", 1, knobs={"partitions": 4, "buffer": 2, "durable": 1})
    data = Library([]).open(run.dataset)

    def made(folder: str) -> Any:
        (tmp_path / folder).mkdir(exist_ok=True)
        return make_trainer(0, 1, run, data, tmp_path / folder)[0]

    whole = made("whole")
    for period in range(3):
        whole.train_period(period)
    first = made("broken")
    assert first.durable.resume() == []
    first.train_period(0)
    first.durable.commit([{"period": 0}])
    first.train_period(1)  # lost: the process ends before it is committed
    first.close()
    second = made("broken")
    assert second.durable.resume() == [{"period": 0}]
    for period in (1, 2):
        second.train_period(period)
    assert torch.equal(second.learnt(), whole.learnt())
    for trainer in (whole, second):
        trainer.close()
