"""The run card: what it says, and that nothing from the data is read as Markdown or HTML."""

import html
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report.card import (
    TEXT_CHARACTERS,
    Card,
    ClassScore,
    Compared,
    Mistake,
    Result,
    escape_markdown,
    run_card,
)
from report.format import clean_line

markdown_it = pytest.importorskip("markdown_it")

CARD = Card(
    name="imdb_lora",
    command="python train.py --config configs/imdb_lora.toml",
    predict_command='python predict.py --run runs/imdb_lora "It was good."',
    load_run="from predict import load_run\n",
    elsewhere="Elsewhere, with transformers:",
    snippet='from predict import load_run\n\nload_run("runs/imdb_lora")(["It was good."])\n',
    data=["25,000 rows read", "96 exact duplicates dropped"],
    settings={"train.lr": 3e-4, "lora.targets": ["query", "value"], "run.deterministic": False},
    defaults={"train.lr": 2e-4, "run.deterministic": False},
    results=[
        Result("test/accuracy", 0.9012, 2000, 0.8873, 0.9135),
        Result("test/loss", 0.25, 2000),
    ],
    compared="accuracy 0.901; commonest class (<neg>) 0.500",
    classes=[
        ClassScore("negative", 0.9, 0.91, 0.905, 1000),
        ClassScore("rare", None, 0.0, None, 3),
    ],
    confusion=[[910, 90], [3, 0]],
    mistakes=[Mistake("reviews.csv:12", "A fine <br /> film", "negative", "positive", 0.9987)],
    memory=Compared(600 * 1024**2, 550 * 1024**2),
    seconds=Compared(290.0, None),
    caveats=["Several reviews of one film can stand on both sides of the cut."],
)


def render(markdown: str) -> str:
    return markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)


def section(card: str, title: str) -> list[str]:
    """The lines of one section that are not empty."""
    body = card.split(f"## {title}\n")[1].split("\n## ")[0]
    return [line for line in body.splitlines() if line]


def cells(rendered: str) -> list[str]:
    """The texts of all table cells, as a reader sees them."""
    found = re.findall(r"<td[^>]*>(.*?)</td>", rendered)
    return [html.unescape(re.sub(r"</?code>", "", cell)) for cell in found]


def test_results_show_value_interval_and_n():
    assert section(run_card(CARD), "Results")[2:] == [
        "| `test/accuracy` | 0.9012 | 0.8873 to 0.9135 | 2,000 |",
        "| `test/loss` | 0.25 | - | 2,000 |",
        "On the same rows: accuracy 0.901; commonest class (&lt;neg&gt;) 0.500.",
    ]


def test_classes_show_precision_recall_f1_and_a_gap_where_undefined():
    assert section(run_card(CARD), "Per class")[2:] == [
        "| negative | 0.9 | 0.91 | 0.905 | 1,000 |",
        "| rare | - | 0 | - | 3 |",
    ]


def test_confusion_rows_are_the_own_labels():
    lines = section(run_card(CARD), "Confusion matrix")
    assert lines[0] == "| own label ↓ predicted → | negative | rare |"
    assert lines[2:] == ["| negative | 910 | 90 |", "| rare | 3 | 0 |"]


def test_a_confusion_matrix_of_many_classes_is_left_out_aloud():
    classes = [ClassScore(str(i), 1.0, 1.0, 1.0, 1) for i in range(30)]
    card = replace(CARD, classes=classes, confusion=[[0] * 30] * 30)
    assert section(run_card(card), "Confusion matrix") == [
        "Left out: 30 classes are too many for a table."
    ]


def test_estimate_stands_beside_the_measured_figure():
    assert section(run_card(CARD), "Memory and time")[2:] == [
        "| peak memory | 600.0 MiB | 550.0 MiB |",
        "| time | 4 min 50 s | - |",
    ]


def test_settings_look_as_in_toml_and_those_that_are_not_the_defaults_come_first():
    assert section(run_card(CARD), "Settings") == [
        "Not the defaults:",
        "| key | value | default |",
        "| :-- | :-- | :-- |",
        "| `train.lr` | `0.0003` | `0.0002` |",
        "| `lora.targets` | `[query, value]` | `unset` |",
        "The defaults:",
        "| key | value |",
        "| :-- | :-- |",
        "| `run.deterministic` | `false` |",
    ]


def test_commands_and_snippet_stand_unchanged_in_code_blocks():
    rendered = html.unescape(render(run_card(CARD)))
    for code in (CARD.command, CARD.predict_command, CARD.snippet.strip()):
        assert f">{code}\n</code></pre>" in rendered


def test_a_command_with_backticks_cannot_leave_its_block():
    card = replace(CARD, command="echo '\n```\n# not a heading\n'")
    assert "<h1>not a heading" not in render(run_card(card))


def test_empty_sections_are_left_out():
    card = run_card(replace(CARD, classes=[], confusion=[], mistakes=[], caveats=[], data=[]))
    titles = re.findall(r"^## (.*)$", card, flags=re.M)
    assert titles == ["Results", "How to use the model", "Memory and time", "Settings"]


def test_the_same_run_writes_the_same_card():
    assert run_card(CARD) == run_card(replace(CARD))


def test_a_mistakes_text_is_cut_at_300_characters():
    card = replace(CARD, mistakes=[replace(CARD.mistakes[0], text="word " * 200)])
    text = section(run_card(card), "Most confident mistakes")[2].split(" | ")[3]
    assert text.removesuffix(" |").endswith("word…")
    assert len(text) <= TEXT_CHARACTERS + len("… |")


HOSTILE = [
    "<script>alert(1)</script>",
    "<br /><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) ![i](http://x/y.png)",
    "a | b || c \\| d",
    "`code` ``more`` *bold* _under_ ~~gone~~ $x$",
    "line\nbreak\r\n\n# heading\n---\n- item",
    "- item",
    "+ item",
    "=====",
    "1. first",
    "2) second",
    "# heading",
    "> quote",
    "&lt;b&gt; &amp; &#60;",
    "trailing \\",
    "<https://example.com> https://example.com www.example.com",
    "\x1b[31mred\x00",
    "\ud800 half",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_shows_as_it_is_in_a_table_and_in_a_list(text):
    mistake = Mistake(address=text, text=text, label=text, predicted=text, probability=0.5)
    card = replace(CARD, mistakes=[mistake], caveats=[text])
    seen = clean_line(text)
    rendered = render(run_card(card))
    assert cells(rendered.split("Most confident mistakes")[1])[:4] == [
        seen,
        seen,
        f"{seen} (50.0 %)",
        seen,
    ]
    assert f"<li>{seen}</li>" in html.unescape(rendered)
    assert rendered.count("<h1>") == 1
    assert not re.search(r"<(script|img|a|em|strong|s|br|hr|blockquote)\b", rendered)


@settings(deadline=None)  # a busy machine is not a failure
@given(st.text())
def test_any_text_survives_a_table_cell(text):
    table = f"| a | b |\n| --- | --- |\n| x | {escape_markdown(text)} |"
    assert cells(render(table)) == ["x", clean_line(text)]


@pytest.mark.parametrize("address", ["see www.example.com", "http://example.com", "WWW.x.org"])
def test_bare_addresses_do_not_become_links(address):
    assert not re.search(r"www\.|[a-z]://", escape_markdown(address), flags=re.I)
