import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.wait_policy import NAMES

ROOT = Path(__file__).parent.parent.parent
# ends the process where torch is about to be loaded, and prints what OpenMP would read then
WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
"""


def run_python(code: str, **environment: str) -> tuple[str, str]:
    """Standard output and error."""
    inherited = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True,
        env={**inherited, **environment},
    )  # fmt: skip
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import train; train.main(['--config', 'configs/imdb_quick.toml', '--dry-run'])",
        "import train; train.main(['--csv', 'none.csv'])",
        "import predict; predict.main(['--run', 'none', 'text']); import torch",
        "import openloop; openloop.open_run('none', None, False, None, False, False)",
    ],
)
def test_waiting_is_settled_before_torch_is_loaded(code):
    assert run_python(f"{WATCH}\n{code}")[0].split()[-1] == "PASSIVE"


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU OpenMP prints its settings like this")
def test_openmp_itself_says_that_its_threads_sleep():
    code = "from engine.wait_policy import wait_passively as w; w(); import torch; print(w())"
    out, err = run_python(code, OMP_DISPLAY_ENV="true")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in err
    assert "they sleep" in out  # asked again, it says what was done


def test_what_the_environment_says_is_kept():
    code = "from engine.wait_policy import wait_passively as w; print(w())"
    out, _ = run_python(f"{code}; import os; print(os.environ)", GOMP_SPINCOUNT="1000")
    assert "as the environment has it (GOMP_SPINCOUNT=1000)" in out
    assert "OMP_WAIT_POLICY" not in out


def test_a_torch_that_was_loaded_before_is_told():
    code = "import sys; sys.modules['torch'] = sys\nimport engine.wait_policy as w"
    assert "torch was loaded before openloop" in run_python(f"{code}; print(w.wait_passively())")[0]
