"""The publishing protocol: whole and verified, or not there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import engine.storage
from engine.storage import (
    DamagedError,
    hold_run,
    newest_valid,
    publish,
    rotate,
    set_aside,
    step_folder,
    steps_on_disk,
    verify,
    write_atomically,
)


class CrashError(Exception):
    """Stands for the machine going down."""


def fill(target, text="new"):
    with publish(target) as temporary:
        (temporary / "a.txt").write_text(text, encoding="utf-8")
        (temporary / "inner").mkdir()
        (temporary / "inner" / "b.txt").write_text(text * 2, encoding="utf-8")


def hidden(root):
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


def test_what_is_published_verifies(tmp_path):
    fill(tmp_path / "x")
    verify(tmp_path / "x")
    assert (tmp_path / "x" / "inner" / "b.txt").read_text(encoding="utf-8") == "newnew"
    assert hidden(tmp_path) == []


def test_what_is_published_is_never_overwritten(tmp_path):
    fill(tmp_path / "x", "old")
    with pytest.raises(FileExistsError, match="never overwritten"):
        fill(tmp_path / "x")
    assert (tmp_path / "x" / "a.txt").read_text(encoding="utf-8") == "old"


def test_every_file_is_on_the_disk_before_the_manifest_and_that_before_the_rename(
    tmp_path, monkeypatch
):
    order = []
    plain_sync, plain_rename = engine.storage.sync, os.rename
    monkeypatch.setattr(
        engine.storage, "sync", lambda path: (order.append(path.name), plain_sync(path))
    )
    monkeypatch.setattr(os, "rename", lambda a, b: (order.append("rename"), plain_rename(a, b)))
    fill(tmp_path / "x")
    assert order == ["a.txt", "b.txt", "manifest.json", "inner", ".x.tmp", "rename", tmp_path.name]


CALLS = {"os.fsync": (os, "fsync", 6), "os.rename": (os, "rename", 1)}
CALLS["sha256"] = (engine.storage, "sha256", 2)
POINTS = [(call, at) for call, (_, _, times) in CALLS.items() for at in range(times)]


@pytest.mark.parametrize("error", [CrashError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize(("call", "at"), POINTS)
def test_a_crash_at_any_point_leaves_the_old_state_or_the_new(
    tmp_path, monkeypatch, call, at, error
):
    fill(step_folder(tmp_path, 1), "old")
    module, name, _ = CALLS[call]
    plain, calls = getattr(module, name), []

    def crash(*arguments):
        calls.append(arguments)
        if len(calls) == at + 1:
            raise error
        return plain(*arguments)

    monkeypatch.setattr(module, name, crash)
    with pytest.raises(error):
        fill(step_folder(tmp_path, 2))
    monkeypatch.undo()
    assert len(calls) == at + 1
    newest, said = newest_valid(tmp_path)
    assert said == []  # nothing damaged: what is there is whole
    published = newest == step_folder(tmp_path, 2)
    assert published == (call == "os.fsync" and at == 5)  # after the rename it is there
    assert (newest / "a.txt").read_text(encoding="utf-8") == ("new" if published else "old")
    assert hidden(tmp_path) == []
    if not published:
        fill(step_folder(tmp_path, 2))  # and the next attempt succeeds


@pytest.mark.parametrize("at", range(8))
def test_a_kill_at_any_point_leaves_the_old_state_or_the_new(tmp_path, at):
    """A forked process dies without cleaning up, before one of the calls that matter."""
    fill(step_folder(tmp_path, 1), "old")
    child = os.fork()
    if child == 0:
        calls = []

        def deadly(plain):
            def call(*arguments):
                calls.append(arguments)
                if len(calls) == at + 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                return plain(*arguments)

            return call

        os.rename, os.fsync = deadly(os.rename), deadly(os.fsync)
        try:
            fill(step_folder(tmp_path, 2))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) == (at < 7)  # six fsyncs and a rename
    newest, said = newest_valid(tmp_path)
    assert said == []
    assert (newest / "a.txt").read_text(encoding="utf-8") == ("new" if at >= 6 else "old")
    if at < 6:
        fill(step_folder(tmp_path, 2))  # what was left half-written is no obstacle
    rotate(tmp_path, 5, None)
    assert hidden(tmp_path) == []


def test_an_error_of_the_writer_leaves_nothing_behind(tmp_path):
    def write(folder):
        (folder / "a.txt").write_text("half", encoding="utf-8")
        raise CrashError

    with pytest.raises(CrashError), publish(tmp_path / "x") as temporary:
        write(temporary)
    assert list(tmp_path.iterdir()) == []


def test_a_flip_of_any_byte_is_noticed_and_never_a_traceback(tmp_path):
    folder = tmp_path / "x"
    with publish(folder) as temporary:
        (temporary / "a.txt").write_text("payload", encoding="utf-8")
    harmless = 0
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for place in range(len(data)):
            for bit in (0, 3, 5):
                changed = bytearray(data)
                changed[place] ^= 1 << bit
                path.write_bytes(changed)
                try:
                    verify(folder)
                    harmless += 1
                    assert path.name == "manifest.json", f"{path.name} byte {place}"
                    assert data[place : place + 1].isspace()
                except DamagedError:
                    pass
        path.write_bytes(data)
    verify(folder)
    assert harmless < 20


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"files": []}', '{"files": {"a": 1}}'])
def test_a_manifest_that_says_nothing_is_damage(tmp_path, text):
    fill(tmp_path / "x")
    (tmp_path / "x" / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(DamagedError, match=r"no readable manifest\.json"):
        verify(tmp_path / "x")


def test_set_aside_deletes_nothing(tmp_path):
    for text in ("one", "two"):
        fill(tmp_path / "x", text)
        set_aside(tmp_path / "x", "old")
    assert (tmp_path / "x.old-1" / "a.txt").read_text(encoding="utf-8") == "one"
    assert (tmp_path / "x.old-2" / "a.txt").read_text(encoding="utf-8") == "two"


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


def test_a_small_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(CrashError))
    with pytest.raises(CrashError):
        write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    monkeypatch.undo()
    write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert hidden(tmp_path) == []


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
