"""What a newcomer reads first is ours: pip is heard only where it fails."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = """#!/bin/sh
case "$*" in
  *pip*) echo 'Collecting torch'; exit ${PIP_STATUS} ;;
  *pytest*) echo 'the tests ran' ;;
esac
"""


def run_make(folder: Path, target: str, pip_status: int) -> subprocess.CompletedProcess:
    needed = ["Makefile", "pyproject.toml", "constraints.txt", *ROOT.glob("requirements-*.txt")]
    for name in needed:
        shutil.copy(ROOT / name, folder)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON, encoding="utf-8")
    python.chmod(0o755)
    (folder / ".venv" / ".created").touch()
    inherited = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", target], cwd=folder, env={**inherited, "PIP_STATUS": str(pip_status)},
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def test_an_installation_that_works_shows_no_line_of_pip(tmp_path):
    done = run_make(tmp_path, "test", 0)
    assert done.returncode == 0
    assert "Collecting" not in done.stdout + done.stderr
    assert done.stdout.startswith("Installing what a run needs")
    assert "the tests ran" in done.stdout


def test_an_installation_that_fails_shows_them(tmp_path):
    done = run_make(tmp_path, "test", 1)
    assert done.returncode != 0
    assert "Collecting torch" in done.stderr
    assert "the tests ran" not in done.stdout
