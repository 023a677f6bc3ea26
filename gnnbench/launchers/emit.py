"""Job files: bash for torchrun and sbatch, YAML for Kubeflow's TrainJob and SkyPilot.

Every rank runs the same command and finds its place in RANK and WORLD_SIZE (torchrun, Kubeflow,
SkyPilot) or in Slurm's variables, so that the command is the same everywhere.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from gnnbench.errors import SpecError, suggest
from gnnbench.launchers.job import JobRequest

PORT = 29500


def emit(kind: str, job: JobRequest, options: Mapping[str, str]) -> str:
    """The text of a job file.

    Args:
        kind: one of `FORMATS`.
        job: what it asks for.
        options: of Slurm's sbatch without dashes, such as {"partition": "gpu"}; "image" of
            Kubeflow, "accelerators" of SkyPilot.

    Raises:
        SpecError: an unknown format, or an option that the format does not have.
    """
    if kind not in FORMATS:
        raise SpecError(f"--emit {kind}: unknown launcher, {suggest(kind, FORMATS)}")
    known = _OPTIONS.get(kind)
    for key in options:
        if known is not None and key not in known:
            allowed = ", ".join(known) or "none"
            raise SpecError(f"--job {key}: {kind} has no such option, allowed: {allowed}")
        if not key.replace("-", "").isalnum() or "\n" in options[key]:
            raise SpecError(f"--job {key}={options[key]!r}: not an option of a job file")
    return FORMATS[kind][1](job, options)


def suffix(kind: str) -> str:
    """The ending of the names of files of a format."""
    return FORMATS[kind][0]


def slurm(job: JobRequest, options: Mapping[str, str]) -> str:
    """A batch script: one gang of tasks, whole hosts, so that no other job disturbs the times."""
    asked: dict[str, object] = {
        "job-name": job.name,
        "nodes": job.hosts,
        "ntasks": job.ranks,
        "ntasks-per-node": job.ranks_per_host,
        "cpus-per-task": job.cores_per_rank,
        "mem": f"{job.memory_mib}M",
        "time": job.limit_min,
        "no-requeue": None,
        "exclusive": None,
    }
    if job.gpus_per_host:
        asked["gpus-per-node"] = job.gpus_per_host
    asked |= options
    lines = [
        f"#SBATCH --{key}" if value is None or value == "" else f"#SBATCH --{key}={value}"
        for key, value in asked.items()
    ]
    return _bash(
        job,
        [
            *lines,
            "set -euo pipefail",
            "",
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))",
            "export MASTER_ADDR MASTER_PORT",
            f"export OMP_NUM_THREADS={job.cores_per_rank}",
            "",
            f"srun --kill-on-bad-exit=1 --ntasks={job.ranks} {shlex.join(job.command)}",
        ],
    )


def torchrun(job: JobRequest, options: Mapping[str, str]) -> str:
    """A script that is started on each host, with HEAD the name of the first one."""
    if job.hosts == 1:
        place = "--standalone"
    else:
        place = (
            f'--nnodes={job.hosts} --rdzv-backend=c10d --rdzv-id={job.name} --rdzv-endpoint="'
            f'${{HEAD:?name of the first host}}:${{PORT:-{PORT}}}"'
        )
    return _bash(
        job,
        [
            f"# Start it on each of the {job.hosts} hosts." if job.hosts > 1 else "# On one host.",
            "set -euo pipefail",
            f"export OMP_NUM_THREADS={job.cores_per_rank}",
            f"exec torchrun {place} --nproc-per-node={job.ranks_per_host} "
            f"{shlex.join(_module(job))}",
        ],
    )


def kubeflow(job: JobRequest, options: Mapping[str, str]) -> str:
    """A TrainJob of Kubeflow Trainer with the runtime torch-distributed.

    Torchrun takes hosts, ranks and the head from the PET_* variables that the trainer sets.
    """
    resources: dict[str, Any] = {
        "cpu": str(job.cores_per_rank * job.ranks_per_host),
        "memory": f"{job.memory_mib}Mi",
    }
    if job.gpus_per_host:
        resources["nvidia.com/gpu"] = str(job.gpus_per_host)
    tree = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": job.name},
        "spec": {
            "runtimeRef": {"name": "torch-distributed"},
            "trainer": {
                "image": options.get("image", "gnnbench:latest"),
                "numNodes": job.hosts,
                "numProcPerNode": job.ranks_per_host,
                "command": ["torchrun", *_module(job)],
                "env": [{"name": "OMP_NUM_THREADS", "value": str(job.cores_per_rank)}],
                "resourcesPerNode": {"requests": resources, "limits": resources},
            },
        },
    }
    return f"{_remark(job)}{_yaml(tree)}"


def skypilot(job: JobRequest, options: Mapping[str, str]) -> str:
    """A SkyPilot task; `sky launch FILE` starts as many hosts as it needs."""
    resources: dict[str, Any] = {"memory": f"{-(-job.memory_mib // 1024)}+"}
    if job.gpus_per_host:
        name = options.get("accelerators", job.device)
        resources["accelerators"] = f"{name}:{job.gpus_per_host}"
    else:
        resources["cpus"] = f"{job.cores_per_rank * job.ranks_per_host}+"
    run = [
        "set -euo pipefail",
        f"export OMP_NUM_THREADS={job.cores_per_rank}",
        'head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)',
        f'torchrun --nnodes="$SKYPILOT_NUM_NODES" --node-rank="$SKYPILOT_NODE_RANK" '
        f'--master-addr="$head" --master-port={PORT} --nproc-per-node={job.ranks_per_host} '
        f"{shlex.join(_module(job))}",
    ]
    tree = {"name": job.name, "num_nodes": job.hosts, "resources": resources}
    block = "".join(f"  {line}\n" for line in run)
    return f"{_remark(job)}{_yaml(tree)}run: |\n{block}"


FORMATS: Mapping[str, tuple[str, Callable[[JobRequest, Mapping[str, str]], str]]] = {
    "slurm": (".sbatch", slurm),
    "torchrun": (".sh", torchrun),
    "kubeflow": (".yaml", kubeflow),
    "skypilot": (".yaml", skypilot),
}
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "torchrun": (),
    "kubeflow": ("image",),
    "skypilot": ("accelerators",),
}
"""Options of the formats; those of Slurm are sbatch's own."""


def _module(job: JobRequest) -> list[str]:
    """The command without its interpreter, which torchrun chooses."""
    return list(job.command)[list(job.command).index("-m") :]


def _bash(job: JobRequest, lines: list[str]) -> str:
    return "\n".join(["#!/usr/bin/env bash", _remark(job).rstrip(), *lines]) + "\n"


def _remark(job: JobRequest) -> str:
    return (
        f"# {job.run_id}: {job.ranks} ranks, {job.ranks_per_host} on a host, all at once.\n"
        f"# {job.memory_mib:,} MiB a host and {job.limit_min} min: {job.basis}.\n"
    )


def _yaml(tree: Mapping[str, Any], indent: int = 0) -> str:
    """Block YAML whose scalars and lists are JSON, which YAML contains."""
    lines = ""
    for key, value in tree.items():
        place = " " * indent + (key if key.replace("_", "").isalnum() else json.dumps(key))
        if isinstance(value, Mapping):
            lines += f"{place}:\n{_yaml(value, indent + 2)}"
        else:
            lines += f"{place}: {json.dumps(value)}\n"
    return lines
