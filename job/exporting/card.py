"""The card of an export: README.md with the front matter that a hub reads."""

from dataclasses import dataclass

from job.exporting.format import Format, Source, Written
from report.parity import ParityTable, parity_markdown

CARD = "README.md"


@dataclass(frozen=True)
class Words:
    """What the user says of a model, and nobody guesses."""

    license: str | None = None
    languages: tuple[str, ...] = ()
    base_model: str | None = None
    dataset: str | None = None
    repo: str | None = None


def export_card(
    source: Source, chosen: Format, written: Written, table: ParityTable, words: Words
) -> str:
    """The whole card."""
    return "\n".join(parity_markdown(table)) + "\n"
