"""How a command ends: its exit status, and one readable message in place of a traceback."""

import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from engine.gate import claim_end, close_gate, explain_lost, let_go, sign
from engine.stop import leave_terminal
from engine.store import lost_meeting
from files.errors import is_panic, meets_limit


def run_command(program: str, work: Callable[[], int | None], way_on: str = "") -> int:
    """Do the work and return the exit status: that of the work, 0 where it gives none; 2 with one
    message for what a user can mend, and where another process of the run did not come to a
    meeting; 130 interrupted, with the `way_on`; 141 where nobody reads on, as of `| head`."""
    try:
        status = work() or 0
        close_gate()
        sys.stdout.flush()
    except BrokenPipeError:
        leave_terminal()
        return 141
    except KeyboardInterrupt:
        return complain(program, "; ".join(filter(None, ["interrupted", way_on])), 130)
    except BaseException as error:
        if lost_meeting(error):
            reason = explain_lost(error, 2)
            if reason is not None:
                say(program, "; ".join(filter(None, [reason, way_on])))
            return 2
        if isinstance(error, ValueError | OSError):
            return complain(program, str(error), 2)
        if not meets_limit(error):  # which libraries tell of in errors of every kind
            if isinstance(error, SystemExit):
                close_gate()
            elif not claim_end(1):
                return 1
            raise
        reason = str(error).strip().partition("\n")[0] or "out of memory"
        message = (
            f"{reason}: memory or threads are limited here (ulimit -v, ulimit -u, a container)"
        )
        return complain(program, message, 2)
    return status


def end_at_signals() -> None:
    """From now on SIGTERM and SIGHUP end the program as an exception does, so that a half-written
    file is removed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, stop)


def stop(number: int, frame: object) -> NoReturn:
    """End as a shell tells of a signal."""
    raise SystemExit(128 + number)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """While libraries read somebody's files: whatever they stumble over there is a ValueError with
    its place. What a limit on memory or threads causes stays as it is."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except BaseException as error:
        if meets_limit(error) or not (is_panic(error) or isinstance(error, Exception)):
            raise
        if lost_meeting(error):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{what} cannot be used: {type(error).__name__}: {message} (at "
            f"{'/'.join(Path(place.filename).parts[-3:])}:{place.lineno}); it is damaged, or of a "
            "kind that is not known here"
        ) from error


def complain(program: str, message: str, status: int) -> int:
    """Say it on standard error, if anybody listens there; of a run of several processes the first
    that has something to say."""
    if claim_end(status):
        say(program, message)
    return status


def say(program: str, message: str) -> None:
    """The message on standard error, with the rank it comes from."""
    try:
        print(f"{program}: {sign(message)}", file=sys.stderr, flush=True)
    except OSError:
        leave_terminal()
    let_go()
