"""The benchmarks are scripts that import one another, so their folder goes on the path; behind
ours, since one of them is called as one of our scripts is."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks"))
