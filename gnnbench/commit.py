"""The commit of the checkout that this package lies in, read from git's files."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def commit() -> str:
    """Twelve hexadecimal digits of the checked-out commit; "" outside of a checkout."""
    root = Path(__file__).resolve().parents[1]
    try:
        return _commit(root / ".git")[:12]
    except OSError:
        return ""


def _commit(git: Path) -> str:
    if git.is_file():  # of a further worktree: "gitdir: PATH"
        git = (git.parent / git.read_text(encoding="utf-8").partition(":")[2].strip()).resolve()
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref: "):
        return head
    ref = head.removeprefix("ref: ")
    common = git / "commondir"
    if common.is_file():
        git = (git / common.read_text(encoding="utf-8").strip()).resolve()
    if (git / ref).is_file():
        return (git / ref).read_text(encoding="utf-8").strip()
    for line in (git / "packed-refs").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition(" ")
        if name == ref:
            return digest
    return ""
