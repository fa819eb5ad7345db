import json
import math

import pytest
from datasets import Dataset

from data.labels.reader import LabelReader, RowError, parse_list
from data.labels.settle import (
    alike_names,
    convert_label,
    label_counts,
    settle,
    settle_kind,
    settle_names,
)


def read(value, names=None, kind="auto", class_names=None):
    known = {"label": class_names} if class_names else {}
    return LabelReader(("label",), names, kind, known).read({"label": value})


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("pos", "pos"),
        (" pos ", "pos"),
        (1, "1"),
        (1.0, "1"),
        (0.5, "0.5"),
        (True, "true"),
        ("none", "none"),
        ("01", "1"),
        ("1.0", "1"),
        ("+1", "1"),
        ("-01", "-1"),
        ("-0", "0"),
        ("1.5", "1.5"),
        ("1e3", "1e3"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_one_label_has_one_plain_form(value, plain):
    assert read(value) == plain


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_label_is_bad(value):
    with pytest.raises(RowError, match="label: no label"):
        read(value)


def test_a_label_outside_the_set_names_its_nearest_neighbour():
    with pytest.raises(RowError, match=r"label: 'Positve' is none of .*\(did you mean 'positive'"):
        read("Positve", names=("negative", "positive"))


@pytest.mark.parametrize("value", ["1", 1, 1.0, "01", " 1.0 "])
def test_names_given_for_numbered_classes_wait_until_all_numbers_are_known(value):
    assert read(value, names=("negative", "positive")) == "1"


@pytest.mark.parametrize("value", ["neutral", 0.5])
def test_what_is_neither_name_nor_number_is_outside_the_set(value):
    with pytest.raises(RowError, match="none of negative, positive"):
        read(value, names=("negative", "positive"))


def test_names_that_are_numbers_are_meant_as_such():
    assert read("5", names=("1", "5")) == "5"
    with pytest.raises(RowError):
        read("0", names=("1", "5"))


def test_names_of_a_hub_set_are_used_reordered_or_renamed():
    assert read(1, class_names=("neg", "pos")) == "pos"
    assert read(1, names=("pos", "neg"), class_names=("neg", "pos")) == "pos"
    assert read(1, names=("bad", "good"), class_names=("neg", "pos")) == "good"
    with pytest.raises(RowError, match=r"no label \(-1\)"):
        read(-1, class_names=("neg", "pos"))


def test_a_list_holds_each_of_its_labels_once():
    assert read(["b", "a", "b"]) == ("a", "b")
    assert read([]) == ()
    assert read([1], class_names=("neg", "pos")) == ("pos",)
    with pytest.raises(RowError, match="a list"):
        read(["a"], kind="single")
    with pytest.raises(RowError, match="needs several: a list"):
        read("a", kind="multi")


def test_several_columns_are_read_as_on_or_off():
    reader = LabelReader(("a", "b", "c"), None, "auto")
    assert reader.read({"a": "1", "b": 0.0, "c": True}) == ("a", "c")
    with pytest.raises(RowError, match="b: '2', expected 0 or 1"):
        reader.read({"a": "1", "b": "2", "c": "0"})


@pytest.mark.parametrize("value", ["nan", "inf", "1_0", "x", True, None])
def test_a_regression_takes_finite_numbers_only(value):
    with pytest.raises(RowError):
        read(value, kind="regression")
    assert read("-1.5e2", kind="regression") == "-1.5e2"


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["a", "b"], "single"),
        (["0", "1", "2"], "single"),
        (["1.0", "2.0"], "single"),
        (["1", "2.5"], "regression"),
        (["1.5", "nan"], "single"),
        ([("a",), ()], "multi"),
    ],
)
def test_the_kind_follows_from_the_labels(labels, kind):
    assert settle_kind(labels, "auto", None, "data.label") == kind


@pytest.mark.parametrize(
    "labels", [[str(i // 2) for i in range(400)], [f"text {i}" for i in range(10)]]
)
def test_too_many_labels_are_an_error_that_names_regression(labels):
    with pytest.raises(ValueError, match=r"is this the label column\?.*'regression'"):
        settle_kind(labels, "auto", None, "data.label")
    assert settle_kind(labels, "single", None, "data.label") == "single"


def test_lists_beside_single_labels_are_refused():
    with pytest.raises(ValueError, match="1 of 2 rows hold a list"):
        settle_kind(["a", ("a",)], "auto", None, "data.label")


def test_names_from_the_data_are_sorted_numbers_by_value():
    assert settle_names(["b", "a", "b"], "single", None, "") == ("a", "b")
    assert settle_names(["10", "2", "1"], "single", None, "") == ("1", "2", "10")
    assert settle_names([("b",), ("a", "c")], "multi", None, "") == ("a", "b", "c")
    assert settle_names(["b", "a"], "single", ("z", "b", "a"), "") == ("z", "b", "a")
    assert settle_names(["1.5"], "regression", None, "") == ()


def test_a_single_label_everywhere_is_refused():
    with pytest.raises(ValueError, match="every row has the label 'a'"):
        settle_names(["a", "a"], "single", None, "data.label")


def test_labels_become_indices_lists_or_numbers():
    index = {"a": 0, "b": 1, "c": 2}
    assert convert_label("c", "single", index) == 2
    assert convert_label(("c", "a"), "multi", index) == [1.0, 0.0, 1.0]
    assert convert_label("2.5", "regression", {}) == 2.5


def test_rows_of_each_label_are_counted():
    single = Dataset.from_dict({"label": [1, 1, 0]})
    assert label_counts(single, "single", ("a", "b", "c")) == {"a": 1, "b": 2, "c": 0}
    multi = Dataset.from_dict({"label": [[1.0, 1.0], [0.0, 1.0]]})
    assert label_counts(multi, "multi", ("a", "b")) == {"a": 1, "b": 2}
    assert label_counts(single, "regression", ()) == {}


def test_several_columns_are_no_single_label():
    with pytest.raises(ValueError, match="2 columns make a multi-label set"):
        LabelReader(("a", "b"), None, "single")


@pytest.mark.parametrize(
    "value", ["nan", "NaN", "NA", "null", "NULL", "None", "N/A", "n/a", "-", " NA ", "<NA>"]
)
def test_words_that_stand_for_a_missing_label_are_refused_unless_named(value):
    with pytest.raises(RowError, match="stands for a missing label") as caught:
        read(value)
    assert caught.value.reason == "no_label"
    assert read(value, names=(value.strip(), "other")) == value.strip()


def test_a_missing_value_of_a_table_is_no_label():
    for value in (None, math.nan, " "):
        with pytest.raises(RowError, match="no label"):
            read(value)


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("['joy', 'anger']", ["joy", "anger"]),
        ('["joy","anger"]', ["joy", "anger"]),
        ("['joy' 'anger']", ["joy", "anger"]),  # as numpy prints it
        ("[joy, anger]", ["joy", "anger"]),
        ("[1 0 1]", ["1", "0", "1"]),
        ("[1, 0]", ["1", "0"]),
        ("[]", []),
        ("['it\\'s', \"a, b\"]", ["it's", "a, b"]),
        ("{'joy', 'anger'}", ["joy", "anger"]),  # a set
        ("{joy,anger}", ["joy", "anger"]),  # as PostgreSQL writes an array
        ("('joy', 'anger')", ["joy", "anger"]),
        ("('joy',)", ["joy"]),
        ("(12.50)", None),
        ("(good)", None),
        ("{'id': 1}", None),
        ("{id: 1}", None),
        ("[" + "long prose in brackets " * 20 + "]", None),
        ("joy, anger", None),
        ("[joy", None),
        ("['joy'", None),
    ],
)
def test_a_list_in_a_cell_is_read_as_a_list(cell, items):
    assert parse_list(cell) == items


def test_several_labels_in_a_cell_are_split_at_the_separator():
    reader = LabelReader(("label",), None, "auto", separator=",")
    assert reader.read({"label": "joy, anger,,joy"}) == ("anger", "joy")
    assert reader.read({"label": "joy"}) == ("joy",)
    with pytest.raises(RowError, match="missing label"):
        reader.read({"label": "joy,nan"})


def test_labels_are_cleaned_as_texts_are():
    reader = LabelReader(("label",), None, "auto", clean=lambda s: " ".join(s.split()).upper())
    assert reader.read({"label": "a \xa0 b"}) == "A B"


def settle_one(labels, names=None, kind="auto"):
    return settle({"train": labels}, kind, names, "label")


@pytest.mark.parametrize(
    ("numbers", "count", "expected"),
    [
        (["0", "1", "1"], 2, {"0": "n0", "1": "n1"}),
        (["1", "2", "3", "4", "5"], 5, {"1": "n0", "5": "n4"}),
        (["-1", "1"], 2, {"-1": "n0", "1": "n1"}),
        (["0", "4", "2"], 3, {"0": "n0", "2": "n1", "4": "n2"}),
        (["3", "4", "6"], 5, {"3": "n0", "4": "n1", "6": "n3"}),
        (["0", "3"], 5, {"0": "n0", "3": "n3"}),
        (["2", "4", "5"], 5, {"2": "n1", "4": "n3", "5": "n4"}),  # stars, one of which none has
    ],
)
def test_names_are_given_to_numbers_as_they_are_counted(numbers, count, expected):
    names = tuple(f"n{i}" for i in range(count))
    settled = settle_one(numbers, names)
    by_number = dict(zip(numbers, settled.labels["train"], strict=True))
    assert expected.items() <= by_number.items()
    assert settled.names == names
    assert "names the numbers of the column in order" in settled.notes[0]


def test_more_numbers_than_names_are_refused_with_both():
    with pytest.raises(ValueError, match=r"2 names \(neg, pos\).*the numbers 0, 1, 2"):
        settle_one(["0", "1", "2"], ("neg", "pos"))


def test_lists_of_one_zero_or_one_a_class_are_several_labels():
    settled = settle_one([("1", "0", "1"), ("0", "0", "0"), ("0", "1", "0")], ("a", "b", "c"))
    assert settled.kind == "multi"
    assert settled.labels["train"] == [("a", "c"), (), ("b",)]
    assert settle_one([("1", "0", "1"), ("0", "0", "1")]).names == ("0", "1", "2")


@pytest.mark.parametrize("held", [("1", "2"), ("1",), ("1", "3")])
def test_numbers_counted_from_0_or_from_1_are_not_named_by_chance(held):
    names = ("a", "b", "c", "d")
    with pytest.raises(ValueError, match=f"{', '.join(held)}, counted from 0 or from 1; give"):
        settle_one(list(held), names)
    if len(held) > 1:  # what is advised
        assert settle_one(list(held), names[: len(held)]).names == names[: len(held)]


@pytest.mark.parametrize("names", [None, ("a", "b")])
def test_two_classes_that_exclude_each_other_are_told_from_lists_of_both(names):
    settled = settle_one([("1", "0"), ("0", "1"), ("1", "0")], names)
    a, b = settled.names
    assert settled.labels["train"] == [(a,), (b,), (a,)]


@pytest.mark.parametrize("spell", [list, str, json.dumps])
@pytest.mark.parametrize("names", [None, ("a", "b", "c")])
def test_true_and_false_in_a_list_are_one_a_class(spell, names):
    rows = [[True, False, True], [False, False, False], [True, True, True]]
    settled = settle_one([read(spell(row), names) for row in rows], names)
    a, b, c = settled.names
    assert settled.labels["train"] == [(a, c), (), (a, b, c)]


def test_classes_that_are_called_true_and_false_keep_their_names():
    assert read(["true"], ("true", "false", "open")) == ("true",)


def test_lists_of_the_classes_0_and_1_stay_lists_of_classes():
    settled = settle_one([("1",), ("0", "1"), ("0",)])
    assert settled.labels["train"] == [("1",), ("0", "1"), ("0",)]


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["Positive", "positive"], 1),
        (["not spam", "not_spam", "spam"], 1),
        (["spam", "ｓｐａｍ"], 1),
        (["spam", "sp\u200bam"], 1),
        (["négatif", "negatif"], 1),
        (["сat", "cat"], 1),  # the first letter is Cyrillic
        (["C", "C++", "C#"], 0),
        (["-1", "1"], 0),
        (["か", "が"], 0),
        (["neg", "pos"], 0),
    ],
)
def test_labels_that_look_alike_are_named(names, alike):
    assert len(alike_names(names)) == alike


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1,5", "0,0", "10"], [1.5, 0, 10]),
        (["$1,000", "$1,037.50", "$999"], [1000, 1037.5, 999]),
        (["0%", "12.5 %"], [0, 12.5]),
        (["1.234,50", "7"], [1234.5, 7]),
        (["1 234,5 €", "2,5 €"], [1234.5, 2.5]),
        (["(3.5)", "-2", "\u22121.5"], [-3.5, -2, -1.5]),
        (["1e-3", "2.5E2"], [0.001, 250]),
    ],
)
def test_numbers_are_read_as_people_write_them(texts, numbers):
    settled = settle_one(texts)
    assert settled.kind == "regression"
    assert [convert_label(t, "regression", {}, settled.spelling.style) for t in texts] == numbers


def test_numbers_of_two_ways_of_writing_are_refused_with_both():
    with pytest.raises(ValueError, match=r"'1\.5' and '2,25'"):
        settle_one(["1.5", "2,25"])


def test_an_object_is_no_label_and_the_field_to_name_is_said():
    with pytest.raises(RowError, match=r'data\.label = "genre\.name"'):
        LabelReader(("genre",), None, "auto").read({"genre": {"id": 1, "name": "Drama"}})
    with pytest.raises(RowError, match="objects written into a cell"):
        LabelReader(("genre",), None, "auto").read({"genre": "[{'id': 1, 'name': 'Drama'}]"})


@pytest.mark.parametrize("last", ["2.500,50", "12,5"])
def test_a_thousand_written_with_a_dot_is_no_one(last):
    plain = [read(value) for value in ["1.000", "-2.000", last]]
    settled = settle({"train": plain}, "auto", None, "label")
    numbers = [convert_label(label, settled.kind, {}, settled.spelling.style) for label in plain]
    assert numbers[:2] == [1000.0, -2000.0]


@pytest.mark.parametrize("spelled", [["1.000", "2.000"], ["1", "2.000"], ["1.0", "2"]])
def test_whole_numbers_with_decimals_of_zeros_are_classes(spelled):
    settled = settle({"train": [read(value) for value in spelled]}, "auto", None, "label")
    assert (settled.kind, settled.names) == ("single", ("1", "2"))
    assert settled.labels == {"train": ["1", "2"]}


def test_the_same_labels_in_another_order_are_the_same():
    assert read(["y", "x", "y"]) == read("['x', 'y']") == ("x", "y")
    assert read(["1", "0"]) != read(["0", "1"])  # perhaps one 0 or 1 a class


@pytest.mark.parametrize("value", ["\ud800", ["a", "b\udc80"]])
def test_a_label_that_is_no_unicode_is_bad(value):
    with pytest.raises(RowError, match="label: a lone surrogate"):
        read(value)


def test_lists_of_very_many_labels_are_refused_unless_meant():
    rows = [(f"word {i}", f"word {i + 1}") for i in range(150)]
    with pytest.raises(ValueError, match=r"151 different labels in the lists.*kind = 'multi'"):
        settle_one(rows)
    assert len(settle_one(rows, kind="multi").names) == 151
