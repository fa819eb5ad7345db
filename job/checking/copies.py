"""The same text more than once: near duplicates, and one form filled in many times."""

import importlib.util
from itertools import islice

import numpy as np

from data.checks.near import NearSet, join_pairs, near_pairs, sign_texts
from data.checks.templates import Template, find_templates
from job.checking.examined import INSTALL, Examined
from report.check import Check, Finding
from report.format import format_count, format_share, shorten

KEPT_FIRST = ("test", "validation", "train")  # of near duplicates one stays, of these sides


def has_datasketch() -> bool:
    """Whether near duplicates can be found."""
    return importlib.util.find_spec("datasketch") is not None


def examine_templates(examined: Examined) -> tuple[Check, list[Template]]:
    """Forms in which many rows are written; a model learns them rather than what they say."""
    templates = find_templates(examined.joined, len(examined.table))
    findings = []
    for template in templates:
        rows = examined.addresses(template.rows)
        share = format_share(len(rows), len(examined.table))
        findings.append(
            Finding(
                "template", "warning",
                f"{format_count(len(rows))} rows ({share}) are “{shorten(template.form, 120)}”",
                rows, "data.drop_rows", rows[1:],
                {"form": template.form[:500], "count": len(rows),
                 "texts": examined.excerpts(template.rows[:2])},
            )
        )  # fmt: skip
    headline = "no text stands many times with other words filled in"
    if findings:
        headline = f"{len(findings)} forms are filled in again and again"
    mend = "data.drop_rows leaves out all but the first row of each form"
    return Check("templates", headline, findings, mend), templates


def examine_near(examined: Examined, templates: list[Template]) -> Check:
    """Rows that are nearly the same; on two sides of a cut they are errors."""
    if not has_datasketch():
        return Check("near duplicates", f"needs datasketch: {INSTALL}", left_out=True)
    forms = np.full(len(examined.table), -1)
    for i, template in enumerate(templates):
        forms[template.rows] = i
    sets = join_pairs(near_pairs(sign_texts(examined.texts()), examined.read, forms))
    findings = _near_findings(examined, sets)
    findings.sort(key=lambda finding: finding.level)  # errors first
    across = sum(finding.level == "error" for finding in findings)
    headline = f"none among {format_count(len(examined.table))} rows"
    if findings:
        headline = (
            f"{format_count(len(findings))} texts stand there again, hardly changed; "
            f"{format_count(across)} of them on two sides of a cut"
        )
    mend = "data.drop_rows leaves out all but one of the rows that are the same"
    return Check("near duplicates", headline, findings, mend)


def _near_findings(examined: Examined, sets: list[NearSet]) -> list[Finding]:
    """A finding for each set of rows that hang together, the row that would stay first."""
    ranked = [
        sorted(one.rows, key=lambda row: (KEPT_FIRST.index(examined.split[row]), row))
        for one in sets
    ]
    addresses = iter(examined.addresses([row for rows in ranked for row in rows]))
    excerpts = iter(examined.excerpts([row for rows in ranked for row in rows[:2]]))
    return [
        _near_finding(
            examined, rows, one.resemblance, list(islice(addresses, len(rows))),
            list(islice(excerpts, 2)),
        )
        for one, rows in zip(sets, ranked, strict=True)
    ]  # fmt: skip


def _near_finding(
    examined: Examined, rows: list[int], least: float, addresses: list[str], excerpts: list[str]
) -> Finding:
    splits = [str(examined.split[row]) for row in rows]
    labels = examined.labels[rows]
    shown = ", ".join(f"{a} ({s})" for a, s in list(zip(addresses, splits, strict=True))[:4])
    differ = ", with different labels" if (labels != labels[0]).any() else ""
    more = f" and {len(rows) - 4:,} more" if len(rows) > 4 else ""
    return Finding(
        "near_duplicate", "error" if len(set(splits)) > 1 else "warning",
        f"{shown}{more}: {100 * least:.0f} % the same{differ}",
        addresses, "data.drop_rows", addresses[1:],
        {"resemblance": round(least, 4), "splits": splits, "labels_differ": bool(differ),
         "texts": excerpts},
    )  # fmt: skip
