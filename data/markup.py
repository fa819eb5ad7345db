"""HTML in texts: what counts as markup, and its removal in one pass over the text.

Only what the HTML standard names is markup: `<e1>`, `<user>`, `vector<int>`, `<3`, `a < b` and
`<http://…>` are text. No search runs past the next place where markup could begin, or past a
closing mark that is known to be missing, so the time grows with the length and no faster.
"""

import re
from itertools import groupby

# https://html.spec.whatwg.org/multipage/indices.html#elements-3, with the roots svg and math
ELEMENTS = """
a abbr address area article aside audio b base bdi bdo blockquote body br button canvas caption cite
code col colgroup data datalist dd del details dfn dialog div dl dt em embed fieldset figcaption
figure footer form h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe img input ins kbd label
legend li link main map mark math menu meta meter nav noscript object ol optgroup option output p
picture pre progress q rp rt ruby s samp script search section select selectedcontent slot small
source span strong style sub summary sup svg table tbody td template textarea tfoot th thead time
title tr track u ul var video wbr
"""
# https://html.spec.whatwg.org/multipage/obsolete.html#non-conforming-features
OBSOLETE = """
acronym applet basefont bgsound big blink center dir font frame frameset isindex keygen listing
marquee menuitem multicol nextid nobr noembed noframes param plaintext rb rtc spacer strike tt xmp
"""
# Attributes that may stand without a value. Other words without one are no attributes but text, so
# that "a <b and c> d" stays.
FLAGS = """
allowfullscreen async autofocus autoplay checked compact contenteditable controls declare default
defer disabled download formnovalidate hidden inert ismap itemscope loop multiple muted nohref
nomodule noresize noshade novalidate nowrap open playsinline readonly required reversed selected
"""
CODE = ("script", "style", "svg")  # what stands inside is no text for a reader


def _any_of(words: str) -> str:
    """A pattern for one of the words, sorted by their first letter so that it fails soon."""
    letters = groupby(sorted(words.split()), key=lambda word: word[0])
    return "|".join(f"{a}(?:{'|'.join(word[1:] for word in group)})" for a, group in letters)


_S = r"\s\xa0\u3000"  # white space as people paste it; the rest of the patterns is ASCII
# Word's own elements (<o:p>, <st1:place>) come with pasted text; other prefixes may be anything.
_NAME = rf"(?:{_any_of(ELEMENTS + OBSOLETE)}|(?:[ovw]|st\d|u\d):[a-z][\w-]*)(?=[{_S}/\\>])"
_OPENING = rf"/?{_NAME}|!|\?xml"  # what follows "<" where markup may begin
# A value in quotes holds any ">", and any "<" at which no markup may begin. A quote that is never
# closed is a stray one: the tag ends with the first ">" then.
_QUOTED = "|".join(f"{q}(?:[^{q}<]++|<(?!{_OPENING}))*+{q}" for q in "\"'")
_VALUES = rf"(?=[^<>=]*+=)(?:[^<>=]++|=[{_S}]*+(?:{_QUOTED})?+)*+"
_FLAGS = rf"(?:[{_S}/\\]++(?:(?:{_any_of(FLAGS)}|(?:aria|data)-[\w-]++)(?=[{_S}/>]))?+)*+"
_REST = rf"(?:{_FLAGS}>|{_VALUES}>)"
MARKUP = re.compile(
    rf"<(?:br[{_S}]?/?>"  # by far the commonest: tried before the list
    rf"|(?P<code>{'|'.join(CODE)})(?=[{_S}/>]){_REST}"
    rf"|/?{_NAME}{_REST}"
    r"|(?P<comment>!--)"
    r"|(?P<cdata>!\[CDATA\[)"
    r"|(?:!doctype|\?xml|!\[(?:if|endif))\b[^<>]*>"  # the last are Word's
    ")",
    re.I | re.A,
)
CODE_END = {name: re.compile(rf"</{name}(?=[{_S}/>])[^<>]*>", re.I | re.A) for name in CODE}


def remove_tags(text: str) -> str:
    """Every tag, comment, doctype and XML declaration becomes a space.

    The contents of script, style and svg go too, up to their closing tag; those of a CDATA section
    stay. What nothing closes stays as text. Elements with a dash in their name stay: a placeholder
    like <user-name> is likelier than a page's own element.
    """
    pieces: list[str] = []
    missing: set[str] = set()  # closing marks that do not stand further on
    done = place = 0
    while match := MARKUP.search(text, place):
        place = match.end()
        end = place if match.lastgroup is None else _find_end(text, match, missing)
        if end < 0:
            continue
        pieces.append(text[done : match.start()])
        if match.lastgroup == "cdata":
            pieces.append(remove_tags(text[place : end - len("]]>")]))
        done = place = end
    return " ".join([*pieces, text[done:]]) if pieces else text


def _find_end(text: str, match: re.Match[str], missing: set[str]) -> int:
    """Where the comment, CDATA section or code of `match` ends; -1 where no mark closes it.

    Code that is never closed is its tag alone.
    """
    kind, place = match.lastgroup, match.end()
    if kind == "code":
        name = match["code"].lower()
        if match.group().endswith("/>") or name in missing:
            return place
        if end := CODE_END[name].search(text, place):
            return end.end()
        missing.add(name)
        return place
    mark = "-->" if kind == "comment" else "]]>"
    # "<!-->" is a whole comment: its own dashes may be those of the closing mark.
    start = -1 if mark in missing else text.find(mark, place - 2 if kind == "comment" else place)
    if start < 0:
        missing.add(mark)
        return -1
    return start + len(mark)
