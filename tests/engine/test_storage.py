"""Which checkpoint is the newest that is whole, which ones stay, and who holds a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import engine.storage
from engine.storage import hold_run, newest_valid, rotate, step_folder, steps_on_disk
from files.publish import publish


def fill(target):
    with publish(target) as temporary:
        (temporary / "a.txt").write_text("new", encoding="utf-8")


def test_steps_are_found_by_name_alone(tmp_path):
    for name in ("step-00000020", "step-00000003", "step-9", "step-00000004.damaged-1", "other"):
        (tmp_path / name).mkdir()
    assert steps_on_disk(tmp_path) == [3, 20]
    assert steps_on_disk(tmp_path / "missing") == []
    assert newest_valid(tmp_path / "missing") == (None, [])


def test_rotation_goes_by_step_number_not_by_time(tmp_path):
    for age, step in enumerate((40, 10, 30, 20)):  # written in this order
        fill(step_folder(tmp_path, step))
        os.utime(step_folder(tmp_path, step), (age, age))
    rotate(tmp_path, 2, None)
    assert steps_on_disk(tmp_path) == [30, 40]


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (1, None, [40]),
        (1, 10, [10, 40]),
        (0, 20, [20, 40]),
        (2, 40, [30, 40]),
        (9, 1, [10, 20, 30, 40]),
    ],
)
def test_rotation_never_removes_the_best_or_the_last(tmp_path, keep, best, left):
    for step in (10, 20, 30, 40):
        fill(step_folder(tmp_path, step))
    rotate(tmp_path, keep, best)
    assert steps_on_disk(tmp_path) == left


HOLD = """
import sys, time
from pathlib import Path
from engine.storage import hold_run
with hold_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_is_held_by_one_process_and_a_killed_one_leaves_no_lock(tmp_path):
    root = Path(engine.storage.__file__).parent.parent
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=root,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="in use by another process"), hold_run(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with hold_run(tmp_path):
        pass
    with hold_run(tmp_path):  # and letting go lets the next one in
        pass


def test_a_lock_that_is_a_link_empties_nothing(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("kept", encoding="utf-8")
    (tmp_path / ".one.lock").symlink_to(victim)
    with pytest.raises(ValueError, match=r"\.one\.lock is a link"), hold_run(tmp_path / "one"):
        pass
    assert victim.read_text(encoding="utf-8") == "kept"
