"""Job files: what each launcher is told, and that the command is the same for all."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gnnbench.errors import SpecError
from gnnbench.launchers.emit import FORMATS, emit
from gnnbench.launchers.job import JobRequest

COMMAND = ("/opt/my env/bin/python", "-m", "gnnbench", "run", "s.toml", "--only", "a b$(touch x)")


def _job(**changes: Any) -> JobRequest:
    fields: dict[str, Any] = {
        "run_id": "products-sage-partition-p8-0123abcd-r0",
        "command": COMMAND,
        "ranks": 8,
        "ranks_per_host": 4,
        "gpus_per_host": 4,
        "cores_per_rank": 2,
        "memory_bytes": 10 * 2**30 + 1,
        "limit_s": 61,
        "basis": "predicted",
        "device": "A100-80GB",
    }
    return JobRequest(**{**fields, **changes})


def _words(text: str) -> list[str]:
    """The words of the last command of a bash script, as bash splits them."""
    return shlex.split(text.strip().splitlines()[-1])


def test_a_job_is_one_gang_on_whole_hosts() -> None:
    job = _job()
    assert (job.hosts, job.memory_mib, job.limit_min) == (2, 10 * 1024 + 1, 2)
    assert len(job.name) <= 60
    assert _job(run_id="other").name != job.name


def test_slurm_asks_for_what_was_predicted() -> None:
    text = emit("slurm", _job(), {"partition": "gpu"})
    for line in (
        *("--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=2"),
        *("--mem=10241M", "--time=2", "--gpus-per-node=4", "--exclusive", "--partition=gpu"),
    ):
        assert f"#SBATCH {line}\n" in text
    assert _words(text)[-len(COMMAND) :] == list(COMMAND)
    assert "gpus-per-node" not in emit("slurm", _job(gpus_per_host=0), {})
    assert "#SBATCH --time=60\n" in emit("slurm", _job(), {"time": "60"})


def test_torchrun_meets_at_the_first_host() -> None:
    text = emit("torchrun", _job(), {})
    assert "--nnodes=2 " in text and "--nproc-per-node=4 " in text
    assert _words(text)[-6:] == list(COMMAND)[1:]
    assert "--standalone" in emit("torchrun", _job(ranks=4), {})


def _yaml(text: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML, of the dev extra, is not installed")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def test_kubeflow_gets_a_train_job() -> None:
    tree = _yaml(emit("kubeflow", _job(), {"image": "registry.example/gnn:1"}))
    trainer = tree["spec"]["trainer"]
    assert (tree["kind"], tree["apiVersion"]) == ("TrainJob", "trainer.kubeflow.org/v1alpha1")
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["command"] == ["torchrun", *COMMAND[1:]]
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "4"
    assert trainer["image"] == "registry.example/gnn:1"


def test_skypilot_gets_a_task() -> None:
    tree = _yaml(emit("skypilot", _job(), {}))
    assert (tree["num_nodes"], tree["resources"]["accelerators"]) == (2, "A100-80GB:4")
    assert shlex.split(tree["run"].strip().splitlines()[-1])[-6:] == list(COMMAND)[1:]


def test_yaml_without_a_parser_is_lines_of_json() -> None:
    lines = emit("kubeflow", _job(), {}).splitlines()
    (command,) = [line for line in lines if "command:" in line]
    assert json.loads(command.partition(": ")[2])[0] == "torchrun"


@pytest.mark.parametrize("kind", ["slurm", "torchrun"])
def test_scripts_are_valid_bash_and_quote_what_users_wrote(kind: str, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    path = tmp_path / "job"
    path.write_text(emit(kind, _job(), {}))
    assert subprocess.run([bash, "-n", str(path)], check=False).returncode == 0


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("slurrm", {}, "unknown launcher, did you mean 'slurm'?"),
        ("torchrun", {"image": "x"}, "torchrun has no such option, allowed: none"),
        ("kubeflow", {"partition": "x"}, "allowed: image"),
        ("slurm", {"time": "1\nrm"}, "not an option of a job file"),
        ("slurm", {"a b": "1"}, "not an option of a job file"),
    ],
)
def test_an_option_that_a_launcher_lacks_is_refused(
    kind: str, options: dict[str, str], problem: str
) -> None:
    with pytest.raises(SpecError, match=problem.replace("?", r"\?").replace("'", "'")):
        emit(kind, _job(), options)


def test_every_format_names_the_run_and_where_its_limits_come_from() -> None:
    for kind in FORMATS:
        text = emit(kind, _job(), {})
        assert "# products-sage-partition-p8-0123abcd-r0: 8 ranks, 4 on a host" in text
        assert "predicted." in text
