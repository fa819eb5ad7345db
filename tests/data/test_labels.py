import pytest
from datasets import Dataset

from data.labels import (
    LabelReader,
    RowError,
    convert_label,
    label_counts,
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
        ("NA", "NA"),
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


@pytest.mark.parametrize("value", ["1", 1, 1.0])
def test_names_given_for_numbered_classes_count_from_zero(value):
    assert read(value, names=("negative", "positive")) == "positive"


@pytest.mark.parametrize("value", ["2", "-1", "neutral", 0.5])
def test_a_number_beyond_the_names_is_outside_the_set(value):
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
    assert read(["b", "a", "b"]) == ("b", "a")
    assert read([]) == ()
    assert read([1], class_names=("neg", "pos")) == ("pos",)
    with pytest.raises(RowError, match="a list"):
        read(["a"], kind="single")
    with pytest.raises(RowError, match="needs a list of labels"):
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
    assert read("-1.5e2", kind="regression") == -150.0


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
    assert settle_names([1.5], "regression", None, "") == ()


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
