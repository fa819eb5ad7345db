"""Text of tokens that come one by one, in pieces of which none holds half a character."""

from collections.abc import Callable, Sequence

HALF = "\ufffd"  # as a tokenizer shows bytes that are no character yet


class Pieces:
    """add() each token; it gives the text that became readable by it, often none. end() gives what
    is left. All of them together are the text of all tokens.

    Only the last few tokens are decoded again: a window that begins where a piece began, so that a
    tokenizer which drops the blank before a text drops none within it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self.decode = decode
        self.window: list[int] = []  # the tokens of the last piece, then those that wait
        self.done = 0  # how many of the window are in a piece already

    def add(self, token: int) -> str:
        """The text that the token completes."""
        self.window.append(token)
        whole = self.decode(self.window)
        return "" if whole.endswith(HALF) else self._give(whole)

    def end(self) -> str:
        """What still waits, whatever it is."""
        return self._give(self.decode(self.window))

    def _give(self, whole: str) -> str:
        before = self.decode(self.window[: self.done]) if self.done else ""
        if len(whole) > len(before):
            self.window = self.window[self.done :]
            self.done = len(self.window)
        return whole[len(before) :]
