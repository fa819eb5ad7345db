"""The launch files of docs/launch/ are what their readers take them for; what can run here runs."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

import train
from tests.conftest import ROOT, weights
from tests.ranks import free_port
from tests.test_parallel import assert_same, losses

LAUNCH = ROOT / "docs/launch"
SETTINGS = {  # many short steps
    "eval": {"baseline": False, "every": 4},
    "train": {"epochs": 4, "micro_batch_size": 2, "accumulate": 5, "lr": 1e-2},
    "speed": {"native": "off"},
}
SHELL = ["one_machine.sh", "two_machines.sh", "slurm.sbatch"]
# sbatch's own, as `man sbatch` has them, and the form of what follows
SBATCH = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+",
    "ntasks-per-node": r"\d+",
    "gpus-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "mem": r"\d+[KMGT]?",
    "time": r"(\d+-)?\d+:\d\d:\d\d",
    "signal": r"B:TERM@\d+",
    "requeue": "",
    "open-mode": "append|truncate",
    "output": r"[\w%./-]+",
}
WAITS = "touch $FAKES/up; sleep 20 > /dev/null 2>&1 & wait"
FAKES = {
    # as many processes as the job has, each told once of a signal to the step; the worst status
    "srun": """
        echo $$ > "$FAKES/step"
        [[ $1 == --kill-on-bad-exit=1 ]] && shift
        for ((rank = 0; rank < SLURM_NTASKS; rank++)); do
            SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & ids+=($!)
        done
        trap 'kill -TERM "${ids[@]}"' USR1
        worst=0
        for id in "${ids[@]}"; do
            status=0; wait "$id" || status=$?
            while kill -0 "$id" 2> /dev/null; do status=0; wait "$id" || status=$?; done
            ((status > worst)) && worst=$status
        done
        exit "$worst"
    """,
    "scontrol": """
        if [[ $1 == show ]]; then echo 127.0.0.1; else echo "$@" >> "$FAKES/requeued"; fi
    """,
    "scancel": """
        [[ $* == "--signal=TERM $SLURM_JOB_ID.0" ]] && kill -USR1 "$(< "$FAKES/step")"
    """,
    "squeue": 'echo "${STATE:-RUNNING}"',
}


def words_after(name, first):
    """The words that a launch file gives to a program, those of the shell put in."""
    text = (LAUNCH / name).read_text(encoding="utf-8").replace("\\\n", " ")
    line = next(line for line in text.splitlines() if line.startswith(first))
    line = line.replace('"$config" "$@"', "configs/imdb_lora.toml train.accumulate=4")
    line = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", line).replace("$meet", "node-a").replace('"', "")
    return line.removeprefix("exec ").split()[1:]


def assert_understood(words):
    """torchrun knows its options, and train.py what it is given."""
    options = get_args_parser().parse_args(words)
    assert options.training_script == "train.py"
    assert options.shutdown_timeout >= 300  # 30 s by itself, then it kills what is still saving
    given = train.parse_arguments(options.training_script_args)
    assert given.resume
    assert (ROOT / given.config).exists()
    return options


@pytest.mark.parametrize("name", SHELL)
def test_a_shell_reads_it(name):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    done = subprocess.run(["bash", LAUNCH / name], capture_output=True, encoding="utf-8")
    assert done.returncode != 0
    assert f"docs/launch/{name} " in done.stderr  # how it is called, with a recipe


def test_torchrun_knows_the_options():
    one = assert_understood(words_after("one_machine.sh", "exec torchrun"))
    assert one.standalone
    two = assert_understood(words_after("two_machines.sh", "exec torchrun"))
    assert (two.nnodes, two.rdzv_backend, two.rdzv_endpoint) == ("2", "c10d", "node-a:29400")


def test_sbatch_knows_the_directives():
    text = (LAUNCH / "slurm.sbatch").read_text(encoding="utf-8")
    given = re.findall(r"^#SBATCH --([\w-]+)=?(\S*)", text, re.MULTILINE)
    assert len(given) == text.count("\n#SBATCH")
    assert {"signal", "requeue", "open-mode"} <= {name for name, _ in given}
    for name, value in given:
        assert re.fullmatch(SBATCH[name], value), name
    after = text[text.index("set -euo") :]
    assert "#SBATCH" not in after  # below the first command sbatch reads none


@pytest.fixture
def slurm(tmp_path):
    """slurm(*words, **environment) starts the script as a job of two processes."""
    programs = FAKES | {"python": '[[ -v PROGRAM ]] && eval "$PROGRAM"\nexec "$PYTHON" "$@"'}
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}", encoding="utf-8")
        (tmp_path / name).chmod(0o755)

    def start(*words, **environment):
        job = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "FAKES": str(tmp_path), "SLURM_JOB_ID": str(
                free_port()), "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2", "OMP_NUM_THREADS": "1", "PYTHON": sys.executable,
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", LAUNCH / "slurm.sbatch", *words], cwd=ROOT, env=os.environ | job | environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
        )  # fmt: skip

    return start


@pytest.mark.parametrize(
    ("program", "tell", "state", "status", "requeued"),
    [
        ("exit 0", False, "RUNNING", 0, False),
        ("exit 2", False, "RUNNING", 2, False),  # an error that another start would meet again
        ("exit 143", False, "RUNNING", 143, True),  # Slurm told the processes itself: preempted
        ("exit 143", False, "COMPLETING", 143, False),  # somebody cancelled it
        (
            f"trap 'exit 143' TERM; {WAITS}",
            True,
            "RUNNING",
            143,
            True,
        ),
        (
            f"trap 'exit 0' TERM; {WAITS}",
            True,
            "RUNNING",
            0,
            False,
        ),
    ],
)
def test_a_job_queues_itself_again_where_it_saved_and_stopped(
    slurm, tmp_path, program, tell, state, status, requeued
):
    job = slurm("recipe.toml", STATE=state, PROGRAM=program)
    if tell:
        until((tmp_path / "up").exists, job)
        time.sleep(0.3)  # until both have set their traps
        job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=30)[0]
    assert job.returncode == status, said
    assert (tmp_path / "requeued").exists() == requeued


def until(condition, process):
    """Wait for it while the process lives."""
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


@pytest.mark.ranks
@pytest.mark.timeout(600)
def test_a_slurm_job_that_is_told_to_stop_ends_with_the_same_bits(slurm, recipe, tmp_path):
    path, runs = recipe(**SETTINGS, run={"save_every": 1}), tmp_path / "runs"
    job = slurm(path, "run.name=whole")
    assert job.wait(timeout=240) == 0, job.communicate()[0]
    job = slurm(path, "run.name=cut")
    until(lambda: list(runs.glob("cut/checkpoints/step-*")), job)
    job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=120)[0]
    assert job.returncode == 143, said
    assert (tmp_path / "requeued").read_text(encoding="utf-8").startswith("requeue ")
    assert not (runs / "cut/result.json").exists()
    job = slurm(path, "run.name=cut")  # what Slurm starts then is the same line
    assert job.wait(timeout=240) == 0, job.communicate()[0]
    assert losses(runs / "whole") == losses(runs / "cut")
    other = weights(runs / "cut")
    assert all(weight.equal(other[name]) for name, weight in weights(runs / "whole").items())


@pytest.mark.ranks
@pytest.mark.timeout(600)
def test_one_machine_starts_a_run_and_leaves_a_finished_one(start, recipe):
    alone, path = start("alone")[0], recipe(**SETTINGS)
    for words in ("test at step", "finished, nothing to do"):
        process = launch("one_machine.sh", path, "run.name=one", PROCESSES="2")
        said = process.communicate(timeout=240)[0]
        assert process.returncode == 0, said
        assert words in said
    assert_same(alone, alone.parent / "one")


@pytest.mark.ranks
@pytest.mark.timeout(600)
def test_two_machines_meet_by_the_same_line(start, recipe):
    alone, path, port = start("alone")[0], recipe(**SETTINGS), str(free_port())
    words = ["127.0.0.1", path, "run.name=two"]
    both = [launch("two_machines.sh", *words, PROCESSES="1", PORT=port) for _ in range(2)]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("test at step" in one for one in said) == [
        False,
        True,
    ]  # rank 0's machine says it
    assert_same(alone, alone.parent / "two")


def launch(name, *words, **environment):
    """A shell script of docs/launch/."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", LAUNCH / name, *words], cwd=ROOT, encoding="utf-8", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def test_kubernetes_has_a_whole_pytorch_job():
    job = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    spec = job["spec"]
    assert set(spec) == {"nprocPerNode", "runPolicy", "pytorchReplicaSpecs"}  # no elasticPolicy
    assert isinstance(spec["nprocPerNode"], str)  # the schema has a string: "8" or "auto"
    assert set(spec["runPolicy"]) <= {"backoffLimit", "cleanPodPolicy"}
    assert spec["runPolicy"]["cleanPodPolicy"] in ("All", "Running", "None")
    assert set(spec["pytorchReplicaSpecs"]) == {"Master", "Worker"}
    assert spec["pytorchReplicaSpecs"]["Master"]["replicas"] == 1
    for replica in spec["pytorchReplicaSpecs"].values():
        assert set(replica) == {"replicas", "restartPolicy", "template"}
        assert replica["restartPolicy"] == "OnFailure"
        assert_whole_pod(replica["template"]["spec"], spec["nprocPerNode"])


def assert_whole_pod(pod, processes):
    """A pod that starts, has the shared memory NCCL needs, and the time to save."""
    (container,) = pod["containers"]
    assert container["name"] == "pytorch"  # where the operator puts its variables and port
    assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == processes
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert mounts["shm"] == "/dev/shm"
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
    assert container["command"][0] == "torchrun"
    options = assert_understood(container["command"][1:])
    assert options.shutdown_timeout < pod["terminationGracePeriodSeconds"]
    run_dir = next(w for w in options.training_script_args if w.startswith("run.dir="))
    assert run_dir.removeprefix("run.dir=") == mounts["runs"]  # else it goes with its pod


def test_the_ray_driver_is_short_and_names_what_ray_has():
    text = (LAUNCH / "ray_train.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)][1:]
    assert sum(node.end_lineno - node.lineno + 1 for node in body) <= 40
    names = {
        node.module: {alias.name for alias in node.names}
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ray")
    }
    assert names == {
        "ray.train": {"FailureConfig", "RunConfig", "ScalingConfig"},
        "ray.train.collective": {"broadcast_from_rank_zero"},
        "ray.train.torch": {"TorchTrainer"},
    }


@pytest.mark.ranks
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed")
def test_ray_workers_train_as_one_process_and_again_where_one_is_killed(start, recipe):
    alone, path = start("alone")[0], recipe(**SETTINGS, run={"save_every": 1})
    words = ["--workers", "2", "--cpu", "--failures", "2", path, "run.name=ray"]
    driver = subprocess.Popen(
        [sys.executable, LAUNCH / "ray_train.py", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests/launching"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", cwd=alone.parent,
    )  # fmt: skip
    until(lambda: list((alone.parent / "ray").glob("checkpoints/step-*")), driver)
    kill_a_worker(driver.pid)
    said = driver.communicate(timeout=240)[0]
    assert driver.returncode == 0, said
    assert "resuming from" in said
    assert_same(alone, alone.parent / "ray")


def kill_a_worker(driver):
    """End one child of the driver, with no word; what it started goes with it."""
    children = Path(f"/proc/{driver}/task/{driver}/children").read_text(encoding="utf-8").split()
    os.kill(int(children[-1]), signal.SIGKILL)
