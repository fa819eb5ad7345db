"""The page at / as a browser gets it: its files as they are, and in the HTML the name of the run,
so that something stands there before a script has asked."""

from html import escape
from pathlib import Path

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml",
}  # fmt: skip
NAME = "A finished run"  # in index.html, for the name of the one that answers
FIGURES = '<span id="figures">'  # the link to /metrics


def read_page() -> dict[str, tuple[bytes, str]]:
    """Name -> (bytes, media type) of the files of the page; nothing else can be asked for."""
    return {
        path.name: (path.read_bytes(), f"{TYPES[path.suffix]}; charset=utf-8")
        for path in sorted(PAGE.iterdir())
        if path.suffix in TYPES
    }


def front_page(html: str, name: str, closed: bool) -> str:
    """index.html of the run of this name. A `closed` server wants a token for /metrics, which a
    link does not bring: it is not shown."""
    if closed:
        html = html.replace(FIGURES, f"{FIGURES[:-1]} hidden>")
    return html.replace(NAME, escape(name))
