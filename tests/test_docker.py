"""The Dockerfile for serving: what it copies is there, nobody is root, its command is accepted."""

import ast
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import openloop
import serve

ROOT = Path(__file__).parent.parent


def read_steps():
    """(instruction, the rest) of each step; continued lines are joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = lines.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined if line.strip()]


STEPS = read_steps()


def rest_of(instruction):
    return [rest for name, rest in STEPS if name == instruction]


def copied():
    """(source, target) of every COPY."""
    pairs = []
    for rest in rest_of("COPY"):
        *sources, target = shlex.split(rest)
        pairs += [(source, target) for source in sources]
    return pairs


def command():
    """What the container runs, without the interpreter and the script."""
    (start,), (words,) = rest_of("ENTRYPOINT"), rest_of("CMD")
    python, script, *options = json.loads(start)
    assert (python, script) == ("python", "serve.py")
    return options + json.loads(words)


def test_what_it_copies_is_there_and_not_ignored():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    for source, target in copied():
        assert (ROOT / source).exists(), source
        assert f"!{source.rstrip('/')}" in lines, source
        assert target == (source if source.endswith("/") else "./")


def test_every_package_of_ours_is_copied_and_nothing_besides():
    folders = {source.rstrip("/") for source, _ in copied() if source.endswith("/")}
    assert folders == set(openloop.PACKAGES)
    imported = {
        node.module.split(".")[0]
        for node in ast.walk(ast.parse((ROOT / "serve.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    ours = {name for name in imported if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()}
    assert ours <= folders | {source.removesuffix(".py") for source, _ in copied()}


def test_nobody_is_root_when_it_answers():
    names = [name for name, _ in STEPS]
    (user,) = rest_of("USER")
    assert user not in ("root", "0")
    assert re.search(rf"useradd .*\b{user}\b", " ".join(rest_of("RUN")))
    assert max(i for i, name in enumerate(names) if name == "RUN") < names.index("USER")


def test_versions_are_those_that_are_tested():
    (image,) = rest_of("FROM")
    assert re.fullmatch(r"python:3\.\d+-slim", image)
    (install,) = [run for run in rest_of("RUN") if ".[serve]" in run]
    assert "-c constraints.txt" in install


def test_the_command_is_one_that_serve_accepts():
    options = serve.parse_arguments(command())
    assert (options.host, options.port) == ("0.0.0.0", int(rest_of("EXPOSE")[0]))
    assert f":{options.run}:ro" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def health_check():
    """The words of the command that asks for its health."""
    return json.loads(rest_of("HEALTHCHECK")[0].partition("CMD ")[2])


def wait_for_health(port, process, seconds=300):
    """Ask /health as the image does until it answers."""
    words = [word.replace(":8000/", f":{port}/") for word in health_check()]
    assert words != health_check()
    words[0] = sys.executable
    end = time.monotonic() + seconds
    while subprocess.run(words, capture_output=True).returncode:
        assert process.poll() is None, "it ended before it answered"
        assert time.monotonic() < end, "it never answered"
        time.sleep(0.2)


def predict_once(port):
    body = json.dumps({"inputs": "a good film"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_what_is_copied_is_enough_to_answer(tmp_path, run, free_port):
    """The image without docker: the files that it holds, its command and its check of health."""
    for source, _ in copied():
        take = shutil.copytree if source.endswith("/") else shutil.copy
        take(ROOT / source, tmp_path / source)
    options = [*command()[:-1], str(run), "--port", str(free_port), "--host", "127.0.0.1"]
    process = subprocess.Popen([sys.executable, "serve.py", *options], cwd=tmp_path)
    try:
        wait_for_health(free_port, process)
        assert sum(element["score"] for element in predict_once(free_port)) == pytest.approx(1)
    finally:
        process.terminate()
        assert process.wait(30) == 0


def has_docker():
    """Whether a docker answers that can build."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_image_builds_and_answers_from_a_folder_that_it_cannot_write(run, free_port):
    if not has_docker():
        pytest.skip("no docker here")
    tag = "openloop-test"
    subprocess.run(["docker", "build", "--quiet", "--tag", tag, str(ROOT)], check=True)
    words = ["docker", "run", "--rm", "--name", tag, "-p", f"127.0.0.1:{free_port}:8000"]
    process = subprocess.Popen([*words, "-v", f"{run}:/runs/model:ro", tag])
    try:
        wait_for_health(free_port, process)
        assert sum(element["score"] for element in predict_once(free_port)) == pytest.approx(1)
        who = subprocess.run(
            ["docker", "exec", tag, "id", "-u"], capture_output=True, text=True, encoding="utf-8"
        )
        assert who.stdout.strip() != "0"
    finally:
        subprocess.run(["docker", "stop", tag], capture_output=True)
        assert process.wait(60) == 0


@pytest.fixture
def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]
