"""Injected faults, so that tests and the doubtful can see how failures are reported.

    GNNBENCH_TEST_FAULT="rank=1,period=2,kind=kill"

kind: kill (SIGKILL), hang (sleeps for ever), raise (an exception), oom (asks numpy for more memory
than there is), disk (a ledger on a full disk). The fault happens as the period begins. Optional
`run` restricts it to run ids that contain the text. Never set it for a measurement.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from gnnbench.errors import SpecError, suggest
from gnnbench.ledger import LedgerWriter

VARIABLE = "GNNBENCH_TEST_FAULT"
KINDS = ("kill", "hang", "raise", "oom", "disk")


def parse(text: str) -> dict[str, str]:
    """Return the fault's fields; SpecError for a text that names no fault."""
    fields = dict(part.partition("=")[::2] for part in text.split(",") if part)
    if fields.get("kind") not in KINDS or not fields.keys() <= {"rank", "period", "kind", "run"}:
        hint = suggest(fields.get("kind", ""), KINDS)
        raise SpecError(f"{VARIABLE}: found {text!r}, expected rank=R,period=N,kind=KIND; {hint}")
    return fields


def inject(rank: int, period: int, run_id: str) -> None:
    """Do what the variable asks for, if it means this rank, period and run."""
    text = os.environ.get(VARIABLE)
    if not text:
        return
    fault = parse(text)
    if (int(fault.get("rank", 0)), int(fault.get("period", 0))) != (rank, period):
        return
    if fault.get("run", "") not in run_id:
        return
    if fault["kind"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault["kind"] == "hang":
        while True:
            time.sleep(60)
    elif fault["kind"] == "oom":
        import numpy as np

        np.ones(2**50, np.uint8)
    elif fault["kind"] == "disk":
        LedgerWriter(Path("/dev/full"))
    else:
        raise RuntimeError("an injected fault")
