"""Blocks on the disk: what is written comes back, is counted, and leaves the page cache."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnbench.costs.storage import point_bytes_per_s
from gnnbench.errors import DataError, Unsupported
from gnnbench.ledger import Row
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.calibration import disk_sweep
from gnnbench_runtime.calibration.disk_sweep import Sweep, file_system, measure, sweep_disk
from gnnbench_runtime.disk import ALIGNMENT, BlockFile, Disk, aligned_empty, padded
from gnnbench_runtime.recorder import Recorder

BLOCK = 2 * ALIGNMENT


class _Rows:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def append(self, rows: Any) -> None:
        self.rows += rows

    def close(self) -> None: ...


def _block(seed: int, size: int = BLOCK) -> np.ndarray:
    block = aligned_empty((size,), np.uint8)
    block[:] = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    return block


def test_an_aligned_array_is_shared_with_torch() -> None:
    array = aligned_empty((3, 5), np.float32)
    assert array.ctypes.data % ALIGNMENT == 0 and array.shape == (3, 5)
    torch.from_numpy(array).fill_(2.0)
    assert (array == 2.0).all()
    assert [padded(size) for size in (0, 1, ALIGNMENT)] == [0, ALIGNMENT, ALIGNMENT]


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "cached"])
@pytest.mark.parametrize(("offset", "size"), [(0, BLOCK), (100, BLOCK), (BLOCK, 77)])
def test_a_block_comes_back_as_it_was_written(
    tmp_path: Path, direct: bool, offset: int, size: int
) -> None:
    """Aligned and not, with and without the page cache."""
    written = _block(1, size)
    with BlockFile(tmp_path / "b", size_bytes=4 * BLOCK, writable=True, direct=direct) as file:
        assert file.write(written, offset) == size
        assert file.method == ("O_DIRECT" if direct and file._direct >= 0 else "fadvise")
        read = torch.empty(size, dtype=torch.uint8)
        assert file.read(read, offset) == size
        assert file.size_bytes == 4 * BLOCK
    assert np.array_equal(read.numpy(), written)
    assert (tmp_path / "b").read_bytes()[offset : offset + size] == written.tobytes()


def test_a_file_without_o_direct_falls_back_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BlockFile, "_open_direct", lambda self, mode: -1)
    with BlockFile(tmp_path / "b", size_bytes=BLOCK, writable=True) as file:
        file.write(_block(2), 0)
        assert file.method == "fadvise"


def test_a_file_that_ends_early_or_is_not_there_is_an_error(tmp_path: Path) -> None:
    with (
        BlockFile(tmp_path / "b", size_bytes=BLOCK, writable=True) as file,
        pytest.raises(DataError, match=f"ends at byte {BLOCK}, a block at byte {2 * BLOCK}"),
    ):
        file.read(_block(0), BLOCK)
    with pytest.raises(DataError, match="cannot open"):
        BlockFile(tmp_path / "none")


def test_blocks_with_gaps_or_on_another_device_are_refused(tmp_path: Path) -> None:
    with BlockFile(tmp_path / "b", size_bytes=BLOCK, writable=True) as file:
        for block, message in (
            (torch.empty(8, 8)[:, :3].numpy(), "contiguous"),
            (torch.empty(8, device="meta"), "host memory"),
        ):
            with pytest.raises(ValueError, match=message):
                file.read(block, 0)


def test_reads_and_writes_are_counted_from_buffers_as_steps(tmp_path: Path) -> None:
    kept = _Rows()
    recorder = Recorder(torch.device("cpu"), writer=kept)  # type: ignore[arg-type]
    disk, pieces = Disk(recorder), [(_block(1), 0), (_block(2), BLOCK)]
    with BlockFile(tmp_path / "b", size_bytes=2 * BLOCK, writable=True) as file:
        recorder.period_begin(0)
        assert disk.write("evict", file, pieces, phase=Phase.UPDATE) == 2 * BLOCK
        slot = torch.empty(BLOCK // 4, dtype=torch.float32)

        def ahead() -> None:
            recorder.at(0)
            disk.read("fetch", file, [(slot, BLOCK)], phase=Phase.FETCH, lane=Lane.DISK.at(1))

        reader = threading.Thread(target=ahead)
        reader.start()
        reader.join()
        moved = recorder.period_end()
    assert moved == {"write/update": 2 * BLOCK, "read/fetch": BLOCK}
    assert [(r.name, r.kind, str(r.lane), r.bytes) for r in kept.rows] == [
        ("evict", "write", "disk", 2 * BLOCK),
        ("fetch", "read", "disk:1", BLOCK),
    ]
    assert np.array_equal(slot.numpy().view(np.uint8), pieces[1][0])


# -- the sweep -----------------------------------------------------------------------------------

TINY = Sweep(
    blocks=(ALIGNMENT, 16 * ALIGNMENT), depths=(1, 2), file_bytes=1 << 20, seconds=0.01, turns=1
)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "cached"])
def test_a_sweep_measures_every_point_and_leaves_no_file(tmp_path: Path, direct: bool) -> None:
    storage = sweep_disk(tmp_path, TINY, direct=direct)
    assert {(p.direction, p.block_bytes, p.depth) for p in storage.sweep} == {
        (d, b, n) for d in ("read", "write", "mixed") for b in TINY.blocks for n in TINY.depths
    }
    assert all(p.bytes_per_s > 0 and point_bytes_per_s(storage, p) > 0 for p in storage.sweep)
    assert direct or storage.method == "fadvise"
    assert list(tmp_path.iterdir()) == []


def test_a_mixed_lane_alone_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with BlockFile(tmp_path / "b", size_bytes=16 * BLOCK, writable=True) as file:
        calls: list[str] = []
        monkeypatch.setattr(file, "read", lambda *_: calls.append("read"))
        monkeypatch.setattr(file, "write", lambda *_: calls.append("write"))
        # A look at the clock takes a millisecond, so that there are a handful of requests.
        clock = count()
        monkeypatch.setattr(disk_sweep, "perf_counter", lambda: next(clock) / 1000)
        assert measure(file, "mixed", BLOCK, 1, seconds=0.005) > 0
    assert calls == ["read", "write", "read"]


def test_a_folder_in_memory_is_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")
    assert file_system(tmp_path / "deep", mounts) == "tmpfs"
    assert file_system(Path("/usr"), mounts) == "ext4"
    where = "gnnbench_runtime.calibration.disk_sweep.file_system"
    monkeypatch.setattr(where, lambda folder: "tmpfs")
    with pytest.raises(Unsupported, match="in memory"):
        sweep_disk(tmp_path, TINY)


def test_calibrate_puts_a_disk_into_a_cluster_file_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gnnbench.cli import main
    from gnnbench.cluster import load_cluster, save_cluster

    monkeypatch.setattr(disk_sweep, "QUICK", TINY)
    path = tmp_path / "c.toml"
    save_cluster(load_cluster("cpu-2core"), path)
    path.write_text("# mine\n" + path.read_text())
    assert main(["calibrate", "--only", "disk", "--quick", "--out", str(path)]) == 0
    storage = load_cluster(path).storage
    assert storage is not None and storage.read_bytes_per_s.status == "measured"
    assert path.read_text().startswith("# mine\n")
    assert f"disk read ({storage.method})" in capsys.readouterr().out


def test_nothing_else_in_the_runtime_reads_or_writes_by_position() -> None:
    import gnnbench_runtime

    calls = ("preadv", "pwritev", "os.pread", "os.pwrite", "O_DIRECT,")
    root = Path(gnnbench_runtime.__file__).parent
    found = {
        path.name
        for path in root.rglob("*.py")
        if any(call in path.read_text(encoding="utf-8") for call in calls)
    }
    assert found == {"disk.py"}
