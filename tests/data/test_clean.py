import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.clean import CleanArgs, clean_text, normalise

NOTHING = CleanArgs(html=False, control=False, unicode="none", spaces=False)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("good<br />bad", "good bad"),
        ("good<br /><br />bad", "good bad"),
        ("<p class='x'>good</p>", "good"),
        ("a <!-- not\nsaid --> b", "a b"),
        ("5 < 6 and 7 > 6, I <3 it", "5 < 6 and 7 > 6, I <3 it"),
        ("see <http://example.com/a>", "see <http://example.com/a>"),
        ("Tom &amp; Jerry&#39;s", "Tom & Jerry's"),
        ("AT&T; &lt;b&gt;", "AT&T; <b>"),
        ("long\x96winded\x00 film\x08", "long winded film"),
        ("cafe\u0301", "caf\u00e9"),
        ("  two \t\n spaces\u00a0here ", "two spaces here"),
        ("NA", "NA"),
    ],
)
def test_cleaning_of_texts(text, cleaned):
    assert clean_text(text, CleanArgs()) == cleaned


@given(st.text())
def test_no_step_means_no_change(text):
    assert clean_text(text, NOTHING) == text


@given(st.text())
def test_cleaned_text_has_no_surplus_space(text):
    cleaned = clean_text(text, CleanArgs())
    assert cleaned == " ".join(cleaned.split())


def test_each_step_can_be_left_out():
    text = "<b>ﬁ\u0007  x"
    assert clean_text(text, CleanArgs(html=False)) == "<b>ﬁ x"
    assert clean_text(text, CleanArgs(control=False)) == "ﬁ\u0007 x"
    assert clean_text(text, CleanArgs(unicode="NFKC")) == "fi x"
    assert clean_text(text, CleanArgs(spaces=False)) == " ﬁ   x"


def test_an_unknown_normal_form_is_refused():
    with pytest.raises(ValueError, match=r"data\.clean\.unicode: got 'NFX'"):
        clean_text("a", CleanArgs(unicode="NFX"))


def test_normalised_texts_ignore_case_tags_and_spaces():
    assert normalise("A<br />Good  FILM ") == normalise("a good film")
    assert normalise("a good film") != normalise("a good, film")
