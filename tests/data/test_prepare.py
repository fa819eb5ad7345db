import csv
import json
import re
from dataclasses import replace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.cache import is_whole
from data.clean import CleanArgs
from data.labels.settle import label_array
from data.prepare import DataArgs, label_counts, load_data


def write_csv(path, rows, header=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def many(rows, word="text"):
    return [(f"{word} number {i}", "pos" if i % 2 else "neg") for i in range(rows)]


@pytest.fixture
def load(tmp_path):
    """Load with a cache of the test's own; no hold-outs unless asked for."""

    def load(source, **named):
        args = DataArgs(source, **({"validation": 0, "test": 0} | named))
        return load_data(args, tmp_path / "cache")

    return load


def test_rows_know_their_address_and_place(load, tmp_path):
    path = write_csv(tmp_path / "a.csv", [("one\ntwo", "x"), ("three", "y"), ("NA", "x")])
    data = load(path)
    assert data.splits["train"].to_dict() == {
        "text": ["one two", "three", "NA"],
        "label": [0, 1, 0],
        "row": [0, 1, 2],
        "address": ["a.csv:2", "a.csv:4", "a.csv:5"],
    }
    assert (data.kind, data.label_names) == ("single", ("x", "y"))


def test_the_result_is_memory_mapped(load, reviews_csv):
    train = load(str(reviews_csv)).splits["train"]
    assert train.cache_files[0]["filename"].endswith("train.arrow")


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan"])
def test_words_for_nothing_stay_texts_and_are_labels_only_where_named(load, tmp_path, name):
    path = write_csv(tmp_path / "a.csv", [(name, name), ("b", "other")])
    data = load(path, labels=(name, "other"))
    assert data.splits["train"]["text"][0] == name
    assert data.label_names == (name, "other")
    with pytest.raises(ValueError, match=f"'{name}' stands for a missing label.*data.labels"):
        load(path)


def test_missing_splits_are_cut_stratified_and_cover_every_row_once(load, tmp_path):
    rows = [(f"text number {i}", "rare" if i % 10 == 0 else "common") for i in range(200)]
    data = load(write_csv(tmp_path / "a.csv", rows), validation=0.1, test=30)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 150,
        "validation": 20,
        "test": 30,
    }
    used = [row for split in data.splits.values() for row in split["row"]]
    assert sorted(used) == list(range(200))
    assert label_counts(data.splits["test"], data.kind, data.label_names)["rare"] == 3
    assert data.report.origin["test"] == "cut from train (seed 42)"


def test_named_splits_are_kept_and_only_the_missing_one_is_cut(load, tmp_path):
    source = {
        "train": write_csv(tmp_path / "a.csv", many(50)),
        "test": write_csv(tmp_path / "b.csv", many(20, "other")),
    }
    data = load(source, validation=0.2, test=0.5)
    assert [len(data.splits[name]) for name in ("train", "validation", "test")] == [40, 10, 20]
    assert list(data.splits["test"]["row"]) == list(range(50, 70))


def test_a_subset_is_the_well_known_sample(load, tmp_path):
    path = write_csv(tmp_path / "a.csv", many(100))
    whole = load(path).splits["train"]
    part = load(path, subset={"train": 30}).splits["train"]
    assert list(part["text"]) == list(whole.shuffle(seed=42).select(range(30))["text"])


def test_an_impossible_subset_is_refused(load, reviews_csv):
    with pytest.raises(ValueError, match=r"data\.subset\.train: 61 rows asked for"):
        load(str(reviews_csv), subset={"train": 61})
    with pytest.raises(ValueError, match=r"data\.subset\.test: there is no such split"):
        load(str(reviews_csv), subset={"test": 1})


def test_bad_rows_are_reported_together_with_file_line_and_field(load, tmp_path):
    rows = [("good\nfilm", "pos"), ("", "neg"), ("bad", "negg"), ("fine", "pos", "x"), ("poor", "")]
    rows += [("   ", "neg")] * 3
    path = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(ValueError, match=r"7 bad rows in .*a\.csv") as caught:
        load(path, labels=("neg", "pos"))
    message = str(caught.value)
    for line in (
        "a.csv:4: text: empty text",
        "a.csv:5: label: 'negg' is none of neg, pos (did you mean 'neg'?)",
        "a.csv:6: ragged row: 3 fields, the header has 2",
        "a.csv:7: label: no label",
        "and 2 more",
        "88% of the rows",
    ):
        assert line in message
    assert "a.csv:9" not in message
    assert "skip" not in message  # of so many, skipping is no way out


def test_skipped_bad_rows_are_counted_by_reason(load, tmp_path):
    content = b'text,label\ngood,pos\n,neg\nbad,neg\nx\n"y" z,neg\n\xff,neg\nq,zzz\n'
    (tmp_path / "a.csv").write_bytes(content)
    data = load(str(tmp_path / "a.csv"), on_bad_row="skip", labels=("neg", "pos"))
    assert list(data.splits["train"]["text"]) == ["good", "bad"]
    assert data.report.bad == {
        "empty_text": 1,
        "ragged_row": 1,
        "broken_csv": 1,
        "bad_encoding": 1,
        "label_outside": 1,
    }
    assert list(data.splits["train"]["row"]) == [0, 2]
    assert "bad rows skipped: 1 (bytes that are not in the encoding)" in data.report.lines()


def test_a_jsonl_row_without_a_field_is_bad(load, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "label": 0}\n{"txt": "b", "label": 1}\n{"te', encoding="utf-8"
    )
    with pytest.raises(ValueError, match="2 bad rows") as caught:
        load(str(tmp_path / "a.jsonl"))
    assert "a.jsonl:2: text: the row has no such field (did you mean 'txt'?)" in str(caught.value)
    assert "a.jsonl:3: broken JSON" in str(caught.value)


def test_a_jsonl_text_that_is_no_text_is_bad(load, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": 5, "label": 0}\n{"text": "\\ud800", "label": 1}\n', encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"a\.jsonl:1: text: expected text, got '5'"):
        load(str(tmp_path / "a.jsonl"))


def test_missing_columns_are_reported_together_with_their_neighbours(load, reviews_csv):
    with pytest.raises(ValueError, match=r"data\.text.*no column 'texts' \(did you mean") as caught:
        load(str(reviews_csv), text=("texts",), label=("labell",), filter="sorce == 1")
    assert "data.label: " in str(caught.value)
    assert "data.filter: " in str(caught.value)


def test_a_filter_keeps_the_rows_it_says_and_counts_the_others(load, tmp_path):
    rows = [(f"text {i}", i % 2, "imdb" if i < 6 else "x") for i in range(10)]
    path = write_csv(tmp_path / "a.csv", rows, ("text", "label", "source"))
    data = load(path, filter='source == "imdb"')
    assert list(data.splits["train"]["row"]) == list(range(6))
    assert data.report.filtered == 4


def test_a_filter_that_keeps_nothing_is_refused(load, reviews_csv):
    with pytest.raises(ValueError, match=r"no usable row for train \(data\.filter left out"):
        load(str(reviews_csv), filter='label == "x"')


def test_a_value_that_a_filter_cannot_compare_is_a_bad_row(load, tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a", "4"), ("b", "NA"), ("c", "5")])
    with pytest.raises(ValueError, match=r"a\.csv:3: label: 'NA' is compared with a number"):
        load(path, filter="label >= 4")


def test_cleaning_is_counted_step_by_step(load, tmp_path):
    rows = [
        ("good<br />film", "pos"),
        ("a  b", "neg"),
        ("<br />", "neg"),
        ("a\u0007b c", "pos"),
        ("plain", "neg"),
    ]
    data = load(write_csv(tmp_path / "a.csv", rows))
    assert list(data.splits["train"]["text"]) == ["good film", "a b", "a b c", "plain"]
    assert data.report.changed == {"html": 2, "spaces": 2, "control": 1}
    assert data.report.dropped == {"too_short": 1}


def test_the_first_of_equal_texts_is_kept_and_the_others_counted_apart(load, tmp_path):
    rows = [
        ("a film", "pos"),
        ("a film", "pos"),
        ("a  film", "pos"),
        ("a film", "neg"),
        ("b", "neg"),
    ]
    path = write_csv(tmp_path / "a.csv", rows)
    data = load(path)
    assert list(data.splits["train"]["row"]) == [0, 4]
    assert data.report.dropped == {
        "duplicates": 1,
        "duplicates_after_cleaning": 1,
        "duplicates_conflicting": 1,
    }
    assert len(load(path, clean=CleanArgs(duplicates=False)).splits["train"]) == 5


@pytest.fixture
def overlapping(tmp_path):
    train = [*many(10), ("A<br/>twice  told tale", "pos")]
    test = [*many(5, "other"), ("a TWICE told tale", "pos")]
    return {
        "train": write_csv(tmp_path / "a.csv", train),
        "test": write_csv(tmp_path / "b.csv", test),
    }


def test_overlap_is_refused_with_addresses_and_ways_out(load, overlapping):
    with pytest.raises(ValueError, match=r"1 rows of train/test") as caught:
        load(overlapping)
    assert "train a.csv:12 = test b.csv:7" in str(caught.value)
    assert '"drop"' in str(caught.value)


def test_overlap_is_dropped_from_the_training_side(load, overlapping):
    data = load(overlapping, on_overlap="drop")
    assert (len(data.splits["train"]), len(data.splits["test"])) == (10, 6)
    assert data.report.overlap == {"train/test": 1}
    assert data.report.overlap_dropped == {"train": 1}


def test_overlap_can_be_kept_with_a_warning(load, overlapping):
    data = load(overlapping, on_overlap="warn")
    assert len(data.splits["train"]) == 11
    assert "WARNING: 1 train rows have the text of a test row" in data.report.lines()


def test_overlap_among_rows_that_are_not_used_does_not_count(load, overlapping):
    seeds = [
        load(overlapping, on_overlap="warn", subset={"test": 2}, subset_seed=seed)
        for seed in range(6)
    ]
    told = ["a TWICE told tale" in data.splits["test"]["text"] for data in seeds]
    assert [bool(data.report.overlap) for data in seeds] == told
    assert True in told
    assert False in told


def test_pairs_overlap_only_where_both_texts_do(load, tmp_path):
    header = ("a", "b", "label")
    source = {
        "train": write_csv(tmp_path / "a.csv", [("x", "y", 0), ("x", "z", 1)], header),
        "test": write_csv(tmp_path / "b.csv", [("x", "w", 0), ("X", "Z", 1)], header),
    }
    data = load(source, text=("a", "b"), on_overlap="warn")
    assert data.splits["train"].column_names == ["text", "text_pair", "label", "row", "address"]
    assert data.report.overlap == {"train/test": 1}


def test_numbers_make_a_regression_cut_plainly(load, tmp_path):
    rows = [(f"text {i}", i / 4) for i in range(40)]
    data = load(write_csv(tmp_path / "a.csv", rows), validation=5)
    assert data.kind == "regression"
    assert data.label_names == ()
    validation = data.splits["validation"]
    assert list(validation["label"]) == [row / 4 for row in validation["row"]]


def test_lists_and_columns_make_the_same_multi_label_set(load, tmp_path):
    header = ("text", "fun", "sad")
    columns = write_csv(tmp_path / "a.csv", [("a", 1, 0), ("b", 1, 1), ("c", 0, 0)], header)
    lines = [("a", ["fun"]), ("b", ["sad", "fun"]), ("c", [])]
    path = tmp_path / "a.jsonl"
    path.write_text(
        "\n".join(json.dumps({"text": t, "label": names}) for t, names in lines), encoding="utf-8"
    )
    first, second = load(columns, label=("fun", "sad")), load(str(path))
    assert first.kind == second.kind == "multi"
    assert first.label_names == second.label_names == ("fun", "sad")
    assert list(first.splits["train"]["label"]) == [[1, 0], [1, 1], [0, 0]]
    assert first.fingerprint == second.fingerprint


def test_names_of_a_hub_set_keep_their_order(load, tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a", "never"])}
    )
    part = datasets.Dataset.from_dict({"text": ["p", "q"], "label": [0, 1]}, features=features)
    datasets.DatasetDict(train=part).save_to_disk(tmp_path / "set")
    data = load(f"hub:{tmp_path / 'set'}")
    assert data.label_names == ("z", "a", "never")
    assert list(data.splits["train"]["label"]) == [0, 1]
    assert data.report.notes == ["WARNING: no training row has the label never"]


def test_equal_rows_have_equal_fingerprints_and_other_rows_others(load, tmp_path):
    one = load(write_csv(tmp_path / "a.csv", many(20)))
    two = load(write_csv(tmp_path / "b.csv", many(20)))
    assert one.fingerprint == two.fingerprint
    assert load(write_csv(tmp_path / "c.csv", many(21))).fingerprint != one.fingerprint
    assert load(str(tmp_path / "a.csv"), test=2).fingerprint != one.fingerprint


def test_a_second_load_opens_the_cache_and_a_changed_file_does_not(load, tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv", many(20))
    first = load(path)
    monkeypatch.setattr("data.prepare._build", None)
    assert load(path) is not first
    assert load(path).report == first.report
    write_csv(tmp_path / "a.csv", many(22))
    with pytest.raises(TypeError):
        load(path)


def test_a_damaged_cache_is_built_again(load, tmp_path):
    path = write_csv(tmp_path / "a.csv", many(20))
    load(path)
    file = next((tmp_path / "cache").rglob("train.arrow"))
    file.write_bytes(file.read_bytes()[:100])
    assert not is_whole(file.parent)
    assert len(load(path).splits["train"]) == 20


def test_a_refused_source_leaves_nothing_in_the_cache(load, tmp_path):
    with pytest.raises(ValueError, match="bad row"):
        load(write_csv(tmp_path / "a.csv", [("", "x")]))
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_the_default_cache_follows_the_environment(reviews_csv, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENLOOP_CACHE", str(tmp_path / "here"))
    load_data(DataArgs(str(reviews_csv)))
    assert list((tmp_path / "here" / "data").iterdir())


def test_a_cache_that_cannot_be_written_names_the_variable(reviews_csv, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="set OPENLOOP_CACHE"):
        load_data(DataArgs(str(reviews_csv)), tmp_path / "file")


def test_unknown_choices_are_reported_together(load):
    args = DataArgs("a.csv", kind="triple", on_overlap="ignore", labels=("a",), subset={"tset": 1})
    with pytest.raises(ValueError, match=r"data\.kind: got 'triple'") as caught:
        load_data(replace(args, text=("a", "b", "c")))
    for key in ("data.on_overlap", "data.labels", "data.subset", "data.text"):
        assert key in str(caught.value)


def test_the_report_is_plain_json(load, reviews_csv):
    report = load(str(reviews_csv), test=0.1).report
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
    assert "test: 6 rows, cut from train (seed 42) (neg 3, pos 3)" in report.lines()


def test_a_header_that_is_a_row_is_named_with_the_way_out(load, tmp_path):
    path = tmp_path / "a.csv"
    rows = [f"film {i},{'pos' if i % 2 else 'neg'}" for i in range(20)]
    path.write_text("\n".join(["a good film,pos", *rows, ""]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"no column 'text'.*looks like a row.*data\.header = \["):
        load(str(path))
    assert sum(map(len, load(str(path), header=("text", "label")).splits.values())) == 21


def test_a_header_with_another_delimiter_is_named_with_the_way_out(load, tmp_path):
    (tmp_path / "a.csv").write_text("text;label\ngood;pos\nbad;neg\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"separated by ';': set data\.delimiter = ';'"):
        load(str(tmp_path / "a.csv"))


def test_json_called_csv_and_the_other_way_round_are_named_with_the_way_out(load, tmp_path):
    for lines in ({"text": "a film", "label": "pos"}, {"text": "a film"}):
        (tmp_path / "a.csv").write_text(f"{json.dumps(lines)}\n" * 20, encoding="utf-8")
        with pytest.raises(ValueError, match=r"looks like JSON: let .* end in \.jsonl"):
            load(str(tmp_path / "a.csv"))
    write_csv(tmp_path / "a.jsonl", many(20))
    with pytest.raises(ValueError, match=r"(?s)broken JSON.*has to be called \.csv or \.tsv"):
        load(str(tmp_path / "a.jsonl"))


def test_brackets_that_belong_to_a_name_are_read_by_the_kind_advised(load, tmp_path):
    rows = [(f"film {i}", ["[spoken]", "(sung)"][i % 2]) for i in range(20)]
    path = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(ValueError, match=r'hold a list of labels.*data\.kind = "single"'):
        load(path)
    assert load(path, kind="single").label_names == ("(sung)", "[spoken]")


def test_two_columns_of_one_name_are_refused_only_where_needed(load, tmp_path):
    (tmp_path / "a.csv").write_text("text,label,x,x\ngood,pos,1,2\nbad,neg,3,4\n", encoding="utf-8")
    assert len(load(str(tmp_path / "a.csv")).splits["train"]) == 2
    (tmp_path / "b.csv").write_text("text,label,label\ngood,pos,1\nbad,neg,3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="two columns 'label'"):
        load(str(tmp_path / "b.csv"))


@pytest.mark.parametrize(
    ("bad", "total", "advice"),
    [(1, 60, 'on_bad_row = "skip"'), (20, 60, "33% of the rows, which is no slip")],
)
def test_advice_fits_the_share_of_bad_rows(load, tmp_path, bad, total, advice):
    rows = [(f"film {i}", "" if i < bad else "pos" if i % 2 else "neg") for i in range(total)]
    with pytest.raises(ValueError, match=r"bad row") as caught:
        load(write_csv(tmp_path / "a.csv", rows))
    assert advice in str(caught.value)
    assert ("skip" in str(caught.value)) is (bad == 1)


def test_bad_bytes_name_the_encoding_that_they_suggest(load, tmp_path):
    lines = [
        "text,label",
        *(f"sch\u00f6ner Film {i},{'pos' if i % 2 else 'neg'}" for i in range(9)),
    ]
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(ValueError, match=r'look like cp1252: set data\.encoding = "cp1252"'):
        load(str(tmp_path / "a.csv"))
    data = load(str(tmp_path / "a.csv"), encoding="cp1252")
    assert data.splits["train"]["text"][0].startswith("schöner Film")
    assert "text files are read with encoding = 'cp1252'" in data.report.notes


@pytest.mark.parametrize("empty", ["-1", "", "NA"])
def test_a_split_without_labels_is_named_with_the_way_out(load, tmp_path, empty):
    source = {
        "train": write_csv(tmp_path / "a.csv", many(50)),
        "test": write_csv(tmp_path / "b.csv", [(f"other {i}", empty) for i in range(20)]),
    }
    with pytest.raises(ValueError, match=r"none of the 20 rows of test has a label.*data\.splits"):
        load(source)
    with pytest.raises(ValueError, match="none of the 20 rows of test has a label"):
        load(source, on_bad_row="skip")


def test_a_number_is_one_class_in_every_format_and_file(load, tmp_path):
    import json

    (tmp_path / "a.jsonl").write_text(
        "\n".join(
            json.dumps({"text": f"a {i}", "label": [1, 1.0, "01", 0][i % 4]}) for i in range(8)
        ),
        encoding="utf-8",
    )
    (tmp_path / "b.csv").write_text("text,label\nb1,1.0\nb2, 1\nb3,00\nb4,0.0\n", encoding="utf-8")
    data = load([str(tmp_path / "a.jsonl"), str(tmp_path / "b.csv")])
    assert data.label_names == ("0", "1")
    assert data.report.labels["train"] == {"0": 4, "1": 8}


def test_labels_that_look_alike_are_warned_of(load, tmp_path):
    rows = [(f"film {i}", ["Positive", "positive ", "neg"][i % 3]) for i in range(30)]
    notes = load(write_csv(tmp_path / "a.csv", rows)).report.notes
    assert any("look alike" in note and "'Positive', 'positive'" in note for note in notes)


@pytest.mark.parametrize("words", [["NaN"], ["-", "NaN"], [""], ["", " ", "None"]])
def test_the_filter_that_is_advised_leaves_those_rows_out(load, tmp_path, words):
    labels = ["pos", "neg", *words]
    rows = [(f"film {i}", labels[i % len(labels)]) for i in range(60)]
    path = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(ValueError, match=r"data\.filter") as caught:
        load(path)
    advised = re.search(r"data\.filter \((.*?)\), or", str(caught.value))[1]
    data = load(path, filter=advised)
    assert sum(map(len, data.splits.values())) == sum(label in ("pos", "neg") for _, label in rows)


@pytest.mark.parametrize(
    "column", ["class", "None", "a b", "\ufb01lm", "label:int", "rows.0", "row"]
)
def test_the_filter_that_is_advised_names_the_column_so_that_it_is_read(load, tmp_path, column):
    rows = [(f"film {i}", ["pos", "neg", ""][i % 3]) for i in range(60)]
    path = write_csv(tmp_path / "a.csv", rows, header=("text", column))
    with pytest.raises(ValueError, match=r"data\.filter") as caught:
        load(path, label=(column,))
    advised = re.search(r"data\.filter \((.*?)\), or", str(caught.value))[1]
    assert sum(map(len, load(path, label=(column,), filter=advised).splits.values())) == 40


def test_missing_values_of_jsonl_are_left_out_by_the_same_filter(load, tmp_path):
    values = [1, 0, float("nan"), None]
    lines = [json.dumps({"text": f"film {i}", "a b": values[i % 4]}) for i in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=r'data\.filter \(row\["a b"\] != ""\)'):
        load(str(tmp_path / "a.jsonl"), label=("a b",))
    data = load(str(tmp_path / "a.jsonl"), label=("a b",), filter='row["a b"] != ""')
    assert sum(map(len, data.splits.values())) == 30


def test_numbers_keep_all_their_digits(load, tmp_path):
    numbers = [1_700_000_000.125 + i / 8 for i in range(40)]
    rows = [(f"film {i}", repr(number)) for i, number in enumerate(numbers)]
    data = load(write_csv(tmp_path / "a.csv", rows), kind="regression")
    assert label_array(data.splits["train"], "regression").tolist() == numbers


def test_a_field_inside_that_is_not_there_is_a_bad_row_in_every_format(load, tmp_path):
    rows = [{"review": {"text": f"text {i}"} if i else None, "label": i % 2} for i in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    write_csv(tmp_path / "rows.csv", many(6), header=("review", "label"))
    for name in ("rows.parquet", "rows.jsonl"):
        with pytest.raises(ValueError, match=r"1 bad row in .*\n.*review\.text: empty text"):
            load(str(tmp_path / name), text=("review.text",))
        with pytest.raises(ValueError, match=r"6 bad rows in .*\n.*review\.txt: "):
            load(str(tmp_path / name), text=("review.txt",))
    with pytest.raises(ValueError, match=r"6 bad rows in .*\n.*review\.text: the row has no such"):
        load(str(tmp_path / "rows.csv"), text=("review.text",))


def test_texts_that_parquet_holds_as_bytes_are_texts_labels_and_filtered(load, tmp_path):
    rows = [{"text": b"text %d" % i, "label": [b"neg", b"pos"][i % 2]} for i in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    data = load(str(tmp_path / "rows.parquet"), filter='label in ["neg", "pos"]')
    assert data.label_names == ("neg", "pos")
    assert data.report.filtered == 0


@pytest.mark.parametrize("header", ["s3cret" * 40, ",".join(f"column{i}" for i in range(5000))])
def test_a_header_that_lacks_a_column_is_shown_only_as_far_as_it_helps(load, tmp_path, header):
    path = tmp_path / "shadow.csv"
    path.write_text(f"{header}\nrow\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no column 'text'") as error:
        load(str(path))
    assert len(str(error.value)) < 1500
    assert "s3cret" * 5 not in str(error.value)
