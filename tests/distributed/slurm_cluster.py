"""A Slurm of one node on this machine: munged, slurmctld and slurmd, in a folder of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_START_S = 60.0


def missing() -> str:
    """Why no Slurm can be started here; "" if one can."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=_PLACES) is None]
    if lacking:
        return f"needs Debian's slurm-wlm and munge: no {lacking[0]} here"
    return "" if os.geteuid() == 0 else "slurmd starts jobs as their users: only root can start it"


@contextmanager
def slurm(folder: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Start a Slurm; yields the environment in which its programs reach it."""
    host = socket.gethostname().partition(".")[0]
    key, sock = folder / "munge.key", folder / "munge.socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    config = folder / "slurm.conf"
    config.write_text(
        "\n".join(
            [
                "ClusterName=test",
                f"SlurmctldHost={host}(127.0.0.1)",
                "SlurmUser=root",
                "AuthType=auth/munge",
                f"AuthInfo=socket={sock}",
                "CredType=cred/munge",
                f"SlurmctldPort={_port()}",
                f"SlurmdPort={_port()}",
                f"StateSaveLocation={folder / 'state'}",
                f"SlurmdSpoolDir={folder / 'spool'}",
                f"SlurmctldPidFile={folder / 'slurmctld.pid'}",
                f"SlurmdPidFile={folder / 'slurmd.pid'}",
                f"SlurmctldLogFile={folder / 'slurmctld.log'}",
                f"SlurmdLogFile={folder / 'slurmd.log'}",
                "ProctrackType=proctrack/linuxproc",
                "TaskPlugin=task/none",
                "SelectType=select/cons_tres",
                "SelectTypeParameters=CR_Core_Memory",
                "JobAcctGatherType=jobacct_gather/none",
                "AccountingStorageType=accounting_storage/none",
                "MpiDefault=none",
                "ReturnToService=2",
                "SlurmdParameters=config_overrides",
                f"NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN",
                f"PartitionName=debug Nodes={host} Default=YES MaxTime=60 State=UP",
                "",
            ]
        )
    )
    environment = {**os.environ, "SLURM_CONF": str(config), "PATH": _PLACES}
    munged = [
        *("munged", "--foreground", "--force", f"--socket={sock}", f"--key-file={key}"),
        *(f"--pid-file={folder / 'munged.pid'}", f"--log-file={folder / 'munged.log'}"),
        f"--seed-file={folder / 'munged.seed'}",
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in (munged, ["slurmctld", "-D", "-f", str(config)], ["slurmd", "-D"]):
            started.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            time.sleep(0.5)
        _wait_until_idle(environment, started, folder)
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_idle(
    environment: dict[str, str], started: list[subprocess.Popen[bytes]], folder: Path
) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stdout.strip() == "idle":
            return
        if any(process.poll() is not None for process in started):
            break
        time.sleep(0.5)
    logs = [path.read_text()[-600:] for path in sorted(folder.glob("*.log"))]
    raise RuntimeError("Slurm did not start: " + "\n".join(logs))


def _port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
