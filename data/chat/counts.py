"""What became of conversations on their way to tokens: counted in rows and in tokens."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from data.reading.rows import BadRow
from data.refused import RefusedError

SHOWN = 5  # bad rows spelled out in an error
WORDS = {
    "template_refuses": "the template refuses them",
    "special_token": "a special token in a text",
    "inside_token": "a reply begins or ends inside a token",
    "nothing_learned": "not one token to learn",
    "answer_cut": "the cut left no token to learn",
    "too_long": "too long alone",
    "no_reply": "without a reply",
}


@dataclass
class ChatCounts:
    """Of one split. `read` conversations came in, `rows` went out, of them `pieces` more than there
    were conversations. `dropped` were too long as a whole; `exchanges`, by reason, gave no row
    where their conversation was cut between turns (overlong = "split"); `lost` conversations had
    something to learn before the cut, and nothing after it. `whole_tokens` are those of all
    conversations with something to learn, and `unseen_tokens` those of them that no row holds."""

    read: int = 0
    rows: int = 0
    tokens: int = 0
    learned: int = 0  # tokens that are targets
    whole_tokens: int = 0
    unseen_tokens: int = 0
    overlong: int = 0  # conversations longer than a row
    cut_tokens: int = 0
    dropped: int = 0
    dropped_tokens: int = 0
    split: int = 0  # conversations that became several rows, or lost an exchange
    pieces: int = 0  # rows that these became
    exchanges: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def note_row(self, tokens: int, learned: int) -> None:
        """Count a row of so many tokens, of which some are learned."""
        self.rows += 1
        self.tokens += tokens
        self.learned += learned

    def note_bad(self, row: BadRow) -> None:
        """Count a conversation that gives no row."""
        self.bad[row.reason] = self.bad.get(row.reason, 0) + 1
        if len(self.examples) < SHOWN:
            self.examples.append(f"{row.address}: {row.message}")
            self.addresses.append(row.address)

    def leave_out(self, reason: str, exchanges: int) -> None:
        """Count exchanges that give no row, of a conversation that is cut between turns."""
        self.exchanges[reason] = self.exchanges.get(reason, 0) + exchanges

    def exchange_lines(self) -> list[str]:
        """The exchanges that gave no row, a reason a line."""
        return [f"exchanges left out: {n:,} ({WORDS[why]})" for why, n in self.exchanges.items()]

    def check(self, on_bad_row: str, split: str) -> None:
        """Raise RefusedError where conversations gave no row, unless bad rows are skipped; and
        ValueError where none of all gave one."""
        total = sum(self.bad.values())
        more = f"\n  and {total - SHOWN:,} more" if total > SHOWN else ""
        shown = "\n  ".join(self.examples) + more
        if total and on_bad_row != "skip":
            reasons = Counter(self.bad).most_common()
            counts = ", ".join(f"{n:,} ({WORDS[reason]})" for reason, n in reasons)
            raise RefusedError(
                f"{total:,} of {self.read:,} conversations of {split} cannot be learned from: "
                f'{counts}:\n  {shown}\ncorrect them, or set data.on_bad_row = "skip" to leave '
                f"them out and count them{self._advice()}", "bad_row", self.addresses,
            )  # fmt: skip
        if not self.rows:
            raise ValueError(
                f"data.source: no conversation of {split} gives a row ({self.dropped:,} too long, "
                f"{total:,} bad)" + (f":\n  {shown}" if total else "")
            )

    def _advice(self) -> str:
        if "answer_cut" in self.bad:
            return "; another data.overlong or a larger data.max_length keeps more of the answers"
        if "inside_token" in self.bad:
            return "; data.clean.ends = true takes the white space off the ends of turns"
        return ""

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for people, one fact a line."""
        lines = [
            f"{self.rows:,} rows of {self.tokens:,} tokens, of which {self.learned:,} are learned "
            f"({self.learned / max(1, self.tokens):.1%})"
        ]
        if self.overlong:
            lines.append(f"longer than a row: {self.overlong:,} of {self.read:,} conversations")
        if self.cut_tokens:
            lines.append(f"cut off: {self.cut_tokens:,} tokens")
        if self.split:
            lines.append(
                f"cut between turns: {self.split:,} conversations into {self.pieces:,} rows"
            )
        lines += self.exchange_lines()
        if self.dropped:
            lines.append(f"dropped: {self.dropped:,} conversations, {self.dropped_tokens:,} tokens")
        if self.lost:
            lines.append(f"WARNING: {self.lost:,} conversations lose their whole answer by the cut")
        for reason, n in self.bad.items():
            lines.append(f"bad conversations skipped: {n:,} ({WORDS[reason]})")
        return lines
