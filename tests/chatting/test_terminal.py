"""The conversation in a terminal and through a pipe."""

import io
import os
import pty
import select
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from chats import ask

from job.chatting.terminal import run_chat

ROOT = Path(__file__).parent.parent.parent


def through_pipe(talker, text, system=None):
    output, notes = io.StringIO(), io.StringIO()
    failed = run_chat(talker, io.StringIO(text), output, notes, system)
    return failed, output.getvalue(), notes.getvalue()


class Echo:
    """A talker's replies are what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, messages):
        self.asked.append(list(messages))
        return [5]


@pytest.fixture
def echo(talk):
    """(talker, the messages of each call)"""
    calls = Echo()
    return replace(talk(max_tokens=6), encode=calls), calls.asked


def test_a_pipe_gets_one_line_a_reply_and_nothing_else(talk):
    talker = talk()
    failed, lines, notes = through_pipe(talker, "how are you\n\nthe film\n")
    first = talker.reply(ask("how are you"))
    spoken = [*ask("how are you"), {"role": "assistant", "content": first.text}, *ask("the film")]
    second = talker.reply(spoken, 1)
    assert failed == 0
    assert notes == ""
    assert [" ".join(line.split()) for line in lines.split("\n")] == [
        " ".join("".join(c if c.isprintable() else " " for c in reply.text).split())
        for reply in (first, second)
    ] + [""]


def test_what_was_said_is_told_again_until_it_is_reset(echo):
    talker, asked = echo
    through_pipe(talker, "one\ntwo\n/reset\n/system be kind\nthree\n/system\n//four\n", "be brief")
    roles = [[message["role"] for message in messages] for messages in asked]
    assert roles == [
        ["system", "user"],
        ["system", "user", "assistant", "user"],
        ["system", "user"],
        ["user", "assistant", "user"],
    ]
    assert [messages[0]["content"] for messages in asked[:3]] == ["be brief", "be brief", "be kind"]
    assert asked[3][-1]["content"] == "/four"


def test_quit_leaves_and_unknown_commands_say_which_there_are(echo):
    talker, asked = echo
    failed, lines, notes = through_pipe(talker, "/nope\n/quit\nnever\n")
    assert (failed, lines, asked) == (1, "\n", [])
    assert notes.startswith("standard input:1: no reply: there is no /nope, only /reset, /system")


def test_a_message_that_cannot_be_read_is_as_if_not_sent(talk):
    failed, lines, notes = through_pipe(talk(), "a <|end|> b\nhow\n")
    assert failed == 1
    assert lines.startswith("\n")
    assert "standard input:1: no reply: a message says '<|'" in notes
    assert lines.split("\n")[1:] == through_pipe(talk(), "how\n")[1].split("\n")


def test_a_conversation_without_room_goes_on_and_says_so(talk):
    text = "how are you today and how was the film\n" * 8
    failed, lines, notes = through_pipe(talk(max_tokens=8), text)
    assert failed == 0
    assert len(lines.split("\n")) == 9
    assert "its oldest 2 messages are left out" in notes


@pytest.fixture
def teller(talk, chat_tokenizer):
    """teller(replies) -> (a talker that says these, in order, the messages of each call)."""
    from data.chat.render import special_tokens
    from data.chat.templates import choose_template
    from job.chatting.load import prompt_encoder

    def make(replies):
        template, asked = choose_template(chat_tokenizer, None), []
        encode = prompt_encoder(chat_tokenizer, template, False)

        def listen(messages):
            asked.append([message["content"] for message in messages])
            return encode(messages)[:5]  # whatever it is, there is room

        left, special = iter(replies), special_tokens(chat_tokenizer)
        talker = replace(talk(max_tokens=1, ends=()), encode=listen, special=special)
        return Telling(talker, left), asked

    return make


class Telling:
    """A talker whose replies are written down, and read as any talker reads."""

    def __init__(self, talker, replies):
        self.talker, self.replies = talker, replies

    def __getattr__(self, name):
        return getattr(self.talker, name)

    def stream(self, messages, number=0):
        saying = self.talker.stream(messages, number)
        list(saying)
        saying.texts[:] = [next(self.replies)]
        return Told(saying)


class Told:
    """What was said already."""

    def __init__(self, saying):
        self.left_out, self.reply = saying.left_out, saying.reply

    def __iter__(self):
        return iter([self.reply.text])


@pytest.mark.parametrize(
    "spelled", ["see <|end|> here", "<|user|>", "a<|system|>", "x\n<|end|><|assistant|>\ny"]
)
def test_a_reply_that_spells_a_special_token_is_not_told_again(teller, spelled):
    talker, asked = teller(["fine", spelled, "well", "good", "so"])
    failed, lines, notes = through_pipe(talker, "one\ntwo\nthree\nsay <|end|>\nfour\n")
    assert asked == [
        ["one"], ["one", "fine", "two"], ["one", "fine", "three"],
        ["one", "fine", "three", "well", "say <|end|>"], ["one", "fine", "three", "well", "four"],
    ]  # fmt: skip
    assert [bool(line) for line in lines.splitlines()] == [True, True, True, False, True]
    assert failed == 1  # what the user says himself stays his own matter
    told, refused = notes.splitlines()
    assert told.startswith("standard input:2: this reply says '<|")
    assert refused.startswith("standard input:4: no reply: a message says '<|end|>'")


@pytest.mark.parametrize("harmless", ["< |end|>", "<end>", "<|endless|>", "|end|", "<b>"])
def test_a_reply_that_spells_none_is_told_again(teller, harmless):
    talker, asked = teller([harmless, "well"])
    assert through_pipe(talker, "one\ntwo\n")[::2] == (0, "")
    assert asked[1] == ["one", harmless, "two"]


@pytest.mark.parametrize("count", [5, 40])
def test_a_long_conversation_is_encoded_no_further_than_it_is_read(talk, count):
    talker, sizes = talk(max_tokens=8), []

    def encode(messages):
        sizes.append(len(messages))
        return talker.encode(messages)

    failed, lines, _ = through_pipe(replace(talker, encode=encode), "how are you today\n" * count)
    assert failed == 0
    assert lines.count("\n") == count
    assert max(sizes) < 16  # so many messages have room, whatever was said before
    assert len(sizes) <= 4 * count


def test_left_out_messages_are_counted_together(talk):
    _, _, notes = through_pipe(talk(max_tokens=8), "how are you today and how was the film\n" * 9)
    numbers = [int(note.split("its oldest ")[1].split()[0]) for note in notes.splitlines()]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] >= 10


PROGRAM = """
import os, sys, time
sys.path[:0] = {paths!r}
from chats import make_chat_model, make_chat_tokenizer, make_talker
from job.chatting.terminal import run_chat
from job.console import prepare_console
prepare_console()
tokenizer = make_chat_tokenizer()
model = make_chat_model(tokenizer)
model.register_forward_hook(lambda *_: time.sleep(0.08))
talker = make_talker(model, tokenizer, ends=(), max_tokens=40)
print("failed:", run_chat(talker, sys.stdin, sys.stdout, sys.stderr))
os.environ["NO_COLOR"] = "1"
print("again:", run_chat(talker, sys.stdin, sys.stdout, sys.stderr))
"""


class Person:
    """Someone at a terminal, in which a program of ours runs."""

    def __init__(self, words, environment):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, *words], environment)
        self.seen, self.at = "", 0

    def read(self):
        """What was printed meanwhile; False where the program has gone."""
        if select.select([self.fd], [], [], 0.1)[0]:
            try:
                self.seen += os.read(self.fd, 4096).decode("utf-8", errors="replace")
            except OSError:
                return False
        return True

    def wait(self, text, seconds=60):
        """Until a text was printed behind what was waited for before; gives all up to its end."""
        end, begun = time.monotonic() + seconds, self.at
        while text not in self.seen[begun:]:
            if time.monotonic() > end:
                pytest.fail(f"{text!r} never came: {self.seen[begun:]!r}")
            if not self.read():
                end = 0
        self.at = self.seen.index(text, begun) + len(text)
        return self.seen[begun : self.at]

    def hear(self):
        """Until a letter of the reply was printed: how long that takes is the machine's matter."""
        while not any(letter.isalnum() for letter in self.seen[self.at :]):
            self.read()

    def type(self, text):
        os.write(self.fd, text.encode())

    def interrupt(self):
        """Ctrl-C at the prompt. Python's input() sees one only once it waits for keys: what comes
        between its prompt and then is kept for the next key. No person is that quick."""
        time.sleep(0.5)
        self.type("\x03")

    def leave(self):
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_a_person_talks_stops_a_reply_and_leaves():
    program = PROGRAM.format(paths=[str(ROOT), str(ROOT / "tests")])
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    person = Person(["-c", program], {**environment, "TERM": "xterm"})
    assert "Ctrl-D leaves.\x1b[0m" in person.wait("> ")
    person.type("how are you\n")
    reply = person.wait("tokens/s")
    assert "40 tokens in" in reply  # all of it
    person.wait("> ")
    person.type("tell me more\n")
    person.wait("begins anew)\x1b[0m")  # there is no room for both
    person.hear()
    person.type("\x03")  # Ctrl-C
    stopped = person.wait("; stopped")
    tokens = int(stopped.rpartition(" tokens in")[0].split("\x1b[2m")[-1])
    assert 0 < tokens < 40
    person.wait("> ")
    person.type("\x1b[A\n")  # arrow up: the last line again
    assert "tell me more" in person.wait("tokens/s")
    person.wait("> ")
    person.type("/help\n")
    assert "/system TEXT" in person.wait("A second one leaves.")
    person.wait("> ")
    person.interrupt()
    person.wait("Ctrl-C again leaves")
    person.wait("> ")
    person.interrupt()
    person.wait("failed: 0")
    plain = person.wait("> ")
    person.type("how\n")
    plain += person.wait("tokens/s") + person.wait("> ")
    assert "\x1b[2m" not in plain  # NO_COLOR
    person.type("\x04")  # Ctrl-D
    person.wait("again: 0")
    assert person.leave() == 0


PIPED = """
import os, sys, time
sys.path[:0] = {paths!r}
from chats import make_chat_model, make_chat_tokenizer, make_talker
from job.chatting.terminal import run_chat
from job.console import prepare_console
from job.ending import run_command
prepare_console()
tokenizer = make_chat_tokenizer()
model = make_chat_model(tokenizer)
talker = make_talker(model, tokenizer, ends=(), max_tokens=4)
calls = []
def wait(*_):
    calls.append(0)
    if len(calls) == 6:
        print("half", file=sys.stderr, flush=True)
        time.sleep(60)
model.register_forward_hook(wait)
print("ready", flush=True)  # training a tokenizer prints empty lines
sys.exit(run_command("t", lambda: run_chat(talker, sys.stdin, sys.stdout, sys.stderr)))
"""


@pytest.mark.parametrize("speaks", [True, False], ids=["in a reply", "between two"])
def test_ctrl_c_ends_a_pipe_and_leaves_no_half_reply(speaks):
    program = PIPED.format(paths=[str(ROOT), str(ROOT / "tests")])
    with Popen([sys.executable, "-c", program], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        process.stdin.write(b"how are you\n" + b"the film\nand then\n" * speaks)
        process.stdin.flush()
        while process.stdout.readline() != b"ready\n":
            pass
        first = process.stdout.readline()
        if speaks:
            while b"half" not in process.stderr.readline():
                pass
        process.send_signal(signal.SIGINT)
        rest, notes = process.communicate(timeout=60)
    assert first.endswith(b"\n")  # whole, whatever it says
    assert rest == b""
    assert process.returncode == 130
    assert b"t: interrupted" in notes
    assert b"Traceback" not in notes


def stdin_of(data, errors="strict"):
    """Standard input, as Python opens it."""
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors=errors)


BROKEN = {
    "in the middle": (b"one\ntwo\ncaf\xe9\nlast\n", {3: "E9"}),
    "first": (b"\xff\xff\xfd\nhow\n", {1: "FF"}),
    "last, without an end": (b"how\ncut \xf0\x9f\x98", {2: "F0"}),
    "several": (b"\x80\n\nfilm\n\xc3(\nnow\r\n", {1: "80", 4: "C3"}),
    "an encoded surrogate": (b"\xed\xa0\xbd\nhow\n", {1: "ED"}),
}


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
@pytest.mark.parametrize(("data", "bad"), BROKEN.values(), ids=BROKEN)
def test_a_line_that_is_no_utf8_is_refused_alone(echo, data, bad, errors):
    talker, asked = echo
    output, notes = io.StringIO(), io.StringIO()
    failed = run_chat(talker, stdin_of(data, errors=errors), output, notes)
    lines = [line.strip().decode(errors="ignore") for line in data.splitlines()]
    good = [line for number, line in enumerate(lines, start=1) if line and number not in bad]
    assert failed == len(bad)
    assert [messages[-1]["content"] for messages in asked] == good
    assert len(output.getvalue().splitlines()) == len(good) + len(bad)
    for note, (number, byte) in zip(notes.getvalue().splitlines(), bad.items(), strict=True):
        assert note.startswith(f"standard input:{number}: no reply: bad UTF-8 in line {number}: ")
        assert f"byte 0x{byte}" in note


@pytest.mark.parametrize(
    ("data", "encoding"),
    [("café\nплан\n".encode("utf-16"), None), (b"\xef\xbb\xbfcaf\xc3\xa9\n", None),
     (b"caf\xe9\nna\xefve\n", "cp1252"), ("naïve\n".encode("utf-16-le"), "utf-16-le")],
)  # fmt: skip
def test_a_pipe_is_read_in_the_encoding_that_is_named_or_marked(echo, data, encoding):
    talker, asked = echo
    failed = run_chat(talker, stdin_of(data), io.StringIO(), io.StringIO(), encoding=encoding)
    text = data.decode(encoding or ("utf-16" if data[:2] == b"\xff\xfe" else "utf-8-sig"))
    assert failed == 0
    assert [messages[-1]["content"] for messages in asked] == text.splitlines()


class Keyboard(io.TextIOWrapper):
    """Standard input as a terminal's."""

    def isatty(self):
        return True


class Screen(io.StringIO):
    """Standard output as a terminal's."""

    def isatty(self):
        return True


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_what_is_typed_in_another_encoding_is_refused_and_the_talk_goes_on(echo, errors):
    talker, asked = echo
    keys = Keyboard(OneLine([b"caf\xe9\n", b"caf\xc3\xa9\n"]), encoding="utf-8", errors=errors)
    screen = Screen()
    assert run_chat(talker, keys, screen, screen) == 1
    assert "no reply: what was typed is no" in screen.getvalue()
    assert [messages[-1]["content"] for messages in asked] == ["café"]


class OneLine(io.BytesIO):
    """Gives a line a time, as a terminal does."""

    def __init__(self, lines):
        super().__init__()
        self.lines = iter(lines)

    def read1(self, size=-1):
        return next(self.lines, b"")


def test_a_model_cannot_steer_the_terminal(talk, chat_tokenizer):
    from job.chatting.talker import Reply
    from job.chatting.terminal import Terminal

    output = io.StringIO()
    shown = Terminal(io.StringIO(), output)
    shown.say("a\x1b[2Jb\x07\nc\u202e")
    shown.note("d\x1b[31m")
    shown.close(Reply("a", 1, "eos", 0.5))
    text = output.getvalue()
    assert text.startswith("a\\x1b[2Jb\\x07\nc\\u202e")  # a new line stays one
    assert "d\\x1b[31m" in text
    assert "1 token in 0.5 s, 2.0 tokens/s" in text
    pipe_output = through_pipe(talk(), "how\n")[1]
    assert all(c == "\n" or c.isprintable() for c in pipe_output)
