import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.clean import (
    CleanArgs,
    clean_text,
    cleaning_steps,
    normalise,
    tell_step,
    trace_steps,
)

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


@pytest.mark.parametrize(
    "text",
    [
        "<e1>Obama</e1> was born in <e2>Hawaii</e2>",
        "<user> <URL> <PERSON> <unk> <mask> [CLS]",
        "vector<int> and Map<String, List<Double>>, std::vector<std::string>",
        "I <3 you, :-<, >:(, a<b, a < b, x <= y, ->, <- and <->",
        "if a<b and c>d, or a <b or c> d",
        "see <http://example.com/a?b=c> or <name@host.org> or <mailto:a@b>",
        "<first-name> <user-id> <my-element>",
        "<h7>, <linkx>, <bold>, <ul2>, <x:y>, <spoiler>, </spoiler>, <>, </>, </ p>, < p>",
        "<p unclosed, <a href=x, </p",
        "<!-- unclosed, <![CDATA[ unclosed, <!doctype, <?xml, <?php echo 1 ?>, <!ENTITY>",
        "&unknown; &notit; AT&T; & && &; &# &#; &#x; &#xg; &amp &lt",
        "<ı> <ſ> <İmg>",  # letters that only look like a, s, i when case is ignored
    ],
)
def test_what_no_html_is_stays(text):
    assert clean_text(text, CleanArgs()) == text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a<BR>b<Br/>c</bR >d<br\n/>e<br\u00a0/>f<br \\>g", "a b c d e f g"),
        ('<a title="a > b">k</a> <img alt="x<y" src=q> <img alt=\'5 > "4"\'>', "k"),
        ('<a href="never closed>k</a> and <font size=5">l</font>', "k and l"),
        ("<a href=x title=\"it's\">k</a><p class=it's>l", "k l"),
        ("<input disabled><td nowrap width=3><div data-x hidden/>k", "k"),
        ("<font color=red><center><marquee>k</marquee></center></font></blink>", "k"),
        ("<!doctype html>\n<html lang='en'>k", "k"),
        ("<?xml version='1.0'?>k<?xml:namespace prefix = o ns = 'urn:x' />", "k"),
        ("<o:p></o:p><st1:place w:st='on'>k</st1:place><![if !x]>l<![endif]>", "k l"),
        ("a<!-->b<!--->c<!-- -- > <b> -->d<!--[if gte mso 9]>x<![endif]-->e", "a b c d e"),
        ("<!-- <!-- a --> k --> <!-- <b>l</b>", "k --> <!-- l"),
        ("<![CDATA[k <b>l</b> <![CDATA[ m]]>n", "k l <![CDATA[ m n"),
        ("<script>if (a < b) f('</p>')</script>k<STYLE>p {}</style >l", "k l"),
        ("<svg viewBox='0'><path d='M0'/><text>x</text></svg>k<svg/>l", "k l"),
        ("use <script> and <style> well", "use and well"),
        ("&lt;b&gt; &eacute; &#233; &#xE9; &#150; &#0; &hearts;", "<b> é é é – \ufffd ♥"),
    ],
)
def test_html_goes_and_its_text_stays(text, cleaned):
    assert clean_text(text, CleanArgs()) == cleaned


def test_texts_that_differ_in_no_element_are_different():
    assert normalise("<e1>a</e1> b") != normalise("<e2>a</e2> b")
    assert normalise("<b>A</b> b") == normalise("a <i>b</i>")


@pytest.mark.parametrize("digits", ["9", "0"])
def test_a_number_of_any_length_is_no_error(digits):
    text = f"a &#{digits * 100_000}; b &#x{digits * 100_000};"
    assert clean_text(text, CleanArgs()) == text


MARKS = st.text(st.sampled_from("ae\u00e9\u0301\u0316\u0323\u0344\u0f73\u0f71\uff9e-"))


@given(MARKS, st.sampled_from(["NFC", "NFKC"]), st.integers(1, 9))
def test_long_runs_of_marks_get_the_same_normal_form(text, form, times):
    text *= times
    args = CleanArgs(html=False, control=False, unicode=form, spaces=False)
    assert clean_text(text, args) == unicodedata.normalize(form, text)


@given(st.text(st.sampled_from("a \u00a0\n\x07<b>/&;#é\u0301\u2028")))
def test_a_text_that_is_left_alone_is_one_that_no_step_changes(text):
    step_by_step = text
    for _, step in cleaning_steps(CleanArgs()):
        step_by_step = step(step_by_step)
    assert clean_text(text, CleanArgs()) == step_by_step


@pytest.mark.parametrize(
    ("left", "right", "step"),
    [
        ("<p>good</p>", "good", "html"),
        ("<b>good</b>", "<i>good</i>", "html"),
        ("<b>good</b>  film", "<b>good</b> film", "spaces"),
        ("<b>good</b> film ", " <i>good</i> film", "spaces"),
        ("<br/>a  b", "a b ", "html"),
        ("a &amp; b", "a & b", "html"),
        ("a\x07b", "a b", "control"),
        ("<b>a\x07b", "<i>a b", "control"),
        ("cafe\u0301", "caf\u00e9 ", "unicode"),
        ("a\tb", "a b", "spaces"),
    ],
)
def test_the_step_that_made_two_texts_equal_is_told(left, right, step):
    steps = cleaning_steps(CleanArgs())
    (one, first), (other, second) = (trace_steps((text,), steps) for text in (left, right))
    assert one == other
    assert tell_step(first, second, steps) == tell_step(second, first, steps) == step
    without = CleanArgs(**{step: "none" if step == "unicode" else False})
    assert clean_text(left, without) != clean_text(right, without)


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
