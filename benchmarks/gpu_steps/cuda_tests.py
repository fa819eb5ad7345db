"""The tests that need a GPU: pytest -m cuda over every file that has one."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from child import ROOT

from gpu_steps.context import Context, Failed

MARK = "pytest.mark.cuda"
MISSING = re.compile(r"No module named '([\w.]+)'")


def find_files(root: Path = ROOT) -> list[Path]:
    """Test files that hold a test marked cuda."""
    paths = sorted((root / "tests").rglob("test_*.py"))
    return [path for path in paths if MARK in path.read_text(encoding="utf-8")]


def read_report(text: str) -> dict[str, Any]:
    """Counts from pytest's junit XML, names of what failed, and the files that could not be
    imported with the package that each lacks."""
    counts: dict[str, Any] = {"passed": 0, "skipped": 0, "failed": [], "lacking": {}}
    for case in ElementTree.fromstring(text).iter("testcase"):
        name = "::".join(filter(None, [case.get("classname"), case.get("name")]))
        bad = case.find("failure")
        bad = case.find("error") if bad is None else bad
        if bad is not None:
            lacks = MISSING.search(bad.text or "")
            if lacks and bad.get("message") == "collection failure":
                counts["lacking"][name] = lacks[1]
            else:
                counts["failed"].append(name)
        else:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
    return counts


def run(context: Context, figures: dict[str, Any]) -> None:
    report, files = context.scratch / "junit.xml", find_files()
    figures["files"] = [path.relative_to(ROOT).as_posix() for path in files]
    chosen = "cuda and not slow" if context.size == "quick" else "cuda"
    command = [
        sys.executable, "-m", "pytest", "-v", "-m", chosen, "-p", "no:cacheprovider",
        "--continue-on-collection-errors", f"--junitxml={report}", *map(str, files),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT)
    if not report.exists():
        raise Failed(f"pytest ended with {done.returncode} and no report: see the log")
    figures |= read_report(report.read_text(encoding="utf-8"))
    if figures["failed"]:
        raise Failed(f"{len(figures['failed'])} failed: {', '.join(figures['failed'][:5])}")
    if context.device == "cuda" and not figures["passed"]:
        raise Failed("no test ran")
