"""A file that is not the one that was written is named, with what is wrong."""

import hashlib

import pytest

from files.verify import DamagedError, check_file, differences, sha256, sha256_of_start


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.txt").write_bytes(b"payload")
    (tmp_path / "link.txt").symlink_to(tmp_path / "inner" / "a.txt")
    return tmp_path


DIGEST = hashlib.sha256(b"payload").hexdigest()


def test_a_file_as_it_was_written_passes(folder):
    assert sha256(folder / "inner" / "a.txt") == DIGEST
    check_file(folder, "inner/a.txt", DIGEST, 7)
    assert differences(folder, {"inner/a.txt": DIGEST}) == []
    assert len(differences(folder, {"inner/a.txt": "0", "b": "0"})) == 2


@pytest.mark.parametrize(
    ("name", "digest", "size", "message"),
    [
        ("inner/a.txt", "0" * 64, 7, "the bytes of inner/a.txt have changed"),
        ("inner/a.txt", DIGEST, 8, "has 7 bytes, expected 8"),
        ("inner/b.txt", DIGEST, 7, "inner/b.txt is missing"),
        ("inner/a.txt/b", DIGEST, 7, "is missing"),
        ("inner", DIGEST, None, "inner is no regular file"),
        ("link.txt", DIGEST, 7, "link.txt is no regular file"),
        ("../outside", DIGEST, 7, "lies outside"),
        ("/etc/passwd", DIGEST, 7, "lies outside"),
    ],
)
def test_a_file_that_differs_is_named(folder, name, digest, size, message):
    with pytest.raises(DamagedError, match=message):
        check_file(folder, name, digest, size)


def test_the_start_of_a_file_has_a_hash_of_its_own(folder):
    path = folder / "inner" / "a.txt"
    assert sha256_of_start(path, 3) == hashlib.sha256(b"pay").hexdigest()
    assert sha256_of_start(path, 7) == DIGEST
    assert sha256_of_start(path, 0) == hashlib.sha256(b"").hexdigest()
    assert sha256_of_start(path, 8) is None


def test_a_linked_folder_on_the_way_to_a_file_is_named(folder, tmp_path):
    moved = tmp_path / "moved"
    (folder / "inner").rename(moved)
    (folder / "inner").symlink_to(moved)
    with pytest.raises(DamagedError, match=r"inner, with inner/a\.txt, is a link"):
        check_file(folder, "inner/a.txt", DIGEST)
