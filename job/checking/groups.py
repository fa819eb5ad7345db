"""Rows that belong together, a film's or an author's, on two sides of a cut."""

from data.checks.groups import Leak, find_leak, groups_rows, likely_columns, read_groups
from job.checking.examined import Examined
from report.check import Check, Finding
from report.format import format_count, join_names

SHOWN = 20  # rows to look at


def examine_groups(examined: Examined) -> Check:
    """Groups of data.group, or of a column that looks like one, in more than one split."""
    named = examined.args.group
    addresses = list(examined.table["address"])
    splits = examined.split.tolist()
    columns = [named] if named is not None else likely_columns(examined.args)
    findings, looked_at = [], []
    for column in columns:
        groups = read_groups(examined.args, column, addresses)
        if named is None and not groups_rows(groups):
            continue
        looked_at.append(column)
        if (leak := find_leak(column, groups, splits)) is not None:
            findings.append(_leak_finding(examined, leak, addresses))
    if not looked_at:
        return Check(
            "groups",
            "no column is called as if it said what belongs together; data.group names one",
        )
    headline = f"{join_names(looked_at)}: none on two sides of a cut"
    if findings:
        headline = "what belongs together is on two sides of a cut, and a test figure is too good"
    mend = ", or ".join(dict.fromkeys(finding.setting for finding in findings))
    if "data.drop_rows" in mend:  # the source's own splits stay
        mend = "data.drop_rows leaves out the training rows of these groups"
    return Check("groups", headline, findings, mend)


def _leak_finding(examined: Examined, leak: Leak, addresses: list[str]) -> Finding:
    counts = ", ".join(f"{format_count(len(rows))} {split}" for split, rows in leak.rows.items())
    # nothing that the source has in a split of its own is moved
    cut = all(examined.is_cut(split) for split, rows in leak.rows.items() if split != "train")
    looked_at = [addresses[i] for rows in leak.rows.values() for i in rows[: SHOWN // 2]]
    return Finding(
        "group_leak", "warning" if examined.args.group is None else "error",
        f"{format_count(len(leak.shared))} of the {format_count(leak.groups)} values of "
        f"{leak.column} stand in several splits (rows: {counts}), as {join_names(leak.shared, 3)}",
        looked_at[:SHOWN],
        f'data.group = "{leak.column}"' if cut else "data.drop_rows",
        [] if cut else [addresses[i] for i in leak.rows["train"]],
        {"column": leak.column, "groups": leak.groups, "shared": leak.shared[:SHOWN],
         "count": len(leak.shared)},
    )  # fmt: skip
