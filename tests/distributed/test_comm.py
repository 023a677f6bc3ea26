"""Comm: right results, and bytes that are the closed form and the same on both ends.

Invariants: FG-10 and SA-D3 (bytes sent = bytes received = counted).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gnnbench.ledger import Row, read_ledger
from gnnbench.steps import Phase
from gnnbench.work import all_reduce_bytes

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.distributed


class World:
    """What the ranks of one world said and recorded."""

    def __init__(self, size: int, folder: Path) -> None:
        self.size = size
        self.said: list[dict[str, Any]] = [
            json.loads((folder / f"said-rank{rank}.json").read_text()) for rank in range(size)
        ]
        self.ledgers = [read_ledger(folder / f"ledger-rank{rank}.csv") for rank in range(size)]
        self.splits = _splits(size)

    def rows(self, name: str) -> list[Row]:
        """Return the row of that name on each rank that has it."""
        return [row for ledger in self.ledgers for row in ledger if row.name == name]


def _splits(size: int) -> list[list[int]]:
    spec = importlib.util.spec_from_file_location("comm_rank", HERE / "comm_rank.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows: list[list[int]] = module.splits(size)
    return rows


@pytest.fixture(
    scope="module",
    params=[
        (2, "cpu"),
        (3, "cpu"),
        (4, "cpu"),
        pytest.param((2, "cuda"), marks=pytest.mark.gpu),
        pytest.param((3, "cuda"), marks=pytest.mark.gpu),
    ],
    ids=lambda param: f"{param[1]}-p{param[0]}",
)
def world(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    start_ranks: Callable[..., None],
) -> World:
    folder = tmp_path_factory.mktemp("comm")
    size, device = request.param
    start_ranks("comm_rank.py", size, folder, device)
    return World(size, folder)


def test_all_to_all_delivers_uneven_and_empty_blocks(world: World) -> None:
    for dtype in ("float32", "float64", "int64"):
        for rank in range(world.size):
            expected = []
            for peer, row in enumerate(world.splits):
                first = sum(row[:rank])
                expected += [
                    [1000 * peer + 3 * at + column for column in range(3)]
                    for at in range(first, first + row[rank])
                ]
            assert world.said[rank][f"exchange_{dtype}"] == expected


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float64", 8), ("int64", 8)])
def test_bytes_sent_are_bytes_received_and_leave_out_the_own_block(
    world: World, dtype: str, size: int
) -> None:
    sent = [row.bytes for row in world.rows(f"exchange_{dtype}")]
    others = [r for r in range(world.size)]
    for rank in range(world.size):
        rows = sum(world.splits[rank][peer] for peer in others if peer != rank)
        assert sent[rank] == rows * 3 * size
    received = [
        (len(world.said[r][f"exchange_{dtype}"]) - world.splits[r][r]) * 3 * size for r in others
    ]
    assert sum(sent) == sum(received)


def test_an_exchange_of_nothing_is_recorded_with_no_bytes(world: World) -> None:
    rows = world.rows("nothing")
    assert len(rows) == world.size
    assert {row.bytes for row in rows} == {0}


def test_all_reduce_sums_and_counts_the_ring_volume(world: World) -> None:
    expected = [world.size * i + sum(range(world.size)) for i in range(7)]
    assert all(said["gradients"] == expected for said in world.said)
    assert {row.bytes for row in world.rows("gradients")} == {all_reduce_bytes(56, world.size)}


def test_all_gather_puts_blocks_in_rank_order(world: World) -> None:
    expected = [float(rank) for rank in range(world.size) for _ in range(2)]
    assert all(said["gathered"] == expected for said in world.said)
    assert {row.bytes for row in world.rows("gathered")} == {(world.size - 1) * 8}


def test_reduce_scatter_leaves_each_rank_its_block_of_the_sum(world: World) -> None:
    for rank, said in enumerate(world.said):
        assert said["scattered"] == [float(world.size * (3 * rank + i)) for i in range(3)]
    assert {row.bytes for row in world.rows("scattered")} == {(world.size - 1) * 12}


def test_only_the_root_of_a_broadcast_sends(world: World) -> None:
    last = world.size - 1
    assert all(said["weights"] == [float(last)] * 5 for said in world.said)
    assert [row.bytes for row in world.rows("weights")] == [0] * last + [last * 20]


def test_a_message_counts_on_the_sender_alone(world: World) -> None:
    assert world.said[1]["note"] == [7.0, 7.0, 7.0]
    assert [(row.kind, row.bytes) for row in world.rows("note")] == [("send", 12), ("recv", 0)]


def test_a_background_transfer_is_recorded_in_its_own_lane(world: World) -> None:
    assert all(said["late"] == [float(sum(range(world.size)))] * 4 for said in world.said)
    assert all(said["early"] == [float(world.size)] * 4 for said in world.said)
    assert {row.lane for row in world.rows("late")} == {"background"}
    assert {row.lane for row in world.rows("early")} == {"comm"}


def test_epoch_totals_are_the_sums_of_the_ledger(world: World) -> None:
    for said, ledger in zip(world.said, world.ledgers, strict=True):
        sums: dict[str, int] = {}
        for row in ledger:
            if row.bytes:
                key = f"{row.kind}/{row.phase}"
                sums[key] = sums.get(key, 0) + row.bytes
        assert said["sent"] == sums


def test_rows_name_the_size_of_the_group(world: World) -> None:
    whole = [row for ledger in world.ledgers for row in ledger if row.name != "ends"]
    assert {row.group_size for row in whole} == {world.size}


def test_a_split_reduces_within_each_group_and_not_at_all_in_a_group_of_one(world: World) -> None:
    last = world.size - 1
    middle = sum(range(1, last))
    for rank, said in enumerate(world.said):
        assert said["ends"] == [float(last if rank in (0, last) else middle)]
    sizes = [row.group_size for row in world.rows("ends")]
    assert sizes == [2] * (world.size if world.size != 3 else 2)


def test_exchange_hands_everyone_the_words_of_all(world: World) -> None:
    expected = [{"rank": rank, "text": "x" * rank} for rank in range(world.size)]
    assert all(said["exchanged"] == expected for said in world.said)


def test_one_rank_alone_copies_and_records_nothing(
    tmp_path: Path, start_ranks: Callable[..., None]
) -> None:
    start_ranks("comm_rank.py", 1, tmp_path)
    assert read_ledger(tmp_path / "ledger-rank0.csv") == []
    said = json.loads((tmp_path / "said-rank0.json").read_text())
    assert said["exchange_int64"] == [[0, 1, 2], [3, 4, 5]]
    assert said["gathered"] == [0.0, 0.0]
    assert said["scattered"] == [0.0, 1.0, 2.0]
    assert said["sent"] == {}


def test_a_lane_without_a_group_says_what_to_do() -> None:
    from gnnbench_runtime.comm import Comm
    from gnnbench_runtime.recorder import Recorder

    comm = Comm(Recorder(torch.device("cpu")), rank=0, world_size=2)
    with pytest.raises(RuntimeError, match="open_background"):
        comm.all_reduce(torch.ones(1), "sum", Phase.SYNC, lane="background")
