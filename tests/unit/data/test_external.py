"""Edge lists larger than memory: the external sort makes the graph that `from_edges` makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnbench.data import external, formats
from gnnbench.data.array_file import ArrayFile
from gnnbench.data.edge_list import EdgeList
from gnnbench.data.formats import native
from gnnbench.data.graph import from_edges
from gnnbench.errors import DataError

MEMORY = 1 << 30
PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60)


def blocks_of(pairs, size=7):
    table = np.array(pairs, np.int64).reshape(-1, 2)
    for start in range(0, len(table), size):
        yield table[start : start + size, 0], table[start : start + size, 1]


@pytest.fixture
def small_bins(monkeypatch):
    """Bins of a few edges, so that small lists have many."""
    monkeypatch.setattr(external, "FEWEST_EDGES", 4)
    monkeypatch.setattr(external, "SORT_BYTES", MEMORY // 8)


@given(pairs=PAIRS, undirected=st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_graph_is_that_of_the_sort_in_memory(pairs, undirected, small_bins, tmp_path_factory):
    folder = tmp_path_factory.mktemp("external")
    edges = EdgeList(name="g", blocks=blocks_of(pairs), undirected=undirected, num_nodes=13)
    found = native.load(external.convert(edges, folder / "found", MEMORY), verify=True)
    made = from_edges("g", *np.array(pairs).T, 13, undirected=undirected)
    native.save(made, folder / "made")
    assert np.array_equal(found.indptr, made.indptr)
    assert np.array_equal(found.indices, made.indices)
    assert found.notes == made.notes
    assert found.digest == native.digest(folder / "made")
    assert np.allclose(found.reuse, made.reuse_of_rows().shares)


@pytest.mark.parametrize("directed", [True, False])
def test_a_text_file_with_gaps_is_renumbered_as_its_reader_does(small_bins, tmp_path, directed):
    rng = np.random.default_rng(0)
    file = tmp_path / "list.txt"
    lines = [f"{a} {b}" for a, b in 3 * rng.integers(0, 40, (300, 2))]
    file.write_text("# made up\n" + "\n".join(lines) + "\n")
    edges = formats.stream("auto", file, directed=directed)
    found = native.load(external.convert(edges, tmp_path / "found", MEMORY))
    read = formats.read("auto", file, directed=directed)
    assert found.name == read.name and found.notes == read.notes
    assert np.array_equal(found.indptr, read.indptr)
    assert np.array_equal(found.indices, read.indices)


def test_a_matrix_is_streamed_as_it_is_read(small_bins, tmp_path):
    file = tmp_path / "m.mtx"
    head = "%%MatrixMarket matrix coordinate real symmetric\n% made up\n9 9 5\n"
    file.write_text(head + "2 1 0.5\n3 1 1e3\n9 2 1\n4 4 1\n5 4 -1\n")
    found = native.load(
        external.convert(formats.stream("matrix_market", file), tmp_path / "found", MEMORY)
    )
    read = formats.read("matrix_market", file)
    assert np.array_equal(found.indptr, read.indptr)
    assert np.array_equal(found.indices, read.indices)


def test_a_format_that_is_read_as_a_whole_is_refused(tmp_path):
    file = tmp_path / "g.metis"
    file.write_text("2 1\n2\n1\n")
    with pytest.raises(DataError, match=r"metis is read as a whole.*snap, matrix_market, webgraph"):
        formats.stream("auto", file)


@pytest.mark.parametrize(
    ("pairs", "num_nodes", "memory", "words"),
    [
        ([(0, -2)], None, MEMORY, "must not be negative, found -2"),
        ([(0, 5)], 5, MEMORY, r"endpoints must lie in 0\.\.4"),
        ([(0, 10**7)], None, 2 * external.READER_BYTES, "ids up to 10000000 need 4.. MB"),
        ([], None, MEMORY, "no edges"),
    ],
)
def test_wrong_lists_are_refused_and_leave_nothing(tmp_path, pairs, num_nodes, memory, words):
    edges = EdgeList(name="g", blocks=blocks_of(pairs), num_nodes=num_nodes)
    with pytest.raises(DataError, match=words):
        external.convert(edges, tmp_path / "found", memory)
    assert list(tmp_path.iterdir()) == []


CAPPED = """
import sys
from pathlib import Path
import numpy as np
from gnnbench.data import external
from gnnbench.data.edge_list import EdgeList
from gnnbench.data.graph import from_edges
from gnnbench.resident import limit_growth

folder, cap, nodes = Path(sys.argv[1]), 16_000_000, 40_000
edges = 10 * cap // 16
external.READER_BYTES = 1 << 20  # these blocks are drawn, not parsed

def drawn(count):
    for start in range(0, count, 1 << 14):
        rng = np.random.default_rng(start)
        yield tuple(rng.integers(0, nodes, (2, min(1 << 14, count - start))))

def convert(count):
    made = EdgeList(name="g", blocks=drawn(count), undirected=False, num_nodes=nodes)
    external.convert(made, folder, cap)

convert(1000)  # compiles
limit_growth(cap)
convert(edges)
try:
    from_edges("g", *np.concatenate([np.stack(b) for b in drawn(edges)], 1), nodes)
except MemoryError:
    print("in memory it does not fit")
"""


def test_a_list_ten_times_the_cap_is_converted_within_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CAPPED, str(tmp_path / "g")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "does not fit" in done.stdout
    graph = native.load(tmp_path / "g", verify=True)
    assert graph.problems() == []
    notes = graph.notes
    assert graph.num_edges + notes["self_loops"] + notes["repeated_edges"] == 10_000_000


def test_an_array_file_is_what_numpy_saves(tmp_path):
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    with ArrayFile(tmp_path / "a.npy", np.float32, (3,)) as file:
        for start in range(0, 20, 6):
            file.append(rows[start : start + 6])
        file.append(rows[:0])
    np.save(tmp_path / "b.npy", rows)
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    with (
        ArrayFile(tmp_path / "c.npy", np.int64) as file,
        pytest.raises(ValueError, match="rows of"),
    ):
        file.append(rows)
