"""The files of the page at /: sent as they are, under a policy that lets nothing else run."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from job.serving import app
from job.serving.front import front_page

FOLDER = Path(app.__file__).parent / "page"
SCRIPTS = sorted(FOLDER.glob("*.js"))


class Reader(HTMLParser):
    """The elements of a page, each with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def elements():
    return Reader((FOLDER / "index.html").read_text(encoding="utf-8")).elements


def test_each_file_of_the_page_is_sent_under_a_strict_policy(server):
    for path in FOLDER.iterdir():
        answer = server.client.get("/" if path.name == "index.html" else f"/page/{path.name}")
        expected = path.read_bytes().replace(b"A finished run", b"tiny")
        assert (answer.status_code, answer.content) == (200, expected)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_the_page_names_its_run_before_any_script_has_asked(server):
    page = server.client.get("/").text
    assert '<h1 id="name">tiny</h1>' in page
    assert "<title>tiny – openloop</title>" in page
    assert 'class="note">Loading …</p>' in page
    assert "<noscript>" in page
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;bold" in front_page(html, "<b>bold", closed=False)
    assert "<b>bold" not in front_page(html, "<b>bold", closed=False)


def test_a_link_that_the_token_closes_is_not_shown():
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    for closed, hidden in ((True, [{"id": "figures", "hidden": None}]), (False, [])):
        elements = Reader(front_page(html, "tiny", closed)).elements
        assert [a for _, a in elements if a.get("id") == "figures" and "hidden" in a] == hidden
        assert ("a", {"href": "/metrics"}) in elements


def test_the_page_holds_nothing_that_the_policy_stops(elements):
    for tag, attributes in elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert tag not in ("style", "base", "iframe")
        for name in ("src", "href"):
            assert not re.match(r"(https?:)?//|javascript:", attributes.get(name, ""))
        assert tag != "script" or attributes["src"] == "/page/page.js"


def test_the_page_refers_to_files_that_are_there(elements):
    named = [a.get(name, "") for _, a in elements for name in ("src", "href")]
    named += [
        f"/page/{name}"
        for script in SCRIPTS
        for name in re.findall(r'from "\./([^"]+)"', script.read_text(encoding="utf-8"))
    ]
    files = {name.removeprefix("/page/") for name in named if name.startswith("/page/")}
    assert files == {path.name for path in FOLDER.iterdir()} - {"index.html"}


def test_the_scripts_ask_for_elements_that_the_page_has(elements):
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for script in SCRIPTS:
        names = re.findall(r'byId\("([^"]+)"\)', script.read_text(encoding="utf-8"))
        assert set(names) <= set(ids), script.name


def test_the_scripts_make_no_html_and_no_code_of_texts():
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        dangerous = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        assert not re.search(dangerous, text), script.name
        assert not re.search(r"localStorage|sessionStorage|document\.cookie", text), script.name
        assert not re.search(r"https?://", text), script.name
