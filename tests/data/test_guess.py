import json

import pytest

from data.guess import guess_columns


def write(folder, header, rows):
    path = folder / "a.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_long_texts_and_few_labels_are_guessed(tmp_path):
    rows = [f"{i},this is the review number {i},{'pos' if i % 2 else 'neg'}" for i in range(30)]
    guess = guess_columns(write(tmp_path, "id,review,sentiment", rows))
    assert (guess.text, guess.label) == (("review",), ("sentiment",))
    assert "named like a text" in guess.reasons[0]
    assert "2 different values in 30 rows (neg, pos)" in guess.reasons[1]
    assert guess.reasons[2] == "not used: id"


def test_a_telling_name_decides_between_label_columns(tmp_path):
    rows = [f"this is the text number {i},{i % 5},{i % 2}" for i in range(30)]
    guess = guess_columns(write(tmp_path, "text,stars,source", rows))
    assert guess.label == ("stars",)
    assert "could be labels too, not used: source" in guess.reasons


def test_names_that_tell_nothing_still_give_a_guess(tmp_path):
    rows = [f"{i % 3},this is the row number {i}" for i in range(30)]
    guess = guess_columns(write(tmp_path, "a,b", rows))
    assert (guess.text, guess.label) == (("b",), ("a",))


def test_numbers_named_like_a_label_are_guessed(tmp_path):
    rows = [f"this is the text number {i},{i / 7:.3f}" for i in range(300)]
    assert guess_columns(write(tmp_path, "text,target", rows)).label == ("target",)


def test_a_file_without_labels_is_refused_with_what_its_columns_look_like(tmp_path):
    rows = [f"this is the text number {i},{i}" for i in range(300)]
    with pytest.raises(ValueError, match=r"id: 300 different values.*data\.label"):
        guess_columns(write(tmp_path, "text,id", rows))


def test_a_file_sorted_by_label_is_guessed_too(tmp_path):
    rows = [f"this is the text number {i},{i // 5000}" for i in range(10_000)]
    guess = guess_columns(write(tmp_path, "text,label", rows))
    assert guess.label == ("label",)
    assert "2 different values in 2500 rows" in guess.reasons[1]


def test_columns_of_jsonl_and_lists_are_guessed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(f'{{"text": "row number {i}", "labels": ["a", "b"]}}\n' for i in range(9)),
        encoding="utf-8",
    )
    assert guess_columns(path).label == ("labels",)


def test_a_file_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no readable row"):
        guess_columns(write(tmp_path, "text,label", []))


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("a.csv", b"text;label\ngood, really;1\nbad, yes, really;0\n", "delimiter = ';'"),
        ("a.csv", b"text\tlabel\ngood, really\t1\nbad\t0\n", "delimiter = '\\t'"),
        ("a.tsv", b"text,label\ngood,1\nbad,0\n", "delimiter = ','"),
        ("a.csv", "text,label\ncaf\xe9 \u201cbon\u201d,1\nth\xe9,0\n".encode("cp1252"), "cp1252"),
        ("a.csv", b'text,label\n"say \\"yes\\", now",1\nbad,0\n', "escape = '\\\\'"),
        ("a.tsv", b'text\tlabel\n"good\t1\nbad"\t0\nfine\t1\n', 'quoting = "none"'),
        ("reviews", b"text,label\ngood,1\n" + b"bad,0\n" * 9, "delimiter = ','"),
        ("a.csv", "text,label\rcafé,1\rthé,0\r".encode("mac_roman"), "mac_roman"),
        ("a.csv", b"a good film,pos\na bad film,neg\na great film,pos\n", 'header = "none"'),
    ],
)
def test_how_a_file_is_written_is_worked_out_and_explained(tmp_path, name, raw, reason):
    (tmp_path / name).write_bytes(raw)
    guess = guess_columns(tmp_path / name)
    assert reason in " ".join(guess.reasons)


def test_what_is_guessed_reads_the_file(tmp_path):
    lines = ["Text;Label", *(f"sch\xf6ner Text, Nummer {i};{i % 2}" for i in range(20))]
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode("latin-1"))
    guess = guess_columns(tmp_path / "a.csv")
    assert (guess.text, guess.label) == (("Text",), ("Label",))
    assert (guess.format.encoding, guess.format.delimiter) == ("cp1252", ";")


@pytest.mark.parametrize(
    ("header", "pair"),
    [
        ("id,premise,hypothesis,label", ("premise", "hypothesis")),
        ("sentence1,sentence2,score", ("sentence1", "sentence2")),
        ("text_a,text_b,label", ("text_a", "text_b")),
        ("Question1,Question2,is_duplicate", ("Question1", "Question2")),
        ("question,passage,label", ("question", "passage")),
        ("title,review,label", None),
    ],
)
def test_pairs_of_texts_are_guessed_by_their_names(tmp_path, header, pair):
    columns = header.split(",")
    rows = [
        ",".join(
            str(i % 2) if name in ("label", "score", "is_duplicate") else f"{name} text {i} of {i}"
            for name in columns
        )
        for i in range(30)
    ]
    guess = guess_columns(write(tmp_path, header, rows))
    assert guess.text == (pair or ("review",))


def test_columns_of_zeros_and_ones_are_several_labels(tmp_path):
    rows = [f"{i},this is comment {i},{i % 2},{i % 3 == 0:d},{i % 5 == 0:d}" for i in range(40)]
    guess = guess_columns(write(tmp_path, "id,comment_text,toxic,obscene,insult", rows))
    assert guess.label == ("toxic", "obscene", "insult")
    assert "several can hold at once" in " ".join(guess.reasons)


def test_a_named_label_wins_over_columns_of_zeros_and_ones(tmp_path):
    rows = [f"this is comment {i},{i % 2},{i % 3 == 0:d},{'abc'[i % 3]}" for i in range(40)]
    assert guess_columns(write(tmp_path, "text,seen,kept,label", rows)).label == ("label",)


@pytest.mark.parametrize("separator", [",", ";", "|"])
def test_labels_joined_in_a_cell_are_several(tmp_path, separator):
    cells = ["joy", "anger", separator.join(["joy", "anger"]), separator.join(["fear", "joy"])]
    rows = [f'this is text {i},"{cells[i % 4]}"' for i in range(40)]
    assert guess_columns(write(tmp_path, "text,labels", rows)).separator == separator


def test_a_comma_inside_a_class_name_separates_nothing(tmp_path):
    cells = ["Sports, outdoor", "Food, drink", "Art"]
    rows = [f'this is text {i},"{cells[i % 3]}"' for i in range(40)]
    assert guess_columns(write(tmp_path, "text,label", rows)).separator is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([65 + 7 * i % 26 for i in range(200)], "regression"),  # scores
        ([100_000 + 1250 * (i % 40) for i in range(200)], "regression"),  # prices
        ([i % 77 for i in range(400)], None),  # numbers of 77 classes
        ([1 + i % 5 for i in range(200)], None),  # stars
        ([f"{1 + i}.25e3" for i in range(200)], "regression"),  # whole, and written as decimals
        ([i / 7 if i else "inf" for i in range(200)], "regression"),  # with one slip
    ],
)
def test_measured_numbers_are_told_from_numbers_of_classes(tmp_path, values, kind):
    rows = [f"this is text {i},{value}" for i, value in enumerate(values)]
    assert guess_columns(write(tmp_path, "text,label", rows)).kind == kind


def test_nested_fields_are_guessed_by_their_dotted_names(tmp_path):
    lines = [f'{{"review": {{"text": "row number {i}", "stars": {i % 5}}}}}' for i in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    guess = guess_columns(tmp_path / "a.jsonl")
    assert (guess.text, guess.label) == (("review.text",), ("review.stars",))


def test_a_column_without_a_name_is_passed_over(tmp_path):
    rows = [f"{i},this is text {i},{i % 2}" for i in range(20)]
    guess = guess_columns(write(tmp_path, ",text,label", rows))
    assert (guess.text, guess.label) == (("text",), ("label",))


def test_numbered_names_of_a_label_and_a_text_are_no_pair(tmp_path):
    rows = [f"{'spam' if i % 3 else 'ham'},this is the message number {i},," for i in range(30)]
    guess = guess_columns(write(tmp_path, "v1,v2,,", rows))
    assert (guess.text, guess.label) == (("v2",), ("v1",))


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("age", [15 + 7 * i % 50 for i in range(80)], "regression"),
        ("number", [100 + i for i in range(80)], "refused"),  # counts the rows
        ("user id", [100 + 7 * i % 50 for i in range(80)], "refused"),
    ],
)
def test_whole_numbers_under_any_name_are_measures_but_no_keys(tmp_path, name, values, kind):
    path = write(tmp_path, f"text,{name}", [f"this is text {i},{v}" for i, v in enumerate(values)])
    if kind == "refused":
        with pytest.raises(ValueError, match="looks like labels"):
            guess_columns(path)
    else:
        assert (guess_columns(path).label, guess_columns(path).kind) == ((name,), kind)


def test_fields_of_a_list_of_objects_are_several_labels(tmp_path):
    genres = [[{"id": 7, "name": "Drama"}], [{"id": 8, "name": "War"}, {"id": 7, "name": "Drama"}]]
    rows = [{"text": f"a film number {i}", "genres": genres[i % 2]} for i in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert guess_columns(tmp_path / "a.jsonl").label == ("genres.name",)


def test_lines_above_the_header_are_named(tmp_path):
    path = write(tmp_path, "# made by a tool", ["# in 2020", "text,label", "good,1", "bad,0"])
    with pytest.raises(ValueError, match=r"a\.csv:3.*a title or a remark stands above"):
        guess_columns(path)


def test_a_column_that_stands_twice_is_named_where_it_is_missed(tmp_path):
    rows = [f"this is text {i},{i % 2},{i % 2}" for i in range(20)]
    with pytest.raises(ValueError, match="'label' names several columns"):
        guess_columns(write(tmp_path, "text,label,label", rows))


@pytest.mark.parametrize("step", [1, 0.5])
@pytest.mark.parametrize("spell", [list, str])
def test_lists_of_numbers_are_no_measures(tmp_path, step, spell):
    rows = [
        {"text": f"a film of that kind, number {i}", "vector": spell([i * step, i + 3 * step, 7])}
        for i in range(300)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(ValueError, match="no column beside 'text' looks like labels"):
        guess_columns(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["sentiment", "label", "Category"])
def test_a_label_of_one_value_is_told_before_another_column_is_taken(tmp_path, name):
    rows = [f"a film about {'good ' * (n % 4)}number {n},same,{'abc'[n % 3]}" for n in range(40)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([f"text,{name},source", *rows]) + "\n", encoding="utf-8")
    guess = guess_columns(path)
    assert guess.label == ("source",)
    (warning,) = [line for line in guess.reasons if line.startswith("WARNING")]
    assert repr(name) in warning
    assert "'same'" in warning


@pytest.mark.parametrize(("values", "told"), [("1357", True), ("01", False), ("abc", False)])
def test_numbers_taken_for_classes_are_told(tmp_path, values, told):
    count = len(values)
    rows = [f"a film about {'good ' * (n % 4)}number {n},{values[n % count]}" for n in range(40)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["text,stars", *rows]) + "\n", encoding="utf-8")
    assert any("data.kind=regression" in line for line in guess_columns(path).reasons) is told
