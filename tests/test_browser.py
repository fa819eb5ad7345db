"""report.html in a real browser: nothing is fetched or complained of, the slider counts as a
recount does, and axe-core finds no barrier. Skipped where there is no Chromium."""

import json
import shutil
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
import tomli_w

import train
from job.folder import Folder
from job.reporting.page import write_page
from tests.browsers import WIDTHS, barriers_of, opened, start_chromium
from tests.test_page import HOSTILE, rewrite

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium():
    with start_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory, run, tiny_folder):
    """The address of report.html of four kinds of run, by kind."""
    folder = tmp_path_factory.mktemp("pages")
    files = {kind: folder / kind for kind in ("classes", "unfinished", "multi", "regression")}
    for kind in ("classes", "unfinished"):
        shutil.copytree(run, files[kind])
    for name in ("result.json", "test_predictions.jsonl"):
        (files["unfinished"] / name).unlink()
    rewrite(files["classes"], lambda line: {**line, "text": HOSTILE + line["text"]})
    rows = [(f"{'good ' * (i % 6)}film {i}", i % 6, i % 2, int(i % 3 == 0)) for i in range(60)]
    table = folder / "rows.csv"
    lines = ["text,stars,good,long", *(",".join(map(str, row)) for row in rows)]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for kind, label in (("regression", "stars"), ("multi", ["good", "long"])):
        data = {"source": str(table), "text": "text", "label": label, "kind": kind}
        recipe = {
            "run": {"name": kind, "dir": str(folder)},
            "model": {"source": str(tiny_folder)},
            "data": data | {"max_length": 32},
            "train": {"epochs": 2},
            "eval": {"baseline": False},
            "speed": {"native": "off"},
        }
        path = folder / "recipe.toml"
        path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
        assert train.main(["--config", str(path)]) == 0
    return {kind: write_page(Folder(path)).as_uri() for kind, path in files.items()}


KINDS = ("classes", "unfinished", "multi", "regression")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_asks_for_nothing_and_complains_of_nothing(chromium, pages, kind):
    with opened(chromium, pages[kind]) as page:
        assert page.requests == [pages[kind]]
        assert page.complaints == []
        assert page.locator("img").count() == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (800, "light"), (1280, "dark")])
def test_axe_has_nothing_serious_to_say(chromium, pages, kind, width, scheme):
    with opened(chromium, pages[kind], width, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert barriers_of(page) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_no_wider_than_the_window(chromium, pages, kind, width):
    with opened(chromium, pages[kind], width) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_the_slider_shows_what_a_recount_gives(chromium, pages):
    file = Path(url2pathname(urlsplit(pages["classes"]).path)).parent / "test_predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    names = list(rows[0]["probabilities"])
    with opened(chromium, pages["classes"]) as page:
        for percent in range(101):
            page.locator("#share").evaluate(
                "(one, value) => { one.value = value; one.dispatchEvent(new Event('input')); }",
                percent,
            )
            kept = [x for x in rows if x["probabilities"][x["predicted"]] >= percent / 100]
            right = sum(x["label"] == x["predicted"] for x in kept)
            covered = f"{len(kept)} of {len(rows)} ({100 * len(kept) / len(rows):.1f} %)"
            assert page.locator("#covered").inner_text() == covered
            shown = f"{100 * right / len(kept):.1f} %" if kept else "–"
            assert page.locator("#precise").inner_text() == shown
            for row, name in zip(page.locator("#by-class tr").all(), names, strict=True):
                own = sum(x["predicted"] == name for x in kept)
                assert row.locator("td").first.inner_text() == str(own)


def test_the_slider_moves_by_the_keyboard(chromium, pages):
    with opened(chromium, pages["classes"]) as page:
        page.locator("#share").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#share-shown").inner_text() == "51 %"


def test_the_number_of_a_cell_opens_its_rows(chromium, pages):
    with opened(chromium, pages["classes"]) as page:
        link = page.locator(".matrix a").first
        rows = page.locator(f"details{link.get_attribute('href')}")
        assert not rows.locator("li").first.is_visible()
        link.click()
        assert rows.locator("li").first.is_visible()
        assert "onerror=alert" in rows.locator("li").first.inner_text()


def test_a_row_is_copied_as_a_line_of_json(chromium, pages):
    allowed = ["clipboard-read", "clipboard-write"]
    with opened(chromium, pages["classes"], permissions=allowed) as page:
        button = page.locator("#mistakes ~ ol button.copy").first
        button.click()
        copied = "document.querySelector('#mistakes ~ ol button').textContent == 'Copied'"
        page.wait_for_function(copied)
        row = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert row.keys() == {"row", "text", "label", "predicted"}
    assert row["text"].startswith(HOSTILE)


@pytest.mark.parametrize("kind", KINDS)
def test_without_javascript_the_page_still_has_its_numbers(chromium, pages, kind):
    with opened(chromium, pages[kind], java_script_enabled=False) as page:
        assert page.locator("h1").is_visible()
        assert not page.locator("#slider, button.copy").first.is_visible()
        for fold in page.locator("details.numbers summary").all():
            fold.click()
        tables = page.locator("details.numbers table")
        assert tables.count() > 0
        assert all(table.is_visible() for table in tables.all())
