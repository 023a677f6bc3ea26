"""A ledger whose rows do not fit its header is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnnbench.errors import DataError
from gnnbench.ledger import COLUMNS
from gnnbench_reports.ledgers import read_columns

ROW = "0,0,a,gemm,gemm_nn,compute,forward,1,0,1,2,0.0,0.5"
TYPES = {"lane": "str", "layer": "int64", "duration_s": "float64"}


def written(folder: Path, row: str) -> Path:
    path = folder / "ledger-rank0.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{row}\n")
    return path


def test_a_whole_row_is_read(tmp_path: Path) -> None:
    table = read_columns(written(tmp_path, ROW), TYPES)
    assert table.to_dict("list") == {"lane": ["compute"], "layer": [1], "duration_s": [0.5]}


@pytest.mark.parametrize("row", [ROW.replace("compute,", "compute,,"), ROW.replace(",1,0", ",,0")])
def test_a_row_that_is_shifted_or_lacks_a_number_is_refused(row: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="malformed ledger"):
        read_columns(written(tmp_path, row), TYPES)
