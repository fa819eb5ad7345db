"""No text makes cleaning slow: every pattern of data/ takes time in proportion to its text."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import data
from data.clean import CleanArgs, clean_text, normalise
from data.labels.numbers import is_number
from data.labels.reader import parse_list, plain_form
from data.markup import remove_tags

# Repeated up to the length; what stands before "…" only begins the text.
UNITS = [
    "a", "1", "9", " ", "\n", "\xa0", "\x00", "\x80", "-", ".", "=", "<", ">", "&", "&&;", '"',
    "<!--", "<!-- ", "<!-->", "<!--…-", "<!-- --", "<![CDATA[", "<![CDATA[]]", "<![CDATA[<![if",
    "]]>", "<!doctype", "<!doctype ", "<![if ", "<?xml ", "<?xml…?", "<a", "<a ", "</a ",
    "<a href ", "<a href=", '<a "', "<a '", '<a="', '<a b="', "<a b='", "<a b=\"<a c='",
    '<a b="…="', "<a b=…='\"", '<a …="', "<a …= ", "<a …=' ", "<a …a=", "<a …a ", '<a x=">" ',
    "<a b=…' \"<", "<a x=\"<a y='\" ", '<a x="…< < "', '<a …="" ', "<a …/", "<a …checked ",
    "<a …data-x ", "<a …data-", "<br", "<br ", "<br…\t", "<o:p ", "<o:…p", "<user ", "<e1", "</e1 ",
    "<h1 <h7 ", "<b>", "<script>", "<script ", "<script>a</script ", "<script>…</scrip",
    "<script></style>", "<svg><style>", "<style><svg><script>", "<svg/>", "<script>…</",
    "</script ", "&#9", "&#…9", "&#x…f", "&#0…0", "&a", "&…a", "&amp", "&amp;", "&#38;", "&lt;!--",
    "\u0301", "\u0301\u0316", "a\u0301\u0316", "a…\u0301\u0316", "\u0f73", "\u0301\uff9e",
    "\u0316\u0344", "\u0344", "é…\u0316\u0301", "\u1e69…\u0323", "\u1100", "\u1100\u1161", "\ufdfa",
    "\u0958", "é", "中", "1e", "1.", "+", "-1", "1_", "0x", ".…1", "1…e1", "[", "['", "['a', ",
    "a,", ", ", ";", "|", "\t",
]  # fmt: skip


def find_patterns():
    """(name, pattern) of every compiled pattern that a module of data/ holds, in dicts too."""
    held = {}
    for info in pkgutil.walk_packages(data.__path__, "data."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            inside = value.values() if isinstance(value, dict) else [value]
            if isinstance(value, tuple | list | set):
                inside = value
            for pattern in inside:
                if isinstance(pattern, re.Pattern):
                    held.setdefault(pattern, f"{info.name.removeprefix('data.')}.{name}")
    return [(name, pattern) for pattern, name in held.items()]


PATTERNS = find_patterns()


def test_the_patterns_are_discovered():
    assert {"clean.ENTITY", "markup.MARKUP", "markup.CODE_END"} <= {name for name, _ in PATTERNS}


def test_every_pattern_stands_where_it_is_discovered():
    for path in Path(data.__path__[0]).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            called = {ast.unparse(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)}
            inline = {name for name in called if re.fullmatch(r"re\.\w+", name)} - {"re.escape"}
            assert not inline, f"{path.name}: {function.name}: compile it at the module's top"


@pytest.mark.parametrize(("name", "pattern"), PATTERNS, ids=[name for name, _ in PATTERNS])
def test_every_pattern_is_linear(name, pattern, assert_linear):
    # Also what the pattern itself is made of, one and two characters at a time.
    own = [*sorted(set(re.sub(r"\w", "", pattern.pattern)))[:20], "a", "1"]
    units = [*UNITS, *own, *(one + other for one in own for other in own)]
    for unit in units:
        if name.startswith(("clean.", "markup.")):  # searched for in a text
            assert_linear(lambda text: pattern.sub("", text), unit)
        assert_linear(pattern.fullmatch, unit)  # a cell as a whole


STEPS = {
    "clean_text": lambda text: clean_text(text, CleanArgs()),
    "NFKC": lambda text: clean_text(text, CleanArgs(html=False, unicode="NFKC")),
    "unicode alone": lambda text: clean_text(text, CleanArgs(html=False, spaces=False)),
    "normalise": normalise,
    "remove_tags": remove_tags,
    "lists in a cell": lambda text: parse_list(f"[{text}]"),
    "plain form": plain_form,
    "numbers": is_number,
}


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_linear(name, assert_linear):
    for unit in UNITS:
        assert_linear(STEPS[name], unit)


@pytest.mark.parametrize("name", ["a", "br", "h1", "script", "svg", "table", "o:p"])
def test_an_opening_that_is_never_closed_is_linear(name, assert_linear):
    for rest in ("", " ", " a='", ' a="', " a=", "/", ' a="b" '):
        assert_linear(remove_tags, f"<{name}{rest}")
