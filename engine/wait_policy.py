"""How OpenMP's threads wait for their next piece of work. OpenMP reads it once, when torch is
loaded, so this file needs the standard library alone."""

import os
import sys
from functools import cache

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@cache
def wait_passively() -> str:
    """Let threads sleep while they wait, unless the environment says otherwise; says what was done.

    Without it they spin, 300,000 times between two parallel regions under GNU OpenMP: quick to
    wake, but each turn is taken from whoever shares the cores. On two cores beside a third
    program, two runs at once got little more than half of what they get asleep (benchmarks/LOG.md).
    """
    if names := [f"{name}={os.environ[name]}" for name in NAMES if name in os.environ]:
        return f"waiting threads: as the environment has it ({', '.join(names)})"
    if "torch" in sys.modules:
        return (
            "waiting threads: they spin, since torch was loaded before openloop; where another "
            "program shares the cores, start Python with OMP_WAIT_POLICY=PASSIVE"
        )
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return "waiting threads: they sleep, so that another program can have the cores meanwhile"
