"""Memory caps by control groups, on folders that look like a mounted hierarchy."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest

from gnnbench import memory_cap, resident


def hierarchy(folder: Path, *, handed: str, own: str = "user/shell") -> tuple[Path, Path]:
    """A hierarchy whose groups all hand down some controllers; files of mounts and own group."""
    root = folder / "fs"
    group = root / own
    group.mkdir(parents=True)
    for place in (root, *group.parents, group):
        if place.is_relative_to(root):
            (place / "cgroup.subtree_control").write_text(handed)
    (folder / "mounts").write_text(f"tmpfs /tmp tmpfs rw\ncgroup2 {root} cgroup2 rw 0 0\n")
    (folder / "own").write_text(f"4:memory:/elsewhere\n0::/{own}\n")
    return folder / "mounts", folder / "own"


def test_a_group_beside_the_own_one_gets_the_limit_and_the_process(tmp_path: Path) -> None:
    mounts, own = hierarchy(tmp_path, handed="cpu memory pids")
    left = tmp_path / "fs" / "user" / "gnnbench-999999999"
    left.mkdir()
    made = memory_cap.enter_group(12_345, mounts=mounts, own=own)
    assert made == tmp_path / "fs" / "user" / f"gnnbench-{os.getpid()}"
    assert (made / "memory.max").read_text() == "12345"
    assert (made / "cgroup.procs").read_text() == str(os.getpid())
    assert not left.exists(), "a group of a process that is gone is removed"
    memory_cap._leave(made, tmp_path / "fs" / "user" / "shell")
    assert (tmp_path / "fs" / "user" / "shell" / "cgroup.procs").read_text() == str(os.getpid())


@pytest.mark.parametrize("handed", ["", "cpu pids"])
def test_without_a_memory_controller_no_group_is_made(tmp_path: Path, handed: str) -> None:
    mounts, own = hierarchy(tmp_path, handed=handed)
    assert memory_cap.enter_group(1, mounts=mounts, own=own) is None
    assert not list(tmp_path.glob("fs/**/gnnbench-*"))


def test_a_limit_that_cannot_be_written_leaves_no_group(tmp_path: Path) -> None:
    mounts, own = hierarchy(tmp_path, handed="memory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", _refused)
        assert memory_cap.enter_group(1, mounts=mounts, own=own) is None
    assert not list(tmp_path.glob("fs/**/gnnbench-*"))


def _refused(self: Path, *given: object, **named: object) -> int:
    raise PermissionError(13, "Permission denied", str(self))


def test_version_one_alone_is_no_hierarchy(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n")
    (tmp_path / "own").write_text("4:memory:/x\n")
    assert memory_cap.group_of(tmp_path / "mounts", tmp_path / "own") is None
    assert memory_cap.group_of(tmp_path / "absent", tmp_path / "own") is None


def test_a_cap_that_is_lifted_leaves_the_limit_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_cap, "enter_group", lambda room_bytes: None)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert memory_cap.cap_growth(2**40) == memory_cap.RLIMIT
    assert resource.getrlimit(resource.RLIMIT_DATA) != before
    memory_cap.lift_cap()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    memory_cap.lift_cap()  # there is nothing left to lift
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_lifted_cap_leaves_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts, own = hierarchy(tmp_path, handed="memory")
    enter, of = memory_cap.enter_group, memory_cap.group_of
    monkeypatch.setattr(memory_cap, "enter_group", lambda room: enter(room, mounts=mounts, own=own))
    monkeypatch.setattr(memory_cap, "group_of", lambda *given: of(mounts, own))
    assert memory_cap.cap_growth(2**40) == memory_cap.GROUP
    memory_cap.lift_cap()
    back = tmp_path / "fs" / "user" / "shell" / "cgroup.procs"
    assert back.read_text() == str(os.getpid())


def test_room_for_stacks_is_left_only_for_threads_that_were_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One is started while setting up: the limit is what the process had, the room, and a stack."""
    monkeypatch.setattr(memory_cap, "enter_group", lambda room_bytes: None)
    monkeypatch.setattr(resident, "status_bytes", lambda key: 2**30)
    over = threading.Event()
    try:
        memory_cap.cap_growth(2**40)
        thread = threading.Thread(target=over.wait)
        thread.start()
        memory_cap.settle_cap()
        assert resident.data_limit() == 2**30 + 2**40 + resident.stack_bytes()
        memory_cap.settle_cap()  # once
        assert resident.data_limit() == 2**30 + 2**40 + resident.stack_bytes()
    finally:
        memory_cap.lift_cap()
        over.set()
        thread.join()
