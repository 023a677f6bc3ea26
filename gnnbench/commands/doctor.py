"""`gnnbench doctor`: what this machine offers, what is missing, and how to mend it."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from gnnbench.kernel_cache import VARIABLE, is_writable, places

NAME = "doctor"
HELP = "check this machine: versions, devices, memory, network, and what is missing"

# Distribution names, as pyproject.toml lists them; a test holds the two equal.
BASE_PACKAGES = (
    "jinja2",
    "markupsafe",
    "matplotlib",
    "networkx",
    "numba",
    "numpy",
    "pandas",
    "pymetis",
    "rich",
    "scipy",
    "simpy",
    "tomlkit",
)
RUNTIME_PACKAGES = ("nvidia-ml-py", "psutil", "torch")

GIB = 2**30
Word = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: `fail` means that something the base install needs is broken."""

    status: Word
    subject: str
    detail: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the doctor looks at everything."""


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, status_line

    findings = list(examine())
    failed = any(finding.status == "fail" for finding in findings)
    if args.json:
        emit_json({"ok": not failed, "findings": findings})
        return int(failed)
    for finding in findings:
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        status_line(finding.status, f"{finding.subject:<14}", finding.detail + remedy)
    return int(failed)


def examine() -> Iterator[Finding]:
    """Yield every finding; a check that itself breaks is a warning, not the end of the others."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        python,
        cores,
        memory,
        storage,
        packages,
        torch_build,
        gpus,
        network,
        loopback,
        limits,
        kernel_cache,
        launcher,
    )
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            subject = check.__name__.replace("_", " ")
            yield Finding("warn", subject, f"cannot be examined: {type(error).__name__}: {error}")


def python() -> Iterator[Finding]:
    """Report the interpreter and the platform."""
    version = platform.python_version()
    yield Finding("ok", "python", f"{version} ({platform.python_implementation()})")
    word: Word = "ok" if sys.platform == "linux" else "warn"
    remedy = "" if word == "ok" else "only Linux is tested"
    yield Finding(word, "platform", f"{platform.platform()} {platform.machine()}", remedy)


def cores() -> Iterator[Finding]:
    """Report the cores this process may use, and a container's quota where there is one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    detail = f"{usable} usable of {os.cpu_count()}"
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        detail += f", quota {int(quota[0]) / int(quota[1]):.3g}"
    word: Word = "warn" if usable == 1 else "ok"
    remedy = (
        "ranks will share one core: their times are not those of one rank per core"
        if word == "warn"
        else ""
    )
    yield Finding(word, "cores", detail, remedy)


def memory() -> Iterator[Finding]:
    """Report total and available memory, capped by a container's limit."""
    info = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    total, free = (int(info[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    limit = _read("/sys/fs/cgroup/memory.max")
    detail = f"{free / GIB:.1f} of {total / GIB:.1f} GiB available"
    if limit.isdigit() and int(limit) < total:
        free = min(free, int(limit) - int(_read("/sys/fs/cgroup/memory.current") or 0))
        detail = f"{free / GIB:.1f} GiB available under a limit of {int(limit) / GIB:.1f} GiB"
    low = free < 2 * GIB
    yield Finding("warn" if low else "ok", "memory", detail, "close other programs" if low else "")


def storage() -> Iterator[Finding]:
    """Report free space here and in shared memory."""
    free = shutil.disk_usage(".").free
    low = free < 2 * GIB
    remedy = "choose --results on a larger disk" if low else ""
    yield Finding("warn" if low else "ok", "disk", f"{free / GIB:.1f} GiB free here", remedy)
    if Path("/dev/shm").is_dir():
        size = shutil.disk_usage("/dev/shm").total
        small = size < GIB
        remedy = "NCCL between ranks wants 1 GiB; in a container: --shm-size=2g" if small else ""
        detail = f"{size / GIB:.2f} GiB at /dev/shm"
        yield Finding("warn" if small else "ok", "shared memory", detail, remedy)


def packages() -> Iterator[Finding]:
    """Report the version of each dependency, or how to install it."""
    for name in BASE_PACKAGES:
        version = _version(name)
        if version:
            yield Finding("ok", name, version)
        else:
            yield Finding("fail", name, "missing", f"pip install {name}")
    for name in RUNTIME_PACKAGES:
        version = _version(name)
        if version:
            yield Finding("ok", name, version)
        else:
            remedy = "pip install 'gnnbench[runtime]' (needed only to train)"
            yield Finding("warn", name, "missing", remedy)


def torch_build() -> Iterator[Finding]:
    """Report what torch was built with: CUDA, NCCL, gloo."""
    torch = _optional("torch")
    if torch is None:
        return
    distributed = import_module("torch.distributed")
    if distributed.is_available() and distributed.is_gloo_available():
        yield Finding("ok", "gloo", f"available, torch uses {torch.get_num_threads()} threads")
    else:
        yield Finding("warn", "gloo", "missing from this torch", "install a torch with gloo")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        detail = f"built for {built} but no usable device" if built else "a CPU build of torch"
        yield Finding("ok", "cuda", f"{detail}: ranks run on CPU with gloo")
        return
    yield Finding("ok", "cuda", f"{torch.version.cuda}, {torch.cuda.device_count()} device(s)")
    if distributed.is_nccl_available():
        yield Finding("ok", "nccl", ".".join(str(part) for part in torch.cuda.nccl.version()))
    else:
        yield Finding("warn", "nccl", "missing from this torch", "install a torch with NCCL")


def gpus() -> Iterator[Finding]:
    """Report each NVIDIA GPU, and whether others use it."""
    pynvml = _optional("pynvml")
    if pynvml is None:
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield Finding("ok", "gpu", f"none ({error})")
        return
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        for index in range(pynvml.nvmlDeviceGetCount()):
            yield _gpu(pynvml, index, driver)
    finally:
        pynvml.nvmlShutdown()
    torch = _optional("torch")
    if torch is not None and not torch.cuda.is_available():
        remedy = "install a CUDA build of torch to train on it"
        yield Finding("warn", "gpu", "present, but torch cannot use it", remedy)


def _gpu(pynvml: Any, index: int, driver: str) -> Finding:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory_info = pynvml.nvmlDeviceGetMemoryInfo(handle)
    used, total = memory_info.used, memory_info.total
    detail = f"{pynvml.nvmlDeviceGetName(handle)}, {total / GIB:.0f} GiB, driver {driver}"
    busy = used > total / 10
    remedy = f"{used / GIB:.0f} GiB are in use by others: times will be disturbed" if busy else ""
    return Finding("warn" if busy else "ok", f"gpu {index}", detail, remedy)


def network() -> Iterator[Finding]:
    """Report whether gloo and NCCL will find an interface to bind to."""
    interfaces = [name for _, name in socket.if_nameindex()]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        named = os.environ.get(variable, "")
        # NCCL reads prefixes, '=' for exact and '^' for exclusion; only plain names are judged.
        absent = [name for name in named.split(",") if name and name[0] not in "^="]
        absent = [name for name in absent if not any(have.startswith(name) for have in interfaces)]
        if absent:
            remedy = f"set it to one of {', '.join(interfaces)}"
            yield Finding("warn", "network", f"{variable}={named} is no interface here", remedy)
        elif named:
            yield Finding("ok", "network", f"{variable}={named}")
    host = socket.gethostname()
    try:
        address = socket.gethostbyname(host)
        with socket.socket() as probe:
            probe.bind((address, 0))
        yield Finding("ok", "host name", f"{host} is {address}")
    except OSError as error:
        detail = f"{host} has no address of this machine ({error.strerror or error})"
        chosen = "GLOO_SOCKET_IFNAME" in os.environ
        remedy = "" if chosen else "on one machine: export GLOO_SOCKET_IFNAME=lo"
        yield Finding("ok" if chosen else "warn", "host name", detail, remedy)


def loopback() -> Iterator[Finding]:
    """Time a message there and back through TCP on this machine."""
    try:
        round_trip_s = loopback_round_trip_s()
    except OSError as error:
        remedy = "ranks on one machine talk through 127.0.0.1: allow it"
        yield Finding("fail", "loopback", str(error), remedy)
        return
    yield Finding("ok", "loopback", f"round trip of 8 bytes: {round_trip_s * 1e6:.0f} µs")


def loopback_round_trip_s(rounds: int = 400) -> float:
    """Return the median seconds of a round trip of 8 bytes over 127.0.0.1.

    Both ends live in one thread, so no scheduling is in it: a floor for the latency between
    ranks of one machine, which gloo's own threads raise several times.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname(), timeout=5.0)
        far, _ = server.accept()
    message, times = b"gnnbench", []
    with near, far:
        for end in (near, far):
            end.settimeout(5.0)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds):
            start = time.perf_counter()
            near.sendall(message)
            far.sendall(far.recv(len(message)))
            near.recv(len(message))
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def limits() -> Iterator[Finding]:
    """Report the limit on open files: every pair of ranks holds sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = 0 <= soft < 1024
    remedy = f"ulimit -n {min(4096, hard) if hard > 0 else 4096}" if low else ""
    detail = "unlimited" if soft < 0 else f"{soft} (hard limit {hard})"
    yield Finding("warn" if low else "ok", "open files", detail, remedy)


def kernel_cache() -> Iterator[Finding]:
    """Report whether compiled numba kernels can be kept between runs."""
    named = os.environ.get(VARIABLE)
    folders = (Path(named),) if named else places()
    folder = next((f for f in folders if is_writable(f)), None)
    remedy = f"export {VARIABLE} to a folder you own"
    if folder is None:
        remedy += ": numba compiles nothing without one"
        yield Finding("fail", "kernel cache", f"{folders[0]} cannot be written to", remedy)
    elif Path(tempfile.gettempdir()) in folder.parents:
        remedy += ": this one may be emptied, and kernels are then compiled again"
        yield Finding("warn", "kernel cache", str(folder), remedy)
    else:
        yield Finding("ok", "kernel cache", str(folder))


def launcher() -> Iterator[Finding]:
    """Report the variables of a launcher that `gnnbench run` would join."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "SLURM_PROCID", "SLURM_NTASKS")
    found = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    detail = "joins " + " ".join(found) if found else "none: `gnnbench run` starts its own ranks"
    yield Finding("ok", "launcher", detail)


def _optional(module: str) -> Any | None:
    try:
        return import_module(module)
    except ImportError:
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
