"""Broken files of every kind are read, or refused in a line: never a traceback.

Valid files are mutated at random (seeded). `make fuzz` tries more: GNNBENCH_MUTATIONS of them.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gnnbench.cluster import load_cluster
from gnnbench.data import formats
from gnnbench.data.formats import native
from gnnbench.data.generators import generate
from gnnbench.errors import GnnbenchError
from gnnbench.ledger import COLUMNS, read_ledger
from gnnbench.results import Results, RunRecord
from gnnbench.suites import find_suite, suite_files
from gnnbench_reports.opening import read_study

MUTATIONS = int(os.environ.get("GNNBENCH_MUTATIONS", "500"))
REPO = Path(__file__).resolve().parents[2]
WORDS = (
    *(b"nan", b"inf", b"1e999", b"-1", b"0", b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n"),
    *(b"99999999999999999999", b"9223372036854775807", b"[]", b"{}", b'""', b"null", b"true"),
    *(b"[", b"}", b",", b"=", b" ", b"\t", b"%", b"#", b"../..", b"<b>", b"1.5", b"\xe2\x80\xae"),
)
GRAPHS = {
    "edges.txt": "# c\n0 1\n1 2\n2 3\n3 0\n",
    "edges.csv": "source,target\n0,1\n1,2\n2,0\n",
    "metis.graph": "4 3\n2\n1 3\n2 4\n3\n",
    "matrix.mtx": "%%MatrixMarket matrix coordinate real general\n3 3 2\n1 2 1.0\n2 3 4.0\n",
    "events.txt": "0 1 10\n1 2 20\n2 0 30\n",
}


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content after one to three cuts, doublings, swaps of a byte, or strange words."""
    for _ in range(chance.randint(1, 3)):
        start = chance.randint(0, len(content))
        stop = min(len(content), start + chance.choice((0, 1, 4, 40)))
        middle = chance.choice(
            (b"", content[start:stop] * 2, bytes([chance.randrange(256)]), chance.choice(WORDS))
        )
        end = b"" if chance.random() < 0.1 else content[stop:]
        content = content[:start] + middle + end
    return content


def _study(path: Path) -> None:
    read_study(Results(path.parents[2], create=False))


def samples(folder: Path) -> list[tuple[Path, Callable[[Path], object]]]:
    """Valid files, each with what reads it."""
    found: list[tuple[Path, Callable[[Path], object]]] = []
    graphs = folder / "graphs"
    graphs.mkdir()
    for name, text in GRAPHS.items():
        (graphs / name).write_text(text)
        kind = "stream" if name == "events.txt" else "auto"
        found.append((graphs / name, partial(formats.read, "auto", kind=kind)))
    edges = np.array([[0, 1], [1, 2], [2, 3]])
    train = np.array([[True, True, False, False]])
    np.savez(
        graphs / "dense.npz",
        edges=edges,
        node_features=np.ones((4, 2)),
        node_labels=np.array([0, 1, 0, 1]),
        train_masks=train,
        val_masks=~train,
        test_masks=train & False,
    )
    found.append((graphs / "dense.npz", lambda path: formats.read("auto", path)))
    options = {"num_nodes": 20, "mean_degree": 3, "num_classes": 2, "num_features": 2}
    saved = native.save(generate("planted_partition", **options), folder / "n")
    for name in ("meta.json", "indptr.npy", "indices.npy"):
        found.append((saved / name, lambda path: native.load(path.parent, verify=True).check()))
    suite = folder / "suite.toml"
    shutil.copy(suite_files()["demo"], suite)
    found.append((suite, lambda path: find_suite(str(path))))
    cluster = folder / "cluster.toml"
    shutil.copy(next((REPO / "gnnbench" / "catalogue" / "clusters").glob("*.toml")), cluster)
    found.append((cluster, load_cluster))
    run = find_suite("demo").runs[0]
    period = {"period": 0, "kind": "epoch", "seconds": 0.1, "loss": 1.0, "bytes": {"a/b": 8}}
    results = Results(folder / "results")
    results.save_run(
        RunRecord(
            run_id=run.run_id,
            config_id=run.config_id,
            spec=run.to_dict(),
            status="ok",
            periods=[{**period, "metrics": {}, "iterations": 1, "planned": {"a/b": 8}}],
            metrics={"test_accuracy": 0.5},
            device={"ranks_per_host": 1},
        )
    )
    ledger = results.run_folder(run.run_id) / "ledger-rank0.csv"
    line = "0,0,a,gemm,gemm_nn,compute,forward,1,0,1,2,0.0,0.5\n"
    ledger.write_text(",".join(COLUMNS) + "\n" + line * 2)
    found += [(ledger.parent / "run.json", _study), (ledger, _study), (ledger, read_ledger)]
    return found


@pytest.mark.timeout(0)
def test_mutated_files_are_read_or_refused_in_lines(tmp_path: Path) -> None:
    files = samples(tmp_path)
    chance = random.Random(2026)
    refused = 0
    for number in range(MUTATIONS):
        path, read = files[number % len(files)]
        whole = path.read_bytes()
        content = mutated(whole, chance)
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
        except GnnbenchError as error:
            refused += 1
            assert str(error)
            assert len(str(error)) < 20_000
        except Exception as error:
            error.add_note(f"mutation {number} of {path.name}: {content[:2000]!r}")
            raise
        finally:
            path.write_bytes(whole)
    assert refused > MUTATIONS / 10


def test_the_files_are_read_as_long_as_they_are_whole(tmp_path: Path) -> None:
    for path, read in samples(tmp_path):
        read(path)
