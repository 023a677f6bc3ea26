"""Where numba keeps compiled loops: beside the sources, in the home, or in the temporary folder.

numba refuses to compile with a cache that it cannot write, so a read-only installation without a
home needs the third place. Entries are pickles: a folder that others can write is never taken.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gnnbench.errors import SpecError

VARIABLE = "NUMBA_CACHE_DIR"


def choose() -> None:
    """Name the temporary folder where numba's own places cannot be written; before numba loads."""
    if os.environ.get(VARIABLE) or any(is_writable(place) for place in places()):
        return
    os.environ[VARIABLE] = str(_private())


def check_settings() -> None:
    """Refuse variables of numba with which loops fail or run uncompiled, so that no time counts.

    Raises SpecError with a line for each.
    """
    problems = []
    if os.environ.get("NUMBA_DISABLE_JIT", "").strip() not in ("", "0"):
        found = os.environ["NUMBA_DISABLE_JIT"]
        problems.append(
            f"environment variable NUMBA_DISABLE_JIT: found {found!r}, with which loops are not "
            "compiled and times mean nothing; unset it"
        )
    threads = os.environ.get("NUMBA_NUM_THREADS", "").strip()
    if threads and not (threads.isdecimal() and int(threads) > 0):
        problems.append(
            f"environment variable NUMBA_NUM_THREADS: found {threads!r}, allowed 1 and more; "
            "unset it"
        )
    if problems:
        raise SpecError(problems)


def places() -> tuple[Path, Path]:
    """The folders in which numba looks by itself: beside the sources, then in the home."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(__file__).resolve().parent, Path(home)


def is_writable(folder: Path) -> bool:
    """Whether files can be made in the folder, or in the nearest parent that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) and not _is_virtual(folder)


def _is_virtual(folder: Path) -> bool:
    """Whether the folder belongs to the kernel: root may "write" there, and it fails."""
    return folder.parts[:2] in (("/", "proc"), ("/", "sys"))


def _private() -> Path:
    """A folder of this user alone."""
    folder = Path(tempfile.gettempdir()) / f"gnnbench-numba-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        return Path(tempfile.mkdtemp(prefix="gnnbench-numba-"))
    return folder
