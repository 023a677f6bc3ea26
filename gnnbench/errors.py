"""Every error a user can cause, in one tree.

    GnnbenchError
    ├── SpecError        a file or argument says something impossible (may carry several problems)
    ├── UnknownName      a name that no registry, suite or cluster knows (with a suggestion)
    ├── DataError        a graph or result file is truncated, malformed or of the wrong kind
    ├── MissingExtra     a package of an optional extra is not installed
    ├── Unsupported      a combination that this approach, model or device cannot do
    ├── Busy             another process works on the same folder
    └── RunFailed        a run ended in failure; carries rank, phase and reason

The command line prints these in a line or two and exits with 2 (wrong usage) or 1 (failed).
Any other exception is a bug and is reported as one.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Sequence


class GnnbenchError(Exception):
    """Base of every error that a user can act on. `exit_code` is what the command returns."""

    exit_code = 2


class SpecError(GnnbenchError):
    """A specification is wrong. Collects every problem of a file so that one look mends all."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


_MANY = 24
"""Names of which no more are listed in an error than a reader looks through."""
_LISTED = {
    "approach": "approaches",
    "cluster": "clusters",
    "dataset": "datasets",
    "machine or device": "clusters",
    "name": "WHAT",
}
"""Kinds of names with a command that lists them."""


class UnknownName(GnnbenchError):
    """A name is not among those that exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(set(known))
        found = suggest(name, names)
        listed = _LISTED.get(kind, "")
        if listed and len(names) > _MANY and found.startswith("allowed"):
            found = f"`gnnbench list {listed}` shows the {len(names)} that are allowed"
        super().__init__(f"unknown {kind} {name!r}: {found}")


class DataError(GnnbenchError):
    """A data file cannot be read as what it should be; one line for each problem."""

    def __init__(self, path: object, problem: str | Sequence[str]) -> None:
        problems = (problem,) if isinstance(problem, str) else tuple(problem)
        super().__init__("\n".join(f"{path}: {line}" for line in problems))


class MissingExtra(GnnbenchError):
    """A package of an optional extra is needed and absent."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed: pip install 'gnnbench[{extra}]'"
        )


class Unsupported(GnnbenchError):
    """A valid request that cannot be met; the message says why and what can."""


class Busy(GnnbenchError):
    """Another process owns what this one would write; the message names it."""

    exit_code = 1


class RunFailed(GnnbenchError):
    """A run ended in failure."""

    exit_code = 1

    def __init__(self, reason: str, *, rank: int | None = None, phase: str | None = None) -> None:
        self.reason, self.rank, self.phase = reason, rank, phase
        where = "" if rank is None else f"rank {rank}"
        where += f" in phase {phase}" if phase else ""
        super().__init__(f"{where}: {reason}" if where else reason)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error says that a disk or a quota is full; numpy says so without a number."""
    if not isinstance(error, OSError):
        return False
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return error.errno is None and re.search(r"requested and \d+ written", str(error)) is not None


def suggest(name: str, known: Iterable[str]) -> str:
    """Return 'did you mean X?' or the list of what is allowed."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(names) or 'none'}"
