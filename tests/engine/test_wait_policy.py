import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.wait_policy import NAMES

ROOT = Path(__file__).parent.parent.parent


def run_python(code: str, **environment: str) -> tuple[str, str]:
    """Standard output, and what OpenMP says of itself as torch loads it."""
    inherited = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True,
        env={**inherited, "OMP_DISPLAY_ENV": "verbose", **environment},
    )  # fmt: skip
    return done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU OpenMP prints its settings like this")
@pytest.mark.parametrize(
    "code",
    [
        "import train, torch; train.main(['--config', 'none.toml'])",
        "from predict import load_run\ntry: load_run('none')\nexcept ValueError: import torch",
    ],
)
def test_threads_sleep_in_a_run_and_in_a_prediction(code):
    code = code.replace("import train, torch; ", "import train; ") + "\nimport torch"
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in run_python(code)[1]


def test_what_the_environment_says_is_kept():
    code = "from engine.wait_policy import wait_passively as w; print(w()); import torch"
    out, err = run_python(code, OMP_WAIT_POLICY="ACTIVE")
    assert "as the environment has it (OMP_WAIT_POLICY=ACTIVE)" in out
    if sys.platform == "linux":
        assert "OMP_WAIT_POLICY = 'ACTIVE'" in err


def test_a_torch_that_was_loaded_before_is_told():
    code = "import torch; from engine.wait_policy import wait_passively as w; print(w())"
    assert "torch was loaded before openloop" in run_python(code)[0]


def test_what_was_done_is_said_again_later():
    code = "from engine.wait_policy import wait_passively as w; w(); import torch; print(w())"
    assert "they sleep" in run_python(code)[0]
