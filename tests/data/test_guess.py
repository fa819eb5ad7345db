import pytest

from data.guess import guess_columns


def write(folder, header, rows):
    path = folder / "a.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_long_texts_and_few_labels_are_guessed(tmp_path):
    rows = [f"{i},this is the review number {i},{'pos' if i % 2 else 'neg'}" for i in range(30)]
    guess = guess_columns(write(tmp_path, "id,review,sentiment", rows))
    assert (guess.text, guess.label) == ("review", "sentiment")
    assert "named like a text" in guess.reasons[0]
    assert "2 different values in 30 rows (neg, pos)" in guess.reasons[1]
    assert guess.reasons[2] == "not used: id"


def test_a_telling_name_decides_between_label_columns(tmp_path):
    rows = [f"this is the text number {i},{i % 5},{i % 2}" for i in range(30)]
    guess = guess_columns(write(tmp_path, "text,stars,source", rows))
    assert guess.label == "stars"
    assert "could be labels too, not used: source" in guess.reasons


def test_names_that_tell_nothing_still_give_a_guess(tmp_path):
    rows = [f"{i % 3},this is the row number {i}" for i in range(30)]
    guess = guess_columns(write(tmp_path, "a,b", rows))
    assert (guess.text, guess.label) == ("b", "a")


def test_numbers_named_like_a_label_are_guessed(tmp_path):
    rows = [f"this is the text number {i},{i / 7:.3f}" for i in range(300)]
    assert guess_columns(write(tmp_path, "text,target", rows)).label == "target"


def test_a_file_without_labels_is_refused_with_what_its_columns_look_like(tmp_path):
    rows = [f"this is the text number {i},{i}" for i in range(300)]
    with pytest.raises(ValueError, match=r"id: 300 different values.*data\.label"):
        guess_columns(write(tmp_path, "text,id", rows))


def test_a_file_sorted_by_label_is_guessed_too(tmp_path):
    rows = [f"this is the text number {i},{i // 5000}" for i in range(10_000)]
    guess = guess_columns(write(tmp_path, "text,label", rows))
    assert guess.label == "label"
    assert "2 different values in 2500 rows" in guess.reasons[1]


def test_columns_of_jsonl_and_lists_are_guessed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(f'{{"text": "row number {i}", "labels": ["a", "b"]}}\n' for i in range(9))
    )
    assert guess_columns(path).label == "labels"


def test_a_file_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no readable row"):
        guess_columns(write(tmp_path, "text,label", []))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b"text;label\ngood, really;1\nbad, really;0\n", "separated by ';'"),
     (b"text,label\ncaf\xe9,1\nth\xe9,0\n", "UTF-8")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_told_why_and_what_to_do(tmp_path, raw, expected):
    (tmp_path / "reviews.csv").write_bytes(raw)
    with pytest.raises(ValueError, match="no readable row") as caught:
        guess_columns(tmp_path / "reviews.csv")
    assert expected in str(caught.value)
    assert "reviews.csv:2" in str(caught.value)
