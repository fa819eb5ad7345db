"""Several runs become compare.html: two row by row, more as a list. Nothing here loads torch."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from files.write import save_text
from job.folder import saved_config
from job.reporting.compare import (
    MOST_TEXTS,
    Finished,
    OnlyOne,
    Pair,
    differing,
    list_tables,
    named_runs,
    short_names,
)
from job.reporting.page import PAGE
from report.compare import change_table, conclude, figures_table, settings_table
from report.page.page import Example, Section, Sheet, render_sheet

SHEET = "compare.html"


def write_sheet(runs: Sequence[Finished], pair: Pair | None) -> Path:
    """Write compare.html into the folder that all runs lie in; `pair` where there are two."""
    folder = Path(os.path.commonpath([run.folder.path.absolute().parent for run in runs]))
    names = short_names(runs)
    texts = all(saved_config(run.folder).report.texts for run in runs)
    if pair is not None:
        headline = conclude(names, pair.differences[0])
        sections = pair_sections(runs, names, pair, texts)
    else:
        headline = f"{len(runs)} runs, the best first"
        sections = [
            Section(f"list{n}", title, table=table)
            for n, (title, table) in enumerate(list_tables(runs))
        ]
    links = [(name, f"{quote(name)}/{PAGE}") for name in names]
    sheet = Sheet(f"{' and '.join(names) if pair else 'Runs'}", headline, links, sections, texts)
    path = folder / SHEET
    save_text(path, render_sheet(sheet))
    return path


def pair_sections(
    runs: Sequence[Finished], names: Sequence[str], pair: Pair, texts: bool
) -> list[Section]:
    """What compare.py prints of two runs, with more rows and their texts."""
    settings = settings_table(names, differing(runs))
    none = () if settings else ("None differs.",)
    parts = [
        Section("settings", "Settings that differ", none, settings),
        Section("figures", "Figures", table=figures_table(named_runs(runs))),
        Section("differences", "Differences", table=change_table(names, pair.differences)),
    ]
    if "rmse" in runs[0].test:
        return parts
    for n, (name, rows) in enumerate(zip(names, (pair.first_only, pair.second_only), strict=True)):
        title = f"Rows that only {name} has right"
        line = (
            f"{len(rows):,} rows"
            + (f", the first {MOST_TEXTS}" if len(rows) > MOST_TEXTS else "")
            + "."
        )
        shown = [example(row, texts) for row in rows[:MOST_TEXTS]]
        parts.append(Section(f"only{n}", title, (line,), examples=shown))
    return parts


def example(row: OnlyOne, texts: bool) -> Example:
    return Example(row.address, row.text if texts else None, row.label, row.answer, None, None)
