"""Files as people brought them, re-created small after public reports: `--csv` reads each of them
right to the plan, or ends with one message that names the file and the way out."""

import gzip
import json

import pytest

import train

WORDS = (("bad", "awful", "boring"), ("good", "great", "moving"))
TEXTS = [f"the film was {WORDS[i % 2][i % 3]} story number {i}" for i in range(60)]
CLASSES = ["neg", "pos"] * 30
OBJECTS = [{"text": text, "label": i % 2} for i, text in enumerate(TEXTS)]


def table(header, *columns, delimiter=","):
    """A text table; a cell that holds the delimiter comes quoted."""
    lines = [header] if header else []
    for cells in zip(*columns, strict=True):
        quoted = [f'"{c}"' if delimiter in str(c) else str(c) for c in cells]
        lines.append(delimiter.join(quoted))
    return "\n".join(lines) + "\n"


def joined(separator):
    return [["joy", "anger", f"joy{separator}anger"][i % 3] for i in range(60)]


def swallowing():
    texts = [*TEXTS]
    texts[5], texts[30] = '"' + texts[5], texts[30] + '"'
    return table("text\tlabel", texts, CLASSES, delimiter="\t")


# name of the file, its content, what the guess or the plan says
READ = {
    "index column of pandas": (
        "a.csv", table(",text,label", range(60), TEXTS, CLASSES), "rows read: 60",
    ),
    "spam: nameless columns, Latin-1": (
        "a.csv",
        table("v1,v2,,,", CLASSES, [f"{t} £" for t in TEXTS], *[[""] * 60] * 3).encode("latin-1"),
        "encoding = cp1252",
    ),
    "GLUE: quotes are letters": ("a.tsv", swallowing(), "rows read: 60"),
    "no header": ("a.csv", table("", ["1", "2"] * 30, TEXTS), 'header = "none"'),
    "labels joined": ("a.csv", table("text,labels", TEXTS, joined(",")), "label_separator = ','"),
    "labels as a list in a cell": (
        "a.csv",
        table("text,labels", TEXTS, [str([c, "x"][: 1 + i % 2]) for i, c in enumerate(CLASSES)]),
        "binary cross-entropy",
    ),
    "one 0/1 column a label": (
        "a.csv",
        table("id,comment_text,toxic,obscene", range(60), TEXTS, [0, 1] * 30, [0, 0, 1] * 20),
        "label = toxic, obscene",
    ),
    "a JSON list": ("a.json", json.dumps(OBJECTS), "rows read: 60"),
    "pretty JSON": ("a.json", json.dumps(OBJECTS, indent=2), "rows read: 60"),
    "JSON inside an object": ("a.json", json.dumps({"data": OBJECTS}, indent=2), "rows read: 60"),
    "nested fields": (
        "a.jsonl",
        "\n".join(json.dumps({"id": i, "review": o}) for i, o in enumerate(OBJECTS)),
        "text = 'review.text'",
    ),
    "gzip by its ending": (
        "a.csv.gz", gzip.compress(table("text,label", TEXTS, CLASSES).encode()), "rows read: 60",
    ),
    "gzip by its bytes": (
        "a.csv", gzip.compress(table("text,label", TEXTS, CLASSES).encode()), "rows read: 60",
    ),
    "UTF-16 of Excel": (
        "a.csv", table("text,label", TEXTS, CLASSES).encode("utf-16"), "rows read: 60",
    ),
    "semicolons of a German Excel": (
        "a.csv", table("text;label", TEXTS, CLASSES, delimiter=";"), "delimiter = ';'",
    ),
    "the line sep=; of Excel": (
        "a.csv", "sep=;\n" + table("text;label", TEXTS, CLASSES, delimiter=";"), "rows read: 60",
    ),
    "old Mac line ends": (
        "a.csv", table("text,label", TEXTS, CLASSES).replace("\n", "\r"), "rows read: 60",
    ),
    "a blank after the comma": (
        "a.csv", table("text, label", TEXTS, [f" {c}" for c in CLASSES]), "a blank follows",
    ),
    "pairs of texts": (
        "a.csv", table("id,premise,hypothesis,label", range(60), TEXTS, TEXTS[::-1], CLASSES),
        "pairs of texts",
    ),
    "Chinese labels": ("a.csv", table("text,label", TEXTS, ["差评", "好评"] * 30), "好评"),
    "prices": ("a.csv", table("text,price", TEXTS, range(100_000, 160_000, 1000)), "squared error"),
    "prices in dollars": (
        "a.csv", table("text,price", TEXTS, [f"${1000 + 37 * i:,}" for i in range(60)]),
        "squared error",
    ),
    "per cent": (
        "a.csv", table("text,score", TEXTS, [f"{i % 10}0%" for i in range(60)]), "squared error",
    ),
    "decimal commas": (
        "a.csv", table("text,score", TEXTS, [f"{i % 3},5" for i in range(60)]),
        "a comma begins the decimals",
    ),
    "scores": ("a.csv", table("text,score", TEXTS, [65 + i % 26 for i in range(60)]), "squared"),
}  # fmt: skip

REFUSED = {
    "Git LFS": ("a.csv", "version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "an old Excel file": ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "CSV UTF-8"),
    "a log-in page": ("a.csv", "<!DOCTYPE html><html>", "an HTML page"),
    "labels that are missing": (
        "a.csv", table("text,label", TEXTS, ["pos", "neg", "nan"] * 20), "data.filter (label !=",
    ),
    "a cut emoji": (
        "a.jsonl", "\n".join(json.dumps(o) for o in OBJECTS).replace("story number 7", "\\ud83d"),
        "a.jsonl:8",
    ),
    "no label": ("a.csv", table("text", TEXTS), "looks like labels"),
    "a title above the header": (
        "a.csv", "Survey of 2024\n\n" + table("text,label", TEXTS, CLASSES), "a title or a remark",
    ),
}  # fmt: skip


@pytest.fixture
def plan(tmp_path, tiny_folder, capsys):
    """(exit status, all that is printed) for the plan of a file."""

    def plan(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        words = [f"run.dir={tmp_path}", f"model.source={tiny_folder}", "data.max_length=64"]
        words += ["--unset", "lora", "--dry-run", "precision.dtype=fp32"]
        code = train.main(["--csv", str(path), *words])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return plan


@pytest.mark.parametrize("case", READ)
def test_a_file_as_people_bring_it_is_read(case, plan):
    name, content, expected = READ[case]
    code, printed = plan(name, content)
    assert code == 0, printed
    assert expected in printed


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_used_is_named_with_the_way_out(case, plan):
    name, content, expected = REFUSED[case]
    code, printed = plan(name, content)
    assert code == 2
    assert expected in printed
    assert name in printed
    assert "Traceback" not in printed
