"""A file appears whole under its name, or the old one stays; nothing planted is followed."""

import os
import stat

import pytest

import files.write
from files.write import (
    LEFTOVER,
    open_in_place,
    replace_bytes,
    replace_text,
    save_text,
    temporary_name,
)
from tests.umask import umask_of


class CrashError(Exception):
    """Stands for the machine going down."""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, call):
    path = tmp_path / "result.json"
    save_text(path, "old")
    monkeypatch.setattr(os, call, lambda *_: (_ for _ in ()).throw(CrashError))
    with pytest.raises(CrashError):
        save_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    monkeypatch.undo()
    save_text(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert names(tmp_path) == ["result.json"]


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        plain = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=plain: (order.append(n), f(*a)))
    save_text(tmp_path / "a", "text")
    assert order == ["fsync", "replace", "fsync"]


def test_the_same_content_is_not_written_again(tmp_path):
    path = tmp_path / "config.toml"
    assert save_text(path, "text")
    before = path.stat()
    assert not save_text(path, "text")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert save_text(path, "other")


def test_an_error_in_the_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    save_text(path, "old")

    def write():
        with replace_text(path) as file:
            file.write("half")
            raise CrashError

    with pytest.raises(CrashError):
        write()
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["rows.jsonl"]


def test_a_link_at_the_name_is_replaced_and_not_followed(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "out.jsonl"
    victim.write_text("mine", encoding="utf-8")
    path.symlink_to(victim)
    save_text(path, "mine")  # the same content behind a link is no reason to keep the link
    assert not path.is_symlink()
    save_text(path, "new")
    assert victim.read_text(encoding="utf-8") == "mine"


def test_a_link_at_the_temporary_name_is_refused(tmp_path, monkeypatch):
    victim, taken = tmp_path / "victim", tmp_path / ".out.0123456789abcdef.tmp"
    victim.write_text("mine", encoding="utf-8")
    taken.symlink_to(victim)
    monkeypatch.setattr(files.write, "temporary_name", lambda path: taken)
    with pytest.raises(FileExistsError):
        save_text(tmp_path / "out", "new")
    assert victim.read_text(encoding="utf-8") == "mine"
    assert taken.is_symlink()  # not ours to remove


def test_temporary_names_differ_and_are_known_again_and_fit_a_file_system(tmp_path):
    for name in ("a", "été" * 40, "x" * 255, "line\nbreak"):
        one, other = temporary_name(tmp_path / name), temporary_name(tmp_path / name)
        assert one != other
        assert one.parent == tmp_path
        assert LEFTOVER.fullmatch(one.name)
        assert len(os.fsencode(one.name)) <= 100


def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path):
    save_text(tmp_path / ("n" * 255), "text")
    assert names(tmp_path) == ["n" * 255]


def test_the_mode_is_what_the_umask_leaves(tmp_path):
    with umask_of(0o027):
        save_text(tmp_path / "a", "text")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_text_keeps_its_line_ends_and_bytes_their_bytes(tmp_path):
    with replace_text(tmp_path / "a") as file:
        file.write("é\r\nb\n")
    with replace_bytes(tmp_path / "b") as file:
        file.write(b"\x00\r\n")
    assert (tmp_path / "a").read_bytes() == "é\r\nb\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\x00\r\n"


def test_a_folder_at_the_name_is_an_error_that_leaves_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        save_text(tmp_path / "a", "text")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("there", [True, False])
def test_what_is_opened_in_place_is_no_link(tmp_path, there):
    victim, path = tmp_path / "victim", tmp_path / "log"
    if there:
        victim.write_text("kept", encoding="utf-8")
    path.symlink_to("victim")
    with pytest.raises(ValueError, match="log is a link"):
        open_in_place(path)
    assert victim.exists() == there
    assert not there or victim.read_text(encoding="utf-8") == "kept"


def test_a_pipe_is_not_opened_in_place_and_nobody_waits(tmp_path):
    os.mkfifo(tmp_path / "log")
    with pytest.raises(ValueError, match="log is no regular file"):
        open_in_place(tmp_path / "log")


def test_what_is_opened_in_place_keeps_what_it_holds_and_grows_at_its_end(tmp_path):
    for _ in range(2):
        with open_in_place(tmp_path / "log") as file:
            file.seek(0)
            file.write(b"line\n")
    assert (tmp_path / "log").read_bytes() == b"line\nline\n"
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) & 0o111 == 0
