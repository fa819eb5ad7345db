"""Which files are the repository's. What a user leaves beside them is theirs: a head, a program, a
recipe of their own must not fail a test."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def list_shipped(*patterns: str) -> list[Path]:
    """The files under git that a pattern fits ("*.py" in every folder), sorted; in a tree without
    git all that are there."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--", *patterns]
    try:
        listed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
        names = [name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = []
    found = [ROOT / name for name in names] or [p for one in patterns for p in ROOT.rglob(one)]
    return sorted(path for path in found if path.is_file())
