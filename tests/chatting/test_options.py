"""Options of predict.py for a language model: done, or refused with the reason; never ignored."""

import io
import json
from dataclasses import replace

import pytest
from chats import ask

import predict
from job.chatting.command import answer_chat


@pytest.fixture
def answer(talk, monkeypatch, capsys):
    """answer(words, input, talker) -> (the exit status or the error, output, notes)."""

    def ask_it(words, input="", talker=None):
        stdin = io.StringIO(input) if isinstance(input, str) else input
        monkeypatch.setattr("sys.stdin", stdin)
        options = predict.parse_arguments(["--run", "r", *words])
        capsys.readouterr()
        try:
            status = answer_chat(options, None, lambda: talker or talk(max_tokens=5))
        except ValueError as error:
            status = str(error)
        return status, *capsys.readouterr()

    return ask_it


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "how are you"}), encoding="utf-8")
    return str(path)


REFUSED = [
    (["hello", "--output", "OUT.jsonl"], "--output: replies are written to a file where --file"),
    (["--output", "OUT.jsonl"], "--output: replies are written"),
    (["-", "--output", "OUT.jsonl"], "--output: replies are written"),
    (["--json"], "--json: in a chat each line is given one line back"),
    (["-", "--json"], "--json: in a chat"),
    (["-", "--strict"], "--strict: in a chat"),
    (["--json", "--strict"], "--json, --strict: in a chat"),
    (["-", "--encoding", "klingon"], "--encoding"),
    (["--system", "be <|end|> kind", "hello"], "--system: it says '<|end|>'"),
]


@pytest.mark.parametrize(("words", "why"), REFUSED)
def test_what_would_be_ignored_is_refused(answer, talk, tmp_path, words, why):
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    status, lines, _ = answer(words, "how\n", replace(talk(), special=["<|end|>"]))
    assert str(status).startswith(why)
    assert lines == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_told_first_what_words_are_told(answer, talk, prompts):
    told = [{"role": "system", "content": "be kind"}, *ask("how are you")]
    wanted = talk(max_tokens=5).reply(told).text
    assert wanted != talk(max_tokens=5).reply(ask("how are you")).text
    status, lines, _ = answer(["--file", prompts, "--system", "be kind"])
    assert (status, json.loads(lines)["reply"]) == (0, wanted)
    words = answer(["how are you", "--system", "be kind", "--json", "--strict"])
    assert json.loads(words[1])["reply"] == wanted


@pytest.mark.parametrize("words", [["hello"], ["-"], ["--file", "PROMPTS"]])
def test_a_run_of_plain_texts_is_told_nothing_first(answer, talk, prompts, words):
    words = [prompts if word == "PROMPTS" else word for word in words]
    texts = replace(talk(max_tokens=3), texts=True)
    status, lines, _ = answer([*words, "--system", "be kind"], "how\n", texts)
    assert "--system: this run goes on with plain texts" in status
    assert lines == ""
    assert answer(words, "how\n", texts)[0] == 0


def test_the_command_system_is_refused_where_it_does_nothing(answer, talk):
    talker = replace(talk(max_tokens=3), texts=True, special=["<|end|>"])
    status, lines, notes = answer([], "/system be kind\nhow\n", talker)
    assert (status, lines.count("\n")) == (2, 1)
    assert "standard input:1: /system: this run goes on with plain texts" in notes
    talker = replace(talker, texts=False)
    notes = answer([], "/system be kind\n/system <|end|>\nhow\n", talker)[2]
    assert "standard input:2: /system: it says '<|end|>'" in notes
    assert "standard input:1" not in notes


def test_a_pipe_is_read_in_the_encoding_that_is_named(answer, talk):
    asked = []

    def encode(messages):
        asked.append(messages[-1]["content"])
        return [5]

    stdin = io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8")
    assert answer(["-", "--encoding", "cp1252"], stdin, replace(talk(), encode=encode))[0] == 0
    assert asked == ["café"]
