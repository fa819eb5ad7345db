"""check.py for conversations: what a run would make of them, and what of each row is learned."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from configs.schema import Config
from data.cache import cache_root
from data.chat.counts import ChatCounts
from data.chat.encode import encode_chats
from data.chat.packing import pack_chats
from data.chat.prepare import Chats, load_chats
from data.chat.show import show_chat
from data.refused import RefusedError
from job.chatting.rows import chat_args, chat_encoding
from job.checking.examined import as_finding, read_on
from job.console import MARKS
from models.start import open_tokenizer
from report.chats import chat_lines
from report.check import Check, Finding, Level
from report.format import WARNING, split_warnings


def open_chats(config: Config) -> tuple[Chats, list[Finding]]:
    """The conversations of a run, and why it would be refused, where it would. Raises ValueError
    for a source that cannot be read."""
    args, findings = chat_args(config), list[Finding]()
    while True:
        try:
            return load_chats(args), findings
        except RefusedError as error:
            findings.append(as_finding(error))
            args = read_on(args, error)


def examine_chats(config: Config) -> Iterator[Check]:
    """The checks as they are made: what is read, and what of it becomes rows, split by split."""
    tokenizer = open_tokenizer(config.model.source, config.model.revision, 1, chat=True)
    chats, refused = open_chats(config)
    _, lines = split_warnings(chats.report.lines())
    yield from (Check("" if i else "plan", line) for i, line in enumerate(lines))
    if refused:
        yield Check("rows", "a run would be refused", refused, f"set {refused[0].setting}")
    for split in chats.splits:
        yield from examine_split(config, tokenizer, chats, split)


def examine_split(config: Config, tokenizer: Any, chats: Chats, split: str) -> Iterator[Check]:
    """What becomes of the conversations of a split."""
    encoding = replace(chat_encoding(config), on_bad_row="skip")
    cache = cache_root() if config.data.cache else None
    try:
        encoded, counts = encode_chats(
            chats.splits[split], tokenizer, encoding, cache, chats.fingerprint, split
        )
    except ValueError as error:
        finding = refused_finding(error)
        mend = f"{'set' if finding.kind == 'length' else 'correct'} {finding.setting}"
        yield Check(split, "a run would be refused", (finding,), mend)
        return
    findings = list(split_findings(counts, config.data.on_bad_row))
    first, *others = [line for line in counts.lines() if not line.startswith(WARNING)]
    yield Check(split, first, findings, "look at them with --show" if findings else "")
    yield from (Check("", line) for line in others)
    if split == "train" and config.data.packing:
        most = config.data.max_length
        yield Check("", pack_chats(encoded, most, config.run.seed, cache).line(most))


def refused_finding(error: ValueError) -> Finding:
    """Why a split cannot be encoded: the error begins with the setting that mends it."""
    what, _, advice = str(error).partition("\n")
    setting = what.partition(":")[0].partition(" ")[0]
    kind = "length" if setting == "data.overlong" else setting.rpartition(".")[2]
    return Finding(kind, "error", what, (), setting, details={"advice": advice})


def split_findings(counts: ChatCounts, on_bad_row: str) -> Iterator[Finding]:
    """Conversations that give no row, and rows that lose their whole answer."""
    if total := sum(counts.bad.values()):
        level: Level = "warning" if on_bad_row == "skip" else "error"
        what = f"{total:,} conversations give no row: {'; '.join(counts.examples)}"
        yield Finding("bad_row", level, what, tuple(counts.addresses), 'data.on_bad_row = "skip"')
    if counts.lost:
        what = f"{counts.lost:,} conversations lose their whole answer by the cut"
        yield Finding("answer_cut", "warning", what, (), "data.overlong")


def row_lines(config: Config, count: int) -> list[str]:
    """The rows that the first training conversations become; what is learned stands in MARKS."""
    tokenizer = open_tokenizer(config.model.source, config.model.revision, 1, chat=True)
    chats, _ = open_chats(config)
    rows, encoding = chats.splits["train"], chat_encoding(config)
    lines = []
    for row in rows.select(range(min(count, len(rows)))):
        shown, note = show_chat(row["messages"], row["address"], tokenizer, encoding)
        if not shown:
            lines.append(f"{row['address']}: {note}")
        for one in shown:
            lines += chat_lines(
                row["address"], one.pieces, one.learned, len(one.ids), note, "".join(MARKS)
            )
            note = ""
    return lines
