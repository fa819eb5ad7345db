"""What is wrong in single texts: letters that were read in another encoding, another language."""

from collections import Counter

from data.checks.language import tell_language
from data.checks.mojibake import find_garbled, mend
from job.checking.examined import Examined
from report.check import Check, Finding
from report.format import format_count, format_share

WHOLE_FILE = 0.02  # share of garbled rows from which the encoding is the likely cause


def examine_letters(examined: Examined) -> Check:
    """Texts with garbled letters."""
    garbled = {
        row: run
        for row, text in enumerate(examined.joined())
        if (run := find_garbled(text)) is not None
    }
    if not garbled:
        return Check("letters", "no text looks as if it was read in another encoding")
    rows = list(garbled)
    addresses, excerpts = examined.addresses(rows), examined.excerpts(rows)
    setting = "data.drop_rows"
    share = len(rows) / len(examined.table)
    if share >= WHOLE_FILE and examined.args.encoding.replace("_", "-").lower() != "utf-8":
        setting = 'data.encoding = "utf-8"'
    findings = []
    for row, address, excerpt in zip(rows, addresses, excerpts, strict=True):
        run = garbled[row]
        meant = f", meant as {mend(run)!r}" if mend(run) else ""
        findings.append(
            Finding(
                "mojibake", "warning", f"{address}: {run!r}{meant}", [address], setting, [address],
                {"garbled": run, "texts": [excerpt]},
            )
        )  # fmt: skip
    headline = (
        f"{format_count(len(rows))} texts ({format_share(len(rows), len(examined.table))}) hold "
        "letters that were read in another encoding"
    )
    way = "correct the source, or leave them out by data.drop_rows"
    return Check("letters", headline, findings, way if setting == "data.drop_rows" else setting)


def examine_language(examined: Examined) -> Check:
    """The language that most texts are in, and texts in another."""
    told = [tell_language(text) for text in examined.joined()]
    counts = Counter(name for name in told if name is not None)
    if not counts:
        return Check("language", "not clear: the texts are short, or in a language not known here")
    (main, most), *others = counts.most_common()
    share = format_share(most, counts.total())
    findings = []
    for name, count in others:
        rows = [row for row, one in enumerate(told) if one == name]
        addresses = examined.addresses(rows)
        findings.append(
            Finding(
                "language", "warning",
                f"{format_count(count)} {'rows are' if count > 1 else 'row is'} {name}: "
                + ", ".join(addresses[:4]) + (" …" if count > 4 else ""),
                addresses, "data.drop_rows", addresses,
                {"language": name, "count": count, "texts": examined.excerpts(rows[:2])},
            )
        )  # fmt: skip
    open_ones = len(told) - counts.total()
    headline = f"{main}: {share} of {format_count(counts.total())} texts whose language is clear"
    if not findings:
        headline = f"{main}, where it is clear ({format_count(open_ones)} texts are too short)"
    return Check("language", headline, findings, "data.drop_rows leaves them out")
