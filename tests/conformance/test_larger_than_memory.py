"""Graphs larger than memory: files are written in one pass, and nothing stays resident."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.out_of_core.nodes import edge_chunks, place_rows
from gnnbench.approaches.out_of_core.storage import Rows
from gnnbench.data.formats import native
from gnnbench.data.generators import uniform
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench_runtime.approaches.out_of_core import buffer
from gnnbench_runtime.approaches.out_of_core.buffer import by_partition, streamed
from gnnbench_runtime.disk import BlockFile, aligned_empty

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.mark.parametrize("piece_bytes", [1, 200, 1 << 20])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_streamed_table_is_what_gathering_its_partitions_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int, kind: Any
) -> None:
    monkeypatch.setattr(buffer, "PIECE_BYTES", piece_bytes)
    table = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    graph: Any = SimpleNamespace(num_nodes=50, train_mask=np.arange(50) % 3 == 0)
    rows = Rows(num_rows=50, partitions=4, row_bytes=3 * np.dtype(kind).itemsize)
    position = place_rows(graph, "sequential", 1, rows)
    order = np.argsort(position)

    def gathered(number: int) -> Any:
        ids = order[number * rows.per_partition : (number + 1) * rows.per_partition]
        return table[ids].astype(kind)

    found = []
    fills = streamed(rows, position, table, np.dtype(kind)), by_partition(rows, gathered)
    for name, fill in zip("ab", fills, strict=True):
        with BlockFile(tmp_path / name, size_bytes=rows.file_bytes, writable=True) as file:
            fill(file)
            block = aligned_empty((rows.file_bytes,), np.uint8)
            file.read(block, 0)
        starts = [number * rows.block_bytes for number in range(4)]
        sizes = [rows.rows_of(number) * rows.row_bytes for number in range(4)]
        pairs = zip(starts, sizes, strict=True)
        found.append([block[at : at + size].tobytes() for at, size in pairs])
    assert found[0] == found[1]


def test_blocks_that_were_put_are_on_the_disk_once_dropped(tmp_path: Path) -> None:
    content = np.arange(10_000, dtype=np.uint8)
    with BlockFile(tmp_path / "f", size_bytes=16_384, writable=True) as file:
        file.put(content[:77], 5)
        file.put(content[77:], 82)
        file.drop()
        found = aligned_empty((16_384,), np.uint8)
        file.read(found, 0)
    assert np.array_equal(found[5 : 5 + len(content)], content)


def test_edges_of_a_mapped_graph_leave_memory_behind_the_reader(tmp_path: Path) -> None:
    graph = native.load(native.save(uniform(50_000, 60.0, seed=1), tmp_path / "g"))
    pages = Path("/proc/self/smaps").read_text
    forget_mapped_pages(graph.arrays().values())
    held, total = [], 0
    for sources, _ in edge_chunks(graph):
        total += int(sources.sum())
        held.append(_resident_of(pages(), "indices.npy"))
    assert len(held) > 2 and total == int(np.asarray(graph.indices, np.int64).sum())
    # A chunk is a million edges of four bytes; the kernel reads some pages around it.
    assert max(held) < 0.6 * graph.indices.nbytes


def _resident_of(smaps: str, name: str) -> int:
    """Resident bytes of the mappings of a file."""
    found, ours = 0, False
    for line in smaps.splitlines():
        if "-" in line.split(" ", 1)[0]:
            ours = line.endswith(name)
        elif ours and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def test_the_benchmarks_graph_is_valid_and_the_same_for_a_seed(tmp_path: Path) -> None:
    import big_graph

    sizes = {"num_nodes": 45_000, "mean_degree": 6.0, "num_features": 5, "num_classes": 9}
    graphs = [
        native.load(big_graph.generate(tmp_path / name, **sizes, train=0.1, seed=4), verify=True)
        for name in "ab"
    ]
    assert graphs[0].digest == graphs[1].digest and graphs[0].problems() == []
    graph = graphs[0]
    assert graph.num_train == pytest.approx(4_500, rel=0.1)
    assert graph.num_edges / graph.num_nodes == pytest.approx(6.0, rel=0.2)
    same = np.repeat(graph.labels, graph.in_degrees()) == graph.labels[graph.indices]
    assert 0.45 < same.mean() < 0.65
    assert graph.in_degrees().max() > 20 * graph.in_degrees().mean()
