"""data/write.py: what pandas and pyarrow read back is what was written."""

import csv
import io
import json
import re
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.write import column_types, harmless, write_rows

ROWS = [
    {"text": 'a "quoted"\nline', "n": 1, "share": 0.25, "on": datetime(2024, 1, 2), "tags": ["a"]},
    {"text": "bare \r return, comma", "n": None, "share": 1, "on": None, "tags": []},
    {"text": "Zoë 好", "n": 3, "share": None, "on": datetime(2024, 1, 3), "tags": None},
]


def write(path, rows):
    types = column_types(["text"], [rows[:1], rows[1:]])
    with path.open("wb") as file:
        write_rows(file, path.suffix, types, [rows[:2], rows[2:]])
    return types


def test_parquet_keeps_types_and_texts(tmp_path):
    types = write(tmp_path / "a.parquet", ROWS)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.names == ["text", "n", "share", "on", "tags"]
    assert [types[name] for name in ("n", "share", "tags")] == [
        pa.int64(), pa.float64(), pa.string(),
    ]  # fmt: skip
    back = table.to_pylist()
    assert [row["text"] for row in back] == [row["text"] for row in ROWS]
    assert [row["n"] for row in back] == [1, None, 3]
    assert [row["share"] for row in back] == [0.25, 1.0, None]
    assert back[0]["on"] == ROWS[0]["on"]
    assert [row["tags"] for row in back] == ['["a"]', "[]", None]


def test_csv_is_read_by_pandas_row_for_row(tmp_path):
    write(tmp_path / "a.csv", ROWS)
    text = (tmp_path / "a.csv").read_bytes().decode("utf-8")
    back = pd.read_csv(io.StringIO(text, newline=""), keep_default_na=False)
    assert list(back["text"]) == [row["text"] for row in ROWS]
    assert list(back["n"]) == ["1", "", "3"]


def test_json_lines_hold_the_values_themselves(tmp_path):
    write(tmp_path / "a.jsonl", ROWS)
    back = [
        json.loads(line)
        for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    ]
    assert back == [{**row, "on": row["on"] and row["on"].isoformat()} for row in ROWS]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_half_a_surrogate_pair_and_no_number_can_be_written(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    rows = [{"text": "cut \ud83d", "big": 2**70, "mixed": 1}, {"text": "b", "big": 1, "mixed": "x"}]
    with path.open("wb") as file:
        write_rows(file, ending, column_types([], [rows]), [rows])
    assert b"cut \xef\xbf\xbd" in path.read_bytes()
    assert b"1180591620717411303424" in path.read_bytes()


CELLS = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "-3", "+1.5e-3", "-,5", "-", "- good", "a=b", "",
         "'=x", "-3 days", "１", "-１", "\n=1"]  # fmt: skip


def test_no_cell_of_a_csv_is_a_formula_and_others_keep_it(tmp_path):
    rows = [{"=name": cell, "n": -1.5} for cell in CELLS]
    for ending in (".csv", ".jsonl", ".parquet"):
        with (tmp_path / f"a{ending}").open("wb") as file:
            write_rows(file, ending, column_types([], [rows]), [rows])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        back = list(csv.DictReader(file))
    cells = [row["'=name"] for row in back]
    assert [cell.removeprefix("'") if cell != "'=x" else cell for cell in cells] == CELLS
    assert not any(cell[:1] in "=@\t\r" for cell in cells if cell)
    assert [cell for cell in cells if cell[:1] in ("+", "-")] == ["-3", "+1.5e-3", "-,5"]
    assert {row["n"] for row in back} == {"-1.5"}
    assert pq.read_table(tmp_path / "a.parquet")["=name"].to_pylist() == CELLS
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line)["=name"] for line in lines] == CELLS


def test_the_page_of_a_server_guards_the_same_cells():
    script = Path("job/serving/page/csv.js").read_text(encoding="utf-8")
    formula, number = re.search(r"FORMULA = /(.+?)/, NUMBER = /(.+?)/;", script).groups()
    formula, number = re.compile(formula), re.compile(number.replace(r"\d", "[0-9]"))
    for cell in CELLS:
        guarded = bool(formula.match(cell)) and not number.match(cell)
        assert harmless(cell) == (f"'{cell}" if guarded else cell)
