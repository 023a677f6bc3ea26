"""Loops of interpreted code: operations counted per batch or event, times what each costs.

Code released with papers on temporal graphs walks over nodes, messages and events one by one. The
time of such loops is neither bytes nor flops. `UNIT_S` is measured on one core by
`benchmarks/bench_interpreter.py`; no published row was fitted. The papers' code asks for
interpreters before 3.11, which are slower by `OLD_INTERPRETER`; their cores were slower too, which
is one reason for predictions that are too low.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Numbers of operations.

    steps      turns of an interpreted loop: a look-up in a dictionary, a test, an append
    views      slices of an array
    calls      NumPy operations on a few values: a search, an index list, a copy into a row
    handles    tensors made without a kernel: one row of another tensor, or one without its history
    launches   tensor operations of the device
    entries    entries of a hash table that compiled code reads or writes
    strings    strings that compiled code makes and hands to the interpreter
    """

    steps: float = 0.0
    views: float = 0.0
    calls: float = 0.0
    handles: float = 0.0
    launches: float = 0.0
    entries: float = 0.0
    strings: float = 0.0

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Effort)}
        )

    def times(self, number: float) -> Effort:
        """The effort so many times."""
        return Effort(**{f.name: number * getattr(self, f.name) for f in fields(Effort)})

    def seconds(self, launch_s: float) -> float:
        """Seconds, one operation after the other.

        Args:
            launch_s: of an operation of the device.
        """
        own = {name: cost * float(getattr(self, name)) for name, cost in UNIT_S.items()}
        interpreted = sum(own[name] for name in _INTERPRETED)
        compiled = sum(own.values()) - interpreted
        return OLD_INTERPRETER * interpreted + compiled + launch_s * self.launches


UNIT_S: Mapping[str, float] = {
    "steps": 1.1e-7,
    "views": 1.5e-7,
    "calls": 2.3e-6,
    "handles": 5.5e-6,
    "entries": 4.0e-8,
    "strings": 1.1e-6,
}
"""Seconds of an operation on one core: the smallest of two runs of the benchmark, 30 November 2026,
on a virtual machine whose two cores other jobs kept busy; Python 3.11, NumPy 2.4."""
OLD_INTERPRETER = 1.25
"""Time of a loop in CPython before 3.11 over its time in 3.11: the mean over pyperformance that
"What's New In Python 3.11" states."""
_INTERPRETED = ("steps", "views", "calls", "handles")
