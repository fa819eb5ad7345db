"""data.drop_rows: a file that names rows to leave out, as check.py writes it and a person edits it.

JSON lines. A line leaves out the rows that its "drop" lists, or where it has none those of "rows":

    {"kind": "label_error", "rows": ["reviews.csv:17"], "drop": ["reviews.csv:17"], …}

Whoever agrees with a line keeps it; whoever does not deletes it.
"""

from collections.abc import Iterator
from pathlib import Path

from files.read import parse_json, read_lines

SHOWN = 5  # addresses spelled out in an error


def read_drop_rows(path: str) -> dict[str, str]:
    """Address of a row -> the line that names it first, as "check.jsonl:3".

    Raises ValueError, naming file and line, where it is missing or a line is not as above.
    """
    file = Path(path).expanduser()
    named: dict[str, str] = {}
    for number, line in enumerate(_lines(file), start=1):
        place = f"{file.name}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"data.drop_rows: {path} is not UTF-8 at byte {error.start} of line {number}"
            ) from None
        if text.strip():
            for address in _addresses(text, place):
                named.setdefault(address, place)
    return named


def _lines(file: Path) -> Iterator[bytes]:
    """One finding after the other: of a large table they are more than memory should hold."""
    try:
        yield from read_lines(file)
    except ValueError as error:
        raise ValueError(
            f"data.drop_rows: {error}; python check.py writes such a file, one finding a line"
        ) from None


def _addresses(line: str, place: str) -> list[str]:
    """What a line leaves out."""
    finding = parse_json(line, f"data.drop_rows: {place}")
    key = "drop" if isinstance(finding, dict) and "drop" in finding else "rows"
    addresses = finding.get(key) if isinstance(finding, dict) else None
    if not isinstance(addresses, list) or not all(isinstance(one, str) for one in addresses):
        raise ValueError(
            f"data.drop_rows: {place} names no rows; expected an object with a list of addresses, "
            'as {"rows": ["reviews.csv:17"]}'
        )
    return addresses


def check_drop_rows(named: dict[str, str], met: set[str], some: str, path: str) -> None:
    """Raise ValueError where the file names rows that the source has not. `met` are those that it
    has, `some` the address of a row that it has, as an example."""
    strange = [address for address in named if address not in met]
    if strange:
        lines = [f"{named[address]} names {address!r}" for address in strange[:SHOWN]]
        more = f"\n  and {len(strange) - SHOWN:,} more" if len(strange) > SHOWN else ""
        raise ValueError(
            f"data.drop_rows: {len(strange):,} of the {len(named):,} addresses in {path} match no "
            f"row of data.source:\n  "
            + "\n  ".join(lines)
            + more
            + f"\nexpected addresses such as {some!r}: check the file "
            "again with check.py, which writes them, or delete these lines"
        )
