"""Broken files of every kind are read, or refused in a line: never a traceback.

Valid files are mutated at random (seeded). `make fuzz` tries more: GNNBENCH_MUTATIONS of them.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import socket
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sample_files import write_samples

from gnnbench.accelerators import load_accelerator
from gnnbench.cluster import load_cluster
from gnnbench.data import formats
from gnnbench.data.formats import native
from gnnbench.data.generators import generate
from gnnbench.data.profile import load_profile
from gnnbench.errors import GnnbenchError
from gnnbench.ledger import COLUMNS, read_ledger
from gnnbench.price_page import load_page
from gnnbench.published.rows import read_rows
from gnnbench.results import Results, RunRecord
from gnnbench.suites import find_suite, suite_files
from gnnbench_reports.claims.reading import FOLDER as CLAIMS
from gnnbench_reports.claims.reading import read_paper
from gnnbench_reports.opening import read_study

MUTATIONS = int(os.environ.get("GNNBENCH_MUTATIONS", "500"))
REPO = Path(__file__).resolve().parents[2]
WORDS = (
    *(b"nan", b"inf", b"1e999", b"-1", b"0", b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n"),
    *(b"99999999999999999999", b"9223372036854775807", b"[]", b"{}", b'""', b"null", b"true"),
    *(b"[", b"}", b",", b"=", b" ", b"\t", b"%", b"#", b"../..", b"<b>", b"1.5", b"\xe2\x80\xae"),
)


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


def _read(place: Path, kind: str, name: str, path: Path) -> None:
    alone = name in ("snap", "csv", "temporal_text", "temporal_csv", "graphs_jl", "facebook100")
    formats.read("auto", path if alone else place, kind=kind)


def _study(path: Path) -> None:
    read_study(Results(path.parents[2], create=False))


def samples(folder: Path) -> list[tuple[Path, Callable[[Path], object]]]:
    """Valid files, each with what reads it."""
    found: list[tuple[Path, Callable[[Path], object]]] = []
    for name, (place, kind) in write_samples(folder / "formats").items():
        for path in sorted(place.rglob("*")):
            if path.is_file():
                found.append((path, partial(_read, place, kind, name)))
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
    catalogue = REPO / "gnnbench" / "catalogue"
    for name, read in (("pages", load_page), ("profiles", load_profile)):
        path = folder / f"{name}.toml"
        shutil.copy(next((catalogue / name).glob("*.toml")), path)
        found.append((path, lambda path, read=read: read(str(path))))
    shutil.copy(next(CLAIMS.glob("*.toml")), folder / "claims.toml")
    found.append((folder / "claims.toml", read_paper))
    accelerator = folder / "accelerator.toml"
    shutil.copy(next((catalogue / "accelerators").glob("*.toml")), accelerator)
    found.append((accelerator, lambda path: load_accelerator(str(path))))
    kept = folder / "kept" / "comparison.csv"
    kept.parent.mkdir()
    before = REPO / "reports" / "measured" / "2026-11-21-cpu-2core" / kept.name
    kept.write_text("".join(before.read_text(encoding="utf-8").splitlines(keepends=True)[:4]))
    found.append((kept, lambda path: read_study(Results(path.parent, create=False))))
    published = folder / "published.csv"
    rows = (
        next((catalogue / "published").glob("*.csv"))
        .read_text(encoding="utf-8")
        .splitlines(keepends=True)[:4]
    )
    published.write_text("".join(rows))
    found.append((published, read_rows))
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


def _no_network(*_: object) -> None:
    raise AssertionError("a reader opened a connection")


def _highest_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.timeout(0)
def test_mutated_files_are_read_or_refused_in_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = samples(tmp_path)
    for path, read in files:  # what is loaded and compiled once is no memory of a broken file
        read(path)
    monkeypatch.setattr(socket.socket, "connect", _no_network)
    before = _highest_bytes()
    chance = random.Random(2026)
    refused = 0
    for number in range(MUTATIONS):
        path, read = files[number % len(files)]
        whole = path.read_bytes()
        content = mutated(whole, chance)
        path.write_bytes(content)
        begin = time.monotonic()
        which = f"mutation {number} of {path.name}: {content[:2000]!r}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
        except GnnbenchError as error:
            refused += 1
            assert str(error)
            assert len(str(error)) < 20_000
        except Exception as error:
            error.add_note(which)
            raise
        finally:
            path.write_bytes(whole)
        assert time.monotonic() - begin < 60, which
        assert _highest_bytes() - before < 2**30, which
    assert refused > MUTATIONS / 10


def test_the_files_are_read_as_long_as_they_are_whole(tmp_path: Path) -> None:
    for path, read in samples(tmp_path):
        read(path)
