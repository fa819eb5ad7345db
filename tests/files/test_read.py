"""Whatever is wrong with a JSON file, one ValueError names the file."""

import os

import pytest

import files.read
from files.read import MOST_DEPTH, depth, parse_json, read_json, read_lines


def nested(levels):
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged: no JSON at line 1, column 1 .it is empty"),
        (b"{", "is damaged: no JSON at line 1, column 2"),
        (b'{"a": 1}\x00', "is damaged: no JSON"),
        (b"\xff\xfe{", "is damaged"),
        (b'{"a": "\xe9"}', "byte 7 is not UTF-8"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is damaged"),
        (b"[]", "holds a list; expected an object"),
        (b"null", "holds null; expected an object"),
        (b"3", "holds a number; expected an object"),
        (b"true", "holds true or false; expected an object"),
        (b'{"a": 1}', "has no 'b', 'c'"),
        (f'{{"a": {nested(MOST_DEPTH)}}}'.encode(), "nested deeper than 64 levels"),
        (nested(100_000).encode(), "nested deeper than 64 levels"),
        (b" " * 600_000, "larger than 500,000 bytes"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(files.read, "MOST_BYTES", 500_000)
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_json(path, ("a", "b", "c"))
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 300


def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, message in (("pipe", "no regular"), ("folder", "director"), ("none", "is missing")):
        with pytest.raises(ValueError, match=message):
            read_json(tmp_path / name)


def test_a_whole_file_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, {"b": "é"}]}', encoding="utf-8")
    assert read_json(path, ["a"]) == {"a": [1, {"b": "é"}]}


@pytest.mark.parametrize(("text", "levels"), [("1", 0), ("[]", 1), ('{"a": [1, {}]}', 3)])
def test_depth_counts_what_lies_within_each_other(text, levels):
    assert depth(parse_json(text, "it")) == levels


def test_the_deepest_that_is_allowed_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(f'{{"a": {nested(MOST_DEPTH - 1)}}}', encoding="utf-8")
    assert depth(read_json(path)) == MOST_DEPTH


def test_lines_of_a_file_of_any_size_are_read_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(files.read, "MOST_BYTES", 10)
    path = tmp_path / "a.jsonl"
    for lines in ([b"123456789\n"] * 50, [b"1\r\n", b"\n", b"last"], []):
        path.write_bytes(b"".join(lines))
        assert list(read_lines(path)) == lines
    path.write_bytes(b"1\n" + b"2" * 10 + b"\n3\n")
    with pytest.raises(ValueError, match="line 2 is larger than 10 bytes"):
        list(read_lines(path))
    with pytest.raises(ValueError, match="is missing"):
        list(read_lines(tmp_path / "none"))
