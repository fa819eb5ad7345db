"""A real browser for tests of pages; skipped where there is no Chromium."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), "")
WIDTHS = (360, 800, 1280)


@contextmanager
def start_chromium():
    """The browser, or the reason why the test is skipped."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium here: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(chromium, address: str, width: int = 1280, **options):
    """A page of the browser, with what it complained of and what it asked for."""
    context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    page.complaints, page.requests = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address)
    yield page
    context.close()


def barriers_of(page) -> list:
    """What axe-core has to say of the page as it stands: (rule, the elements)."""
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    barriers = page.evaluate("axe.run()")["violations"]
    return [(b["id"], [node["html"][:120] for node in b["nodes"]]) for b in barriers]
