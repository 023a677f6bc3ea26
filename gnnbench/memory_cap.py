"""A cap on the memory of this process: RLIMIT_DATA, and a control group where one can be made.

RLIMIT_DATA counts private memory that is mapped, and allocating beyond it fails. It does not count
pages of mapped files. A control group of Linux (cgroup v2) counts those too, and the page cache
that the process fills: the kernel takes pages of files back, and ends the process if that is not
enough.

A group can be made where a parent group is writable and hands its memory controller down: for root
outside a container, in a session that systemd delegates, or in a container that mounts its groups
writable. Nothing is moved but this process.

Source: Linux kernel documentation, "Control Group v2", sections on delegation, the "no internal
processes" constraint, memory.max and memory.swap.max.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from gnnbench.resident import (
    data_limit,
    limit_growth,
    num_threads,
    set_data_limit,
    stack_bytes,
)

MOUNTS, OWN = Path("/proc/mounts"), Path("/proc/self/cgroup")
RLIMIT = "RLIMIT_DATA: private memory, without pages of mapped files"
GROUP = "cgroup v2 memory.max: private memory, mapped files and page cache"
_PREFIX = "gnnbench-"


_undo: list[Callable[[], None]] = []
"""What lifts the caps of this process, the last one first."""
_threads: list[int] = []
"""How many threads there were when RLIMIT_DATA was set."""
_STARTED = 16
"""Threads that may be started while a run is set up. RLIMIT_DATA counts their stacks of 8 MB in
full, of which they touch some KB: two groups of gloo took more than a small run."""


def cap_growth(room_bytes: int) -> str:
    """Keep this process from holding so many bytes more than it does now; say what keeps it.

    What it holds already stays charged to the group it was in: the limit of the new group is the
    room alone.

    Returns:
        `GROUP` or `RLIMIT`. With a group RLIMIT_DATA is set as well, so that allocating fails with
        an error before the kernel ends the process.
    """
    before = group_of()
    made = enter_group(room_bytes)
    if made is not None and before is not None:
        _undo.append(partial(_leave, made, before))
    _threads[:] = [num_threads()]
    _undo.append(partial(set_data_limit, limit_growth(room_bytes + _STARTED * stack_bytes())))
    return GROUP if made is not None else RLIMIT


def settle_cap() -> None:
    """Take back the room for stacks of threads that were not started; call after setting up."""
    if _threads:
        unused = _STARTED - max(num_threads() - _threads.pop(), 0)
        set_data_limit(data_limit() - unused * stack_bytes())


def lift_cap() -> None:
    """Let this process grow again: what it does from here on is not part of what was capped."""
    _threads.clear()
    while _undo:
        _undo.pop()()


def enter_group(room_bytes: int, *, mounts: Path = MOUNTS, own: Path = OWN) -> Path | None:
    """Move this process into a new group that may hold so many bytes; None where none can be made.

    The process moves back, and the group is removed, when the interpreter ends.
    """
    before = group_of(mounts, own)
    if before is None:
        return None
    for parent in _parents(before):
        _remove_left(parent)
        group = parent / f"{_PREFIX}{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / "memory.max").write_text(str(room_bytes))
            swap = group / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            _remove(group)
            continue
        atexit.register(_leave, group, before)
        return group
    return None


def group_of(mounts: Path = MOUNTS, own: Path = OWN) -> Path | None:
    """The folder of this process's group in the unified hierarchy; None where there is none."""
    try:
        mounted = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    roots = [Path(words[1]) for words in mounted if len(words) > 2 and words[2] == "cgroup2"]
    names = [line[3:] for line in lines if line.startswith("0::")]
    if not roots or not names:
        return None
    return roots[0] / names[0].strip("/")


def _parents(group: Path) -> Iterator[Path]:
    """Groups that hand the memory controller down: beside this group first, then below it."""
    for parent in (group.parent, group):
        with suppress(OSError):
            handed = (parent / "cgroup.subtree_control").read_text(encoding="utf-8").split()
            if "memory" in handed:
                yield parent


def _leave(group: Path, before: Path) -> None:
    """Move back and remove the group."""
    # A child of fork has another id, and stays in the group until its own end.
    if group.name == f"{_PREFIX}{os.getpid()}":
        with suppress(OSError):
            (before / "cgroup.procs").write_text(str(os.getpid()))
        _remove(group)


def _remove_left(parent: Path) -> None:
    """Remove groups of processes that were killed; the kernel refuses while one has processes."""
    for group in parent.glob(f"{_PREFIX}*"):
        number = group.name.removeprefix(_PREFIX)
        if number.isdigit() and not Path(f"/proc/{number}").exists():
            _remove(group)


def _remove(group: Path) -> None:
    # The files of a group go with it; elsewhere (tests) they keep the folder.
    with suppress(OSError):
        group.rmdir()
