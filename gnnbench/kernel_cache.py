"""Where numba keeps compiled loops: beside the sources, in the home, or in the temporary folder.

numba refuses to compile with a cache that it cannot write, so a read-only installation without a
home needs the third place. Entries are pickles: a folder that others can write is never taken.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gnnbench.errors import SpecError

VARIABLE = "NUMBA_CACHE_DIR"


def choose() -> None:
    """Name the temporary folder where numba's own places cannot be written; before numba loads."""
    if os.environ.get(VARIABLE) or any(is_writable(place) for place in places()):
        return
    os.environ[VARIABLE] = str(_private())


def check_variables(environ: Mapping[str, str] = os.environ) -> None:
    """Raise SpecError for variables of numba under which nothing can be run or measured."""
    interpreted = environ.get("NUMBA_DISABLE_JIT", "").strip()
    if interpreted.lstrip("+-").isdecimal() and int(interpreted):
        raise SpecError(
            f"NUMBA_DISABLE_JIT: found {interpreted}; loops that are not compiled take hundreds of "
            "times longer: unset it"
        )
    threads = environ.get("NUMBA_NUM_THREADS", "").strip()
    if threads and not (threads.isdecimal() and int(threads) > 0):
        raise SpecError(f"NUMBA_NUM_THREADS: found {threads}, allowed >= 1: unset it")


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
