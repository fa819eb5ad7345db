"""Options of predict.py that one task alone has: of another they are refused, not ignored."""

from argparse import Namespace
from collections.abc import Sequence

OF_LABELS = ("pair", "column", "expect", "unsure", "threshold", "explain")  # not of a chat
OF_CHATS = ("system", "temperature", "top_p", "max_tokens", "seed")  # not of labelled texts


def refuse_options(options: Namespace, names: Sequence[str], why: str) -> None:
    """Raise ValueError where one of these options is given."""
    present = [name for name in names if getattr(options, name) not in (None, False, [])]
    if present:
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in present)
        raise ValueError(f"{shown}: {why}; leave it out")
