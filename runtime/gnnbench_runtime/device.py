"""Devices: which one a rank uses, what it is called, and how several ranks may share a GPU."""

from __future__ import annotations

import os
import platform
import sys
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import FileStore  # type: ignore[attr-defined]

from gnnbench.commit import commit
from gnnbench.errors import Unsupported
from gnnbench_runtime.job import Job

# From this NCCL on, one variable allows several ranks on a GPU; before, ranks must seem to be on
# different hosts.
_SHARING_NCCL = (2, 30)
PRACTICE_NOTE = "practice: several ranks share a GPU, so times and bandwidths mean nothing"


def open_device(job: Job, rank: int) -> torch.device:
    """Return the rank's device, made current."""
    if job.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise Unsupported("device cuda: torch sees no CUDA device here; use --device cpu")
    local = int(os.environ.get("LOCAL_RANK", rank % job.ranks_per_host))
    device = torch.device("cuda", local % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def practice_environment(rank: int) -> dict[str, str]:
    """Variables that let NCCL run several ranks on one GPU. Set before the process group."""
    version = torch.cuda.nccl.version()  # type: ignore[attr-defined]
    if tuple(version[:2]) >= _SHARING_NCCL:
        return {"NCCL_MULTI_RANK_GPU_ENABLE": "1"}
    return {"NCCL_HOSTID": f"gnnbench-rank{rank}", "NCCL_SOCKET_IFNAME": "lo"}


def open_group(job: Job, rank: int, device: torch.device) -> None:
    """Join the process group of the run; its rendezvous is a file of this machine.

    The group's own timeout is far longer than the watchdog's, which finds the failed rank.
    """
    if job.world_size == 1:
        return
    options: dict[str, Any] = {}
    if job.backend == "nccl":
        if job.practice:
            os.environ.update(practice_environment(rank))
        options["device_id"] = device
    dist.init_process_group(
        "nccl" if job.backend == "nccl" else "gloo",
        store=FileStore(str(job.scratch / "rendezvous"), job.world_size),
        rank=rank,
        world_size=job.world_size,
        timeout=timedelta(seconds=max(300.0, 10 * job.run.training.timeout_s)),
        **options,
    )


def open_store_group(store: Path, rank: int, world_size: int, device: torch.device) -> None:
    """Join a process group outside of any run (calibration), its rendezvous a file."""
    nccl = device.type == "cuda"
    options: dict[str, Any] = {"device_id": device} if nccl else {}
    dist.init_process_group(
        "nccl" if nccl else "gloo",
        store=FileStore(str(store), world_size),
        rank=rank,
        world_size=world_size,
        **options,
    )


def describe(job: Job, device: torch.device) -> dict[str, Any]:
    """Return `RunRecord.device`."""
    cuda = device.type == "cuda"
    return {
        "kind": device.type,
        "name": torch.cuda.get_device_name(device) if cuda else processor_name(),
        "backend": job.backend if job.world_size > 1 else "none",
        "ranks_per_host": job.ranks_per_host,
        "threads_per_rank": job.run.training.threads_per_rank,
        "cores": len(os.sched_getaffinity(0)),
        "host_memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "practice": job.practice,
        "note": PRACTICE_NOTE if job.practice else job.note,
    }


def versions(device: torch.device) -> dict[str, str]:
    """Return the versions that a measured number depends on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("gnnbench", "torch", "numpy", "numba"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = getattr(sys.modules.get(name), "__version__", "unknown")
    found["commit"] = commit()
    if device.type == "cuda":
        found["cuda"] = str(torch.version.cuda)
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[attr-defined]
    return found


def processor_name() -> str:
    """Return the processor's name as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()
