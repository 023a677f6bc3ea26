"""One rank of the comm tests: use every collective, write down what came and what was recorded.

python comm_rank.py RANK WORLD_SIZE FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from gnnbench.ledger import LedgerWriter
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.device import practice_environment
from gnnbench_runtime.recorder import Recorder

CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64}


def splits(world_size: int) -> list[list[int]]:
    """Rows that rank i sends to rank j: uneven, own blocks too, and one rank that sends nothing."""
    drawn = np.random.default_rng(world_size).integers(0, 5, (world_size, world_size))
    drawn[world_size - 1] = 0
    drawn[0, 1] = 0
    return drawn.tolist()


def main(rank: int, world_size: int, folder: Path, kind: str = "cpu") -> None:
    device = torch.device(kind, rank % torch.cuda.device_count()) if kind == "cuda" else CPU
    if kind == "cuda":
        torch.cuda.set_device(device)
        os.environ.update(practice_environment(rank))
    if world_size > 1:
        store = dist.FileStore(str(folder / "store"), world_size)
        backend = "nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    torch.set_default_device(device)
    recorder = Recorder(device, writer=LedgerWriter(folder / f"ledger-rank{rank}.csv"))
    comm = Comm(recorder, rank=rank, world_size=world_size, device=device)
    recorder.period_begin(0)
    said: dict[str, object] = {}

    rows = splits(world_size) if world_size > 1 else [[2]]
    send, receive = rows[rank], [row[rank] for row in rows]
    for name, dtype in DTYPES.items():
        numbers = torch.arange(sum(send) * 3).reshape(-1, 3) + 1000 * rank
        received = torch.zeros((sum(receive), 3), dtype=dtype)
        comm.all_to_all(
            received, numbers.to(dtype), receive, send, f"exchange_{name}", Phase.FORWARD, layer=1
        )
        said[f"exchange_{name}"] = received.tolist()

    empty = torch.empty((0, 4))
    none = [0] * world_size
    comm.all_to_all(torch.empty((0, 4)), empty, none, none, "nothing", Phase.FORWARD)

    total = torch.arange(7, dtype=torch.float64) + rank
    comm.all_reduce(total, "gradients", Phase.SYNC)
    said["gradients"] = total.tolist()

    gathered = torch.empty(2 * world_size)
    comm.all_gather(gathered, torch.full((2,), float(rank)), "gathered", Phase.FETCH)
    said["gathered"] = gathered.tolist()

    block = torch.empty(3)
    comm.reduce_scatter(block, torch.arange(3.0 * world_size), "scattered", Phase.BACKWARD)
    said["scattered"] = block.tolist()

    weights = torch.full((5,), float(rank))
    comm.broadcast(weights, world_size - 1, "weights", Phase.UPDATE)
    said["weights"] = weights.tolist()

    if world_size > 1:
        note = torch.full((3,), 7.0 if rank == 0 else 0.0)
        if rank == 0:
            comm.send(note, 1, "note", Phase.LOAD)
        elif rank == 1:
            comm.recv(note, 0, "note", Phase.LOAD)
            said["note"] = note.tolist()
    comm.barrier("meet", Phase.SYNC)

    comm.open_background()
    first, second = torch.ones(4) * rank, torch.ones(4)
    pending = comm.all_reduce_async(first, "late", Phase.SYNC)
    comm.all_reduce(second, "early", Phase.SYNC, lane=Lane.COMM)
    pending.wait()
    said["late"], said["early"] = first.tolist(), second.tolist()

    middle = list(range(1, world_size - 1))
    ends = comm.split([[0, world_size - 1], middle] if world_size > 1 else [[0]])
    value = torch.tensor([float(rank)])
    ends.all_reduce(value, "ends", Phase.SYNC)
    said["ends"] = value.tolist()
    said["sent"] = recorder.period_end()
    said["exchanged"] = comm.exchange({"rank": rank, "text": "x" * rank})
    recorder.close()
    comm.close()
    if world_size > 1:
        dist.destroy_process_group()
    (folder / f"said-rank{rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
