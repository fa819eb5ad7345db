"""data/stream/labelled.py: rows that stream are what they would be if they were all read first."""

from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.clean import CleanArgs
from data.encode import encode
from data.loaders import Padding, train_batches
from data.long import LengthArgs
from data.prepare import DataArgs, load_data
from data.refused import RefusedError
from data.stream.cut import StreamArgs
from data.stream.labelled import load_streamed, streamed_batches
from tests.conftest import make_reviews, write_rows

PLAIN = CleanArgs(duplicates=False)


def write_files(folder, rows, files=3):
    """Rows as Parquet files in `folder`; a glob for them."""
    folder.mkdir(exist_ok=True)
    for i in range(files):
        part = rows[i * len(rows) // files : (i + 1) * len(rows) // files]
        pq.write_table(pa.Table.from_pylist(part), folder / f"{i}.parquet", row_group_size=16)
    return f"{folder}/*.parquet"


def labelled(count):
    return [{"text": f"<b>{text}</b>", "label": label} for text, label in make_reviews(count)]


@pytest.fixture
def load(tmp_path):
    """load(source, buffer=…, **arguments) -> Data, with a cache of the test's own."""

    def load(source, buffer=20, **named):
        named = {"clean": PLAIN, "on_overlap": "drop", "validation": 0, "test": 0, **named}
        args = DataArgs(source, **named)
        return load_streamed(args, StreamArgs(buffer, 5), tmp_path / "cache")

    return load


def all_rows(data, size=8, epoch=0):
    """The rows of an epoch."""
    return list(chain.from_iterable(
        data.stream.micro_batches(epoch, range(-(-data.stream.rows // size)), size, list)
    ))  # fmt: skip


def test_the_rows_are_those_that_are_read_whole(tmp_path, load):
    rows = labelled(90)
    source = write_files(tmp_path / "files", rows)
    data = load(source, validation=10, test=14)
    whole = load_data(
        DataArgs(source, clean=PLAIN, validation=0, test=0), tmp_path / "cache"
    ).splits["train"]  # fmt: skip
    told = {row["address"]: row for row in whole}
    seen = all_rows(data)
    assert [row["text"] for row in seen] == [told[row["address"]]["text"] for row in seen]
    assert [row["label"] for row in seen] == [told[row["address"]]["label"] for row in seen]
    assert all("<b>" not in row["text"] for row in seen)
    held = [row["address"] for split in ("validation", "test") for row in data.splits[split]]
    assert len(held) == 24
    assert sorted([row["address"] for row in seen] + held) == sorted(told)
    assert data.stream.rows == 66
    assert "memory holds two blocks of 20 rows, about 0 MiB" in data.report.notes
    assert {row["address"] for row in data.splits["train"]} <= {row["address"] for row in seen}


@pytest.mark.parametrize(
    ("text", "long"), [(("text",), "cut"), (("text", "label"), "cut"), (("text",), "chunks")]
)
def test_batches_are_those_of_the_encoded_rows(tmp_path, load, tiny_tokenizer, text, long):
    rows = [{**row, "class": row["label"]} for row in labelled(40)]
    source = write_files(tmp_path / "files", rows, files=1)
    named = {"text": text, "label": ("class",)}
    length, padding = LengthArgs(12, long=long, stride=2 if long == "chunks" else None), Padding(0)
    data = load(source, buffer=40, **named)
    args = DataArgs(source, clean=PLAIN, validation=0, test=0, **named)
    whole = load_data(args, tmp_path / "cache")
    encoded = encode(whole.splits["train"], tiny_tokenizer, length, None, "x").dataset
    streamed = list(streamed_batches(data.stream, 0, range(5), 8, tiny_tokenizer, length, padding))
    order = np.array([row for batch in streamed for row in batch["rows"].tolist()])
    for one, other in zip(
        streamed, train_batches(encoded, order, range(5), 8, padding), strict=True
    ):
        assert one["tokens"] == other["tokens"]
        assert one["labels"].tolist() == other["labels"].tolist()
        for name, tensor in other["inputs"].items():
            assert one["inputs"][name].tolist() == tensor.tolist()


@pytest.mark.parametrize(
    ("labels", "named", "kind"),
    [
        ([0, 1], {"labels": ("no", "yes")}, "single"),
        (["1,5", "2,25"], {"kind": "regression"}, "regression"),
        ([["a"], ["a", "b"]], {}, "multi"),
        ([[0, 1, 1], [1, 0, 0]], {"labels": ("x", "y", "z")}, "multi"),
    ],
)
def test_labels_are_read_as_those_before_step_1(tmp_path, load, labels, named, kind):
    rows = [{"text": f"text {i}", "label": labels[i % 2]} for i in range(30)]
    path = tmp_path / "a.jsonl"
    write_rows(path, rows)
    data = load(str(path), **named)
    whole = load_data(
        DataArgs(str(path), clean=PLAIN, validation=0, test=0, **named), tmp_path / "cache"
    )  # fmt: skip
    assert data.kind == whole.kind == kind
    assert data.label_names == whole.label_names
    told = {row["address"]: row["label"] for row in whole.splits["train"]}
    assert {row["address"]: row["label"] for row in all_rows(data)} == told


@pytest.fixture
def spoilt(tmp_path):
    """A function that writes 3,000 rows, one of them, which no sample sees, changed."""

    def write(place=1234, **changes):
        rows = [{"text": f"text {i}", "label": ["neg", "pos"][i % 2]} for i in range(3000)]
        rows[place] |= changes
        path = tmp_path / "a.jsonl"
        write_rows(path, rows)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"label": "neutral"}, "'neutral' is none of neg, pos"),
        ({"text": None}, "empty text"),
        ({"text": 3}, "expected text, got '3'"),
    ],
)
def test_a_bad_row_is_an_error_with_its_address(load, spoilt, changes, told):
    place = unseen(load(spoilt()))
    data = load(spoilt(place, **changes), buffer=500)
    with pytest.raises(RefusedError, match=f"a.jsonl:{place + 1}: .*{told}"):
        all_rows(data, size=100)


def unseen(data):
    """The place of a row that no sample and no other split has."""
    read = {row["address"] for rows in data.splits.values() for row in rows}
    return next(i for i in range(1000, 3000) if f"a.jsonl:{i + 1}" not in read)


def test_a_bad_row_that_is_skipped_is_counted_and_replaced(load, spoilt):
    place = unseen(load(spoilt()))
    data = load(spoilt(place, label="neutral"), buffer=500, on_bad_row="skip")
    seen = all_rows(data, size=100)
    assert len(seen) == 3000
    assert f"a.jsonl:{place + 1}" not in {row["address"] for row in seen}
    assert any(line.startswith("1 bad (label outside") for line in data.stream.taker.lines())
    assert any(f"a.jsonl:{place + 1}" in line for line in data.stream.taker.lines())
    assert not data.stream.taker.intake.bad.addresses  # which would grow with the source


@pytest.mark.parametrize("action", ["drop", "warn"])
def test_a_training_row_with_a_held_out_text_is_met_on_the_way(tmp_path, load, action):
    rows = labelled(60)
    train, test = write_files(tmp_path / "train", rows), tmp_path / "test.jsonl"
    held = [{"text": rows[17]["text"].upper(), "label": "pos"}, {"text": "its own", "label": "neg"}]
    write_rows(test, held)
    data = load({"train": train, "test": str(test)}, on_overlap=action)
    seen = {row["text"] for row in all_rows(data)}
    assert (rows[17]["text"][3:-4] in seen) is (action == "warn")
    (line,) = data.stream.taker.lines()
    assert line.startswith("1 had the text of a validation or test row")


def test_rows_held_out_of_a_stream_are_a_number(tmp_path, load):
    source = write_files(tmp_path / "files", labelled(60))
    with pytest.raises(ValueError, match=r"data.test: got 0.1, a share.*data.test = 2000"):
        load(source, test=0.1)
    with pytest.raises(ValueError, match="none is left to train on"):
        load(source, test=60)


def test_the_fingerprint_tells_content_and_not_place(tmp_path, load):
    rows = labelled(60)
    first = load(write_files(tmp_path / "one", rows))
    assert load(write_files(tmp_path / "two", rows)).fingerprint == first.fingerprint
    rows[40]["text"] += "!"
    assert load(write_files(tmp_path / "two", rows)).fingerprint != first.fingerprint


def test_a_row_is_found_by_its_number(tmp_path, load):
    data = load(write_files(tmp_path / "files", labelled(60)), test=7)
    seen = all_rows(data)[11:14]
    assert data.stream.find([row["row"] for row in seen]) == sorted(seen, key=lambda r: r["row"])


def test_a_sorted_source_gives_a_sample_of_all_its_classes(tmp_path, load):
    path = tmp_path / "a.jsonl"
    rows = [{"text": f"text {i}", "label": f"class {i // 1000}"} for i in range(10_000)]
    write_rows(path, rows)
    data = load(str(path), test=100)
    assert len(data.label_names) == 10
    assert len(set(data.splits["test"]["label"])) == 10
    assert len(data.splits["train"]) == 1000
