"""The publishing protocol: whole and verified, or not there."""

import os
import signal
import threading

import pytest

import files.publish
from engine.storage import newest_valid, rotate, step_folder
from files.publish import publish, set_aside, sweep, verify
from files.verify import DamagedError
from files.write import LEFTOVER, temporary_name
from tests.umask import umask_of


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
    plain_sync, plain_rename = files.publish.sync, os.rename
    monkeypatch.setattr(
        files.publish, "sync", lambda path: (order.append(path.name), plain_sync(path))
    )
    monkeypatch.setattr(os, "rename", lambda a, b: (order.append("rename"), plain_rename(a, b)))
    fill(tmp_path / "x")
    temporary = order.pop(4)
    assert LEFTOVER.fullmatch(temporary)
    assert order == ["a.txt", "b.txt", "manifest.json", "inner", "rename", tmp_path.name]


CALLS = {"os.fsync": (os, "fsync", 6), "os.rename": (os, "rename", 1)}
CALLS["sha256"] = (files.publish, "sha256", 2)
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


@pytest.mark.parametrize("plant", ["link", "file", "folder", "dangling"])
def test_nothing_at_the_name_of_a_target_is_followed_or_replaced(tmp_path, plant):
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "x"
    if plant == "link":
        target.symlink_to(outside)
    elif plant == "dangling":
        target.symlink_to(tmp_path / "nothing")
    elif plant == "file":
        target.write_text("mine", encoding="utf-8")
    else:
        target.mkdir()
    with pytest.raises(FileExistsError, match="never overwritten"):
        fill(target)
    assert list(outside.iterdir()) == []
    assert hidden(tmp_path) == []


def test_a_folder_has_the_mode_that_the_umask_leaves(tmp_path):
    with umask_of(0o027):
        fill(tmp_path / "x")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o750


def test_a_sweep_takes_what_a_killed_process_left_and_nothing_that_is_being_filled(tmp_path):
    dead = temporary_name(tmp_path / "dead")
    dead.mkdir()
    (dead / "half.arrow").write_bytes(b"half")
    temporary_name(tmp_path / "result.json").write_bytes(b"half")
    link = temporary_name(tmp_path / "link")
    link.symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    (tmp_path / ".hidden.tmp").write_bytes(b"not ours")
    with publish(tmp_path / "alive") as alive:
        sweep(tmp_path, 3600)  # young: stays
        assert dead.exists()
        sweep(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
            [".hidden.tmp", "kept", alive.name]
        )
    assert (tmp_path / "alive").is_dir()


def test_two_that_publish_one_folder_leave_one_of_them_whole(tmp_path):
    outcomes, gate = [], threading.Barrier(2)

    def work(text):
        try:
            with publish(tmp_path / "x") as temporary:
                (temporary / "a.txt").write_text(text, encoding="utf-8")
                gate.wait()
            outcomes.append(text)
        except OSError:
            outcomes.append(None)

    threads = [threading.Thread(target=work, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = next(text for text in outcomes if text)
    assert outcomes.count(None) == 1
    verify(tmp_path / "x")
    assert (tmp_path / "x" / "a.txt").read_text(encoding="utf-8") == winner
    assert hidden(tmp_path) == []
