"""Let a finished run answer over HTTP.

    python serve.py --run runs/imdb_lora
    curl -H 'Content-Type: application/json' -d '{"inputs": "It was good."}' localhost:8000/predict

A run on labels answers as text-embeddings-inference does, a chat run as OpenAI's API does, and / is
a page to try it. docs/serve.md has all of it.
"""

import argparse
import math
import sys
from functools import partial
from pathlib import Path

from engine.wait_policy import wait_passively
from job.console import prepare_console, read_words
from job.ending import run_command
from job.predicting.options import add_decision_options, add_opening_options


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Answer over HTTP with a finished run: labels as text-embeddings-inference "
        "does, replies as OpenAI's API does, and a page to try it at /.",
        epilog="SIGTERM and Ctrl-C end it once what was accepted is answered; SIGHUP opens the run "
        "anew, without losing a request.",
    )
    parser.add_argument("--run", required=True, help="folder of a finished run")
    parser.add_argument("--port", type=int, default=8000, metavar="N",
                        help="0 takes any that is free (default: 8000)")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                        help="0.0.0.0 lets other machines ask (default: 127.0.0.1)")  # fmt: skip
    parser.add_argument("--token-env", metavar="NAME", help="requests have to bring the token that "
                        "this environment variable holds")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S",
                        help="seconds until an answer has to be there (default: 60)")  # fmt: skip
    parser.add_argument("--grace", type=float, default=30.0, metavar="S",
                        help="seconds to end in, after SIGTERM (default: 30)")  # fmt: skip
    parser.add_argument("--queue", type=int, default=1024, metavar="N", help="texts that may wait; "
                        "of a chat run, conversations (default: 1024)")  # fmt: skip
    add_decision_options(parser)
    add_opening_options(parser)
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="a line a request; kernels, threads and fast paths")  # fmt: skip
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port is {options.port}; expected 0 to 65535")
    for name in ("timeout", "grace", "queue"):
        value = getattr(options, name)
        if not (math.isfinite(value) and value > 0):
            parser.error(f"--{name} is {value}; expected more than 0")
    return options


def serve(options: argparse.Namespace) -> int:
    """Check everything that needs no model, then answer until somebody says to end."""
    from openloop import open_run, verify_run
    from job.folder import Folder, finished_config
    from job.serving.command import serve
    from job.serving.queue import Desk
    from job.serving.service import TOKENS
    from job.tasks.table import task_of

    def open_desk() -> Desk:
        verify_run(options.run, options.allow_drift)
        config = finished_config(Folder(Path(options.run)))
        opened = partial(
            open_run, options.run, options.device, options.allow_code, options.base,
            options.verbose, options.allow_network,
        )  # fmt: skip
        return task_of(config).desk(options, opened, TOKENS)

    return serve(options, open_desk)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 once it was asked to end; 2 with one readable message for what a user can
    mend."""
    wait_passively()
    prepare_console()
    options = parse_arguments(read_words(sys.argv[1:] if arguments is None else arguments))
    return run_command("serve.py", lambda: serve(options))


if __name__ == "__main__":
    sys.exit(main())
