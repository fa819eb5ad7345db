"""A built library is loaded only where it is ours alone and whole: its constructor runs or not."""

import os
import shutil
import subprocess

import pytest

from files.publish import publish
from models.fast.cpu.compiler import find_compiler
from models.fast.cpu.library import LIBRARY, ForeignError, make_private, open_library

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler on PATH")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library whose constructor makes the file that $OPENLOOP_RAN names."""
    folder = tmp_path_factory.mktemp("library")
    source = folder / "it.c"
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n"
        "__attribute__((constructor)) void ran(void) "
        '{ FILE *f = fopen(getenv("OPENLOOP_RAN"), "w"); if (f) fclose(f); }\n',
        encoding="utf-8",
    )
    words = [find_compiler(), "-x", "c", "-shared", "-fPIC", str(source), "-o"]
    subprocess.run([*words, str(folder / "it.so")], check=True)
    return folder / "it.so"


@pytest.fixture
def published(tmp_path, library, monkeypatch):
    """A published folder with that library, and the file that shows that it ran."""
    monkeypatch.setenv("OPENLOOP_RAN", str(tmp_path / "ran"))
    make_private(tmp_path / "native")
    with publish(tmp_path / "native" / "kernels") as made:
        made.chmod(0o700)
        shutil.copy(library, made / LIBRARY)
        (made / LIBRARY).chmod(0o600)
    return tmp_path / "native" / "kernels", tmp_path / "ran"


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(path):
    other = path.with_name("other.so")
    path.rename(other)
    path.symlink_to(other)


def open_to_others(path):
    path.chmod(0o666)


def open_its_folder(path):
    path.parent.chmod(0o777)


def without_manifest(path):
    (path.parent / "manifest.json").unlink()


def test_a_library_that_is_ours_and_whole_runs(published):
    folder, ran = published
    open_library(folder)
    assert ran.exists()


@pytest.mark.parametrize("harm", [cut, flip, link, open_to_others, open_its_folder,
                                  without_manifest, os.unlink])  # fmt: skip
def test_a_library_that_was_harmed_never_runs(published, harm):
    folder, ran = published
    harm(folder / LIBRARY)
    with pytest.raises((ValueError, OSError)):
        open_library(folder)
    assert not ran.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_somebody_elses_folder_is_neither_loaded_nor_emptied(published):
    folder, ran = published
    for path in (folder / LIBRARY, folder):
        os.chown(path, 12345, 12345)
        with pytest.raises(ValueError, match="others can write"):
            open_library(folder)
    os.chown(folder.parent, 12345, 12345)
    with pytest.raises(ForeignError, match=r"no folder of your own.*OPENLOOP_CACHE"):
        make_private(folder.parent)
    assert (folder / LIBRARY).exists()
    assert not ran.exists()


def test_a_folder_that_others_could_write_to_is_emptied_and_closed(published):
    folder, _ = published
    folder.parent.chmod(0o777)
    make_private(folder.parent)
    assert list(folder.parent.iterdir()) == []
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_the_folder_is_refused(published):
    folder, _ = published
    moved = folder.parent.with_name("elsewhere")
    folder.parent.rename(moved)
    folder.parent.symlink_to(moved)
    with pytest.raises(ForeignError):
        make_private(folder.parent)
