"""A conversation in a terminal, or through a pipe: a message a line, replies as they are said.

A terminal is given a prompt, colour and the speed of each reply. A pipe gets one line a reply and
nothing else; what there is to say beside it goes to `notes`.
"""

import sys
from collections.abc import Callable
from typing import TextIO

from data.chat.render import first_special
from data.reading.rows import is_encodable
from files.printable import escape_unprintable
from job.chatting.talker import Message, Reply, Talker
from job.console import CleanStream, read_word, takes_style
from job.predicting.inputs import stdin_items
from report.format import clean_line, format_seconds

PROMPT = "> "
HELP = """\
/reset         forget what was said
/system TEXT   what the model is told before everything else; without a text, nothing
/help          this
/quit          leave, as Ctrl-D does
//…            a message that begins with /
Ctrl-C stops a reply; what was said of it stays. A second one leaves."""
LEAVES = "Ctrl-C again leaves, as Ctrl-D does; /help lists what else there is"


def run_chat(
    talker: Talker, input: TextIO, output: TextIO, notes: TextIO, system: str | None = None,
    encoding: str | None = None,
) -> int:  # fmt: skip
    """Talk until the input ends, /quit, or Ctrl-C twice. `system` is what the model is told first,
    `encoding` that of a pipe's input, UTF-8 if nothing is said. The number of lines that got no
    reply; why is said on `notes`, or on a terminal. Through a pipe KeyboardInterrupt is raised."""
    person = is_terminal(input, output)
    shown = Terminal(input, output) if person else Pipe(input, output, notes, encoding)
    return Chat(talker, shown, system).run()


def is_terminal(input: TextIO, output: TextIO) -> bool:
    """Whether a person sits at both ends."""
    return input.isatty() and output.isatty()


class Chat:
    """A conversation: what was said, and what is done with a line."""

    def __init__(self, talker: Talker, shown: "Terminal | Pipe", system: str | None) -> None:
        self.talker, self.shown, self.system = talker, shown, system
        self.messages: list[Message] = []
        self.replies = self.failed = self.left_out = 0
        self.interrupted = False  # by Ctrl-C, and nothing was typed since

    def run(self) -> int:
        """Until there are no more lines."""
        self.shown.note("/help lists what you can type beside messages; Ctrl-D leaves.")
        while True:
            try:
                line = self.next_line()
                if line is None:
                    break
                if line.strip():
                    self.interrupted = False
                    if not self.take(line.strip()):
                        break
            except KeyboardInterrupt:
                if not self.shown.person:
                    raise
                if self.interrupted:
                    break
                self.interrupted = True
                self.shown.note(LEAVES, begin="\n")
        self.shown.leave()
        return self.failed

    def next_line(self) -> str | None:
        """A line; "" for one that cannot be read, and is refused; None where there are no more."""
        try:
            return self.shown.ask()
        except ValueError as error:
            self.refuse(clean_line(str(error)))
            return ""

    def take(self, line: str) -> bool:
        """Do what a line says; False where that is to leave."""
        if not line.startswith("/") or line.startswith("//"):
            self.answer(line.removeprefix("/") if line.startswith("//") else line)
            return True
        word, _, rest = line.partition(" ")
        commands: dict[str, Callable[[str], bool]] = {
            "/reset": self.reset, "/system": self.set_system, "/help": self.help,
            "/quit": lambda rest: False,
        }  # fmt: skip
        if word not in commands:
            self.refuse(f"there is no {clean_line(word)}, only {', '.join(commands)}")
            return True
        return commands[word](rest.strip())

    def reset(self, rest: str) -> bool:
        """Forget what was said."""
        self.messages, self.left_out = [], 0
        self.shown.note("what was said is forgotten")
        return True

    def set_system(self, rest: str) -> bool:
        """Tell the model something before everything else, from the next message on."""
        if rest and (why := self.talker.untold(rest)):
            self.failed += 1
            self.shown.warn(f"/system: {why}")
            return True
        self.system = rest or None
        self.shown.note(f"told first: {clean_line(rest)}" if rest else "nothing is told first")
        return True

    def help(self, rest: str) -> bool:
        """Say what one can type."""
        self.shown.note(HELP)
        return True

    def answer(self, text: str) -> None:
        """Say the reply to a message. One that cannot be read is as if it had not been sent."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages = [*self.messages, {"role": "user", "content": text}]
        try:
            saying = self.talker.stream([*first, *messages], self.replies)
        except ValueError as error:
            self.refuse(clean_line(str(error)))
            return
        left_out = self.left_out + saying.left_out
        if saying.left_out:
            self.shown.warn(
                f"the model has no room for all of this conversation: its oldest {left_out} "
                "messages are left out from now on (/reset begins anew)"
            )
        try:
            for piece in saying:
                self.shown.say(piece)
        except KeyboardInterrupt:
            if not self.shown.person:  # a program would take half a reply for a whole one
                raise
            self.interrupted = True
        self.shown.close(saying.reply)
        self.replies += 1
        if self.keep(messages[saying.left_out :], saying.reply.text):
            self.left_out = left_out

    def keep(self, messages: list[Message], reply: str) -> bool:
        """What is read before the next message: this, without what had no room; False where it
        stays what it was: a message to which nothing was said is as if it had not been sent, and a
        run of plain texts goes on with each text alone."""
        if self.talker.texts or not reply:
            return False
        if name := first_special(reply, self.talker.special):
            # every later message would be refused for what the user did not say
            self.shown.warn(
                f"this reply says {name!r}, which the tokenizer reads as the token of that name: "
                "the model is not told of it, nor of its message, when it goes on"
            )
            return False
        self.messages = [*messages, {"role": "assistant", "content": reply}]
        return True

    def refuse(self, reason: str) -> None:
        """Say why a line gets no reply."""
        self.failed += 1
        self.shown.warn(f"no reply: {reason}")
        self.shown.skip()


class Terminal:
    """A person with a keyboard: lines can be edited, and called back with the arrow keys."""

    person = True  # who stops a reply with Ctrl-C, and goes on

    def __init__(self, input: TextIO, output: TextIO) -> None:
        self.input, self.output = input, output
        # our own signs steer the terminal: they go past what keeps others from that
        self.raw = output.stream if isinstance(output, CleanStream) else output
        self.styled = takes_style()
        if input is sys.stdin:
            try:
                import readline  # noqa: F401  input() edits lines with it
            except ImportError:  # a Python built without it
                return

    def ask(self) -> str | None:
        """A line that was typed; None where there will be no more. Raises ValueError for one that
        is no text."""
        try:
            line = self._read()
        except UnicodeDecodeError as error:
            raise ValueError(f"what was typed is no {error.encoding} text") from None
        if line is None:
            return None
        line = read_word(line)
        if not is_encodable(line):  # a locale that takes any byte (LC_ALL=C)
            raise ValueError("what was typed is no UTF-8 text")
        return line

    def _read(self) -> str | None:
        """A line as it comes."""
        try:
            if self.input is sys.stdin:
                return input(PROMPT)
        except EOFError:
            return None
        self._write(PROMPT)
        return self.input.readline() or None

    def say(self, piece: str) -> None:
        """A piece of a reply, as it came."""
        self._write(escape_unprintable(piece))

    def close(self, reply: Reply) -> None:
        """The end of a reply: how long it was, and how fast."""
        speed = f", {reply.tokens / reply.seconds:.1f} tokens/s" if reply.seconds else ""
        ended = {"eos": "", "length": "; cut here", "listener": "; stopped"}[reply.stopped]
        if not reply.text:
            ended = "; nothing was said, and the message is forgotten"
        one = "" if reply.tokens == 1 else "s"
        taken = format_seconds(reply.seconds)
        self._write("\n")
        self.note(f"{reply.tokens} token{one} in {taken}{speed}{ended}")
        self._write("\n")

    def note(self, text: str, begin: str = "") -> None:
        """Something that the model did not say."""
        before, behind = ("\x1b[2m", "\x1b[0m") if self.styled else ("", "")
        self._write(f"{begin}{before}{escape_unprintable(text)}{behind}\n")

    def warn(self, text: str) -> None:
        """Something that has to be known."""
        self.note(text)

    def skip(self) -> None:
        """Nothing: the next prompt tells that there is no reply."""

    def leave(self) -> None:
        """The last line."""
        self._write("\n")

    def _write(self, text: str) -> None:
        self.raw.write(text)
        self.raw.flush()


class Pipe:
    """Another program: a line in, a line out. A message without a reply leaves an empty line."""

    person = False

    def __init__(
        self, input: TextIO, output: TextIO, notes: TextIO, encoding: str | None = None
    ) -> None:
        self.output, self.notes = output, notes
        self.items = stdin_items(input, encoding)
        self.address = "standard input"  # of the line that was read last

    def ask(self) -> str | None:
        """The next line; None at the end. Raises ValueError for one that is not in its encoding;
        the next ones are read all the same."""
        item = next(self.items, None)
        if item is None:
            return None
        self.address = item.address
        if not isinstance(item.text, str):
            raise ValueError(item.error)
        return item.text

    def say(self, piece: str) -> None:
        """Nothing yet: a reply may have several lines, and is given one."""

    def close(self, reply: Reply) -> None:
        """The reply, on one line."""
        self._write(clean_line(reply.text))

    def note(self, text: str, begin: str = "") -> None:
        """Nothing: nobody types here."""

    def warn(self, text: str) -> None:
        """Something that has to be known, with the place of the line that it is about."""
        print(f"{self.address}: {text}", file=self.notes, flush=True)

    def skip(self) -> None:
        """An empty line in the place of a reply."""
        self._write("")

    def leave(self) -> None:
        """Nothing: the output has its last line."""

    def _write(self, text: str) -> None:
        self.output.write(f"{text}\n")
        self.output.flush()
