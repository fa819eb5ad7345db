"""What people bring: files that are packed, marked, badly named, swallowed, nested or wide."""

import bz2
import gzip
import json
import lzma
import random
import time
import zipfile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.reading.content import plain_suffix
from data.reading.detect import detect_encoding, detect_format, looks_like_row
from data.reading.formats import Format, check_format
from data.reading.rows import BadRow, Row
from data.tables import open_table

GOOD = [f"this is a good text number {i}" for i in range(40)]
TABLE = "text,label\n" + "".join(f"{text},{i % 2}\n" for i, text in enumerate(GOOD))


def read(path, fmt=Format(), columns=("text", "label")):  # noqa: B008
    return list(open_table(path, path.name, fmt).rows(columns))


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(rows):
    return [row.values["text"] for row in rows if isinstance(row, Row)]


# What a file really is


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv"])
@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_a_packed_table_is_read_whatever_its_ending(name, module, tmp_path):
    assert texts(read(write(tmp_path, name, module.compress(TABLE.encode())))) == GOOD


def test_packed_json_lines_and_parquet_are_read_too(tmp_path):
    lines = "\n".join(json.dumps({"text": t, "label": 0}) for t in GOOD)
    assert texts(read(write(tmp_path, "a.jsonl.gz", gzip.compress(lines.encode())))) == GOOD
    pq.write_table(pa.table({"text": GOOD, "label": [0] * 40}), tmp_path / "plain.parquet")
    packed = gzip.compress((tmp_path / "plain.parquet").read_bytes())
    assert texts(read(write(tmp_path, "a.parquet.gz", packed))) == GOOD


def test_an_ending_is_that_before_the_packing(tmp_path):
    assert plain_suffix(tmp_path / "my.reviews.TSV.gz") == ".tsv"


def test_parquet_named_csv_is_read(tmp_path):
    pq.write_table(pa.table({"text": GOOD, "label": [0] * 40}), tmp_path / "a.csv")
    assert texts(read(tmp_path / "a.csv")) == GOOD


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.tsv"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, r"Excel file of the old kind"),
        (b"PK\x03\x04 cut short", "cut short or damaged"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "an HTML page"),
        (b"\n<html>\n<head>", "an HTML page"),
        (b"\x80\x04\x95rest", "a Python pickle"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"%PDF-1.7", "a PDF"),
        (b"__label__pos a good film\n", "a fastText file"),
        (b'<?xml version="1.0"?><reviews/>', "an XML file"),
        (b"train.csv" + b"\0" * 248 + b"ustar  \0" + b"\0" * 247, "a tar archive"),
        (b"\0" * 5000, "nothing but zero bytes"),
        (b"\x1f\x8b\x08cut", "packing is cut short or damaged"),
    ],
)
def test_what_is_no_table_is_named_for_what_it_is(name, content, what, tmp_path):
    with pytest.raises(ValueError, match=what) as caught:
        read(write(tmp_path, name, content))
    assert name in str(caught.value)


def test_a_zip_archive_is_named_with_what_is_inside(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
        archive.writestr("reviews.csv", TABLE)
    with pytest.raises(ValueError, match=r"a\.csv is a zip archive of reviews\.csv; unpack"):
        read(tmp_path / "a.csv")


def test_text_named_parquet_is_named_text(tmp_path):
    with pytest.raises(ValueError, match=r"a\.parquet is text, and no Parquet file"):
        read(write(tmp_path, "a.parquet", TABLE))


def test_parquet_cut_short_names_the_file(tmp_path):
    pq.write_table(pa.table({"text": GOOD, "label": [0] * 40}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: a Parquet file that is cut short"):
        read(write(tmp_path, "a.parquet", (tmp_path / "b.parquet").read_bytes()[:-50]))


def test_packing_cut_short_names_the_file(tmp_path):
    noise = "".join(f"{hash((i, 'x'))},1\n" for i in range(20_000))
    packed = gzip.compress(("text,label\n" + noise).encode())
    with pytest.raises(ValueError, match=r"a\.csv\.gz: its packing is cut short"):
        read(write(tmp_path, "a.csv.gz", packed[:-2000]))


def test_excel_is_read_by_its_first_sheet(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["text", "label"])
    for i, text in enumerate(GOOD):
        book.active.append([text, i % 2])
    book.active.append([None, None])
    book.create_sheet("other")
    book.save(tmp_path / "a.xlsx")
    table = open_table(tmp_path / "a.xlsx", "a.xlsx")
    rows = list(table.rows(("text", "label")))
    assert texts(rows) == GOOD
    assert rows[0] == Row("a.xlsx:2", {"text": GOOD[0], "label": 0})
    assert "not other" in table.notes[0]


def test_excel_named_csv_is_named_with_both_ways_out(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["text", "label"])
    book.save(tmp_path / "a.xlsx")
    (tmp_path / "a.xlsx").rename(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"an Excel file.*CSV UTF-8.*\.xlsx"):
        read(tmp_path / "a.csv")


# Encodings


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_a_byte_order_mark_overrules_the_encoding(encoding, tmp_path):
    path = write(tmp_path, "a.csv", TABLE.replace("good", "göod").encode(encoding))
    assert texts(read(path))[0] == "this is a göod text number 0"
    assert detect_format(path).format == Format()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_detected(encoding, tmp_path):
    path = write(tmp_path, "a.csv", TABLE.encode(encoding))
    assert detect_encoding(path)[0] == encoding
    assert texts(read(path, Format(encoding=encoding))) == GOOD


def test_utf16_cut_short_names_file_and_line(tmp_path):
    path = write(tmp_path, "a.csv", TABLE.encode("utf-16")[:-1])
    with pytest.raises(ValueError, match=r"a\.csv: not utf-16-le after line \d+"):
        read(path)


SENTENCES = {
    "cp1252": "Das schöne Café war “groß” – über alle Maßen, €5",
    "cp1251": "Фильм был очень хороший, мне понравилось",
    "koi8-r": "Фильм был очень хороший, мне понравилось",
    "cp1253": "Η ταινία ήταν πολύ καλή, μου άρεσε πολύ",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy, žádná legrace",
    "cp1254": "Film çok güzeldi, şahane bir oyunculuk, ığdır",
    "cp1256": "كان الفيلم جيدا جدا وأحببته كثيرا",
    "cp932": "この映画はとても良かったです。面白い。",
    "euc_jp": "この映画はとても良かったです。面白い。",
    "gb18030": "这部电影非常好看，我很喜欢，推荐给大家",
    "big5": "這部電影非常好看，我很喜歡，推薦給大家",
    "cp949": "이 영화는 정말 재미있었어요. 추천합니다",
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_the_encoding_of_a_language_is_detected(encoding, tmp_path):
    lines = ["text,label", *(f'"{SENTENCES[encoding]} {i}",{i % 2}' for i in range(20))]
    path = write(tmp_path, "a.csv", "\n".join(lines).encode(encoding))
    detected = detect_format(path)
    assert SENTENCES[encoding][:20] in detected.reasons[0]
    rows = read(path, detected.format)
    assert texts(rows)[0] == f"{SENTENCES[encoding]} 0"


def test_one_bad_byte_far_down_is_seen(tmp_path):
    path = write(tmp_path, "a.csv", (TABLE * 500).encode() + b"caf\xe9,1\n")
    assert detect_encoding(path)[0] == "cp1252"


def test_old_mac_line_ends_are_read(tmp_path):
    rows = read(write(tmp_path, "a.csv", TABLE.replace("\n", "\r")))
    assert texts(rows) == GOOD
    assert rows[3].address == "a.csv:5"


def test_a_carriage_return_inside_a_field_stays_there(tmp_path):
    rows = read(write(tmp_path, "a.csv", 'text,label\n"one\rtwo",1\nbad,0\n'))
    assert rows[0].values["text"] == "one\rtwo"
    assert rows[1].address == "a.csv:3"


@pytest.mark.parametrize(
    ("fmt", "key"),
    [
        (Format(encoding="utf-88"), "data.encoding"),
        (Format(encoding="base64"), "data.encoding"),
        (Format(delimiter='"'), "data.delimiter"),
        (Format(delimiter="||"), "data.delimiter"),
        (Format(delimiter=";", escape=";"), "data.escape"),
        (Format(header=("a", "a")), "data.header"),
    ],
)
def test_a_format_that_cannot_be_is_named(fmt, key):
    assert [key in message for message in check_format(fmt)] == [True]


# Delimiter, quoting, header


def test_the_settings_say_how_a_file_is_written(tmp_path):
    path = write(tmp_path, "a.csv", 'say \\"yes\\"; really|1\n"a|b"|0\n')
    rows = read(path, Format(delimiter="|", escape="\\", header=("text", "label")))
    assert [row.values for row in rows] == [
        {"text": 'say "yes"; really', "label": "1"},
        {"text": "a|b", "label": "0"},
    ]


def test_excels_first_line_says_the_delimiter(tmp_path):
    path = write(tmp_path, "a.csv", "sep=;\ntext;label\ngood, really;1\n")
    table = open_table(path, "a.csv")
    assert list(table.rows(())) == [Row("a.csv:3", {"text": "good, really", "label": "1"})]
    assert "separated by ';'" in table.notes[0]


def test_without_a_header_the_columns_are_numbered(tmp_path):
    rows = read(write(tmp_path, "a.csv", "good,1\nbad,0\n"), Format(header="none"))
    assert rows[0] == Row("a.csv:1", {"column_1": "good", "column_2": "1"})


def test_names_given_for_a_file_that_has_them_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"leave data\.header out"):
        read(write(tmp_path, "a.csv", TABLE), Format(header=("text", "label")))
    with pytest.raises(ValueError, match=r"2 fields, and data\.header gives 3 names"):
        read(write(tmp_path, "a.csv", TABLE), Format(header=("a", "b", "c")))


def test_a_blank_after_the_delimiter_belongs_to_no_field(tmp_path):
    path = write(tmp_path, "a.csv", 'label, text \nneg, "bad, really"\npos, good\n')
    table = open_table(path, "a.csv")
    assert [row.values for row in table.rows(())] == [
        {"label": "neg", "text": "bad, really"},
        {"label": "pos", "text": "good"},
    ]
    assert "a blank follows the delimiters" in table.notes[0]


def test_columns_without_a_name_are_said_and_passed_over(tmp_path):
    table = open_table(write(tmp_path, "a.csv", ",text,label,,\n0,good,1,,\n"), "a.csv")
    assert next(iter(table.rows(()))).values["text"] == "good"
    assert table.notes == ("a.csv: no name over column 1, 4, 5, which cannot be used",)


@pytest.mark.parametrize(
    ("first", "rows", "verdict"),
    [
        (["1", "the film was good"], [["2", "the film was bad"], ["1", "fine"]], True),
        (["a good film", "pos"], [["a bad film", "neg"], ["a fine film", "pos"]], True),
        (["text", "1"], [["a bad film", "1"], ["a fine film", "0"]], False),
        (["0", "1"], [["a bad film", "1"], ["a fine film", "0"]], False),  # pandas' own names
        (["v1", "v2"], [["ham", "a bad film"], ["spam", "a fine film"]], False),
        (["tweet", "pos"], [["a bad film", "pos"], ["a fine film", "neg"]], False),
        (["year", "what"], [["1999", "a bad film"], ["2000", "a fine film"]], False),
    ],
)
def test_a_first_line_is_compared_with_the_rows(first, rows, verdict):
    assert looks_like_row(first, rows) is verdict


def test_delimiters_at_the_end_of_a_row_are_no_fields(tmp_path):
    rows = read(write(tmp_path, "a.csv", "text,label\ngood,1,,\nbad,0\nfine,1,,x\n"))
    assert texts(rows) == ["good", "bad"]
    assert rows[2].reason == "ragged_row"


def test_row_names_without_a_column_name_are_passed_over(tmp_path):
    content = '"text" "label"\n"1" "good film" "pos"\n"2" "bad film" "neg"\n'.replace('" "', '","')
    table = open_table(write(tmp_path, "a.csv", content), "a.csv")
    assert texts(table.rows(())) == ["good film", "bad film"]
    assert "R numbers rows" in table.notes[0]


def test_the_first_half_of_texts_with_a_comma_is_no_row_name(tmp_path):
    rows = read(write(tmp_path, "a.csv", "text,label\ngood, indeed,1\nbad, alas,0\n"))
    assert [row.reason for row in rows] == ["ragged_row", "ragged_row"]


def test_a_header_in_the_middle_of_joined_files_is_no_row(tmp_path):
    rows = read(write(tmp_path, "a.csv", "text,label\ngood,1\ntext,label\nbad,0\n"))
    assert texts(rows) == ["good", "bad"]
    assert (rows[1].address, rows[1].reason) == ("a.csv:3", "header_again")


def test_a_few_bad_lines_do_not_make_a_utf8_file_another_one(tmp_path):
    good = "".join(f"caf\u00e9 number {i},{i % 2}\n" for i in range(20)).encode()
    path = write(tmp_path, "a.csv", b"text,label\n" + good + b"caf\xe9,1\n")
    encoding, reason = detect_encoding(path)
    assert encoding == "utf-8"
    assert "1 are not (the first is line 22)" in reason


# Fields that swallow lines


def stray(rows, opening, closing, delimiter="\t"):
    """Rows of text and label; at `opening` a text begins with a stray quote, at `closing` it ends
    with one."""
    lines = [f"text{delimiter}label"]
    for i in range(rows):
        text = ('"' if i == opening else "") + f"film number {i}" + ('"' if i == closing else "")
        lines.append(f"{text}{delimiter}{i % 2}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("opening", "closing"), [(5, 30), (5, 6), (0, 59), (5, None)])
def test_a_tsv_whose_quotes_are_letters_is_read_without_quoting(opening, closing, tmp_path):
    table = open_table(write(tmp_path, "a.tsv", stray(60, opening, closing)), "a.tsv")
    rows = list(table.rows(()))
    assert len(texts(rows)) == 60
    assert rows[opening].values["text"].startswith('"film')
    assert "read without quoting" in table.notes[-1]


def test_a_tsv_that_means_its_quotes_keeps_them(tmp_path):
    content = 'text\tlabel\n"two\nlines"\t1\n"say ""yes"""\t0\n'
    table = open_table(write(tmp_path, "a.tsv", content), "a.tsv")
    assert texts(table.rows(())) == ["two\nlines", 'say "yes"']
    assert table.notes == ()


@pytest.mark.parametrize(("opening", "closing"), [(5, 30), (30, 40), (30, 31), (5, None)])
def test_a_csv_field_that_swallows_lines_costs_one_row_and_says_how_many(
    opening, closing, tmp_path
):
    rows = read(write(tmp_path, "a.csv", stray(60, opening, closing, ",")))
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert [row.address for row in bad] == [f"a.csv:{opening + 2}"]
    assert f"takes {(59 if closing is None else closing) - opening + 1} lines" in bad[0].message
    assert len(texts(rows)) == 59
    assert [row.address for row in rows] == [f"a.csv:{i}" for i in range(2, 62)]


POEM = "Roses are red,\nViolets are blue,\nSugar is sweet,\nAnd so are you,\nreally,\ntruly"


@pytest.mark.parametrize(
    "text",
    [POEM, "one\ntwo", "It cost 5,000\nand was worth it", "a, b\nc, d\ne, f\ng, h\ni, j"],
)
def test_texts_of_several_lines_are_no_swallowed_rows(text, tmp_path):
    content = "text,label\n" + "".join(f'"{text} {i}",{i % 2}\n' for i in range(300))
    rows = read(write(tmp_path, "a.csv", content))
    assert texts(rows) == [f"{text} {i}" for i in range(300)]


def test_many_stray_quotes_cost_time_that_grows_with_the_file(tmp_path):
    def seconds(rows):
        lines = ["text,label", *(f'"film number {i},{i % 2}' for i in range(rows))]
        path = write(tmp_path, "a.csv", "\n".join(lines) + "\n")
        start = time.process_time()  # a busy machine fails nothing
        assert len(read(path)) == rows
        return time.process_time() - start

    small = min(seconds(2000) for _ in range(3))
    assert min(seconds(16_000) for _ in range(2)) < 30 * small + 0.1


# JSON in all its shapes

OBJECTS = [{"text": text, "label": i % 2} for i, text in enumerate(GOOD)]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "content",
    [
        json.dumps(OBJECTS),
        json.dumps(OBJECTS, indent=2),
        "\n".join(map(json.dumps, OBJECTS)),
        "\n".join(json.dumps(o, indent=2) for o in OBJECTS),
        json.dumps({"data": OBJECTS}),
        json.dumps({"version": "1.0", "tags": [1, 2], "data": OBJECTS, "end": None}, indent=1),
        "\n\n [" + ",\n".join(map(json.dumps, OBJECTS)) + "\n]\n",
    ],
)
def test_json_is_read_in_every_shape_that_holds_rows(name, content, tmp_path):
    assert [row.values for row in read(write(tmp_path, name, content))] == OBJECTS


def test_a_single_object_of_plain_values_is_one_row(tmp_path):
    assert read(write(tmp_path, "a.json", json.dumps(OBJECTS[0], indent=1)))[0].values == OBJECTS[0]
    assert read(write(tmp_path, "a.jsonl", json.dumps(OBJECTS[0])))[0].values == OBJECTS[0]


def test_a_row_of_a_json_list_knows_its_line(tmp_path):
    rows = read(write(tmp_path, "a.json", json.dumps(OBJECTS, indent=2)))
    assert [row.address for row in rows[:3]] == ["a.json:2", "a.json:6", "a.json:10"]


def test_a_list_of_long_rows_is_read_across_blocks(tmp_path):
    objects = [{"text": f"{i} " + "x" * 50_000, "label": 0} for i in range(20)]
    assert [r.values for r in read(write(tmp_path, "a.json", json.dumps(objects)))] == objects


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"},\n {"text": "b" "c"}]', r"a\.json:2: broken JSON"),
        ('[{"text": "a"},\n {"text": "b"}', r"a\.json:2: broken JSON.*the end of the file"),
        ('[{"text": "a"}\n {"text": "b"}]', r"a\.json:2: broken JSON: '{'"),
        ('[{"text": "a"}]\nmore', r"a\.json:2: broken JSON: text after the end"),
        ('{"a": [{"text": "a"}], "b": [{"text": "b"}]}', "two lists of rows, 'a' and 'b'"),
        ('{\n"text": {"0": "a"}}', r"holds no list of rows.*orient=\"records\""),
        ('[{"text": Infinity}]', "Infinity is no JSON value"),
    ],
)
def test_broken_or_other_json_names_file_line_and_way_out(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, "a.json", content))


def test_an_element_that_is_no_object_is_a_bad_row(tmp_path):
    rows = read(write(tmp_path, "a.json", '[{"text": "a"}, 5, {"text": "b"}]'))
    assert [type(row) for row in rows] == [Row, BadRow, Row]


def test_nested_fields_have_dotted_names_in_every_format(tmp_path):
    objects = [{"review": {"text": text, "tags": ["x", "y"]}} for text in GOOD]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, objects)))
    names = ("review.text", "review.tags.1")
    assert read(path, columns=names)[0].values["review.text"] == GOOD[0]
    assert read(path, columns=names)[0].values["review.tags.1"] == "y"
    pq.write_table(pa.Table.from_pylist(objects), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", columns=names)[0].values["review.text"] == GOOD[0]


def test_parquet_written_by_datasets_brings_its_class_names(tmp_path):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    dataset = datasets.Dataset.from_dict({"text": GOOD, "label": [0, 1] * 20}, features)
    dataset.to_parquet(tmp_path / "a.parquet")
    table = open_table(tmp_path / "a.parquet", "a.parquet")
    assert table.class_names == {"label": ("neg", "pos")}


@pytest.mark.parametrize(
    ("packing", "place"),  # bzip2 gives what is wrong inside a block, and checks it at its end
    [(gzip, 0.02), (gzip, 0.5), (gzip, 1.0), (lzma, 0.02), (lzma, 0.5), (lzma, 1.0), (bz2, 1.0)],
)
def test_packing_damaged_anywhere_names_the_file(packing, place, tmp_path):
    generator = random.Random(0)
    rows = "".join(f"{generator.random()} film,{i % 2}\n" for i in range(30_000))
    packed = bytearray(packing.compress(f"text,label\n{rows}".encode()))
    at = int(place * (len(packed) - 12))
    packed[at : at + 8] = bytes(byte ^ 0x5A for byte in packed[at : at + 8])
    ending = {gzip: "gz", bz2: "bz2", lzma: "xz"}[packing]
    path = write(tmp_path, f"a.csv.{ending}", bytes(packed))
    with pytest.raises(ValueError, match=r"a\.csv\.\w+: its packing is cut short or damaged"):
        read(path)
    with pytest.raises(ValueError, match=r"a\.csv\.\w+: its packing is cut short or damaged"):
        detect_format(path)


def test_a_column_may_be_called_like_the_beginning_of_another_kind_of_file(tmp_path):
    path = write(tmp_path, "a.csv", "ORCID,text,label\n1,a film,pos\n")
    assert texts(read(path)) == ["a film"]
    with pytest.raises(ValueError, match="is an ORC file"):
        read(write(tmp_path, "a.csv", b"ORC\x11\x00\x00\n\x06\x12"))


def test_a_list_inside_an_object_of_many_lines_may_be_longer_than_what_is_looked_ahead(tmp_path):
    rows = [{"text": "a" * 1000, "label": i} for i in range(1200)]
    content = json.dumps({"version": 1, "data": rows}, indent=1)
    assert len(read(write(tmp_path, "a.json", content))) == 1200
    with pytest.raises(ValueError, match="text after the end"):
        read(write(tmp_path, "b.json", content + "\nmore"))
