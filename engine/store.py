"""The store at which the processes of a run meet, and what errors of a meeting mean."""

import os
from datetime import timedelta
from typing import Any

_limit = timedelta(minutes=30)


def open_store(rank: int, name: str, timeout: timedelta | None = None) -> Any:
    """The store at which the processes meet, for the keys of `name` and of this attempt: what
    `torchrun --max-restarts` starts again must not meet the dead at their addresses, and torchrun
    keeps the store. `timeout` is how long its user waits at most for others, as time_limit() is to
    say it. Raises ValueError where the starter does not say which place it is at, and
    where nobody answers there."""
    global _limit
    from torch.distributed import DistNetworkError, PrefixStore, TCPStore

    _limit = timeout or _limit
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdecimal():
        raise ValueError(
            f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, but MASTER_ADDR={host!r} and "
            f"MASTER_PORT={port!r} name no place to meet: start the processes by torchrun, or set "
            "both; for one process unset WORLD_SIZE"
        )
    # without torchrun, whose agent has one, rank 0 opens the store that all meet at
    opens = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        store = TCPStore(
            host, int(port), is_master=opens, wait_for_workers=False, multi_tenant=True
        )
    except DistNetworkError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"the processes cannot meet at {host}:{port} (MASTER_ADDR, MASTER_PORT): {reason}. "
            "Another program may have the port, or the machine of rank 0 cannot be reached"
        ) from None
    if timeout is not None:
        store.set_timeout(timeout)  # else five minutes
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"openloop/{attempt}/{name}", store)


def lost_meeting(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, tells of a meeting that failed for want of others."""
    while error is not None:
        kinds = {one.__name__ for one in type(error).__mro__}
        if "DistError" in kinds or (isinstance(error, RuntimeError) and "gloo/" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def time_limit(error: BaseException | None) -> str:
    """How long the meeting was waited for that the error tells of; "" where it ended before."""
    words = str(error).lower()
    if not any(word in words for word in ("timed out", "timeout")):
        return ""
    seconds = _limit.total_seconds()
    shown = f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} minutes"
    return f"{shown} (parallel.timeout)"
