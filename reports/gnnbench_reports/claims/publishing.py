"""A copy of the page of claims that is small enough for a repository, with what it rests on.

Records are copied as they are. Of ledgers, which have a row per step, the sums per rank, phase,
layer, lane, kind and operation are written: means over the periods of a run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gnnbench.atomic import write_bytes
from gnnbench_reports.claims.evidence import SUMS, Cited, constants_of, folders
from gnnbench_reports.ledgers import read_columns

_KEYS = ["phase", "layer", "lane", "kind", "op"]
_TYPES = {
    "period": "int64",
    "phase": "str",
    "layer": "int64",
    "lane": "str",
    "kind": "str",
    "op": "str",
    "bytes": "int64",
    "flops": "float64",
    "duration_s": "float64",
}


def publish(found: Iterable[Cited], root: Path, out: Path) -> int:
    """Copy the records of some configurations, with their ledgers summed; return the files' number.

    Args:
        found: the configurations that the page links.
        root: the results folder of the claims; files keep their places in it.
        out: the folder to write to.
    """
    written = 0
    for one in found:
        for _, folder in folders(one):
            target = out / folder.relative_to(root)
            name = "run.json" if one.side == "measured" else "prediction.json"
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)
            table = _sums(folder)
            if table is not None:
                text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
                write_bytes(target / SUMS, text.encode())
            written += 1 + (table is not None)
        constants = constants_of(one.study.results, one.row) if one.side == "simulated" else None
        if constants is not None:
            target = out / constants.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(constants, target)
            written += 1
    return written


def _sums(folder: Path) -> Any:
    """Steps, bytes, flops and seconds per period of each rank's kinds of steps; None: no ledger."""
    import pandas as pd

    tables = []
    for path in sorted(folder.glob("ledger-rank*.csv")):
        frame = read_columns(path, _TYPES)
        periods = max(int(frame["period"].nunique()), 1)
        frame["steps"] = 1
        frame["op"] = frame["op"].fillna("")
        sums = frame.groupby(_KEYS, sort=True)[["steps", "bytes", "flops", "duration_s"]].sum()
        sums = (sums / periods).reset_index()
        sums.insert(0, "rank", int(path.stem.removeprefix("ledger-rank")))
        tables.append(sums.rename(columns={"duration_s": "seconds"}))
    return pd.concat(tables) if tables else None
