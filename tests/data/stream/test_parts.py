"""data/stream/parts.py and the readers: from any row on, whatever the file."""

import json
import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.hub import open_hub
from data.stream import parts
from data.stream.parts import Counted, count_tables, make_parts, rows_at
from data.tables import open_table, sampled_digest

ROWS = [{"text": f"text {i}\nof two lines" if i % 7 == 0 else f"text {i}", "n": i}
        for i in range(57)]  # fmt: skip


def as_csv(rows):
    return "text,n\n" + "".join(f'"{row["text"]}",{row["n"]}\n' for row in rows)


def as_arrow(path, stream):
    """Batches of ten rows, as Feather files have them or as `datasets` keeps them."""
    table = pa.Table.from_pylist(ROWS)
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, opened(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)


WAYS = {
    "a.csv": lambda path: path.write_text(as_csv(ROWS), encoding="utf-8"),
    "a.jsonl": lambda path: path.write_text("\n\n".join(map(json.dumps, ROWS)), encoding="utf-8"),
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8"),
    "a.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=10),
    "a.feather": lambda path: as_arrow(path, stream=False),
    "a.arrow": lambda path: as_arrow(path, stream=True),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_file_is_read_from_any_row_on(tmp_path, name):
    WAYS[name](tmp_path / name)
    table = open_table(tmp_path / name, name)
    whole = list(table.rows(["text", "n"]))
    assert [row.values["text"] for row in whole] == [row["text"] for row in ROWS]
    for start in (0, 1, 9, 10, 11, 30, 56, 57):
        assert list(table.read(["text", "n"], start)) == whole[start:]


def test_a_bad_line_has_a_place(tmp_path):
    lines = [json.dumps(row) for row in ROWS[:5]]
    lines[2] = '{"text": '
    (tmp_path / "a.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n{}')
    table = open_table(tmp_path / "a.jsonl", "a.jsonl")
    whole = list(table.rows(["text"]))
    assert len(whole) == 7
    for start in range(8):
        assert list(table.read(["text"], start)) == whole[start:]


@pytest.fixture(params=["shards", "told", "saved"])
def hub(request, tmp_path):
    """A folder as of a hub set: Parquet files, with their number of rows in its card or without;
    or as save_to_disk writes it."""
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([{**row, "label": row["n"] % 2} for row in ROWS])
    if request.param == "saved":
        DatasetDict(train=rows).save_to_disk(tmp_path / "hub", num_shards={"train": 3})
        return f"{tmp_path / 'hub'}"
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for i in range(3):
        part = rows.select(range(i * 19, (i + 1) * 19))
        part.to_parquet(tmp_path / "hub" / "data" / f"train-0000{i}-of-00003.parquet")
    if request.param == "told":
        card = (
            "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: n\n"
            "    dtype: int64\n  - name: label\n    dtype: int64\n  splits:\n  - name: train\n"
            "    num_examples: 57\n    num_bytes: 999\n---\n"
        )
        (tmp_path / "hub" / "README.md").write_text(card, encoding="utf-8")
    return f"{tmp_path / 'hub'}"


def test_a_hub_set_is_read_from_any_row_on(hub, tmp_path):
    tables = open_hub(hub, None, None, sampled_digest, stream=True)["train"]
    counted = count_tables(tables, None, tmp_path / "cache")
    assert sum(one.rows for one in counted) == len(ROWS)
    made = make_parts(tables, counted, None, np.empty(0, dtype=np.int64))
    for start in (0, 5, 18, 19, 40, 56):
        numbers = np.arange(start, len(ROWS))
        texts = [row.values["text"] for row in rows_at(made, numbers, ["text", "n"])]
        assert texts == [row["text"] for row in ROWS[start:]]
    assert len({row.address for row in rows_at(made, np.arange(57), ["text"])}) == 57


@pytest.mark.parametrize("name", WAYS)
def test_a_filter_numbers_the_rows_that_it_keeps(tmp_path, monkeypatch, name):
    monkeypatch.setattr(parts, "STRIDE", 8)
    WAYS[name](tmp_path / name)
    tables, kept_by = [open_table(tmp_path / name, name)], "n > 20 and n < 50"
    if name == "a.csv":
        kept_by = 'n >= "21" and n < "50" and n != "3" and n not in ["4", "5"]'
    counted = count_tables(tables, kept_by, tmp_path / "cache")
    assert [one.rows for one in counted] == [29]
    (part,) = make_parts(tables, counted, kept_by, np.array([2, 3, 11]))
    kept = [i for i in range(29) if i not in (2, 3, 11)]
    for start in range(26):
        read = list(part.read(["text", "n"], start))
        assert [number for number, _ in read] == kept[start:]
        assert [int(row.values["n"]) for _, row in read] == [21 + i for i in kept[start:]]


def test_counts_are_kept_until_a_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    WAYS["a.jsonl"](path)
    counted = []
    count = parts.count_table
    monkeypatch.setattr(parts, "count_table", lambda *words: counted.append(1) or count(*words))

    def look():
        tables = [open_table(path, "a.jsonl", identify=sampled_digest)]
        return count_tables(tables, None, tmp_path / "cache")

    assert look() == look() == [Counted(57)]
    assert len(counted) == 1
    with path.open("a", encoding="utf-8") as file:
        file.write('\n{"text": "more", "n": 1}')
    assert look() == [Counted(58)]
    assert len(counted) == 2


def test_a_file_that_lost_rows_since_is_an_error(tmp_path):
    WAYS["a.csv"](tmp_path / "a.csv")
    table = open_table(tmp_path / "a.csv", "a.csv")
    (part,) = make_parts([table], [Counted(60)], None, np.empty(0, dtype=np.int64))
    with pytest.raises(ValueError, match="3 rows less than when they were counted"):
        list(part.read(["text"], 0))


def test_a_sampled_digest_reads_a_megabyte_and_notices_both_ends(tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(4 << 20))
    first = sampled_digest(path)
    assert sampled_digest(path) == first
    for place in (0, 1000, (4 << 20) - 1):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        (tmp_path / "other.bin").write_bytes(content)
        assert sampled_digest(tmp_path / "other.bin") != first
    (tmp_path / "other.bin").write_bytes(path.read_bytes() + b"\0")
    assert sampled_digest(tmp_path / "other.bin") != first


def test_rows_that_stand_near_each_other_are_read_at_once(tmp_path):
    WAYS["a.parquet"](tmp_path / "a.parquet")
    table, begun = open_table(tmp_path / "a.parquet", "a.parquet"), []
    read = table.rows_from
    counting = replace(table, rows_from=lambda *words: begun.append(words[1]) or read(*words))
    made = make_parts([counting], [Counted(57)], None, np.empty(0, dtype=np.int64))
    rows = rows_at(made, np.array([3, 5, 8, 30, 56]), ["n"])
    assert [row.values["n"] for row in rows] == [3, 5, 8, 30, 56]
    assert begun == [3]
