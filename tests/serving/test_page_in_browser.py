"""The page at / in a real browser, in front of a real server."""

import csv
import io
import json
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import make_reviews
from torch import nn

from engine.decision import Decision, override
from engine.targets import Target
from job.serving.labels import LabelDesk
from tests.browsers import barriers_of, opened, start_chromium
from tests.test_page import HOSTILE

pytestmark = pytest.mark.slow
TEXTS = [text for text, _ in make_reviews(12)]


@pytest.fixture(scope="module")
def chromium():
    with start_chromium() as browser:
        yield browser


class First(nn.Module):
    """The first logit of a model, as of a run on numbers."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        output = self.model(**inputs)
        return SimpleNamespace(logits=getattr(output, "logits", output)[:, :1])


def label(page, *texts):
    for place, text in zip(("#text", "#pair"), texts, strict=False):
        page.fill(place, text)
    page.click("#ask button")
    page.wait_for_selector("#words .marked, #words .note:has-text('No single word')")


def labelled(page, content, name="rows.csv"):
    """What the page makes of a file: the rows of the one that it saves."""
    file = {"name": name, "mimeType": "text/csv", "buffer": content}
    page.set_input_files("#file", file)
    page.wait_for_selector("#columns:not([hidden])")
    page.click("#columns .main")
    page.wait_for_selector("#save:not([hidden])")
    with page.expect_download() as download:
        page.click("#save")
    return download.value.path().read_text(encoding="utf-8")


def test_a_text_gets_the_predictors_answer_and_its_words(chromium, server, predictor):
    text = " ".join([TEXTS[0], *["film"] * 40, TEXTS[0]])  # longer than is read, at either end
    expected = predictor([text])[0]
    with opened(chromium, server.url) as page:
        label(page, text)
        shown = f"{expected.label}, {100 * expected.probability:.1f} %"
        assert page.locator(".outcome").inner_text() == shown
        bars = page.locator(".bars li").all_inner_texts()
        assert len(bars) == len(predictor.label_names)
        assert bars[0].split() == [expected.label, f"{100 * expected.probability:.1f}", "%"]
        assert "did not count" in page.locator("#answer .warning").inner_text()
        assert page.locator(".marked").text_content() == text
        heaviest = predictor.explain(text)[0]
        assert heaviest.text in page.locator(".marked mark").all_inner_texts()
        assert page.complaints == []


def test_texts_are_texts_whatever_stands_in_them(chromium, serving, predictor):
    names = (HOSTILE, "<b>other</b>")
    with (
        serving(LabelDesk(replace(predictor, label_names=names), 512)) as hostile,
        opened(chromium, hostile.url) as page,
    ):
        label(page, HOSTILE + " good")
        assert page.locator("img, b").count() == 0
        assert any(HOSTILE[:20] in bar for bar in page.locator(".bars li").all_inner_texts())
        assert page.locator(".marked").text_content() == HOSTILE + " good"
        out = labelled(page, f'"te<i>xt",{HOSTILE[:9]}\ngood,1\n'.encode())
        assert f"probability_{HOSTILE[:10]}" in out
        assert page.locator("img, b, i").count() == 0
        assert page.complaints == []


def test_a_csv_comes_back_with_the_predictors_labels(chromium, server, predictor):
    odd = ['a "good" film; yes,\nreally', "=1+1 bad", "-3", "  good\u00e9 \U0001f600  ", "\tgood"]
    texts = [*TEXTS, *odd]
    held = io.StringIO()
    writer = csv.writer(held)
    writer.writerow(["id", "label", "review"])
    writer.writerows([i, "was here", text] for i, text in enumerate(texts))
    held.write('99,none,""\r\n100,short\r\n')  # no text, and a cell too few
    with opened(chromium, server.url) as page:
        content = labelled(page, b"\xef\xbb\xbf" + held.getvalue().encode())
        assert "2 of them with an error" in page.locator("#done").inner_text()
        assert page.complaints == []
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    expected = predictor(texts)
    assert [row["label"] for row in rows] == [*(p.label for p in expected), "", ""]
    for row, text, prediction in zip(rows, texts, expected, strict=False):
        assert row["review"].removeprefix("'") == text
        assert not row["review"].startswith(("=", "\t"))
        assert row["input_label"] == "was here"
        for name, share in prediction.probabilities.items():
            assert float(row[f"probability_{name}"]) == pytest.approx(share, abs=1e-3)
    assert [row["error"] for row in rows[-2:]] == ["no text", "2 cells; the first row has 3"]
    assert rows[14]["review"] == "-3"  # a number is no formula


def test_a_busy_server_is_asked_again_when_it_says(chromium, server, predictor):
    busy = {"status": 429, "headers": {"Retry-After": "1"}, "body": '{"error": "full"}'}
    refusals = [busy, busy]
    with opened(chromium, server.url) as page:

        def answer(route):
            route.fulfill(**refusals.pop()) if refusals else route.continue_()

        page.route("**/predict", answer)
        content = labelled(page, ("text\n" + "\n".join(TEXTS)).encode())
    assert not refusals
    rows = csv.DictReader(io.StringIO(content, newline=""))
    assert [row["label"] for row in rows] == [p.label for p in predictor(TEXTS)]


def test_another_file_can_be_chosen_while_one_is_labelled(chromium, server, predictor):
    with opened(chromium, server.url) as page:
        page.route("**/predict", lambda route: None)  # never answered
        first = {"name": "one.csv", "mimeType": "text/csv", "buffer": b"text\nbad\n"}
        page.set_input_files("#file", first)
        page.wait_for_selector("#columns:not([hidden])")
        page.click("#columns .main")
        page.wait_for_selector("#halt:not([hidden])")
        page.unroute("**/predict")
        content = labelled(page, b"review\ngood film\n", "two.csv")
        assert page.get_attribute("#save", "download") == "two_labelled.csv"
        assert not page.locator("#halt").is_visible()
        assert page.complaints == []
    (row,) = csv.DictReader(io.StringIO(content, newline=""))
    assert (row["review"], row["label"]) == ("good film", predictor(["good film"])[0].label)


def test_csv_is_read_and_written_as_python_does(chromium, server):
    draw = random.Random(0)
    letters = ["a", '"', ",", "\n", "\r", "\r\n", " ", ";", "é"]
    tables = [
        [["".join(draw.choices(letters, k=draw.randrange(6))) + "x" for _ in range(3)]
         for _ in range(4)]
        for _ in range(60)
    ]  # fmt: skip
    texts = []
    for table in tables:
        held = io.StringIO()
        csv.writer(held, quoting=csv.QUOTE_ALL).writerows(table)
        texts.append(held.getvalue())
    with opened(chromium, server.url) as page:
        read = "texts => import('/page/csv.js').then(m => texts.map(t => m.parseCsv(t, ',')))"
        assert page.evaluate(read, texts) == tables
        write = "all => import('/page/csv.js').then(m => all.map(t => m.writeCsv(t, ',')))"
        written = page.evaluate(write, tables)
        faults = page.evaluate(
            """async texts => { const {parseCsv} = await import("/page/csv.js");
            const fault = t => { try { parseCsv(t, ","); } catch (e) { return e.message; } };
            return texts.map(fault); }""",
            ['a\n"b', 'a\n"b"c'],
        )
    for table, text in zip(tables, written, strict=True):
        back = list(csv.reader(io.StringIO(text, newline="")))
        assert [[cell.removeprefix("'") for cell in row] for row in back] == table
    assert [fault.split(":")[0] for fault in faults] == ["Row 2", "Row 2"]


def test_pairs_several_labels_and_numbers_have_their_forms(
    chromium, serving, predictor, pair_predictor
):
    several = replace(predictor, decision=Decision("multi", thresholds=(0.999, 0.001)))
    unit = Decision("regression", target=Target(100.0, 10.0))
    number = replace(predictor, model=First(predictor.model), decision=unit, label_names=())
    with serving(LabelDesk(pair_predictor, 512)) as one, opened(chromium, one.url) as page:
        label(page, "good film", "bad plot")
        answered = pair_predictor([("good film", "bad plot")])[0]
        assert page.locator(".outcome").inner_text().startswith(answered.label)
        assert page.locator(".marked").count() in (0, 2)
    with serving(LabelDesk(several, 512)) as one, opened(chromium, one.url) as page:
        label(page, TEXTS[0])
        assert page.locator(".outcome").inner_text() == several([TEXTS[0]])[0].label
    with serving(LabelDesk(number, 512)) as one, opened(chromium, one.url) as page:
        label(page, TEXTS[0])
        value = number([TEXTS[0]])[0].probabilities["value"]
        assert float(page.locator(".outcome").inner_text()) == pytest.approx(value, rel=1e-4)
        assert page.locator(".bars").count() == 0


def test_what_is_unsure_is_said_in_words(chromium, serving, predictor):
    decision = override(predictor.decision, predictor.label_names, unsure=0.9999)
    with (
        serving(LabelDesk(replace(predictor, decision=decision), 512)) as unsure,
        opened(chromium, unsure.url) as page,
    ):
        label(page, "film")
        assert page.locator(".outcome").inner_text().startswith("Unsure: perhaps ")
        assert "no answer" in page.locator("#answer .warning").inner_text()


def test_the_token_is_asked_for_and_kept_nowhere(chromium, serving, predictor):
    with (
        serving(LabelDesk(predictor, 512), token=b"open-sesame") as closed,
        opened(chromium, closed.url) as page,
    ):
        page.wait_for_selector("#key:not([hidden])")
        assert not page.locator("#trouble").is_visible()  # nobody did anything wrong yet
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#trouble:not([hidden])")
        page.fill("#token", "open-sesame")
        page.keyboard.press("Enter")
        label(page, "good")
        assert not page.locator("#key, #trouble").first.is_visible()
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [
            0,
            0,
            "",
        ]


def test_a_chat_streams_and_remembers(chromium, chat_server, talker):
    bodies = []
    with opened(chromium, chat_server.url) as page:
        page.on("request", lambda r: bodies.append(r.post_data) if r.post_data else None)
        page.click("summary")
        page.fill("#system", "be kind")
        for text in ("how are you", HOSTILE):
            page.fill("#message", text)
            page.keyboard.press("Enter")
            page.wait_for_selector("#stop[disabled]")
        shown = page.locator("#log .turn > p:first-of-type").all_text_contents()
        first, second = (json.loads(body) for body in bodies)
        expected = talker.reply(first["messages"]).text
        assert shown[:3] == ["how are you", expected, HOSTILE]
        assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "user"]
        assert second["messages"][2]["content"] == expected
        assert "no room left" in page.locator("#log .note").first.inner_text()
        assert page.locator("#log img").count() == 0
        page.click("#reset")
        assert page.locator("#log .turn").count() == 0
        assert page.complaints == []


def test_a_reply_is_stopped_and_an_error_gives_the_message_back(chromium, chat_server):
    with opened(chromium, chat_server.url) as page:
        page.route("**/v1/chat/completions", lambda route: None)  # never answered
        page.fill("#message", "how are you")
        page.click("#say .main")
        page.click("#stop")
        page.wait_for_selector("#log .note:has-text('Stopped')")
        page.unroute("**/v1/chat/completions")
        body = json.dumps({"error": {"message": "It broke <b>down</b>."}})
        page.route("**/v1/chat/completions", lambda route: route.fulfill(status=424, body=body))
        page.fill("#message", "and now")
        page.click("#say .main")
        page.wait_for_selector("#trouble:has-text('It broke <b>down</b>.')")
        assert page.input_value("#message") == "and now"


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_both_pages_have_no_barriers_and_fit_the_window(
    chromium, server, chat_server, width, scheme
):
    with opened(chromium, server.url, width, color_scheme=scheme) as page:
        page.focus("#text")
        page.keyboard.type("a good film " + "o" * 300)
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#words .marked")
        labelled(page, b"text\ngood\n")
        assert barriers_of(page) == []
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    with opened(chromium, chat_server.url, width, color_scheme=scheme) as page:
        page.click("summary")
        page.fill("#message", "how are you " + "o" * 300)
        page.keyboard.press("Enter")
        page.wait_for_selector("#log .note")
        assert barriers_of(page) == []
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
