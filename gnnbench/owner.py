"""Owners: which process works on a file or folder just now. Ownership ends with the process.

The owner holds a lock of the system (flock) that the kernel releases however the process ends, so
what a killed process has left can be told from what a living one still uses. The text of a lock
file (process id and host) is for people only.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gnnbench.errors import Busy

TEMPORARY = "~"
"""Ends the names of temporary files and folders; nothing else is ever swept."""
_HELD = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
# What file systems without locks answer. There, nothing is refused and nothing is swept.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)


def lock(descriptor: int) -> bool | None:
    """Lock an open file or folder without waiting.

    Returns: True once it is this process's own, False while another holds it, None where the file
    system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


@contextmanager
def owned(path: Path, work: str) -> Iterator[None]:
    """Own the lock file `path` for a block; the file is there as long as the block.

    Args:
        path: of the lock file; its folder is made if needed.
        work: what the owner does, for the message: "trains into DIR".

    Raises:
        Busy: another process owns it; names that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(path, work)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: Path, work: str) -> int:
    """Open and lock the file that is at `path` at the time of the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if lock(descriptor) is False:
                owner = os.read(descriptor, 200).decode(errors="replace") or "another process"
                raise Busy(f"{owner} {work}: wait for its end, or choose another folder")
            # An owner that has just ended may have removed the file that was opened here.
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def scratch(prefix: str, folder: Path | None = None) -> Iterator[Path]:
    """Make a folder for the time of a block; those of dead owners are removed first.

    Args:
        prefix: of its name, shared by all folders of this use.
        folder: in which it is made; None: that of temporary files.
    """
    parent = Path(tempfile.gettempdir()) if folder is None else folder
    sweep(parent, f"{glob.escape(prefix)}*{TEMPORARY}")
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, suffix=TEMPORARY, dir=parent))
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # swept between its making and its lock
        lock(descriptor)
        if _is_at(path, descriptor):
            break
        os.close(descriptor)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def sweep(folder: Path, pattern: str) -> None:
    """Remove the temporary files and folders of a pattern whose owners are dead."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.geteuid():
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if lock(descriptor) is not True:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            finally:
                os.close(descriptor)
