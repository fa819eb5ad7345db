"""predict.py for a language model: a chat in the terminal, or replies to words and files."""

import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, replace

from configs.schema import Config
from data.chat.turns import TurnReader
from data.write import json_text
from job.chatting.prompts import (
    Columns,
    Tally,
    answer_prompts,
    read_prompts,
    reply_lines,
    write_replies,
)
from job.chatting.talker import Talker
from job.chatting.terminal import run_chat
from job.predicting.inputs import check_encoding
from job.predicting.outputs import check_output
from job.tasks.options import OF_LABELS, refuse_options


def answer_chat(options: Namespace, config: Config, opened: Callable[[], Talker]) -> int:
    """The answer to Task.answer."""
    refuse_options(options, OF_LABELS, "this run is a language model, which answers with text")
    if options.file is not None:
        return answer_file(options, opened)
    refuse_options(options, ("output",), "replies are written to a file where --file gives prompts")
    if options.texts and options.texts != ["-"]:
        return answer_words(with_options(opened(), options), options)
    refuse_options(
        options, ("json", "strict"),
        "in a chat each line is given one line back, the reply; rows of JSON, and an end at the "
        "first error, go with --file",
    )  # fmt: skip
    check_encoding(options.encoding)
    talker = with_options(opened(), options)
    failed = run_chat(talker, sys.stdin, sys.stdout, sys.stderr, options.system, options.encoding)
    return 2 if failed else 0


def with_options(talker: Talker, options: Namespace) -> Talker:
    """The same talker, replying as the options ask. Raises ValueError for one out of range, and for
    something to tell it first that it cannot be told."""
    if options.system is not None and (why := talker.untold(options.system)):
        raise ValueError(f"--system: {why}")
    names = ("temperature", "top_k", "top_p", "max_tokens", "seed")
    values = {name: value for name in names if (value := getattr(options, name)) is not None}
    return replace(talker, args=replace(talker.args, **values))


def answer_file(options: Namespace, opened: Callable[[], Talker]) -> int:
    """A reply to each row of a file of prompts."""
    if options.output:
        check_output(options.output, options.file)
    rows = read_prompts(options.file, TurnReader().read, options.encoding, options.system)
    talker, tally, columns = with_options(opened(), options), Tally(), Columns()
    if options.output is None:
        for line in reply_lines(columns, answer_prompts(talker, rows(), options.strict, tally)):
            print(line, flush=True)
    else:
        from tqdm import tqdm

        types = None if options.output.suffix.lower() == ".jsonl" else columns.types(rows())
        prompts = tqdm(rows(), unit="row", disable=None)  # no bar where nobody looks
        answered = answer_prompts(talker, prompts, options.strict, tally)
        write_replies(options.output, columns, answered, types)
        print(f"written: {options.output}, {tally.line()}", file=sys.stderr)
    if options.output is None and (tally.errors or not tally.rows):
        print(f"predict.py: {tally.line()}", file=sys.stderr)
    for name, new in columns.renamed.items():
        print(f"predict.py: the column {name!r} is kept as {new!r}", file=sys.stderr)
    return 0


def answer_words(talker: Talker, options: Namespace) -> int:
    """A reply to each text of the command line. Raises ValueError at the first without one, with
    --strict or not."""
    first = [] if options.system is None else [{"role": "system", "content": options.system}]
    conversations = [[*first, {"role": "user", "content": text}] for text in options.texts]
    for text, reply in zip(options.texts, talker.replies(conversations), strict=True):
        row = {"prompt": text, "reply": reply.text, **asdict(reply)}
        print(json_text({k: v for k, v in row.items() if k not in ("text", "seconds")})
              if options.json else reply.text)  # fmt: skip
    return 0
