"""What is printed: nothing that comes from a file can steer the terminal it is shown on."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

import predict
import train
from data.write import json_text
from files.printable import escape_in_json, escape_unprintable
from job.console import CleanStream

STEERING = [
    "\x1b[31m", "\x9b2J", "\x07", "\x08\x08", "\x7f", "\x00", "\u202e", "\u2066", "\u200b",
    "\u2028", "\ufeff", "\U000e0041", "\x0b", "\ud800",
]  # fmt: skip


def printed(*texts):
    stream = io.StringIO()
    clean = CleanStream(stream)
    for text in texts:
        clean.write(text)
    return stream.getvalue()


@pytest.mark.parametrize("text", STEERING)
def test_what_steers_a_terminal_is_shown_as_an_escape(text):
    shown = printed(f"a{text}b\n")
    assert shown.isprintable() or shown == shown.encode("ascii").decode()
    assert "\\" in shown
    assert not set(shown) & {c for c in text if not c.isprintable()}


@pytest.mark.parametrize("text", ["plain\ttext\n", "été 好评 👩‍👩‍👧 نمی‌خواهم\n", "a\nb\n", ""])
def test_what_people_write_stays_as_it_is(text):
    assert printed(text) == text


@pytest.mark.parametrize(
    "texts", [("\rneg", "\rFAKE"), ("error in ", "\rfine"), ("error in a\rfine\n",), ("\r",)]
)
def test_a_carriage_return_that_is_printed_is_shown(texts):
    assert printed(*texts) == "".join(texts).replace("\r", "\\r")
    stream = io.StringIO()
    print(*texts, file=CleanStream(stream), sep="", end="")
    CleanStream(stream).writelines(texts)
    tqdm.write("".join(texts), file=CleanStream(stream), end="")
    assert "\r" not in stream.getvalue()


def test_a_carriage_return_is_shown_while_a_progress_bar_draws():
    stream = io.StringIO()
    clean = CleanStream(stream)
    with tqdm(total=2, file=clean, ncols=20, desc="a\rb") as bar:
        print("\rneg", "\rFAKE", file=clean)
        tqdm.write("\rmore", file=clean)
        bar.update()
    text = stream.getvalue()
    assert "a\\rb" in text
    assert "\\rneg \\rFAKE\n" in text
    assert "\\rmore\n" in text


def test_a_progress_bar_draws_itself_as_on_a_bare_stream():
    def draw(stream):
        for _ in tqdm(range(3), file=stream, mininterval=0, bar_format="{n}/{total}", ncols=20):
            pass

    bare, wrapped = io.StringIO(), io.StringIO()
    draw(bare)
    draw(CleanStream(wrapped))
    assert wrapped.getvalue() == bare.getvalue()


@pytest.mark.parametrize("text", [t for t in STEERING if t != "\ud800"])
def test_json_keeps_its_value_and_steers_nothing(text):
    line = json_text({"text": f"a{text}b", text: 1})
    assert json.loads(line) == {"text": f"a{text}b", text: 1}
    assert line.isprintable()
    assert escape_in_json(line) == line == escape_unprintable(line)


@pytest.mark.parametrize("module", [train, predict])
def test_every_way_of_writing_passes_the_one_place(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit):
        module.main(["--no-such-\x1b[31m"])
    sys.stdout.writelines(["\x1b[2J\n"])
    print("\u202e", file=sys.stderr)
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert captured.out == "\\x1b[2J\n"
    assert captured.err.endswith("\\u202e\n")


def test_a_key_of_a_recipe_cannot_steer_the_terminal(tmp_path, capsys):
    path = tmp_path / "recipe.toml"
    path.write_text('[run]\n"na\\u001b[31mme" = "x"\n"\\u202ename" = 1\n', encoding="utf-8")
    assert train.main(["--config", str(path)]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\u202e" not in err
    assert "\\x1b[31m" in err


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_notes_about_a_file_cannot_steer_the_terminal(tmp_path, capsys, ending):
    path = tmp_path / f"a.{ending}"
    name = "te\x1b[31mxt\u202e"
    rows = [f"some text number {i},{i % 2}" for i in range(40)]
    lines = [json.dumps({name: r.split(",")[0], "label": 5}, ensure_ascii=False) for r in rows]
    text = "\n".join([f"{name},la\x9bbel", *rows] if ending == "csv" else lines)
    path.write_text(text, encoding="utf-8")
    train.main(["--csv", str(path), "--dry-run", "model.source=nowhere"])
    captured = capsys.readouterr()
    assert captured.out + captured.err != ""
    assert not {"\x1b", "\u202e", "\x9b"} & set(captured.out + captured.err)


def test_a_traceback_that_python_itself_prints_is_shown():
    code = "from job.console import prepare_console\nprepare_console()\nraise KeyError('ours')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True,
        encoding="utf-8", timeout=100,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.endswith("KeyError: 'ours'\n")
