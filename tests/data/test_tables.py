import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.reading.rows import BadRow, Row
from data.tables import open_table

TEXTS = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters="\r"), max_size=20
) | st.sampled_from(
    ["NA", "None", "null", "nan", 'a "quoted" text', "two\nlines", "a,b", "\n\n", ""]
)


def read(path, columns=("text", "label")):
    return list(open_table(path, path.name).rows(columns))


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), bom=st.booleans())
def test_csv_gives_back_every_text_and_the_line_where_its_record_starts(
    rows, bom, tmp_path_factory
):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["text", "label"])
    lines = []
    for row in rows:
        lines.append(buffer.getvalue().count("\n") + 1)
        writer.writerow(row)
    content = (b"\xef\xbb\xbf" if bom else b"") + buffer.getvalue().encode()
    path = write(tmp_path_factory.mktemp("csv"), "a.csv", content)
    assert read(path) == [
        Row(f"a.csv:{line}", {"text": text, "label": label})
        for line, (text, label) in zip(lines, rows, strict=True)
    ]


@pytest.mark.parametrize("text", ["NA", "None", "null", "nan", "N/A", "NULL"])
def test_words_for_nothing_stay_texts(text, tmp_path):
    assert read(write(tmp_path, "a.csv", f"text,label\n{text},{text}\n"))[0].values == {
        "text": text,
        "label": text,
    }


def test_windows_line_ends_and_empty_lines_change_no_text(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\r\n\r\ngood,1\r\nbad,0")
    assert [(row.address, row.values["text"]) for row in read(path)] == [
        ("a.csv:3", "good"),
        ("a.csv:4", "bad"),
    ]


def test_tsv_splits_at_tabs_only(tmp_path):
    rows = read(write(tmp_path, "a.tsv", "text\tlabel\na, b\t1\n"))
    assert rows[0].values == {"text": "a, b", "label": "1"}


def test_a_text_of_a_megabyte_is_read(tmp_path):
    rows = read(write(tmp_path, "a.csv", "text,label\n" + "x" * 1_000_000 + ",1\n"))
    assert len(rows[0].values["text"]) == 1_000_000


def test_a_ragged_row_is_bad_and_the_next_one_is_read(tmp_path):
    rows = read(write(tmp_path, "a.csv", 'text,label\n"two\nlines"\ngood,1,2\nbad,0\n'))
    assert [type(row) for row in rows] == [BadRow, BadRow, Row]
    assert rows[0].address == "a.csv:2"
    assert rows[0].message == "label: ragged row: 1 fields, the header has 2"
    assert rows[1].address == "a.csv:4"
    assert rows[2] == Row("a.csv:5", {"text": "bad", "label": "0"})


def test_bad_utf8_names_the_line_and_the_field(tmp_path):
    content = b'text,label\ngood,1\n"two\nlin\xe9s",0\nfine,1\n'
    rows = read(write(tmp_path, "a.csv", content))
    assert rows[1] == BadRow("a.csv:3", "bad_encoding", "text: bad UTF-8 in line 4: byte 0xE9")
    assert rows[2].values["text"] == "fine"


def test_text_after_a_closing_quote_is_broken_csv(tmp_path):
    rows = read(write(tmp_path, "a.csv", 'text,label\n"good" film,1\nbad,0\n'))
    assert (rows[0].address, rows[0].reason) == ("a.csv:2", "broken_csv")
    assert rows[1].values == {"text": "bad", "label": "0"}


def test_a_quote_that_never_closes_names_the_line_where_it_opens(tmp_path):
    rows = read(write(tmp_path, "a.csv", 'text,label\ngood,1\n"bad,0\nworse,0\n'))
    assert [row.address for row in rows] == ["a.csv:2", "a.csv:3", "a.csv:4"]
    assert rows[1].reason == "broken_csv"
    assert rows[2].values == {"text": "worse", "label": "0"}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b",,\n", "no column has a name"),
        (b"t\xe9xt,label\n", "bad UTF-8 in line 1"),
        (b'"text,label\ngood,1\n', "the header cannot be read"),
    ],
)
def test_an_unusable_header_is_refused(content, what, tmp_path):
    with pytest.raises(ValueError, match=what):
        open_table(write(tmp_path, "a.csv", content), "a.csv")


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"text": TEXTS, "label": st.integers()}), max_size=6))
def test_jsonl_gives_back_every_value(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert [row.values for row in read(path)] == rows


@pytest.mark.parametrize(
    "line", ['{"text": "a"', "[1]", '"text"', '{"text": Infinity}', "[" * 100_000]
)
def test_broken_json_names_its_line(line, tmp_path):
    rows = read(write(tmp_path, "a.jsonl", f'{{"text": "a"}}\n\n{line}\n{{"text": "b"}}\n'))
    assert (rows[1].address, rows[1].reason) == ("a.jsonl:3", "broken_json")
    assert rows[2].values == {"text": "b"}


def test_bad_utf8_in_jsonl_names_its_line(tmp_path):
    rows = read(write(tmp_path, "a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n'))
    assert (rows[1].address, rows[1].reason) == ("a.jsonl:2", "bad_encoding")


def test_parquet_reads_only_the_columns_asked_for(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["NA", None], "label": [1, 0], "other": [5, 6]}), path)
    assert read(path) == [
        Row("a.parquet[0]", {"text": "NA", "label": 1}),
        Row("a.parquet[1]", {"text": None, "label": 0}),
    ]


def test_an_unknown_ending_names_those_that_are_read(tmp_path):
    with pytest.raises(ValueError, match=r"\.csv, \.tsv"):
        open_table(write(tmp_path, "a.xlsx", b""), "a.xlsx")
