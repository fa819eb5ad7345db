"""Cuts by groups, whole and with classes in their shares; rows that a person left out."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import files.read
from data.drop import read_drop_rows
from data.grouped import cut_groups
from data.prepare import DataArgs, load_data

SIZES = st.lists(st.integers(1, 12), min_size=60, max_size=160)  # rows of each group


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, classes=st.integers(2, 4), seed=st.integers(0, 2**32 - 1), pure=st.booleans())
def test_no_group_stands_on_two_sides_and_classes_keep_their_shares(sizes, classes, seed, pure):
    draw = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = draw.integers(classes, size=len(groups))
    if pure:  # each group of one class: the hardest to balance
        labels = draw.integers(classes, size=len(sizes))[groups]
    rows = len(groups)
    wanted = {"test": round(0.2 * rows), "validation": round(0.2 * rows)}
    parts = cut_groups([str(g) for g in groups], labels, wanted, seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(rows))
    held = [set(groups[part]) for part in parts.values()]
    assert sum(map(len, held)) == len(set(groups))
    for name, size in wanted.items():
        assert abs(len(parts[name]) - size) <= max(12, 0.02 * rows)
    present, counts = np.unique(labels, return_counts=True)
    for part in parts.values():
        for label, count in zip(present, counts, strict=True):
            assert abs((labels[part] == label).mean() - count / rows) <= 0.02 + 1 / len(part)


def test_a_cut_is_a_function_of_its_seed():
    groups = [str(i % 40) for i in range(400)]
    labels = np.arange(400) // 7 % 2
    first, again, other = (cut_groups(groups, labels, {"test": 80}, seed) for seed in (1, 1, 2))
    assert np.array_equal(first["test"], again["test"])
    assert not np.array_equal(first["test"], other["test"])


def test_no_class_loses_its_last_group_of_training_rows():
    groups = [str(i // 2) for i in range(100)]
    labels = np.array([2, 2] + [i % 2 for i in range(98)])
    for seed in range(20):
        assert 2 in labels[cut_groups(groups, labels, {"test": 50}, seed)["train"]]


def test_groups_too_large_for_a_hold_out_are_an_error():
    with pytest.raises(ValueError, match=r"data.group: no group fits into the 2 rows of data.test"):
        cut_groups(["a"] * 50 + ["b"] * 50, None, {"test": 2}, 0)


def table(folder, rows, name="films.jsonl"):
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def films(rows, start=0):
    return [
        {"text": f"review {start + i}", "label": i % 2, "film": f"film {(start + i) // 4}"}
        for i in range(rows)
    ]


def test_group_cuts_a_source_by_its_column(tmp_path):
    rows = films(200)
    rows[7]["film"] = None
    args = DataArgs(table(tmp_path, rows), group="film", test=0.2, validation=0.2)
    data = load_data(args, tmp_path / "cache")
    film = {row["text"]: row["film"] or "none" for row in rows}
    held = [{film[text] for text in split["text"]} for split in data.splits.values()]
    assert sum(map(len, held)) == len(set(film.values()))
    assert any("a group of its own: 1" in line for line in data.report.lines())
    plain = load_data(DataArgs(args.source, test=0.2, validation=0.2), tmp_path / "cache")
    assert plain.fingerprint != data.fingerprint


def test_splits_of_the_source_stay_and_a_shared_group_is_told(tmp_path):
    source = {
        "train": table(tmp_path, films(80), "a.jsonl"),
        "test": table(tmp_path, films(20, start=78), "b.jsonl"),
    }
    data = load_data(DataArgs(source, group="film", on_overlap="drop"), tmp_path / "cache")
    assert len(data.splits["test"]) == 20
    told = [line for line in data.report.lines() if "are in train and in test" in line]
    assert len(told) == 1
    assert told[0].startswith("WARNING: groups of 'film'")
    assert told[0].endswith(": 1")


def drop(folder, *lines):
    path = folder / "check.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def load_without(folder, rows, *lines, **named):
    args = DataArgs(
        table(folder, rows), validation=0, test=0, drop_rows=drop(folder, *lines), **named
    )
    return load_data(args, folder / "cache")


def test_rows_that_a_person_named_are_left_out_and_counted(tmp_path):
    lines = [
        json.dumps({"kind": "label_error", "rows": ["films.jsonl:3", "films.jsonl:9"]}),
        "",
        json.dumps({"rows": ["films.jsonl:1", "films.jsonl:2"], "drop": ["films.jsonl:2"]}),
    ]
    data = load_without(tmp_path, films(20), *lines)
    gone = {"review 1", "review 2", "review 8"}
    assert set(data.splits["train"]["text"]) == {row["text"] for row in films(20)} - gone
    assert "dropped: 3 rows named in data.drop_rows" in data.report.lines()


def test_an_equal_text_does_not_come_in_the_place_of_one_left_out(tmp_path):
    rows = [*films(4), films(4)[1] | {"label": 0}]
    data = load_without(tmp_path, rows, json.dumps({"rows": ["films.jsonl:2"]}))
    assert "review 1" not in data.splits["train"]["text"]
    assert data.report.dropped == {"drop_rows": 1, "drop_rows_again": 1}


def test_a_bad_row_that_is_left_out_is_no_fault(tmp_path):
    rows = [*films(4), {"text": "no label", "film": "a"}]
    data = load_without(tmp_path, rows, json.dumps({"rows": ["films.jsonl:5"]}))
    assert data.report.splits == {"train": 4}


def test_the_key_of_the_cache_is_what_the_file_says(tmp_path):
    rows = films(8)
    first = load_without(tmp_path, rows, json.dumps({"rows": ["films.jsonl:2"]}))
    second = load_without(tmp_path, rows, json.dumps({"rows": ["films.jsonl:3"]}))
    assert first.fingerprint != second.fingerprint
    assert "review 1" in second.splits["train"]["text"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"rows": ["films.jsonl:99"]}', "match no row .*\n  check.jsonl:1 names 'films.jsonl:99'"),
        ('{"rows": "films.jsonl:1"}', "check.jsonl:1 names no rows; expected"),
        ("[1]", "check.jsonl:1 names no rows"),
        ("films.jsonl:1", "check.jsonl:1 is damaged: no JSON"),
    ],
)
def test_a_file_that_names_no_row_is_an_error(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        load_without(tmp_path, films(4), line)


def test_a_missing_file_is_an_error_that_says_who_writes_it(tmp_path):
    with pytest.raises(ValueError, match=r"none.jsonl is missing; python check.py writes"):
        load_data(DataArgs(table(tmp_path, films(4)), drop_rows=str(tmp_path / "none.jsonl")))


def test_a_file_of_dropped_rows_may_be_larger_than_other_files(tmp_path, monkeypatch):
    monkeypatch.setattr(files.read, "MOST_BYTES", 1000)
    path = tmp_path / "check.jsonl"
    lines = [json.dumps({"rows": [f"a.csv:{i}"], "texts": ["é" * 50]}) for i in range(2, 202)]
    path.write_text("\ufeff" + "\n".join(lines) + "\n\n", encoding="utf-8")
    named = read_drop_rows(str(path))
    assert named == {f"a.csv:{i}": f"check.jsonl:{i - 1}" for i in range(2, 202)}
    path.write_bytes(b'{"rows": []}\n{"rows": ["\xe9"]}\n')
    with pytest.raises(ValueError, match="not UTF-8 at byte 11 of line 2"):
        read_drop_rows(str(path))
