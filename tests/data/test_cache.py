"""The cache: verified when it is opened, swept, bounded, and shared where it was made so."""

import os
import shutil
import stat
import tempfile
import time
import traceback
from pathlib import Path

import pytest

from data.cache import code_digest, open_built, read_limit
from files.write import temporary_name
from tests.umask import umask_of


@pytest.fixture
def build(tmp_path):
    """`build(key)` opens or builds an entry of some bytes; whether it was there."""

    def fill(made):
        (made / "rows.arrow").write_bytes(b"r" * 10_000)
        (made / "counts.json").write_text("{}", encoding="utf-8")

    return lambda key, part="encoded": open_built(tmp_path / "cache" / part / key, fill)


@pytest.fixture
def entries(tmp_path):
    return lambda: sorted(p.name for p in (tmp_path / "cache").glob("*/*"))


def age(path, seconds):
    moment = time.time() - seconds
    os.utime(path, (moment, moment), follow_symlinks=False)


@pytest.mark.parametrize("name", ["rows.arrow", "counts.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone", "link"])
def test_a_damaged_entry_is_built_again(build, tmp_path, name, damage):
    assert not build("a")
    assert build("a")
    path = tmp_path / "cache" / "encoded" / "a" / name
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    elif damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "nothing")
    else:
        path.write_bytes(content[:-1] if damage == "cut" else b"")
    assert not build("a")
    assert build("a")


@pytest.mark.parametrize("plant", ["file", "link", "empty folder"])
def test_what_stands_at_the_place_of_an_entry_is_taken_away(build, tmp_path, plant):
    build("other")
    path, victim = tmp_path / "cache" / "encoded" / "a", tmp_path / "victim"
    victim.mkdir()
    (victim / "mine").write_text("mine", encoding="utf-8")
    if plant == "file":
        path.write_text("", encoding="utf-8")
    elif plant == "link":
        path.symlink_to(victim)
    else:
        path.mkdir()
    assert not build("a")
    assert build("a")
    assert (victim / "mine").exists()


def test_what_killed_builds_left_is_swept_once_it_is_old(build, tmp_path, entries):
    build("a")
    part = tmp_path / "cache" / "encoded"
    old, young = temporary_name(part / "b"), temporary_name(part / "c")
    for path in (old, young):
        path.mkdir()
        (path / "rows.arrow").write_bytes(b"half")
    age(old, 2 * 3600)
    build("d")
    assert entries() == sorted(["a", "d", young.name])


def test_the_limit_takes_what_was_used_longest_ago(build, tmp_path, entries, monkeypatch):
    for number, key in enumerate("abcd"):
        build(key, "data" if key == "b" else "encoded")
        age(next((tmp_path / "cache").glob(f"*/{key}")), 3600 * (9 - number))
    build("a")  # used again: no longer the oldest
    age(tmp_path / "cache" / "encoded" / "a", 120)
    monkeypatch.setenv("OPENLOOP_CACHE_LIMIT", "30 kB")
    build("e")
    assert entries() == ["a", "e"]  # two of 10 kB and their manifests; a third would be too many


def test_the_limit_leaves_what_was_just_used(build, entries, monkeypatch):
    monkeypatch.setenv("OPENLOOP_CACHE_LIMIT", "1")
    for key in "abc":
        build(key)
    assert entries() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, None), ("", None), ("1000", 1000), ("20 GB", 20 * 10**9), ("1.5kb", 1500),
        ("2 MiB", 2 << 20), ("7B", 7), (" 3 TB ", 3 * 10**12),
    ],
)  # fmt: skip
def test_a_limit_is_read_as_people_write_it(text, size):
    assert read_limit(text) == size


@pytest.mark.parametrize("text", ["much", "20 XB", "-1", "1e9", "GB"])
def test_a_limit_that_is_no_size_is_refused(build, monkeypatch, text):
    monkeypatch.setenv("OPENLOOP_CACHE_LIMIT", text)
    with pytest.raises(ValueError, match="OPENLOOP_CACHE_LIMIT"):
        build("a")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o002, 0o775), (0o077, 0o700)])
def test_an_entry_has_the_mode_that_the_umask_leaves(build, tmp_path, umask, mode):
    with umask_of(umask):
        build("a")
    entry = tmp_path / "cache" / "encoded" / "a"
    assert stat.S_IMODE(entry.stat().st_mode) == mode
    assert stat.S_IMODE((entry / "rows.arrow").stat().st_mode) == mode & 0o666


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2775])
def test_a_cache_opened_to_others_opens_what_is_made_in_it(build, tmp_path, mode):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    build("a")
    assert stat.S_IMODE((tmp_path / "cache" / "encoded").stat().st_mode) == mode


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o002])
@pytest.mark.parametrize("mode", [0o777, 0o2775, 0o770])
def test_an_entry_of_a_shared_cache_has_its_mode_whatever_the_umask(build, tmp_path, mode, umask):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    with umask_of(umask):
        build("a")
    entry = tmp_path / "cache" / "encoded" / "a"
    assert stat.S_IMODE(entry.stat().st_mode) == mode
    assert {stat.S_IMODE(file.stat().st_mode) for file in entry.iterdir()} == {mode & 0o666}


def test_the_limit_leaves_what_another_process_is_building(build, tmp_path, monkeypatch):
    build("a")
    half = temporary_name(tmp_path / "cache" / "encoded" / "b")
    half.mkdir()
    (half / "rows.arrow").write_bytes(b"r" * 10_000)
    age(half, 120)  # one large file has been written since
    monkeypatch.setenv("OPENLOOP_CACHE_LIMIT", "1")
    build("c")
    assert (half / "rows.arrow").exists()


@pytest.fixture
def shared():
    """A cache of three entries that all may write to."""
    root = Path(tempfile.mkdtemp())  # not in tmp_path, which is pytest's user's alone
    root.chmod(0o777)
    for key in ("a", "spoilt", "closed"):
        open_built(root / "encoded" / key, fill_rows)
    yield root
    shutil.rmtree(root)


def fill_rows(made):
    (made / "rows.arrow").write_bytes(b"rows")


def as_another(work):
    """What `work` says in a process of another user."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            os.write(theirs, repr(work()).encode())
        except BaseException:
            os.write(theirs, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        return file.read().decode()


only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@only_root
def test_a_second_user_reads_and_adds_and_mends(shared):
    (shared / "encoded" / "spoilt" / "rows.arrow").write_bytes(b"rosw")

    def work():
        return [open_built(shared / "encoded" / k, fill_rows) for k in ("a", "b", "spoilt", "b")]

    assert as_another(work) == "[True, False, False, True]"
    assert not list(shared.glob("encoded/.*"))  # of the spoilt one nothing is left


@only_root
@pytest.mark.parametrize("closed", ["", "rows.arrow", "manifest.json"])
def test_an_entry_that_may_not_be_read_is_told_and_left(shared, closed):
    entry = shared / "encoded" / "closed"
    (entry / closed).chmod(0)

    def work():
        try:
            return open_built(entry, fill_rows)
        except ValueError as error:
            return str(error)

    told = as_another(work)
    assert str(entry) in told
    assert "chmod -R g+rwX" in told
    assert "OPENLOOP_CACHE" in told
    assert (entry / "rows.arrow").read_bytes() == b"rows"


@only_root
def test_the_limit_passes_over_what_belongs_to_another(shared, monkeypatch):
    (shared / "encoded").chmod(0o1777)  # there only its owner renames a folder
    for key in ("a", "spoilt", "closed"):
        age(shared / "encoded" / key, 120)
    monkeypatch.setenv("OPENLOOP_CACHE_LIMIT", "1")
    assert as_another(lambda: open_built(shared / "encoded" / "b", fill_rows)) == "False"


def test_the_hash_of_code_covers_packages_and_single_files(tmp_path):
    (tmp_path / "package/inner").mkdir(parents=True)
    inner, single, other = (tmp_path / n for n in ("package/inner/a.py", "single.py", "other.py"))
    for path in (inner, single, other):
        path.write_text("1", encoding="utf-8")

    def digest():
        code_digest.cache_clear()
        return code_digest(tmp_path / "package", single)

    first = digest()
    other.write_text("2", encoding="utf-8")
    assert digest() == first
    for path in (inner, single):
        before = digest()
        path.write_text("2", encoding="utf-8")
        assert digest() != before
