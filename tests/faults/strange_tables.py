"""Tables, recipes, filters and texts of strangers."""

import functools
import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.strangers import Harm, Payload


def written(name: str, content: bytes | str | Callable[[], bytes]) -> Harm:
    def harm(place: Path) -> None:
        made = content() if callable(content) else content
        raw = made.encode("utf-8", "surrogatepass") if isinstance(made, str) else made
        (place / name).write_bytes(raw)

    return harm


ROWS = "".join(f"some text number {i},{i % 2}\n" for i in range(40))


@functools.cache
def packed(kind: str, size: int) -> bytes:
    """A small file that unpacks to `size` bytes of one line."""
    import bz2
    import gzip
    import lzma

    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind]
    return pack(b"text,label\n" + b"a" * size)


def workbook(inner: str) -> bytes:
    """An .xlsx whose first sheet is this XML."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("xl/workbook.xml", inner)
        file.writestr("xl/worksheets/sheet1.xml", inner)
    return buffer.getvalue()


LAUGHS = "<!DOCTYPE l [<!ENTITY a0 'ha'>" + "".join(
    f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 12)
) + "]><l>&a11;</l>"  # fmt: skip
ENTITY = "<!DOCTYPE l [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><l>&x;</l>"


def tables() -> Iterator[tuple[str, str, bytes | str | Callable[[], bytes]]]:
    """(name of the case, of the file, content, or what makes it)."""
    yield "header that steers", "h.csv", "te\x1b[31mxt,la\u202ebel\n" + ROWS
    yield "header of lines", "h.csv", '"te\nINFO forged\nxt","label"\n' + ROWS
    yield "header of 50,000 names", "h.csv", ",".join(f"c{i}" for i in range(50_000)) + "\n" + ROWS
    yield "header of one long name", "h.csv", "x" * 2_000_000 + ",label\n" + ROWS
    yield "labels that steer", "h.csv", "text,label\n" + ROWS.replace(",1", ",\x1b]0;x\x07\u202e")
    yield "labels that are markup", "h.csv", "text,label\n" + ROWS.replace(",1", ",<script>`|")
    yield "texts that steer", "h.csv", "text,label\n" + ROWS.replace("some", "\x1b[2J\x9b")
    yield "zero bytes", "h.csv", "text,label\n" + ROWS.replace("some", "so\0me")
    yield "a quote that is never closed", "h.csv", 'text,label\n"' + ROWS * 50
    yield "one field of 2 MB", "h.csv", "text,label\n" + "a " * 1_000_000 + ",1\n" + ROWS
    yield "formulas", "h.csv", "text,label\n" + ROWS.replace("some", "=cmd|' /C calc'!A0")
    yield "half surrogates", "h.csv", "text,label\n" + ROWS.replace("some", "\ud83d")
    yield "random bytes", "h.csv", bytes(range(256)) * 400
    yield "nested JSON", "h.jsonl", '{"text":' + "[" * 100_000 + "]" * 100_000 + "}\n"
    yield "nested JSON in a list", "h.json", "[" * 1_000_000
    yield "JSON keys by the thousand", "h.jsonl", json.dumps({f"k{i}": i for i in range(50_000)})
    yield "JSON of long numbers", "h.jsonl", '{"text": "x", "label": ' + "9" * 100_000 + "}\n"
    yield "JSON of infinities", "h.jsonl", '{"text": "x", "label": 1e999}\n{"text": NaN}\n'
    yield (
        "JSON with keys that steer",
        "h.jsonl",
        ('{"te\\u001b[31mxt": "some words", "la\\u202ebel": 1}\n' * 40),
    )
    yield "JSON of half surrogates", "h.jsonl", '{"text": "\\ud83d", "label": "\\udc00"}\n' * 40
    yield "a parquet file that is none", "h.parquet", b"PAR1" + b"\xff" * 64 + b"PAR1"
    yield "a parquet footer of 2 GB", "h.parquet", b"PAR1" + b"\0" * 8 + b"\xff\xff\xff\x7fPAR1"
    yield "a pickle called parquet", "h.parquet", pickle.dumps(Payload())
    yield "a pickle called CSV", "h.csv", pickle.dumps(Payload())
    yield "a workbook of laughs", "h.xlsx", workbook(LAUGHS)
    yield "a workbook that reads a file", "h.xlsx", workbook(ENTITY)
    yield "a workbook of 300 MB", "h.xlsx", lambda: workbook("<a>" + " " * (100 << 20))
    for kind in ("gz", "bz2", "xz"):
        yield f"a bomb: {kind}", f"h.csv.{kind}", lambda k=kind: packed(k, 20 << 20)
        yield f"cut: {kind}", f"h.csv.{kind}", packed(kind, 1000)[:-9]


def table_cases() -> dict[str, tuple[Harm, str]]:
    """Name -> harm, and the file that it writes."""
    return {name: (written(file, content), file) for name, file, content in tables()}


RECIPES: dict[str, str] = {
    "a name that leaves": 'name = "../../outside/x"',
    "a name of dots": 'name = ".."',
    "a name that steers": 'name = "a\\u001b[31m"',
    "a folder elsewhere": 'name = "x"\ndir = "/proc/1/root/x"',
    "100,000 threads": 'name = "x"\nthreads = 100000',
    "10^18 threads": 'name = "x"\nthreads = 1000000000000000000',
    "a seed of 4,000 digits": f'name = "x"\nseed = {"9" * 4000}',
    "a seed of 5,000 digits": f'name = "x"\nseed = {"9" * 5000}',
    "a nested value": f'name = "x"\ny = {"[" * 50_000}{"]" * 50_000}',
    "nested tables": f'name = "x"\ny = {"{a=" * 5_000}1{"}" * 5_000}',
    "a long key": 'name = "x"\n' + ".".join(["a"] * 20_000) + " = 1",
    "a key that steers": 'name = "x"\n"\\u001b]0;title\\u0007\\u202e" = 1',
    "a name of 300 letters": f'name = "{"a" * 300}"',
    "a name of a device": 'name = "x"\ndir = "/dev/null"',
}

FILTERS = (
    "__import__('os').system('touch pwned')", "text == open('outside/secret.json').read()",
    "(" * 20_000 + "label == 1" + ")" * 20_000, "not " * 50_000 + "label == 1",
    "text == '" + "a" * 1_000_000 + "'", "label ** 99 ** 99 ** 99 > 1", "text.__class__ == 1",
    "label in [" + "1," * 1_000 + "1]", "\x1b[31m == 1", "label == 9" + "9" * 5000,
)  # fmt: skip
SPOKEN = (
    "\x1b[31mred\x1b]0;title\x07", "\u202eevil", "a\rb\x08\x08", "\ud800", "\x00", "", " ", "-",
    "a" * 200_000, "好" * 50_000, "\u200b" * 1000, "'; DROP TABLE x; --", "{{7*7}}", "%s%n%x",
    "x" * 60 + "y" * 60, "\U000e0041" * 50, "Z\u0300\u0301" * 20_000, "<!--" * 50_000, "&" * 50_000,
)  # fmt: skip
