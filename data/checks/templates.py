"""One sentence many times: texts that are equal but for what was filled in."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from data.checks.shingles import WORD
from data.clean import normalise
from data.splits import text_key

LEAST, SHARE = 20, 0.005  # rows that make a template, and of all rows
FIXED = 4  # words that it has at least
FILLED = "…"  # what stands for words that differ


@dataclass(frozen=True)
class Template:
    """Rows of one form, in order; `form` is their common words, FILLED between them."""

    form: str
    rows: list[int]


def find_templates(texts: Callable[[], Iterable[str]], rows: int) -> list[Template]:
    """The forms that stand in at least LEAST rows and SHARE of all, the commonest first.

    A word that is in fewer rows than a template has is filled in. `texts()` gives the texts of all
    `rows`, in order, and is gone through twice.
    """
    least = max(LEAST, round(SHARE * rows))
    counts: Counter[str] = Counter()
    for text in texts():
        counts.update(set(_words(text)))
    fixed = {word for word, n in counts.items() if n >= least}
    del counts
    forms: dict[bytes, list[int]] = {}
    spelled: dict[bytes, str] = {}
    for row, text in enumerate(texts()):
        form = _form(text, fixed)
        if len(form) - form.count(FILLED) >= FIXED:
            key = text_key(" ".join(form))
            forms.setdefault(key, []).append(row)
            if len(forms[key]) == least:
                spelled[key] = " ".join(form)
    templates = [Template(spelled[key], rows) for key, rows in forms.items() if key in spelled]
    return sorted(templates, key=lambda template: (-len(template.rows), template.rows[0]))


def _words(text: str) -> list[str]:
    return WORD.findall(normalise(text))


def _form(text: str, fixed: set[str]) -> list[str]:
    """The words that are `fixed`, and one FILLED for each run of others or of numbers."""
    form: list[str] = []
    for word in _words(text):
        if word in fixed and not word.isdecimal():
            form.append(word)
        elif not form or form[-1] != FILLED:
            form.append(FILLED)
    return form
