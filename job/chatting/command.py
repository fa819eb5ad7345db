"""predict.py for a language model: a chat in the terminal, or replies to words and files."""

import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, replace

from configs.schema import Config
from data.write import json_text
from job.chatting.talker import Talker
from job.chatting.terminal import run_chat
from job.tasks.options import OF_LABELS, refuse_options


def answer_chat(options: Namespace, config: Config, opened: Callable[[], Talker]) -> int:
    """The answer to Task.answer."""
    refuse_options(options, OF_LABELS, "this run is a language model, which answers with text")
    if options.file is not None:
        return answer_file(options, opened)
    talker = with_options(opened(), options)
    if options.texts and options.texts != ["-"]:
        return answer_words(talker, options)
    failed = run_chat(talker, sys.stdin, sys.stdout, sys.stderr, options.system)
    return 2 if failed else 0


def with_options(talker: Talker, options: Namespace) -> Talker:
    """The same talker, replying as the options ask. Raises ValueError for one out of range."""
    names = ("temperature", "top_k", "top_p", "max_tokens", "seed")
    values = {name: value for name in names if (value := getattr(options, name)) is not None}
    return replace(talker, args=replace(talker.args, **values))


def answer_words(talker: Talker, options: Namespace) -> int:
    """A reply to each text of the command line."""
    first = [] if options.system is None else [{"role": "system", "content": options.system}]
    asked = [[*first, {"role": "user", "content": text}] for text in options.texts]
    for text, reply in zip(options.texts, talker.replies(asked), strict=True):
        row = {"prompt": text, "reply": reply.text, **asdict(reply)}
        print(json_text({k: v for k, v in row.items() if k not in ("text", "seconds")})
              if options.json else reply.text)  # fmt: skip
    return 0
