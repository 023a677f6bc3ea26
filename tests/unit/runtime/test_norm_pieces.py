"""LayerNorm in pieces of rows equals LayerNorm of all rows."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import torch

from gnnbench_runtime.models import stack
from gnnbench_runtime.models.stack import _pieces


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_pieces_cover_the_rows_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "_ROWS_BYTES", 4 * 2 * 8)  # four rows of two float64
    x = torch.zeros((count, 2), dtype=torch.float64)
    pieces = _pieces(x)
    assert [row for piece in pieces for row in range(count)[piece]] == list(range(count))
    assert all(piece.stop <= count and piece.stop - piece.start <= 4 for piece in pieces)
    assert len(pieces) == max(-(-count // 4), 1)


def test_a_device_normalises_all_rows_at_once() -> None:
    assert _pieces(torch.empty((10**6, 64), device="meta")) == [slice(0, 10**6)]
